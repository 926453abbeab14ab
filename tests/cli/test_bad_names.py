"""What the names, sizes and state of files may do to a run: nothing but to themselves."""

import csv
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import tifffile
from filelock import FileLock
from models import picture, write_tiny_weights
from PIL import Image

from zerodefect import Policy, cli

posix = pytest.mark.skipif(os.name != "posix", reason="names and links of POSIX")
ACTING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e]")  # all but the line feed
NAMES = [
    *("=1+1.png", "@SUM(A1).png", "-2.png", "new\nline.png", "tab\there.png", "quote\"'`.png"),
    *("emoji😀ß部品.png", "a#b?c%20d&e.png", "<img src=x onerror=alert(1)>.png", "x.tar.gz.png"),
    *("[red]bold[bold].png", ":bug:.png", "esc\x1b[31mred.png", "bidi\u202egnp.png", "del\x7f.png"),
    *("s" * 251 + ".png", "部" * 83 + "ab.png", ":" * 251 + ".png", " lead.png", "trail .png"),
    *("semi;=cmd,comma.png", "UPPER.JPG", "UPPER.jpg", "upper.PNG", "NUL.png"),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return ["--backbone", write_tiny_weights(folder), "--object", "screw"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def save(path, seed=0, height=40, width=48):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "JPEG" if path.suffix.lower() == ".jpg" else "PNG"
    Image.fromarray(picture(seed, height, width)).save(path, kind)
    return path


def records_of(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def tags_of(path):
    """All tags of a page, in order."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append(tag)
    parser.feed(path.read_text("utf-8"))
    return found


# --- names -------------------------------------------------------------------------------------


@posix
def test_names_of_all_kinds_are_inspected_and_inject_nothing(run, tiny, tmp_path):
    parts = tmp_path / "parts"
    for seed, name in enumerate(NAMES):
        save(parts / name, seed)
    bytes_only = os.fsdecode(b"latin1_\xe9.png")
    save(parts / bytes_only, 99)
    (parts / "loop").symlink_to(".")
    (parts / "dangling.png").symlink_to("nowhere.png")
    (parts / "self.png").symlink_to("self.png")
    os.chdir(parts)
    code, out, err = run("inspect", ".", *tiny, "-o", tmp_path / "run", "--maps")

    assert code == 3 and not ACTING.search(out + err)
    assert "esc\\u001b[31mred.png" in run("inspect", "esc\x1b[31mred.png", *tiny, "-o", "one")[1]
    assert "[red]bold[bold].png" in run("inspect", "[red]bold[bold].png", *tiny, "-o", "two")[1]
    assert ":bug:.png" in run("inspect", ":bug:.png", *tiny, "-o", "three")[1]

    records = {r["image"]: r for r in records_of(tmp_path / "run")}
    failed = {name for name, r in records.items() if r["status"] == "failed"}
    assert set(records) == {*NAMES, bytes_only, *failed}
    assert failed == {"dangling.png", "self.png"}
    maps = [r["map"] for r in records.values() if r["status"] == "ok"]
    assert len({name.casefold() for name in maps}) == len(maps) == len(NAMES) + 1
    for name in maps:
        assert tifffile.imread(tmp_path / "run" / name).shape == (40, 48)
    assert all(len(os.fsencode(part)) <= 255 for name in maps for part in name.split("/"))

    written = [row["image"] for row in rows_of(tmp_path / "run" / "results.csv")]
    expected = {name: f"'{name}" if name[0] in "=@-" else name for name in NAMES}
    assert set(written) == {*expected.values(), "latin1_\\udce9.png", *failed}
    assert '"semi;=cmd,comma.png"' in (tmp_path / "run" / "results.csv").read_text("utf-8")

    save(tmp_path / "plain" / "a.png")
    (tmp_path / "plain" / "b.png").write_bytes(b"")
    run("inspect", tmp_path / "plain", *tiny, "-o", tmp_path / "other")
    pages = [tags_of(tmp_path / folder / "report.html") for folder in ("run", "other")]
    assert pages[0].count("tr") == pages[1].count("tr") + 1  # one more failed file
    assert set(pages[0]) == set(pages[1])
    assert pages[0].count("script") == pages[1].count("script") and "img" not in pages[0]

    again, out, _ = run("inspect", ".", *tiny, "-o", tmp_path / "run", "--maps")
    assert again == 3 and f"({len(NAMES) + 1} done before)" in out


@posix
def test_a_map_of_the_longest_name_is_the_same_after_a_restart(run, tiny, tmp_path):
    maps = []
    for seed in range(2):
        save(tmp_path / "parts" / ("s" * 250 + f"{seed}.png"), seed)
        code, out, _ = run("inspect", "parts", *tiny, "-o", "run", "--maps")
        assert code == 0 and f"{seed + 1} image" in out
        maps.append([r["map"] for r in records_of(Path("run"))])
    assert maps[1][0] == maps[0][0] != maps[1][1]
    assert all(re.fullmatch(r"maps/s{233}-[0-9a-f]{16}\.tiff", name) for name in maps[1])


@posix
@pytest.mark.parametrize("verb", ["data", "calibrate", "evaluate", "train", "import", "datasets"])
def test_no_verb_lets_a_name_act_on_the_terminal(run, tiny, tmp_path, verb):
    name = "esc\x1b[31m\u202e\nerror: fake"
    folder = tmp_path / name
    for seed in range(4):
        save(folder / "train" / "good" / f"{seed}.png", seed)
        save(folder / "test" / "good" / f"{seed}.png", 4 + seed)
        save(folder / "test" / f"k\x1b{name}" / f"{seed}{name}.png", 8 + seed)
    (folder / "test" / "good" / f"broken{name}.png").write_bytes(b"")
    commands = {
        "data": [["data", "check", folder, "--deep"], ["data", "check", "a", folder]],
        "calibrate": [["calibrate", folder / "test" / "good", *tiny]],
        "evaluate": [["evaluate", "--data", folder, *tiny[:2], "-m", "winclip"]],
        "train": [["train", "anomalyclip", "--data", folder], ["train", name, "--data", "x"]],
        "import": [["import", "anomalyclip", folder / f"{name}.pth"]],
        "datasets": [["datasets", name]],
    }
    for command in commands[verb]:
        _, out, err = run(*command)
        assert re.search(r"esc\\(u00|x)1b\[31m", out + err), command
        assert not ACTING.search(out + err)
        assert not any(line.startswith("error: fake") for line in (out + err).splitlines())


def test_only_one_function_prints():
    folder = Path(cli.__file__).parent
    printing = {
        path.name
        for path in folder.glob("*.py")
        if re.search(r"typer\.echo|secho|(?<![\w.])print\(", path.read_text("utf-8"))
    }
    assert printing == {"telling.py"}


# --- folders and files that cannot be used -----------------------------------------------------


@pytest.fixture
def closed(monkeypatch):
    close_folders(monkeypatch)


def close_folders(monkeypatch):
    """Folders called "closed" cannot be opened, whoever runs the tests."""
    listed = os.listdir

    def listdir(path="."):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", listdir)


@pytest.mark.parametrize("first", [True, False])
def test_what_cannot_be_opened_costs_itself_alone(run, tiny, tmp_path, closed, first):
    for seed, name in enumerate(["a/1.png", "b/2.png", "closed/3.png", "z/4.png"]):
        save(tmp_path / "parts" / name, seed)
    (tmp_path / "parts" / "b" / "torn.png").write_bytes(b"\x89PNG")
    (tmp_path / "empty").mkdir()
    bad = ["missing", "missing.png", "empty"]
    named = [*bad, "parts"] if first else ["parts", *bad]
    for start in range(2):
        code, out, err = run("inspect", *named, *tiny, "-o", "run", "--maps")
        assert (code, err) == (3, "")
        assert "8 images: " in out and "5 failed" in out
        assert ("(3 done before)" in out) == bool(start)
        reasons = {r["image"]: r["reason"] for r in rows_of(Path("run/results.csv"))}
        assert {name: why for name, why in reasons.items() if why} == {
            "missing": "there is no such file",
            "missing.png": "there is no such file",
            "empty": "the folder holds no pictures",
            os.path.join("parts", "closed"): "the folder cannot be read (Permission denied)",  # noqa: PTH118
            os.path.join("parts", "b", "torn.png"): reasons[str(Path("parts/b/torn.png"))],  # noqa: PTH118
        }


def test_a_folder_that_opens_later_joins_the_run(run, tiny, tmp_path, monkeypatch):
    save(tmp_path / "parts" / "lot" / "1.png", 1)
    save(tmp_path / "parts" / "closed" / "2.png", 2)
    with monkeypatch.context() as patch:
        close_folders(patch)
        assert run("inspect", "parts", *tiny, "-o", "run", "--maps")[0] == 3
    code, out, _ = run("inspect", "parts", *tiny, "-o", "run", "--maps")
    assert code == 0 and "2 images" in out and "(1 done before)" in out
    (tmp_path / "more").mkdir()
    save(tmp_path / "more" / "3.png", 3)
    code, out, _ = run("inspect", "parts", "more", *tiny, "-o", "run", "--maps")
    assert code == 0 and "3 images" in out and "(2 done before)" in out
    assert len({r["map"] for r in records_of(Path("run")) if r["status"] == "ok"}) == 3


def test_calibrate_evaluate_and_data_check_go_on_without_a_closed_folder(
    run, tiny, tmp_path, closed
):
    for seed in range(6):
        save(tmp_path / "set" / "test" / "good" / f"{seed}.png", seed)
        save(tmp_path / "set" / "test" / "hole" / f"{seed}.png", 10 + seed)
    save(tmp_path / "set" / "test" / "good" / "closed" / "6.png", 6)
    (tmp_path / "empty").mkdir()
    good = tmp_path / "set" / "test" / "good"
    code, _, err = run("calibrate", good, "missing", "empty", *tiny)
    assert code == 3 and len(Policy.load("policy.json").scores) == 6
    left_out = [line for line in err.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 3 and "closed: the folder cannot be read" in left_out[0]
    code, out, err = run("data", "check", "set")
    assert code == 3 and "the folder cannot be read" in out and "pictures:  12, 0 with" in out
    code, out, err = run("evaluate", "--data", "set", *tiny[:2], "-m", "winclip", "--json")
    assert "closed: the folder cannot be read" in err
    assert code == 0 and json.loads(out)


# --- notes, sizes ------------------------------------------------------------------------------


def test_notes_stand_in_table_summary_and_report(run, tiny, tmp_path):
    frames = [Image.fromarray(picture(seed, 40, 48)) for seed in range(3)]
    (tmp_path / "parts").mkdir()
    for name in ("a.tif", "b.tif"):
        frames[0].save(tmp_path / "parts" / name, save_all=True, append_images=frames[1:])
    save(tmp_path / "parts" / "c.png")
    code, out, _ = run("inspect", "parts", *tiny, "-o", "run")
    assert code == 0 and "note on 2 files: first of 3 frames" in out
    notes = {Path(r["image"]).name: r["notes"] for r in rows_of(Path("run/results.csv"))}
    assert notes == {"a.tif": "first of 3 frames", "b.tif": "first of 3 frames", "c.png": ""}
    page = Path("run/report.html").read_text("utf-8")
    assert '<td>first of 3 frames</td><td class="number">2</td>' in page


SIZES = ((1, 1), (1, 3000), (3000, 1), (2, 2), (5, 700), (15, 15), (300, 20))


def test_pictures_of_odd_sizes(run, tiny, tmp_path):
    for seed, (width, height) in enumerate(SIZES):
        save(tmp_path / "parts" / f"{width}x{height}.png", seed, height, width)
    code, out, err = run("inspect", "parts", *tiny, "-o", "run", "--maps", "--threshold", "0.01")
    assert (code, err) == (0, "") and "7 images:" in out
    for record in records_of(Path("run")):
        width, height = map(int, Path(record["image"]).stem.split("x"))
        assert (record["width"], record["height"]) == (width, height)
        assert np.isfinite(record["score"])
        values = tifffile.imread(Path("run") / record["map"])
        assert values.reshape(height, width).shape == (height, width)
        assert all((Path("run") / asset).is_file() for asset in record["assets"].values())
        for region in record["regions"]:
            x, y, across, down = region["box"]
            assert 0 <= x < x + across <= width and 0 <= y < y + down <= height
    assert len(rows_of(Path("run/results.csv"))) == 7
    assert len(json.loads(Path("run/coco.json").read_text())["images"]) == 7


# --- SIGTERM -----------------------------------------------------------------------------------


def ended_by_sigterm(arguments, kept, environment):
    """Start a command, end it once there are some files in ``kept``; gives what stderr said."""
    command = subprocess.Popen(
        [sys.executable, "-m", "zerodefect", *map(str, arguments)],
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    until = time.monotonic() + 300
    while sum(path.is_file() for path in kept.rglob("*")) < 4:
        assert time.monotonic() < until and command.poll() is None
        time.sleep(0.01)
    command.send_signal(signal.SIGTERM)
    _, err = command.communicate(timeout=300)
    assert command.returncode == 143 and b"go on when started again" in err
    return err


@pytest.fixture
def labelled(tmp_path):
    for seed in range(60):
        save(tmp_path / "set" / "test" / "good" / f"{seed}.png", seed)
        save(tmp_path / "set" / "test" / "hole" / f"{seed}.png", 100 + seed)
        mask = tmp_path / "set" / "ground_truth" / "hole" / f"{seed}_mask.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.pad(np.full((10, 12), 255, np.uint8), 15)[:40, :48]).resize(
            (48, 40), Image.Resampling.NEAREST
        ).save(mask)
    return tmp_path / "set"


def training(labelled, tiny, epochs):
    train = ["train", "anomalyclip", "--data", labelled, *tiny[:2], "-o", "run"]
    return [*train, "--epochs", epochs, "--batch-size", 8, "--save-every", 1, "--device", "cpu"]


@posix
@pytest.mark.killing
@pytest.mark.parametrize("verb", ["evaluate", "train"])
def test_sigterm_ends_evaluate_and_train_and_they_go_on(
    run, tiny, tmp_path, labelled, monkeypatch, verb
):
    cache = {"ZERODEFECT_CACHE": str(tmp_path / "cache")}
    evaluate = ["evaluate", "--data", labelled, *tiny[:2], "-m", "winclip", "--batch-size", 1]
    arguments = evaluate if verb == "evaluate" else training(labelled, tiny, 2)
    kept = tmp_path / ("cache/predictions" if verb == "evaluate" else "run")
    assert b"Traceback" not in ended_by_sigterm(arguments, kept, cache)
    monkeypatch.setenv("ZERODEFECT_CACHE", cache["ZERODEFECT_CACHE"])
    code, out, _ = run(*arguments)
    assert code == 0 and ("checkpoint: " in out if verb == "train" else "written: " in out)


@posix
@pytest.mark.killing
@pytest.mark.slow
def test_sigterm_ends_all_processes_of_a_training(tiny, tmp_path, labelled):
    pytest.importorskip("accelerate")
    arguments = [*training(labelled, tiny, 500), "--processes", 2]
    ended_by_sigterm(arguments, tmp_path / "run", {})
    with FileLock(tmp_path / "run" / ".lock", timeout=10):  # held as long as one of them works
        pass
