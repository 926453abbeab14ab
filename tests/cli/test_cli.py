import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from models import picture, write_tiny_weights
from typer.testing import CliRunner

from zerodefect import Policy, __version__, cli
from zerodefect.backbones import clip_weights as loading
from zerodefect.images import encode_png
from zerodefect.inspection.inspected import Inspection
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import told_score

VERBS = (
    "setup",
    "inspect",
    "ask",
    "calibrate",
    "components",
    "show",
    "marks",
    "evaluate",
    "train",
    "import",
    "pretrain",
    "methods",
    "datasets",
    "backbones",
    "data",
    "cache",
    "doctor",
    "demo",
)


def save(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(picture(seed, 40, 48)))
    return path


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Weights, parts to inspect, good parts, a policy: read by all tests, changed by none."""
    shelf = tmp_path_factory.mktemp("shelf")
    write_tiny_weights(shelf)
    (shelf / "other").mkdir()
    write_tiny_weights(shelf / "other", seed=1)
    for seed in range(4):
        save(shelf / "parts" / f"part {seed}.png", seed)
    for seed in range(10, 20):
        save(shelf / "good" / f"{seed}.png", seed)
    (shelf / "empty").mkdir()
    (shelf / "junk.json").write_text('{"some": "thing"}')
    return shelf


@pytest.fixture(autouse=True)
def _texts_once(shelf, monkeypatch, tmp_path):
    """Texts are embedded once for all tests; each test has a working directory of its own."""
    monkeypatch.setenv("ZERODEFECT_CACHE", str(shelf / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tiny(shelf):
    """Options that every call with the tiny model needs."""
    return ["--backbone", shelf / "tiny.safetensors", "--object", "screw"]


@pytest.fixture
def policy(run, shelf, tiny, tmp_path):
    code, _, _ = run("calibrate", shelf / "good", *tiny, "-o", tmp_path / "policy.json")
    assert code == 0
    return tmp_path / "policy.json"


# --- inspect -----------------------------------------------------------------------------------


def test_inspect_prints_a_table_and_writes_the_run(run, shelf, tiny, tmp_path):
    code, out, err = run("inspect", shelf / "parts", *tiny, "-o", "run")
    assert (code, err) == (0, "")  # quiet: nothing moves where no terminal is
    lines = out.splitlines()
    assert lines[0].split() == ["verdict", "(provisional)", "score", "p", "regions", "image"]
    for seed in range(4):
        (line,) = [line for line in lines if f"part {seed}.png" in line]
        assert line.split()[0] in ("good", "unsure", "defect") and 0 < float(line.split()[1]) < 1
    assert "4 images: " in out
    assert "UNCALIBRATED" in out and "zerodefect calibrate" in out
    assert "\x1b" not in out
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {
        "run.json",
        "results.jsonl",
        "results.csv",
        "regions.csv",
        "coco.json",
        "report.html",
    }
    assert not (tmp_path / "run" / "maps").exists()


def blank(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(np.full((40, 48, 3), value, np.uint8)))
    return path


@pytest.mark.parametrize("calibrated", [False, True])
def test_frames_that_show_nothing_are_unsure_everywhere(
    run, shelf, tiny, policy, tmp_path, calibrated
):
    reason = "the picture is a single colour: nothing can be seen in it"
    frames = [blank(tmp_path / "new" / "black.png"), blank(tmp_path / "new" / "white.png", 255)]
    save(tmp_path / "new" / "part.png")
    options = ["--policy", policy] * calibrated
    code, out, _ = run("inspect", tmp_path / "new", *tiny, *options, "-o", "run")
    few = not calibrated  # too few to compare with each other: ranked without a verdict
    assert code == 0 and f"{2 + few} unsure" in out
    for frame in frames:
        (line,) = [line for line in out.splitlines() if frame.name in line]
        assert line.startswith("unsure") and line.count(reason) == 1
    with (tmp_path / "run" / "results.csv").open(newline="") as file:
        rows = {Path(row["image"]).name: row for row in csv.DictReader(file)}
    for frame in frames:
        row = rows[frame.name]
        assert (row["verdict"], row["reason"]) == ("unsure", reason) and reason in row[
            "explanation"
        ]
    assert rows["part.png"]["reason"] == ""
    code, out, _ = run("inspect", tmp_path / "new", *tiny, *options, "-o", "run", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert [r["reason"] for r in records] == [reason, None, reason]
    assert reason in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_blank_references_are_refused_and_blank_good_pictures_left_out(run, shelf, tiny, tmp_path):
    black = blank(tmp_path / "black.png")
    code, _, err = run("inspect", shelf / "parts", *tiny, "-r", shelf / "good", "-r", black)
    assert code == 1 and f"error: {black}: the picture is a single colour" in err
    code, out, err = run("calibrate", shelf / "good", black, *tiny, "-o", "policy.json")
    assert code == 3 and f"left out: {black}: the picture is a single colour" in err
    assert "Limits learned from 10 good images" in out


def test_calibrate_with_confidence(run, shelf, tiny):
    asked = ["--confidence", "0.9", "--false-alarms"]
    code, _, err = run("calibrate", shelf / "good", *tiny, *asked, "0.2")
    assert code == 1 and "0.2 cannot be guaranteed with 90 % confidence with 10 good images" in err
    assert "Give at least 11 good images" in err and "smallest provable rate is 0.2057" in err
    code, out, _ = run("calibrate", shelf / "good", *tiny, *asked, "0.21")
    assert code == 0 and "With 90 % confidence at most 20.6 % of good images like these" in out
    assert "on average over calibrations at most 9.09 %" in out
    assert "10 images can prove with 90 % confidence: 0.206" in out
    stored = json.loads(Path("policy.json").read_text())
    assert stored["confidence"] == 0.9 and stored["false_alarms"] == pytest.approx(1 / 11)
    code, _, err = run("calibrate", shelf / "good", *tiny, "--leave-one-out", "--confidence", "0.9")
    assert code == 1 and "not proven where good images are references" in err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--image-size", "0"], "image size 0: it must lie between the backbone's patch size 8"),
        (["--image-size", "-8"], "image size -8: it must lie between"),
        (["--tile", "1"], "--tile"),
        (["--object", ""], "needs a name"),
        (["--object", "a" * 5000], "has 5,000 characters, at most 1000 are read"),
        (["--object", "nut\x1b[2J"], "control character '\\x1b'"),
    ],
)
def test_foolish_options_are_refused_in_one_line(run, shelf, options, told):
    weights = shelf / "tiny.safetensors"
    code, _, err = run("inspect", shelf / "parts", "-b", weights, *options)
    assert code in (1, 2) and told in err
    assert len([line for line in err.splitlines() if "rror" in line]) == 1


def test_a_large_input_says_what_it_costs_before_the_work(run, shelf, tiny):
    """64 x 64 patches instead of 8 x 8; matrices and attention: 64 * (384 + 4096) / (384 + 64)."""
    one = shelf / "parts" / "part 0.png"
    code, _, err = run("inspect", one, *tiny, "--image-size", "512")
    assert code == 0 and "4096 patches a picture, about 6.4e+02 times the work" in err
    code, _, err = run("inspect", one, *tiny, "--image-size", "96")
    assert (code, err) == (0, "")


def test_a_policy_made_with_references_asks_for_them(run, shelf, tiny):
    code, _, _ = run("calibrate", shelf / "good", *tiny, "--leave-one-out", "-o", "policy.json")
    assert code == 0
    code, _, err = run("inspect", shelf / "parts", *tiny, "--policy", "policy.json")
    assert code == 1 and "made with 10 references: add --reference" in err


def test_small_scores_are_printed_with_their_digits():
    shown = {0.5: "0.5000", 0.01234: "0.0123", 0.00003: "0.0000300", 0.0: "0.0000"}
    shown |= {-0.000123456: "-0.000123", 2.5e-12: "2.5e-12", 1234.5: "1234.5000"}
    assert {score: told_score(score) for score in shown} == shown
    found = Inspection("a.png", None, 9, 9, "good", True, 0.00003, 0.5, ())
    assert "score 0.0000300" in str(found)


def test_inspect_json_is_one_record_a_line(run, shelf, tiny, tmp_path):
    code, out, err = run("inspect", shelf / "parts", *tiny, "-o", "run", "--json", "--maps")
    assert code == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert [Path(r["image"]).name for r in records] == [f"part {seed}.png" for seed in range(4)]
    assert all(r["status"] == "ok" and r["calibrated"] is False for r in records)
    assert "UNCALIBRATED" in err and "4 images" in err
    stored = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    assert [{k: v for k, v in json.loads(s).items() if k != "key"} for s in stored] == records
    assert len(list((tmp_path / "run" / "maps").rglob("*.tiff"))) == 4


def test_an_uncalibrated_run_says_so_in_every_file(run, shelf, tiny, tmp_path):
    run("inspect", shelf / "parts", *tiny, "-o", "run")
    with (tmp_path / "run" / "results.csv").open(newline="") as file:
        assert {row["calibrated"] for row in csv.DictReader(file)} == {"false"}
    coco = json.loads((tmp_path / "run" / "coco.json").read_text())
    assert "not calibrated" in coco["info"]["description"]
    assert "Uncalibrated" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_inspect_with_broken_files_ends_with_3(run, shelf, tiny, tmp_path):
    parts = tmp_path / "parts"
    save(parts / "fine.png")
    (parts / "torn.png").write_bytes(save(tmp_path / "whole.png").read_bytes()[:100])
    (parts / "void.jpg").write_bytes(b"")
    code, out, err = run("inspect", parts, *tiny, "-o", "run")
    assert (code, err) == (3, "")
    assert "2 failed" in out and "2 files could not be inspected" in out
    assert out.splitlines()[1].startswith("failed")
    code, out, _ = run("inspect", parts, *tiny, "-o", "run", "--json")
    assert code == 3
    failed = [r for r in map(json.loads, out.splitlines()) if r["status"] == "failed"]
    assert {Path(r["image"]).name for r in failed} == {"torn.png", "void.jpg"}
    assert all(r["reason"] and r["remedy"] for r in failed)


def test_inspect_twice_resumes(run, shelf, tiny, tmp_path):
    code, first, _ = run("inspect", shelf / "parts", *tiny)
    assert code == 0 and "done before" not in first
    code, second, _ = run("inspect", shelf / "parts", *tiny)
    assert code == 0 and "(4 done before)" in second
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("screw-")
    assert len((folder / "results.jsonl").read_text().splitlines()) == 4


def test_other_options_are_another_run(run, shelf, tiny, policy, tmp_path):
    (tmp_path / "kinds.txt").write_text("rust\n")
    variants = [
        [],
        ["--maps"],
        ["--no-report"],
        ["--threshold", "0.3"],
        ["--policy", policy],
        ["--policy", policy, "--threshold", "x1.05"],
        ["--vocabulary", "kinds.txt"],
        ["--set", "temperature=0.1"],
        ["--reference", shelf / "good" / "10.png"],
    ]
    for number, options in enumerate(variants, start=1):
        code, _, err = run("inspect", shelf / "parts" / "part 0.png", *tiny, *options)
        assert (code, err) == (0, ""), options
        assert len(list((tmp_path / "runs").iterdir())) == number, options


def test_without_a_name_a_remark_goes_to_stderr(run, shelf, tmp_path):
    weights = shelf / "tiny.safetensors"
    code, out, err = run("inspect", shelf / "parts", "-b", weights, "-o", "run", "--json")
    assert code == 0 and err.startswith("no --object given")
    assert {json.loads(line)["object"] for line in out.splitlines()} == {"object"}


def test_kinds_come_from_the_vocabulary_file(run, shelf, tiny, tmp_path):
    (tmp_path / "kinds.json").write_text('{"rust": ["rusty {}"], "burr": ["{} with a burr"]}')
    options = ["--vocabulary", "kinds.json", "-o", "run", "--json", "--threshold", "0.1"]
    save(tmp_path / "parts" / "a.png")
    one = ["--reference", shelf / "good" / "10.png"]  # its map is low, so that regions appear
    code, out, _ = run("inspect", shelf / "parts", *tiny, *options, *one)
    assert code == 0
    kinds = {g["kind"] for line in out.splitlines() for g in json.loads(line)["regions"]}
    assert kinds and kinds <= {"rust", "burr"}
    coco = json.loads((tmp_path / "run" / "coco.json").read_text())
    assert [c["name"] for c in coco["categories"]] == ["rust", "burr"]


def test_references_calibrate_themselves(run, shelf, tiny):
    code, out, _ = run("inspect", shelf / "parts", *tiny, "-r", shelf / "good", "-o", "run")
    assert code == 0 and "UNCALIBRATED" not in out
    assert "10 good images, each scored with the others as references" in out


def test_a_threshold_for_one_run(run, shelf, tiny):
    verdicts = []
    for threshold in ("0.01", "0.99"):
        arguments = ["--threshold", threshold, "-o", threshold, "--json"]
        _, out, _ = run("inspect", shelf / "parts", *tiny, *arguments)
        verdicts.append({json.loads(line)["verdict"] for line in out.splitlines()})
    assert verdicts == [{"defect"}, {"good"}]


@pytest.mark.skipif(os.name != "posix", reason="names that are no valid text")
def test_a_name_that_is_no_valid_text_is_printed_with_escapes(run, tiny, tmp_path):
    try:
        save(Path(os.fsdecode(os.fsencode(tmp_path) + b"/parts/caf\xe9.png")))
    except OSError:
        pytest.skip("this file system refuses such names")
    code, out, err = run("inspect", tmp_path / "parts", *tiny, "-o", "run")
    assert (code, err) == (0, "") and "caf\\udce9.png" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: there is no such file or folder"),
        (["{shelf}/empty"], "the folder holds no pictures"),
        (["{parts}", "--method", "winclop"], "unknown method 'winclop'. Did you mean 'winclip'?"),
        (["{parts}", "--set", "tau=1"], "winclip has no option 'tau'; it has: "),
        (["{parts}", "--set", "temperature"], "write NAME=VALUE"),
        (["{parts}", "--set", "temperature=hot"], "option temperature='hot'"),
        (["{parts}", "--set", "scales=2"], "option scales=2"),
        (
            ["{parts}", "--set", "temperature=-1"],
            "option temperature=-1: Input should be greater than 0",
        ),
        (["{parts}", "--device", "abacus"], "device 'abacus' cannot be used"),
        (["{parts}", "--device", "cuda:77"], "device 'cuda:77' cannot be used"),
        (["{parts}", "--policy", "none.json"], "none.json: cannot be read"),
        (["{parts}", "--policy", "{shelf}/junk.json"], "not a ZeroDefect policy"),
        (["{parts}", "--policy", "{parts}/part 0.png"], "not valid JSON"),
        (["{parts}", "--threshold", "high"], "threshold 'high' is not understood"),
        (["{parts}", "--threshold", "nan"], "threshold 'nan' is not understood"),
        (["{parts}", "--threshold", "rate:0.01"], "this run is not calibrated"),
        (["{parts}", "--backbone", "none.safetensors"], "none.safetensors"),
        (["{parts}", "--backbone", "{shelf}/junk.json"], "junk.json"),
        (["{parts}", "--backbone", "ViT-B-16/moon"], "moon"),
        (["{parts}", "--backbone", "ViT-B-16", "--weights", "{shelf}/tiny.safetensors"], "tiny"),
        (["{parts}", "--image-size", "30"], "no multiple of the backbone's patch size 8"),
        (["{parts}", "--vocabulary", "none.txt"], "none.txt: cannot be read"),
        (["{parts}", "--vocabulary", "{shelf}/empty.txt"], "the defect vocabulary is empty"),
        (["{parts}", "--vocabulary", "{shelf}/bad.json"], "needs '{{}}' exactly once"),
        (["{parts}", "--reference", "missing"], "missing: there is no such file or folder"),
        (["{parts}", "--reference", "{shelf}/junk.json"], "junk.json"),
        (["{parts}", "--object", " "], "the object needs a name"),
        (["{parts}", "--object", "long " * 90], "the text tower reads 77"),
        (["{parts}", "-o", "{shelf}/junk.json"], "junk.json: cannot be written"),
    ],
    ids=lambda value: " ".join(value[1:])[:40] if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_1(run, shelf, tiny, tmp_path, arguments, message):
    (shelf / "empty.txt").write_text("# nothing\n")
    (shelf / "bad.json").write_text('{"rust": ["rusty"]}')
    places = {"shelf": shelf, "parts": shelf / "parts"}
    given = [a.format(**places) for a in arguments]
    known = tiny[2:] if "--backbone" in given else tiny  # given twice, they would be two networks
    code, out, err = run("inspect", *known, "-o", "run", *given)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message.format(**places) in err


def test_a_fault_of_the_program_is_not_hidden(run, shelf, monkeypatch):
    def fault(*_args, **_kwargs):
        raise TypeError("a fault")

    monkeypatch.setattr(loading, "load_clip", fault)
    monkeypatch.setattr("zerodefect.detector.load_detector.load_clip", fault)
    with pytest.raises(TypeError, match="a fault"):
        run("inspect", shelf / "parts")


@pytest.mark.slow
def test_many_views_are_told_and_too_many_refused_before_the_work(run, shelf, tiny, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(encode_png(picture(0, 220, 250)))
    few = ["inspect", shelf / "parts", *tiny, "-o", "few", "--tile", "16"]
    code, _, err = run(*few)
    assert code == 0 and "views" not in err
    code, _, err = run("inspect", large, *tiny, "-o", "run", "--tile", "16")
    assert code == 0
    assert "tiles of 16 pixels: 1 picture takes 379 views, up to 379 each; with --tile 20" in err
    huge = tmp_path / "huge.png"
    huge.write_bytes(encode_png(picture(0, 1000, 1000)))
    for verb in (["inspect", "-o", "refused"], ["calibrate", "-o", "refused.json"]):
        code, out, err = run(*verb, large, huge, *tiny, "--tile", "16")
        assert (code, out) == (1, "")
        assert f"error: {huge}: 6890 views" in err and "more than the 4096" in err
        assert "Take larger tiles" in err
    code, _, err = run("inspect", large, "--reference", huge, *tiny, "--tile", "16")
    assert code == 1 and f"{huge}: 6890 views" in err
    assert not Path("refused").exists() and not Path("refused.json").exists()


# --- calibrate ---------------------------------------------------------------------------------


def test_calibrate_then_inspect(run, shelf, tiny, tmp_path):
    code, out, err = run("calibrate", shelf / "good", *tiny)
    assert (code, err) == (0, "")
    assert "smallest false-alarm rate that 10 images can prove: 0.0909" in out
    assert "policy: policy.json" in out
    policy = Policy.load("policy.json")
    assert policy.object == "screw" and len(policy.scores) == 10 and policy.guaranteed
    code, out, _ = run("inspect", shelf / "parts", *tiny, "--policy", "policy.json", "-o", "run")
    assert code == 0 and "UNCALIBRATED" not in out
    assert (
        "On average over calibrations at most 9.09 % of good images like these are called "
        "defective; with 90 % confidence at most 20.6 % by these limits."
    ) in out
    with (tmp_path / "run" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["calibrated"] for row in rows} == {"true"}
    assert all(1 / 11 - 1e-9 <= float(row["p_value"]) <= 1 for row in rows)


def test_calibrate_json_is_the_policy(run, shelf, tiny):
    code, out, _ = run("calibrate", shelf / "good", *tiny, "--json", "-o", "deep/er/p.json")
    assert code == 0
    assert json.loads(out) == json.loads(Path("deep/er/p.json").read_text())


def test_leave_one_out_belongs_to_its_references(run, shelf, tiny):
    code, out, _ = run("calibrate", shelf / "good", *tiny, "--leave-one-out")
    assert code == 0 and "the same good parts as --reference" in out
    inspect = ["inspect", shelf / "parts", *tiny, "--policy", "policy.json", "-o", "run"]
    code, out, _ = run(*inspect, "--reference", shelf / "good")
    assert code == 0 and "each scored with the others as references" in out
    code, _, err = run(*inspect, "--reference", shelf / "good" / "10.png")
    assert code == 1 and err.startswith("error: the policy does not fit this run")
    code, _, err = run(*inspect)
    assert code == 1 and "the policy does not fit this run" in err
    code, _, err = run("calibrate", shelf / "good", *tiny, "--leave-one-out", "-r", shelf / "good")
    assert code == 1 and "drop --reference" in err


@pytest.mark.parametrize(
    "changed",
    [
        ["--object", "bolt"],
        ["--set", "temperature=0.1"],
        ["--backbone", "{shelf}/other/tiny.safetensors"],
    ],
    ids=lambda value: value[0],
)
def test_a_policy_of_something_else_is_refused(run, shelf, tiny, policy, changed):
    changed = [a.format(shelf=shelf) for a in changed]
    known = tiny[2:] if "--backbone" in changed else tiny
    code, out, err = run("inspect", shelf / "parts", *known, "-p", policy, *changed, "-o", "run")
    assert (code, out) == (1, "") and "the policy does not fit this run" in err
    assert not Path("run").exists()


def test_the_policy_names_the_product_if_nobody_does(run, shelf, policy):
    weights = ["--backbone", shelf / "tiny.safetensors"]
    code, _, err = run("inspect", shelf / "parts", *weights, "-p", policy, "-o", "run")
    assert (code, err) == (0, "")
    assert json.loads(Path("run/results.jsonl").read_text().splitlines()[0])["object"] == "screw"


def test_the_same_weights_by_another_path_resume_the_run(run, shelf, monkeypatch):
    monkeypatch.chdir(shelf)
    options = ["--object", "screw", "-o", shelf / "by-path"]
    code, _, _ = run("inspect", "parts", "-b", "tiny.safetensors", *options)
    assert code == 0
    code, out, _ = run("inspect", "parts", "-b", shelf / "tiny.safetensors", *options)
    assert code == 0 and "4 done before" in out


def test_empty_values_are_not_taken_for_absent_ones(run, shelf, tiny):
    code, _, err = run("inspect", shelf / "parts", *tiny, "--threshold", "", "-o", "run")
    assert code == 1 and "threshold" in err
    command = ["inspect", shelf / "parts", "-b", shelf / "tiny.safetensors", "-o", "run"]
    code, _, err = run(*command, "--object", "")
    assert code == 1 and "needs a name" in err
    assert "finite" in run(*command, "--set", "temperature=1e400")[2]
    assert "between" in run(*command, "--image-size", "100000")[2]


def test_a_second_run_over_the_same_folder_sees_the_same_pictures(run, shelf, tiny):
    Path("parts").mkdir()
    save(Path("parts/a.png"))
    for _ in range(2):
        code, out, _ = run("inspect", "parts", *tiny, "-o", "parts/out")
        assert code == 0 and "1 image:" in out


def test_large_pictures_and_areas(run, shelf, tiny):
    (shelf / "roi.png").write_bytes(encode_png((picture(0, 40, 48) * 0 + 255).astype("uint8")))
    views = ["--tile", "32", "--keep-aspect", "--roi", shelf / "roi.png"]
    code, out, _ = run("calibrate", shelf / "good", *tiny, *views, "-o", "tiled.json")
    assert code == 0 and "10 good images" in out
    inspect = ["inspect", shelf / "parts", *tiny, "-p", "tiled.json", "-o", "tiled"]
    assert run(*inspect, *views)[0] == 0
    code, _, err = run(*inspect, *views[2:])
    assert code == 1 and "the policy does not fit this run" in err
    everything = ["--ignore", shelf / "roi.png"]
    code, _, err = run("inspect", shelf / "parts", *tiny, *everything, "-o", "nothing")
    assert code == 1 and "nothing to inspect" in err


def test_precision_is_part_of_what_a_policy_is_bound_to(run, shelf, tiny, policy):
    command = ["inspect", shelf / "parts", *tiny, "-o", "half", "--precision", "bfloat16"]
    assert run(*command)[0] == 0
    code, _, err = run(*command, "-p", policy)
    assert code == 1 and "the policy does not fit this run" in err
    assert "precision is float32, bfloat16 or auto" in run(*command[:-1], "int4")[2]


def test_calibrate_names_every_broken_file_and_goes_on_with_the_rest(run, shelf, tiny, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    files = [tmp_path / "a.png", shelf / "good", tmp_path / "b.png"]
    code, out, err = run("calibrate", *files, *tiny)
    assert code == 3
    assert [line for line in err.splitlines() if line.startswith("left out: ")] == [
        f"left out: {tmp_path / name}: the file is empty. Copy the file again from its source"
        for name in ("a.png", "b.png")
    ]
    assert "2 files could not be used and do not count" in err
    assert "10 images can prove" in out and len(Policy.load("policy.json").scores) == 10
    code, out, err = run("calibrate", *files, *tiny, "--json", "-o", "other.json")
    assert code == 3 and json.loads(out) == json.loads(Path("other.json").read_text())
    code, out, err = run("calibrate", *files, *tiny, "--leave-one-out", "-o", "left.json")
    assert code == 3 and "remove them before they are --reference" in err


def test_calibrate_stops_when_too_few_can_be_read(run, shelf, tiny, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    files = [tmp_path / "a.png", shelf / "good"]
    code, out, err = run("calibrate", *files, *tiny, "--false-alarms", "0.085")  # 11 would do
    assert (code, out) == (1, "")
    assert "left out: " in err and "the smallest provable rate is 0.09091" in err
    assert not Path("policy.json").exists()


def test_calibrating_on_one_picture_says_so_in_the_singular(run, shelf, tiny):
    code, out, _ = run("calibrate", shelf / "good" / "10.png", *tiny)
    assert code == 0 and "that 1 image can prove: 0.5" in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--false-alarms", "0.01"], "the smallest provable rate is 0.09091. Give at least 99 "),
        (["--false-alarms", "0"], "must lie between 0 and 1"),
        (["--false-alarms", "0.2", "--review-rate", "0.1"], "lies below the false-alarm rate"),
        (["--reference", "{shelf}/good/12.png"], "also a reference"),
    ],
)
def test_what_cannot_be_calibrated(run, shelf, tiny, options, message):
    options = [a.format(shelf=shelf) for a in options]
    code, out, err = run("calibrate", shelf / "good", *tiny, *options)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not Path("policy.json").exists()


# --- the other verbs ---------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb):
    result = CliRunner().invoke(cli.app, [verb, "--help"])
    assert result.exit_code == 0 and "Usage: " in result.output and verb in result.output


def test_help_lists_every_verb():
    result = CliRunner().invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    registered = (*cli.app.registered_commands, *cli.app.registered_groups)
    assert {verb.name for verb in registered} == set(VERBS)
    assert all(verb in result.output for verb in VERBS if verb != "datasets")  # hidden
    assert CliRunner().invoke(cli.app, []).output == result.output


def test_version():
    result = CliRunner().invoke(cli.app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"zerodefect {__version__}\n")


@pytest.mark.parametrize(
    "arguments", [["inspekt"], ["inspect"], ["inspect", "x", "--batch-size", "0"], ["doctor", "-x"]]
)
def test_wrong_usage_ends_with_2(arguments):
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2 and "Usage: " in result.output


def test_backbones(run):
    code, out, _ = run("backbones", "--json")
    listed = json.loads(out)
    assert code == 0 and listed[0]["name"] == "embedded"
    assert "ViT-B-16-plus-240/laion400m_e32" in {entry["name"] for entry in listed}
    known = {row["name"]: row for row in json.loads(out)}
    sam = known["facebook/sam-vit-base"]
    assert (sam["part"], sam["licence"]) == ("segmenter", "Apache-2.0")
    assert sam["bring"].startswith("hf download facebook/sam-vit-base ")
    code, _, err = run("backbones")
    assert "segmenters and grounders come with: pip install 'zerodefect[sam]'" in err
    assert "chat models come with: pip install 'zerodefect[vlm]'" in err
    chat = known["Qwen/Qwen2-VL-2B-Instruct"]
    assert (chat["part"], chat["extra"], chat["file"]) == ("chat model", "vlm", None)
    code, out, _ = run("backbones", "--at-hand")
    assert code == 0 and all(line.startswith("at hand  ") for line in out.splitlines())


def test_what_was_fetched_is_told_in_lines(run, tmp_path, monkeypatch):
    from zerodefect.backbones import open_clip_weights

    file = tmp_path / "weights.safetensors"
    file.write_bytes(bytes(2**20))
    monkeypatch.setattr(open_clip_weights, "weights_origin", lambda name: "a hub")
    monkeypatch.setattr(open_clip_weights, "fetch", lambda name: (file, "ab12"))
    code, out, _ = run("backbones", "--fetch", "ViT-B-32/openai")
    assert (code, out.splitlines()) == (0, [f"file: {file}", "size: 1.0 MiB", "sha256: ab12"])
    code, out, _ = run("backbones", "--fetch", "ViT-B-32/openai", "--json")
    assert (code, json.loads(out)["file"]) == (0, str(file))


def test_fetching_without_a_network_says_how_to_bring_the_file(run):
    code, out, err = run("backbones", "--fetch", "ViT-B-16-plus-240/laion400m_e32")
    assert (code, out) == (1, "")
    assert "error: " in err and "HF_HUB_OFFLINE" in err and "--weights FILE" in err
    code, _, err = run("backbones", "--fetch", "ViT-B-16-plus-240/moon")
    assert code == 1 and "moon" in err


def test_doctor(run, shelf, monkeypatch):
    monkeypatch.setattr(loading, "embedded_file", lambda: shelf / "tiny.safetensors")
    code, out, _ = run("doctor", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["problems"] == [] and facts["zerodefect"] == __version__
    assert facts["cache"] == str(shelf / "cache") and "off" in facts["network"]
    code, out, _ = run("doctor")
    assert code == 0 and "everything that 'zerodefect inspect' needs is here" in out


def test_doctor_lists_the_extras_that_are_used(run, shelf, monkeypatch):
    from importlib import util

    there = util.find_spec
    absent = {"accelerate", "tensorboard", "transformers"}
    monkeypatch.setattr(util, "find_spec", lambda name: name not in absent and there(name))
    monkeypatch.setattr(loading, "embedded_file", lambda: shelf / "tiny.safetensors")
    code, out, _ = run("doctor", "--json")
    extras = json.loads(out)["extras"]
    assert code == 0 and extras["plot"] == "installed"
    assert extras["train"] == "accelerate and tensorboard absent"
    assert extras["sam"] == extras["vlm"] == "transformers absent"


def test_doctor_without_weights_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "embedded_file", lambda: tmp_path / "none.safetensors")
    code, out, _ = run("doctor", "--json")
    assert code == 1 and "none.safetensors" in json.loads(out)["problems"][0]
    code, out, _ = run("doctor")
    assert code == 1 and "problem: " in out


def test_the_embedded_model_is_the_default(run, shelf, monkeypatch):
    monkeypatch.setattr(loading, "embedded_file", lambda: shelf / "tiny.safetensors")
    code, _, _ = run("inspect", shelf / "parts", "--object", "screw", "-o", "run")
    assert code == 0
    assert json.loads(Path("run/run.json").read_text())["backbone"] == "embedded"


def test_a_vocabulary_file_of_bare_names(tmp_path):
    (tmp_path / "kinds.txt").write_text("rust\n# a remark\n\n burr \n")
    assert Vocabulary.load(tmp_path / "kinds.txt").names == ("rust", "burr")


# --- as a process of its own -------------------------------------------------------------------


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        **options,
    )


def test_importing_the_command_line_imports_nothing_heavy():
    code = (
        "import sys, zerodefect.cli\n"
        "print(sorted({'torch', 'numpy', 'PIL', 'scipy', 'open_clip'} & set(sys.modules)))"
    )
    out, _ = start("-c", code).communicate(timeout=60)
    assert out.strip() == "[]"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['zerodefect', 'inspect', '--help']\n"
        "from zerodefect import cli\n"
        "try:\n    cli.main()\n"
        "finally:\n    print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    out, _ = start("-c", code).communicate(timeout=60)
    assert "--object" in out and out.strip().endswith("[]")


@pytest.mark.slow
def test_a_real_process_with_relative_paths(shelf, tmp_path):
    save(tmp_path / "line 1" / "parts" / "a.png")
    arguments = ["inspect", "parts", "-b", os.path.relpath(shelf, tmp_path / "line 1")]
    arguments[-1] += "/tiny.safetensors"
    command = start("-m", "zerodefect", *arguments, "-n", "screw", cwd=tmp_path / "line 1")
    out, err = command.communicate(timeout=120)
    assert (command.returncode, err) == (0, "")
    (folder,) = (tmp_path / "line 1" / "runs").iterdir()
    assert str(folder.relative_to(tmp_path / "line 1")) in out
    record = json.loads((folder / "results.jsonl").read_text())
    assert record["image"] == os.path.join("parts", "a.png")  # noqa: PTH118
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_a_real_process_with_bad_input(shelf, tmp_path):
    arguments = ["inspect", "parts", "-b", shelf / "tiny.safetensors"]
    command = start("-m", "zerodefect", *arguments, cwd=tmp_path)
    out, err = command.communicate(timeout=120)
    assert (command.returncode, out) == (1, "")
    assert err == "error: parts: there is no such file or folder. Check the path's spelling\n"


@pytest.mark.killing
@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.killing
@pytest.mark.parametrize(("told", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_and_the_next_start_goes_on(run, shelf, tiny, tmp_path, told, code):
    for seed in range(150):
        save(tmp_path / "parts" / f"{seed:03d}.png", seed)
    # A shell that starts jobs in the background lets them ignore the signal.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from zerodefect.cli import main; main()"
    )
    arguments = ["inspect", "parts", *tiny, "-o", "run", "--batch-size", "1"]
    command = start("-c", program, *arguments, cwd=tmp_path)
    results = tmp_path / "run" / "results.jsonl"
    until = time.monotonic() + 60
    while not (results.exists() and results.stat().st_size):
        assert time.monotonic() < until and command.poll() is None
        time.sleep(0.005)
    command.send_signal(told)
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out) == (code, "")
    assert err.strip() == (
        "interrupted; inspect, evaluate, train and pretrain go on when started again"
    )
    done = len(results.read_text().splitlines())
    assert 1 <= done < 150
    code, out, _ = run("inspect", "parts", *tiny, "-o", "run")
    assert code == 0 and "150 images: " in out and f"({done} done before)" in out
    images = [json.loads(line)["image"] for line in results.read_text().splitlines()]
    assert len(images) == len(set(images)) == 150
