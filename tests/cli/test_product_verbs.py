"""Product files on the command line: written, used, added to, renewed, measured, shown."""

from __future__ import annotations

import json
import shutil

import pytest
from models import picture, write_tiny_weights

import zerodefect
from zerodefect.images import encode_png
from zerodefect.inspection.product_file import opened_product


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Weights, parts, good parts and labelled ones: read by all tests, changed by none."""
    shelf = tmp_path_factory.mktemp("shelf")
    write_tiny_weights(shelf)
    folders = {
        "parts": range(3),
        "good": range(10, 20),
        "refs": range(20, 23),
        "more": range(30, 32),
    }
    folders |= {"data/nut/test/good": range(40, 43), "data/nut/test/rust": range(43, 46)}
    for folder, seeds in folders.items():
        (shelf / folder).mkdir(parents=True)
        for seed in seeds:
            pixels = picture(seed, 60, 90).copy()
            if "rust" in folder:
                pixels[20:40, 30:60] = 255 - pixels[20:40, 30:60]
            (shelf / folder / f"{seed}.png").write_bytes(encode_png(pixels))
    return shelf


@pytest.fixture(autouse=True)
def _there(shelf, monkeypatch):
    monkeypatch.chdir(shelf)


@pytest.fixture
def nut(run, tmp_path):
    path = tmp_path / "nut.zd"
    code, out, err = run(
        *(
            "calibrate",
            "good",
            "-r",
            "refs",
            "-n",
            "nut",
            "-m",
            "winclip",
            "-b",
            "tiny.safetensors",
        ),
        *("--false-alarms", 0.1, "-o", path, "--device", "cpu"),
    )
    assert code == 0, err
    assert f"inspect with it: zerodefect inspect PICTURES --product {path}" in out
    return path


def scores(folder):
    lines = (folder / "results.jsonl").read_text().splitlines()
    return {line["image"]: line["score"] for line in map(json.loads, lines)}


def test_inspect_with_a_product_says_what_the_same_options_say(nut, run, tmp_path):
    told = ("--device", "cpu", "--no-report")
    code, out, err = run("inspect", "parts", "--product", nut, "-o", tmp_path / "a", *told)
    assert code == 0, err
    assert "Limits learned from 10 good images" in out
    shutil.copytree("refs", tmp_path / "refs")
    named = ("-n", "nut", "-r", "refs", "-m", "winclip", "-b", "tiny.safetensors")
    run("calibrate", "good", *named, "--false-alarms", 0.1, "-o", tmp_path / "p.json", *told[:2])
    options = (*named, "--policy", tmp_path / "p.json")
    code, _, err = run("inspect", "parts", *options, "-o", tmp_path / "b", *told)
    assert code == 0, err
    assert scores(tmp_path / "a") == scores(tmp_path / "b")
    again = run("inspect", "parts", "--product", nut, "-o", tmp_path / "a", *told)
    assert again[0] == 0 and "3 done before" in again[1]
    found = zerodefect.load(nut, device="cpu").inspect("parts/0.png")
    assert found.score == pytest.approx(scores(tmp_path / "a")["parts/0.png"], rel=1e-6)


def test_a_threshold_changes_the_limit_of_one_run(nut, run, tmp_path):
    command = ("inspect", "parts", "--product", nut, "--device", "cpu", "--no-report")
    code, out, err = run(*command, "--threshold", "0.0001", "-o", tmp_path / "run")
    assert code == 0 and "3 defect" in out and "Defect limit replaced" in out, err
    assert run(*command, "-o", tmp_path / "other")[0] == 0
    assert "Defect limit replaced" not in str(opened_product(nut).policy.notes)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (["--object", "bolt"], "object 'bolt' was given, it is 'nut' in the file"),
        (["-m", "dense"], "method 'dense' was given, it is 'winclip'"),
        (["--tile", "64"], "tile 64 was given"),
        (["-r", "refs"], "references was given"),
        (["--set", "temperature=0.5"], "temperature 0.5 was given"),
        (["--memory-budget", "5"], "memory_budget 5000000 was given"),
        (["-p", "policy.json"], "--policy: the product file has its own limits"),
        (["--checkpoint", "x.safetensors"], "checkpoint was given"),
    ],
)
def test_options_that_contradict_the_product_are_refused_by_name(said, told, nut, run, tmp_path):
    code, _, err = run("inspect", "parts", "--product", nut, "-o", tmp_path / "run", *said)
    assert code == 1 and told in err and len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_more_good_parts_are_added_and_all_is_computed_again(nut, run, tmp_path):
    before = opened_product(nut).policy
    code, out, err = run("calibrate", "--product", nut, "--reference", "more", "--device", "cpu")
    assert code == 0, err
    after = opened_product(nut)
    assert len(after.told.memory.references) == 5 and len(after.policy.scores) == 10
    assert after.policy.scores != before.scores and after.policy.false_alarms == 0.1
    assert "Limits learned from 10 good images" in out
    other = tmp_path / "other.zd"
    command = ("calibrate", "more", "--product", nut, "-o", other, "--device", "cpu")
    code, _, err = run(*command)
    assert code == 1 and "is also a reference" in err and not other.exists()
    code, _, err = run("calibrate", "parts", *command[2:], "--false-alarms", 0.2)
    assert code == 0, err
    policy = opened_product(other).policy
    assert len(policy.scores) == 13 and policy.false_alarms == 0.2
    assert opened_product(nut).told == after.told  # the former file is as it was


def test_a_product_is_learned_anew_with_other_weights(nut, run, tmp_path):
    other = tmp_path / "w"
    other.mkdir()
    weights = write_tiny_weights(other, seed=1)
    told = ("--product", nut, "-b", weights, "--device", "cpu")
    code, _, err = run("inspect", "parts", *told, "-o", tmp_path / "run")
    assert code == 1 and f"zerodefect calibrate --product {nut} --renew" in err
    code, _, err = run("calibrate", "--renew", *told, "-o", tmp_path / "new.zd")
    assert code == 0, err
    code, _, err = run(
        "inspect",
        "parts",
        "--product",
        tmp_path / "new.zd",
        "--device",
        "cpu",
        "-o",
        tmp_path / "run",
    )
    assert code == 0, err
    code, _, err = run("calibrate", "--renew", *told, "-r", "more")
    assert code == 1 and "add others afterwards" in err


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["calibrate"], "name pictures or folders of good parts, or a product file"),
        (["calibrate", "good", "--renew"], "name its file (--product FILE)"),
        (["calibrate", "--product", "none.zd"], "none.zd: no such file"),
        (["show", "none.zd"], "none.zd: no such file"),
        (["show", "tiny.json"], "tiny.json: not a product file, or cut off"),
        (["inspect", "parts", "--product", "parts"], "cannot be read"),
    ],
)
def test_what_cannot_be_is_one_line(command, told, run):
    code, _, err = run(*command)
    assert code == 1 and told in err and len(err.splitlines()) == 1


def test_without_pictures_verbs_ask_for_them(run, tmp_path):
    path = tmp_path / "bare.zd"
    named = ("-n", "nut", "-m", "winclip", "-b", "tiny.safetensors", "--device", "cpu")
    assert run("calibrate", "good", *named, "-o", path, "--no-pictures")[0] == 0
    for more in (["-r", "more"], ["--renew"], ["more"]):
        code, _, err = run("calibrate", *more, "--product", path, "--device", "cpu")
        assert code == 1 and "bare.zd: it was written without the 10 good pictures" in err
    told = ("--product", path, "--device", "cpu", "--no-report", "-o", tmp_path / "run")
    assert run("inspect", "parts", *told)[0] == 0


def test_a_product_without_limits_goes_by_its_references_not_by_the_folder(run, tmp_path):
    """Twelve pictures would be enough to be compared with each other."""
    made = zerodefect.load("winclip", backbone="tiny.safetensors", device="cpu", object="nut")
    made.remember("refs")
    made.save(tmp_path / "nut.zd")
    limits = made.active_policy().limits
    told = ("--product", tmp_path / "nut.zd", "--device", "cpu", "--no-report")
    many = ("good", "more", "--output", tmp_path / "run")
    code, out, err = run("inspect", *many, *told)
    assert code == 0, err
    assert "compared with each other" not in out + err
    settings = json.loads((tmp_path / "run" / "run.json").read_text())
    assert settings["policy"]["limits"]["defect"] == pytest.approx(limits.defect)


def test_evaluate_measures_a_product_with_what_it_knows(nut, run, tmp_path):
    told = ("--product", nut, "--device", "cpu", "-o", tmp_path / "e", "--no-cache")
    code, out, err = run("evaluate", "-d", "data/nut", *told)
    assert code == 0, err
    assert "nut at its limits, by score: good parts: " in out and "3-shot image auroc" in out
    stored = json.loads((tmp_path / "e" / "nut" / "nut" / "results.json").read_text())
    found = zerodefect.load(nut, device="cpu")
    for one in stored["pictures"]:
        shown = f"data/nut/{one['image']}"
        assert found.inspect(shown).score == pytest.approx(one["score"], rel=1e-5)
    for more, reason in (
        (["-k", "1"], "--k-shot draws references"),
        (["-m", "winclip"], "drop --method and --checkpoint"),
        (["--object", "bolt"], "object 'bolt' was given"),
    ):
        code, _, err = run("evaluate", "-d", "data/nut", *told, *more)
        assert code == 1 and reason in err


def test_evaluate_refuses_pictures_that_the_product_was_learned_from(nut, run, tmp_path):
    data = shutil.copytree("data/nut", tmp_path / "nut")
    shutil.copy("good/10.png", data / "test" / "good" / "renamed.png")
    told = ("-d", data, "--product", nut, "--device", "cpu", "-o", tmp_path / "e", "--no-cache")
    code, _, err = run("evaluate", *told)
    assert code == 1 and "this product of winclip learned from 1 of the 7 pictures" in err
    assert run("evaluate", *told, "--allow-training-pictures")[0] == 0


def test_evaluate_takes_the_product_of_that_name_from_a_data_set(nut, run, tmp_path):
    for name in ("nut", "bolt"):
        shutil.copytree("data/nut", tmp_path / "set" / name)
    told = ("--product", nut, "--device", "cpu", "-o", tmp_path / "e", "--no-cache")
    code, _, err = run("evaluate", "-d", tmp_path / "set", *told)
    assert code == 0, err
    stored = json.loads((tmp_path / "e" / "set" / "nut" / "results.json").read_text())
    assert {one["image"].partition("/")[0] for one in stored["pictures"]} == {"nut"}
    (tmp_path / "set" / "nut").rename(tmp_path / "set" / "screw")
    code, _, err = run("evaluate", "-d", tmp_path / "set", *told)
    assert code == 1 and "none is called 'nut'" in err


def test_show_prints_the_card_and_needs_no_weights(nut, run, tmp_path):
    code, out, _ = run("show", nut)
    assert code == 0 and out == opened_product(nut).card()
    assert "Limits learned from 10 further good pictures" in out
    code, out, _ = run("show", nut, "--json")
    told = json.loads(out)
    assert told["policy"]["false_alarms"] == 0.1 and told["product"]["name"] == "nut"
    assert [one["name"] for one in told["licences"]] == ["licence not stated"]
