"""Rules on the command line, on trays whose parts are known by construction."""

import csv
import json
from pathlib import Path

import pytest
from drawn_trays import BOXES, Tray, good_tray

pytestmark = pytest.mark.slow

HOW = ("--method", "pyramid", "--image-size", "224", "--device", "cpu")
BAD = {
    "one_screw": Tray(screws=((12, 12),), noise=60),
    "low": Tray(level=0.35, noise=61),
    "no_label": Tray(label=None, noise=62),
    "good": Tray(noise=63),
}


@pytest.fixture
def trays(tmp_path, monkeypatch):
    """Folders of good and other trays, and one on which boxes are told."""
    monkeypatch.chdir(tmp_path)
    Tray(noise=99).save(Path("tray.png"))
    for seed in range(26):
        (good_tray(seed) if seed else Tray()).save(Path(f"good/{seed:02d}.png"))
    for name, tray in BAD.items():
        tray.save(Path(f"parts/{name}.png"))


COMPONENTS = [f"--component={name}=good/00.png:{box}" for name, box in BOXES.items()]
RULES = ("--rule", "exactly 2 screws", "--rule", "fill level in bottle as usual",
         "--rule", "label left of bottle")  # fmt: skip


def records(folder):
    lines = (Path(folder) / "results.jsonl").read_text("utf-8").splitlines()
    return {Path(one["image"]).stem: one for one in map(json.loads, lines)}


def test_from_good_parts_to_a_product_that_says_what_is_wrong(run, trays):
    code, out, err = run("setup", "good", "--object", "tray", *HOW, *RULES, *COMPONENTS,
                         "--power", "off", "-o", "tray.zd")  # fmt: skip
    assert code == 0, err
    assert "limits of rules together" in out  # the picture with boxes is a reference
    assert "Rules as usual, from 18 good images: 'level of liquid in bottle as usual'" in out
    code, out, _ = run("show", "tray.zd")
    assert code == 0 and "- Rules: 'exactly 2 screws', 'level of liquid in bottle as usual'" in out
    code, out, err = run("inspect", "parts", "--product", "tray.zd", "-o", "run")
    assert code == 0, err
    assert "broken: exactly 2 screws: 1 found" in out
    found = records("run")
    truths = {name: [one["truth"] for one in record["rules"]] for name, record in found.items()}
    assert truths == {
        "one_screw": ["broken", "kept", "kept"],
        "low": ["kept", "broken", "kept"],
        "no_label": ["kept", "kept", "uncertain"],
        "good": ["kept", "kept", "kept"],
    }
    assert found["one_screw"]["verdict"] == found["low"]["verdict"] == "defect"
    assert found["no_label"]["verdict"] in ("unsure", "defect")
    assert json.loads(Path("run/run.json").read_text("utf-8"))["rules"]["rules"][0] == (
        "exactly 2 screws"
    )
    with Path("run/results.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = {Path(row["image"]).stem: row["rules"] for row in csv.DictReader(file)}
    assert rows["one_screw"].startswith("broken: exactly 2 screws: 1 found; kept: level")
    page = Path("run/report.html").read_text("utf-8")
    assert 'id="rule-list"' in page and "zeroDefect.chunk" in page
    # rules of one run, beside those of the product or in their place
    code, out, err = run("inspect", "parts/good.png", "--product", "tray.zd", "-o", "other",
                         "--rule", "none", "--rule", "no screws, else unsure")  # fmt: skip
    assert code == 0, err
    assert [one["truth"] for one in records("other")["good"]["rules"]] == ["broken"]
    assert records("other")["good"]["verdict"] == "unsure"
    # learned anew with the rules, and without them
    code, out, err = run("calibrate", "--product", "tray.zd", "--renew", "--rule", "no screws",
                         "-o", "renewed.zd")  # fmt: skip
    assert code == 0 and "Rules as usual, from 18 good images" in out, err
    assert "'exactly 0 screws'" in run("show", "renewed.zd")[1]
    code, out, err = run("calibrate", "--product", "tray.zd", "--rule", "none")
    assert code == 0 and "ule" not in out, err
    assert "Rules" not in run("show", "tray.zd")[1]


def test_what_is_not_understood_is_said_before_anything_is_loaded(run, trays):
    code, _, err = run("inspect", "parts", "--rule", "exactly screws")
    assert code == 1
    lines = err.splitlines()
    assert lines[0] == "error: rule 'exactly screws': 'screws' is not understood here"
    assert lines[2].strip() == "^^^^^^"
    assert "Allowed here: a whole number" in lines[3]
    for arguments, told in (
        (["--component", "nut"], "is not understood"),
        (["--rules", "missing.rules"], "juice_bottle"),
        (["--clusters", "x.clusters"], "--component 'liquid=cluster 3'"),
    ):
        code, _, err = run("inspect", "parts", *arguments)
        assert code == 1 and told in err
    code, _, err = run("inspect", "missing", "--rule", "no screws")
    assert code == 1 and "missing" in err
    for verb in (["inspect", "parts"], ["calibrate", "good"], ["setup", "good", "--object", "x"]):
        code, _, err = run(*verb, *HOW, *COMPONENTS, "--rule", "no nuts")
        assert code == 1 and "names the component 'nut', which is not known" in err
        code, _, err = run(*verb, *HOW, "--rule", "no screws")
        assert code == 1 and "no component was told" in err


def test_a_picture_that_cannot_be_used_costs_itself_alone(run, trays):
    Path("good/07.png").write_bytes(Path("good/06.png").read_bytes()[:200])
    for number in range(13, 26):  # all that are left are looked at
        Path(f"good/{number}.png").unlink()
    code, out, err = run("components", "good", "--object", "Tray", "--count", "4", *HOW)
    assert code == 3 and "left out: good/07.png" in err.replace("\\", "/")
    assert "of 12 good pictures" in out and Path("tray.clusters").is_file()
    Path("bad.png").write_text("no picture")
    code, _, err = run("components", "bad.png", "--object", "Other", *HOW)
    assert code == 1 and "none of the pictures can be used" in err
    assert not Path("other.clusters").exists()


def test_a_component_without_a_rule_is_said_to_do_nothing(run, trays):
    given = ["inspect", "parts/good.png", *HOW, "-r", "good/01.png", "-o", "run"]
    code, _, err = run(*given, COMPONENTS[0])
    assert code == 0 and "--component without a rule" in err
    assert not records("run")["good"].get("rules")


def test_clusters_are_named_once(run, trays):
    code, out, err = run("components", "good", "--object", "Tray", "--count", "8", *HOW)
    assert code == 0, err
    assert "file:     tray.clusters" in out and "page:     tray-clusters.html" in out
    page = Path("tray-clusters.html").read_text("utf-8")
    assert "cluster 8" in page and page.count("data:image/jpeg") > 12
    code, _, err = run("components", "good", "--object", "Tray", *HOW)
    assert code == 1 and "it is there already" in err
    code, out, err = run("calibrate", "good", "-r", "tray.png", *HOW, "--clusters",
                         "tray.clusters", "--component", "ground=cluster 1", "--rule",
                         "area of ground as usual", "-o", "tray.zd")  # fmt: skip
    assert code == 0, err
    assert "'area of ground as usual'" in out and "this is not guaranteed" in out
