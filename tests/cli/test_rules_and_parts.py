"""Rules on regions, and parts of several pictures, on the command line."""

import json

import pytest
from marked_plates import COLOURS, KINDS, Marks, plate

from zerodefect import Inspector, Vocabulary
from zerodefect.images import encode_png
from zerodefect.inspection import load_inspector

BY = r"(?P<part>\d+)_.*"
STAIN = COLOURS["stain"]


@pytest.fixture(autouse=True)
def _marks(monkeypatch, tmp_path):
    """The command line loads a detector whose regions are known by hand."""

    def load(*, object=None, vocabulary=None, **options):
        made = Inspector(Marks())
        made.describe(object or "plate", Vocabulary.load(vocabulary) if vocabulary else KINDS)
        return made

    monkeypatch.setattr(load_inspector, "load", load)
    monkeypatch.chdir(tmp_path)


def save(path, *pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(*pixels))


@pytest.fixture
def good(tmp_path):
    """20 good parts of two pictures."""
    for part in range(20):
        for side in range(2):
            save(tmp_path / "good" / f"{part:02d}_{side}.png", plate(100 * part + side))
    return tmp_path / "good"


@pytest.fixture
def parts(tmp_path):
    """Three parts: good, with a small stain, with a broken picture."""
    for part in range(3):
        for side in range(2):
            marks = [(STAIN, 3, 3)] if (part, side) == (1, 1) else []
            save(tmp_path / "parts" / f"{part}_{side}.png", plate(9000 + 2 * part + side, *marks))
    (tmp_path / "parts" / "2_0.png").write_bytes(b"")
    return tmp_path / "parts"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rules_are_set_by_calibrate_and_replaced_by_inspect(run, good, parts):
    code, out, _ = run("calibrate", good, "--allow", "stain:area<50", "--min-area", "2")
    assert code == 0 and "Allowed: any stain below 50 pixels; any region below 2 pixels." in out
    policy = json.loads((good.parent / "policy.json").read_text())
    assert policy["allowances"]["rules"] == ["stain:area<50px", "area<2px"]
    told = {}
    for name, rules in {
        "own": (),
        "smaller": ("--min-area", "9"),
        "percent": ("--min-area", "0.5%"),
        "none": ("--allow", "none"),
    }.items():
        code, out, _ = run("inspect", parts, "-p", "policy.json", *rules, "-o", name)
        assert code == 3  # one file is broken
        records = {r["image"][-7:]: r for r in lines(good.parent / name / "results.jsonl")}
        told[name] = records["1_1.png"]["verdict"]
        assert ("Allowed:" in out) == (name != "none")
    assert told == {"own": "good", "smaller": "defect", "percent": "good", "none": "defect"}


def test_the_card_of_a_product_tells_its_rules(run, good):
    code, _, _ = run("calibrate", good, "--allow", "stain:area<50", "--output", "p.zd")
    assert code == 0
    code, out, _ = run("show", "p.zd")
    assert code == 0 and "Allowed: any stain below 50 pixels." in out


def test_what_is_allowed_is_told_in_records_and_tables(run, good, parts):
    run("calibrate", good, "--allow", "stain:area<50")
    _, out, _ = run("inspect", parts, "-p", "policy.json", "-o", "run", "--json")
    record = next(r for r in map(json.loads, out.splitlines()) if r["image"].endswith("1_1.png"))
    assert record["verdict"] == "good" and record["allowed"].startswith("1 stain, below 50 pixels")
    assert record["regions"][0]["allowed"] == "stain:area<50px"
    assert record["explanation"].startswith(f"{record['allowed']}; nothing else stands out: good")
    assert record["p_value"] == pytest.approx(1 / 41)  # the detector's


def test_rules_without_a_calibration(run, parts):
    _, out, _ = run("inspect", parts, "--min-area", "50", "-o", "run")
    assert "UNCALIBRATED" in out and "Allowed: any region below 50 pixels" in out


def test_kinds_of_the_users_vocabulary_can_be_allowed(run, good, tmp_path):
    (tmp_path / "kinds.txt").write_text("rust\nscratch\nhole\n")
    rule = ("--allow", "rust:area<50")
    code, _, err = run("calibrate", good, *rule)
    assert code == 1 and "no kind 'rust'; it knows: stain, scratch, hole" in err
    assert run("calibrate", good, *rule, "--vocabulary", "kinds.txt")[0] == 0
    _, _, err = run("inspect", good, "-p", "policy.json")
    assert "rust" in err and "--vocabulary" in err


@pytest.mark.parametrize("rule", ["stain", "area<0", "unknown:area<5"])
def test_a_rule_that_is_not_understood_is_one_line(run, good, rule):
    code, _, err = run("calibrate", good, "--allow", rule)
    assert code == 1 and err.count("\n") == 1 and repr(rule) in err


def test_parts_are_calibrated_and_inspected_by_the_policys_pattern(run, good, parts, tmp_path):
    code, out, _ = run("calibrate", good, "--part-by", BY)
    assert code == 0 and "Limits learned from 20 good parts of 2 pictures." in out
    assert "smallest false-alarm rate that 20 parts can prove: 0.0476" in out
    code, out, _ = run("inspect", parts, "-p", "policy.json", "-o", "run")
    assert code == 3 and "3 parts: 1 defect, 1 unsure, 1 good" in out.splitlines()
    assert "6 images: 1 defect, 4 good, 1 failed" in out
    table = [line.split()[0] for line in out.splitlines()[1:4]]
    assert table == ["defect", "unsure", "good"]
    assert out.splitlines()[0].split() == ["verdict", "score", "p", "pictures", "part"]
    assert "decisive of 2: " in out and "could not be inspected (the file is empty)" in out
    found = {p["part"]: p["verdict"] for p in lines(tmp_path / "run" / "parts.jsonl")}
    assert found == {"0": "good", "1": "defect", "2": "unsure"}
    _, out, _ = run("inspect", parts, "-p", "policy.json", "-o", "run", "--json")
    records = [json.loads(line) for line in out.splitlines()]
    assert [r["part"] for r in records if "image" in r] == ["0", "0", "1", "1", "2", "2"]
    assert [r["verdict"] for r in records if "image" not in r] == ["good", "defect", "unsure"]


def test_contradictions_are_refused_in_one_line(run, good, parts):
    run("calibrate", good, "-o", "single.json")
    run("calibrate", good, "--part-by", BY, "-o", "parts.json")
    for policy, by, message in (
        ("single.json", BY, "learned from single pictures"),
        ("parts.json", r"(?P<part>\d)_.*", "not what the policy was calibrated with"),
        ("parts.json", "(", "not what the policy"),
    ):
        code, _, err = run("inspect", parts, "-p", policy, "--part-by", by)
        assert code == 1 and message in err and err.count("\n") == 1
    code, _, err = run("calibrate", good, "--part-by", r"(\d+)_")
    assert code == 1 and "group 'part'" in err
