"""``zerodefect evaluate --protocol mmad``: what is printed, written and refused."""

from __future__ import annotations

import json

import pytest
from chat_stand_in import reply, stand_in
from question_tree import question_tree
from typer.testing import CliRunner

from zerodefect.cli import app


@pytest.fixture
def root(tmp_path):
    return question_tree(tmp_path / "MMAD")


def run(root, *arguments):
    given = ["evaluate", "--protocol", "mmad", "--data", root, "--output", root.parent / "run"]
    return CliRunner().invoke(app, [str(one) for one in (*given, *arguments)])


def test_a_server_is_asked_and_its_figures_are_told(root):
    with stand_in("inspector") as server:
        server.answer = "B"
        done = run(root, "--chat", server.address)
        assert done.exit_code == 0, (done.output, done.exception)
        assert "8 questions about 4 pictures for inspector" in done.output
        assert "pictures leave this process: they are sent to http://127.0.0.1" in done.output
        assert "| VisA | 50.0 |" in done.output and "GPT-4o" in done.output
        assert len(server.asked) == 8 and len(server.pictures()) == 2
        again = run(root, "--chat", server.address, "--json")
        assert len(server.asked) == 8  # everything was kept
        found = json.loads(again.stdout)
        assert found["format"] == "zerodefect-questions" and found["model"]["leaves_process"]


def test_answers_that_do_not_come_are_exit_code_3(root):
    def behave(handler):
        body = str(server.asked[-1])
        if "Question 2" in body:
            reply(handler, b"nonsense")
        else:
            reply(handler, json.dumps({"choices": [{"message": {"content": "A"}}]}).encode())

    with stand_in() as server:
        server.behave = behave
        done = run(root, "--chat", server.address, "--templates", 0, "--limit", 2)
        assert done.exit_code == 3
        assert "left out: DS-MVTec/bottle/test/good/0.png, question 2" in done.output
        assert len(server.pictures()) == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "--protocol mmad asks a chat model"),
        (("--chat", "x", "--protocol", "anomalies"), "name both or neither"),
        (("--chat", "x", "--protocol", "mmat"), "there are anomalies and mmad"),
        (("--chat", "x", "--method", "winclip"), "drop --method"),
        (("--chat", "nowhere/model"), "the weights are not on this machine"),
        (("--chat", "x", "--data", "y"), "takes one --data"),
    ],
)
def test_what_cannot_be_asked_is_said(root, arguments, reason):
    done = run(root, *arguments)
    assert done.exit_code == 1 and reason in str(done.exception)


def test_what_is_not_known_cannot_be_told(root):
    (root / "domain_knowledge.json").unlink(missing_ok=True)
    done = run(root, "--chat", "http://127.0.0.1:9/v1#tiny", "--knowledge")
    assert done.exit_code == 1 and "domain_knowledge.json is not there" in str(done.exception)


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: record.pop("replies"),
        lambda record: record.update(replies="x"),
        lambda record: record["replies"][0].pop("given"),
        lambda record: record["replies"][0].update(given=5),
    ],
)
def test_replies_that_were_damaged_by_hand_are_asked_for_again(root, damage):
    with stand_in() as server:
        server.answer = "B"
        before = run(root, "--chat", server.address, "--json")
        file = root.parent / "run" / "results.jsonl"
        first, *others = file.read_text("utf-8").splitlines()
        record = json.loads(first)
        damage(record)
        file.write_text("\n".join([json.dumps(record), *others, ""]), "utf-8")
        again = run(root, "--chat", server.address, "--json")
        assert again.exit_code == 0 and len(server.asked) == 10  # two about that picture
        assert json.loads(again.stdout)["scores"] == json.loads(before.stdout)["scores"]
