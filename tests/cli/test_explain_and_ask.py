"""``inspect --explain`` and ``ask``, with a server that answers or does not."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import pytest
from chat_stand_in import cut, hang, reply, stand_in
from models import picture, write_tiny_weights

from zerodefect.backbones import chat_server
from zerodefect.images import encode_png
from zerodefect.inspection import explainer

GOOD = {"location": None, "kind": None, "why": "Nothing is wrong.", "verdict": "good", "box": None}
BAD = {"location": "tip", "kind": "bent", "why": "The tip leans.", "verdict": "defect"}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    shelf = tmp_path_factory.mktemp("shelf")
    write_tiny_weights(shelf)
    (shelf / "parts").mkdir()
    for seed in range(4):
        (shelf / "parts" / f"{seed}.png").write_bytes(encode_png(picture(seed, 40, 48)))
    return shelf


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(chat_server, "_PAUSE", 0.01)
    with stand_in() as state:
        state.answer = json.dumps(BAD)
        yield state


@pytest.fixture
def call(run, shelf, monkeypatch, tmp_path):
    """A verb on the parts, all of them called defective."""
    monkeypatch.chdir(tmp_path)
    weights = ["--backbone", shelf / "tiny.safetensors", "--method", "winclip", "--object", "screw"]

    def command(verb, what, *options, threshold="0"):
        target = ["-o", tmp_path / "run"] if verb == "inspect" else []
        given = [shelf / "parts" / what, *options, *weights, "--threshold", threshold]
        return run(verb, *given, *target)

    return command


def records(tmp_path):
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


# --- inspect --explain ---------------------------------------------------------------------------


def test_every_output_says_what_was_said_and_where_pictures_went(call, server, tmp_path):
    pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    from pyarrow import parquet

    code, out, err = call("inspect", "", "--explain", server.address, "--parquet")
    assert code == 0 and len(server.asked) == 4
    assert f"pictures leave this process: they are sent to tiny at {server.host}" in err
    assert f"pictures left this process: they were sent to {server.host}" in out
    assert "explained by tiny: 4 pictures" in out and "The tip leans. (bent, tip, defect)" in out
    for record in records(tmp_path):
        (entry,) = record["conversation"]
        assert entry == {**BAD, "source": "tiny", "sent_to": server.host}
        assert record["explained"]["source"] == "evidence"
        assert record["explained"]["why"] == record["explanation"]
        assert record["explained"]["verdict"] == record["verdict"] == "defect"
    with (tmp_path / "run" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["said"] == "The tip leans. (bent, tip, defect)" for row in rows)
    assert all(row["pictures_sent_to"] == server.host for row in rows)
    coco = json.loads((tmp_path / "run" / "coco.json").read_text())
    assert coco["info"]["pictures_sent_to"] == [server.host]
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["explained_by"] == {
        **{"name": "tiny", "sha256": None, "licence": None, "sent_to": server.host, "good": False}
    }
    table = parquet.read_table(tmp_path / "run" / "results.parquet").to_pylist()
    assert table[0]["conversation"][0]["why"] == "The tip leans."
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"Pictures left this process: they were sent to {server.host}." in page
    assert "Explained by tiny: 4 pictures." in page and "The tip leans." in page


def test_contradictions_are_shown_everywhere_and_the_verdict_stands(call, server, tmp_path):
    server.answer = json.dumps({**GOOD, "why": "Fine.\x1b[2J"})
    code, out, _ = call("inspect", "", "--explain", server.address)
    told = "It calls the picture good; the policy's verdict is defect (provisional), and holds."
    assert code == 0 and out.count(f"CONTRADICTION: {told}") == 4 and "\x1b" not in out
    assert "4 of them against the evidence" in out and "4 defect" in out
    assert all(one["conversation"][0]["contradictions"] == [told] for one in records(tmp_path))
    page = (tmp_path / "run" / "report.html").read_text()
    assert told.replace("'", "\\u0027") in page or told in page
    assert "4 against the evidence" in page
    assert told in (tmp_path / "run" / "results.csv").read_text()


def test_good_pictures_are_explained_where_asked(call, server, tmp_path):
    server.answer = json.dumps(GOOD)
    code, out, _ = call("inspect", "", "--explain", server.address, threshold="1000")
    assert code == 0 and not server.asked and "explained by tiny: 0 pictures" in out
    assert all(one["conversation"] == [] for one in records(tmp_path))
    options = ["--explain", server.address, "--explain-good", "--overwrite"]
    code, out, _ = call("inspect", "", *options, threshold="1000")
    assert code == 0 and len(server.asked) == 4 and "explained by tiny: 4 pictures" in out


@pytest.mark.parametrize("how", ["hang", "cut", "error", "prose"])
def test_a_server_that_fails_costs_sentences_alone(call, server, tmp_path, how):
    if how == "prose":
        server.answer = "I am sorry, I cannot help with that."
    else:
        ways = {"hang": hang(server), "cut": cut, "error": lambda h: reply(h, b"{}", 500)}
        server.behave = ways[how]
    options = ["--explain", server.address, "--explain-timeout", "0.2"]
    code, out, err = call("inspect", "", *options)
    assert code == 0 and "4 defect" in out and "4 without an answer" in out, err
    said = [one["conversation"][0] for one in records(tmp_path)]
    assert all(one["fault"] and not one["why"] for one in said)
    if how == "prose":
        assert said[0]["said"] == server.answer
    page = (tmp_path / "run" / "report.html").read_text()
    assert "4 without an answer" in page and "Pictures left this process" in page


def test_without_the_option_nothing_is_told_of_chat_models(call, tmp_path):
    code, out, _ = call("inspect", "")
    assert code == 0 and "explained by" not in out
    assert "explained_by" not in json.loads((tmp_path / "run" / "run.json").read_text())
    assert '<div class="explained' not in (tmp_path / "run" / "report.html").read_text()


def test_nothing_of_chat_models_is_imported_before_one_is_asked_for():
    code = (
        "import sys; import zerodefect.cli; import zerodefect.engines.local;"
        "import zerodefect.inspection.load_inspector;"
        "ours = ('_chat', 'chat_server', 'explainer'); theirs = ('transformers', 'httpx', 'trl');"
        "print([name for name in sys.modules if name.endswith(ours)"
        " or name.partition('.')[0] in theirs])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "[]"


def test_records_come_as_json_with_remarks_apart(call, server):
    code, out, err = call("inspect", "", "--explain", server.address, "--json")
    assert code == 0 and len(out.splitlines()) == 4
    assert all(json.loads(line)["conversation"] for line in out.splitlines())
    assert "explained by tiny: 4 pictures" in err and "pictures left this process" in err


def test_a_run_goes_on_without_asking_again_and_not_with_another_model(call, server):
    assert call("inspect", "", "--explain", server.address)[0] == 0
    code, out, _ = call("inspect", "", "--explain", server.address)
    assert code == 0 and len(server.asked) == 4 and "explained by tiny: 4 pictures" in out
    other = server.address.replace("#tiny", "#other")
    code, _, err = call("inspect", "", "--explain", other)
    assert code == 1 and "explained_by.name" in err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--explain", "http://host:8000/v1"], "write a chat server as http://HOST:PORT/v1#MODEL"),
        (["--explain", "no/such-model"], "nothing is downloaded unasked"),
        (["--explain-good"], "are for --explain MODEL"),
        (["--explain-timeout", "3"], "are for --explain MODEL"),
    ],
)
def test_models_that_cannot_be_had_are_told_before_the_work(call, tmp_path, options, told):
    code, _, err = call("inspect", "", *options)
    assert code == 1 and told in err and not (tmp_path / "run").exists()


# --- ask -----------------------------------------------------------------------------------------


def test_questions_are_answered_one_after_the_other(call, server, tmp_path):
    server.answer = lambda body: json.dumps({"why": f"Answer {len(body['messages'])}."})
    talk = ["--model", server.address, "--record", tmp_path / "talk.json"]
    code, out, err = call("ask", "0.png", "is it straight?", "sure?", *talk)
    assert code == 0 and "they are sent to tiny" in err
    lines = out.splitlines()
    assert ": defect (uncalibrated), score" in lines[0]
    assert lines[1].startswith("evidence: Score ")
    assert lines[2:4] == ["question: is it straight?", "tiny: Answer 1."]
    assert lines[5:7] == ["question: sure?", "tiny: Answer 3."]
    code, out, _ = call("ask", "0.png", "and now?", *talk)
    assert code == 0 and "2 questions asked before; the last one:" in out
    assert "tiny: Answer 5." in out
    told = json.loads((tmp_path / "talk.json").read_text())["inspection"]["conversation"]
    assert [one["question"] for one in told] == ["is it straight?", "sure?", "and now?"]
    assert told[0]["sent_to"] == server.host
    code, _, err = call("ask", "1.png", "and here?", *talk)
    assert code == 1 and "a conversation on another inspection (picture: " in err


def test_without_a_question_the_picture_is_explained(call, server):
    code, out, _ = call("ask", "0.png", "--model", server.address)
    assert code == 0 and "tiny: The tip leans. (bent, tip, defect)" in out
    assert "question:" not in out


def test_without_a_model_the_evidence_is_told(call, tmp_path):
    code, out, err = call("ask", "0.png", "is it straight?", "--record", tmp_path / "talk.json")
    assert code == 3 and len(out.splitlines()) == 2 and "evidence: Score" in out
    assert "no chat model is named" in err
    assert json.loads((tmp_path / "talk.json").read_text())["inspection"]["verdict"] == "defect"
    code, _, _ = call("ask", "0.png")
    assert code == 0


def test_a_question_without_an_answer_ends_with_3(call, server):
    server.behave = lambda handler: reply(handler, b"{}", 500)
    code, out, _ = call("ask", "0.png", "is it?", "--model", server.address)
    assert code == 3 and "tiny: no answer: tiny at http://127.0.0.1" in out
    assert out.splitlines()[0].count("defect") == 1


def test_the_outcome_as_json(call, server):
    code, out, _ = call("ask", "0.png", "is it?", "--model", server.address, "--json")
    told = json.loads(out)
    assert code == 0 and told["conversation"][0]["question"] == "is it?"


def test_the_verdict_is_that_of_inspect(run, call, shelf, tmp_path, monkeypatch):
    """With references, too; and of a picture alone."""
    monkeypatch.chdir(tmp_path)
    weights = ["--backbone", shelf / "tiny.safetensors", "--method", "winclip", "--object", "screw"]
    for own in ([], ["--reference", shelf / "parts"]):
        given = [shelf / "parts" / "0.png", *weights, *own, "--json"]
        _, out, _ = run("ask", *given)
        asked = json.loads(out)
        _, out, _ = run("inspect", *given, "-o", tmp_path / f"run{len(own)}")
        inspected = json.loads(out.splitlines()[0])
        for name in ("verdict", "score", "p_value", "regions", "explanation", "explained"):
            assert asked[name] == inspected[name], name


def test_pictures_and_options_that_cannot_be_asked_about(call, run, tmp_path):
    code, _, err = call("ask", "none.png", "is it?")
    assert code == 1 and "none.png" in err
    code, _, err = call("ask", "0.png", "--part-by", "(?P<part>.)")
    assert code == 1 and "a question is about one picture" in err
    (tmp_path / "talk.json").write_text("{")
    code, _, err = call("ask", "0.png", "--record", tmp_path / "talk.json")
    assert code == 1 and "not valid JSON" in err


def test_a_model_in_this_process(call, tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="the extra 'vlm' is not installed")
    from zerodefect.backbones.tiny_networks import qwen2_vl_folder

    monkeypatch.setattr(explainer, "_TOKENS", 8)
    folder = qwen2_vl_folder(tmp_path / "vlm")
    code, out, err = call("ask", "0.png", "is it?", "--model", folder)
    assert code in (0, 3) and "explained by vlm (local), in this process" in err
    assert "vlm (local): " in out and "pictures leave" not in err
    code, out, _ = call("inspect", "0.png", "--explain", folder)
    assert code == 0 and "explained by vlm (local): 1 picture" in out
    (entry,) = records(tmp_path)[0]["conversation"]
    assert "sent_to" not in entry


def test_an_empty_question_is_refused_before_the_picture_is_inspected(call, server):
    code, out, err = call("ask", "0.png", "is it straight?", " \n", "--model", server.address)
    assert code == 1 and "a question is empty" in err
    assert not out and not server.asked
