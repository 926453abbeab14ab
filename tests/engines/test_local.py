import errno
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from closeness import close
from run_files import EVERYTHING, lines_of, parts_in, save, table

from zerodefect import Inspector, Vocabulary
from zerodefect import files as files_module
from zerodefect.engines import local, run_report
from zerodefect.engines.local import inspect_files
from zerodefect.files import StoreError
from zerodefect.images import find_images
from zerodefect.inspection.calibration import calibrate
from zerodefect.inspection.policy import PolicyMismatch
from zerodefect.reports import result_files
from zerodefect.reports import run_folder as store_module
from zerodefect.reports.run_folder import RunMismatch
from zerodefect.types import Prediction

NOTHING = {"maps": False, "report": False}


# --- what a run leaves -------------------------------------------------------------------------


def test_the_run_folder(inspector, tmp_path):
    parts = parts_in(tmp_path / "parts", 6)
    (tmp_path / "parts" / "part6.png").write_bytes(b"\x89PNG broken")
    parts = find_images([tmp_path / "parts"])
    folder = tmp_path / "run"
    seen = []
    summary = inspect_files(
        inspector, parts, folder, **EVERYTHING, batch_size=4, on_record=seen.append
    )
    direct = {str(path): inspector.inspect(path) for path in parts[:6]}

    assert [r["image"] for r in seen] == [str(p) for p in parts] == [*direct, str(parts[6])]
    assert (summary.images, summary.inspected, summary.failed) == (7, 7, 1)
    assert summary.calibrated and summary.folder == folder
    counted = [o.verdict for o in direct.values()]
    assert summary.verdicts == {**{v: counted.count(v) for v in counted}, "failed": 1}

    manifest = json.loads((folder / "run.json").read_text())
    assert manifest["object"] == "screw" and manifest["policy"]["form"] == "split"
    assert manifest["detector"]["fingerprint"] == inspector.fingerprint()

    records = lines_of(folder)
    assert [r["image"] for r in records] == [str(p) for p in parts]
    for record in records[:6]:
        outcome = direct[record["image"]]
        assert record["score"] == pytest.approx(outcome.score, abs=1e-5)
        assert (record["verdict"], record["count"]) == (outcome.verdict, outcome.count)
        assert record["p_value"] == outcome.p_value
        values = tifffile.imread(folder / record["map"])
        assert values.dtype == np.float32 and values.shape == (48, 64)
        np.testing.assert_allclose(values, outcome.map, atol=1e-5)
        for asset in record["assets"].values():
            assert (folder / asset).is_file()
    assert records[6]["status"] == "failed" and records[6]["reason"] and records[6]["remedy"]

    rows = table(folder / "results.csv")
    assert [row["image"] for row in rows] == [str(p) for p in parts]
    assert rows[6]["status"] == "failed"
    regions = sum(o.count for o in direct.values())
    assert regions > 0 and len(table(folder / "regions.csv")) == regions
    coco = json.loads((folder / "coco.json").read_text())
    assert len(coco["images"]) == 6 and len(coco["annotations"]) == regions
    kinds = list(Vocabulary.default().names)
    assert [c["name"] for c in coco["categories"]][: len(kinds)] == kinds
    assert coco["info"]["calibrated"] and coco["info"]["failed_images"] == 1

    assert summary.report == folder / "report.html"
    page = summary.report.read_text("utf-8")
    assert "part3.png" in page and "part6.png" in page


def test_only_what_is_asked_for_is_written(inspector, tmp_path):
    parts = parts_in(tmp_path / "parts", 2)
    summary = inspect_files(inspector, parts, tmp_path / "run", **NOTHING)
    assert summary.report is None
    assert {p.name for p in (tmp_path / "run").iterdir()} - {".lock"} == {
        "run.json",
        "results.jsonl",
        "results.csv",
        "regions.csv",
        "coco.json",
    }


def test_an_uncalibrated_run_says_so_everywhere(prepared, tmp_path):
    inspector = Inspector(prepared[0])
    inspector.describe("screw")
    folder = tmp_path / "run"
    summary = inspect_files(inspector, parts_in(tmp_path / "parts", 2), folder)
    assert not summary.calibrated
    assert [r["calibrated"] for r in lines_of(folder)] == [False, False]
    assert [row["calibrated"] for row in table(folder / "results.csv")] == ["false", "false"]
    assert "not calibrated" in json.loads((folder / "coco.json").read_text())["info"]["description"]
    assert "calibrat" in (folder / "report.html").read_text("utf-8").lower()
    assert json.loads((folder / "run.json").read_text())["policy"]["form"] == "none"


def test_a_method_without_maps_that_answers_in_words(inspector, tmp_path, monkeypatch):
    identity = {name: getattr(inspector.policy, name) for name in ("method", "fingerprint")}
    inspector.policy = calibrate([0.1, 0.2, 0.3], **identity, object="screw")

    def predict(encoded, knowledge):
        count = len(encoded.image)
        return Prediction(torch.full((count,), 0.9), None, None, ("Yes, it is bent.",) * count)

    monkeypatch.setattr(inspector.detector, "predict", predict)
    parts = parts_in(tmp_path / "parts", 2)
    run = tmp_path / "run"
    summary = inspect_files(inspector, parts, run, **EVERYTHING)
    assert summary.verdicts == {"defect": 2} and not (run / "maps").exists()
    for record in lines_of(run):
        assert record["answer"] == "Yes, it is bent." and record["map"] is None
        assert sorted(record["assets"]) == ["image", "thumb"]
    assert [row["answer"] for row in table(run / "results.csv")] == ["Yes, it is bent."] * 2
    assert json.loads((run / "coco.json").read_text())["annotations"] == []
    assert "Yes, it is bent." in summary.report.read_text("utf-8")
    assert inspect_files(inspector, parts, run, **EVERYTHING).inspected == 0


def test_a_policy_of_another_detector_writes_nothing(inspector, tmp_path):
    inspector.describe("bolt")
    with pytest.raises(PolicyMismatch):
        inspect_files(inspector, parts_in(tmp_path / "parts", 1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("batch_size", [1, 5])
def test_any_batch_size_gives_the_same_records(inspector, tmp_path, batch_size):
    parts = parts_in(tmp_path / "parts", 6)
    for name, size in (("one", batch_size), ("other", 3)):
        inspect_files(inspector, parts, tmp_path / name, **NOTHING, batch_size=size)
    assert close(lines_of(tmp_path / "one"), lines_of(tmp_path / "other"))


def test_names_of_all_kinds(inspector, tmp_path):
    names = [
        "a b.png",
        "Größe ü.png",
        "螺丝/🔩.png",
        "#1 50%.png",
        "<b>&'.png",
        "=cmd.png",
        "-x.png",
        "x" * 200 + ".png",
    ]
    parts = [save(tmp_path / "parts" / name, seed) for seed, name in enumerate(names)]
    summary = inspect_files(inspector, parts, tmp_path / "run", **EVERYTHING)
    assert summary.failed == 0 and summary.report.is_file()
    records = lines_of(tmp_path / "run")
    assert [r["image"] for r in records] == [str(p) for p in parts]
    assert len({r["map"] for r in records}) == len(names)
    assert all((tmp_path / "run" / r["map"]).is_file() for r in records)
    assert inspect_files(inspector, parts, tmp_path / "run", **EVERYTHING).inspected == 0


@pytest.mark.skipif(os.name != "posix", reason="names that are no valid text")
def test_a_name_that_is_no_valid_text(inspector, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    try:
        save(path)
    except OSError:
        pytest.skip("this file system refuses such names")
    summary = inspect_files(inspector, [path], tmp_path / "run", **EVERYTHING)
    assert summary.failed == 0
    assert lines_of(tmp_path / "run")[0]["image"] == str(path)


def test_files_of_one_stem_keep_their_own_maps_and_pictures(inspector, tmp_path):
    parts = [
        save(tmp_path / name, seed)
        for seed, name in enumerate(["a/1.png", "a/1.jpg", "b/1.png", "a/1.png.png"])
    ]
    inspect_files(inspector, parts, tmp_path / "run", **EVERYTHING)
    records = lines_of(tmp_path / "run")
    assert len({r["map"] for r in records}) == 4
    assert len({asset for r in records for asset in r["assets"].values()}) == sum(
        len(r["assets"]) for r in records
    )
    for path, record in zip(parts, records, strict=True):
        values = tifffile.imread(tmp_path / "run" / record["map"])
        np.testing.assert_allclose(values, inspector.inspect(path).map, atol=1e-5)


# --- resuming ----------------------------------------------------------------------------------


def test_a_finished_run_needs_no_network_pass(inspector, tmp_path, forwarded):
    parts = parts_in(tmp_path / "parts", 5)
    inspect_files(inspector, parts, tmp_path / "run")
    assert forwarded() == 5
    before = lines_of(tmp_path / "run")
    seen = []
    summary = inspect_files(inspector, parts, tmp_path / "run", on_record=seen.append)
    assert forwarded() == 5
    assert (summary.images, summary.inspected) == (5, 0)
    assert sum(summary.verdicts.values()) == 5
    assert lines_of(tmp_path / "run") == before
    assert [r["image"] for r in seen] == [str(p) for p in parts]


def test_an_interrupted_run_goes_on(inspector, tmp_path, forwarded):
    parts = parts_in(tmp_path / "parts", 9)

    def interrupt(record):
        if record["image"].endswith("part3.png"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_files(inspector, parts, tmp_path / "run", batch_size=2, on_record=interrupt)
    before = forwarded()
    summary = inspect_files(inspector, parts, tmp_path / "run", batch_size=2)
    assert summary.inspected == 5 == forwarded() - before
    assert [r["image"] for r in lines_of(tmp_path / "run")] == [str(p) for p in parts]


def test_a_changed_file_is_inspected_again(inspector, tmp_path, forwarded):
    parts = parts_in(tmp_path / "parts", 3)
    inspect_files(inspector, parts, tmp_path / "run", **EVERYTHING)
    old = lines_of(tmp_path / "run")
    save(parts[1], 40, 60, 60)
    os.utime(parts[1], ns=(1, 1))
    summary = inspect_files(inspector, parts, tmp_path / "run", **EVERYTHING)
    assert summary.inspected == 1 and forwarded() == 4
    new = lines_of(tmp_path / "run")
    assert [r["image"] for r in new] == [str(parts[i]) for i in (0, 2, 1)] or [
        r["image"] for r in new
    ] == [str(p) for p in parts]
    changed = next(r for r in new if r["image"] == str(parts[1]))
    assert changed["width"] == 60 and changed["score"] != old[1]["score"]
    assert tifffile.imread(tmp_path / "run" / changed["map"]).shape == (60, 60)
    assert len(table(tmp_path / "run" / "results.csv")) == 3


def test_a_repaired_file_is_inspected_on_the_next_start(inspector, tmp_path, forwarded):
    parts = parts_in(tmp_path / "parts", 2)
    bad = tmp_path / "parts" / "bad.png"
    bad.write_bytes(b"")
    files = [*parts, bad]
    assert inspect_files(inspector, files, tmp_path / "run").failed == 1
    again = inspect_files(inspector, files, tmp_path / "run")
    assert (again.failed, again.inspected) == (1, 1)  # tried again, and failed again
    save(bad, 9)
    repaired = inspect_files(inspector, files, tmp_path / "run")
    assert (repaired.failed, repaired.inspected) == (0, 1) and forwarded() == 3
    records = lines_of(tmp_path / "run")
    assert len(records) == 3 and all(r["status"] == "ok" for r in records)


def test_a_file_that_vanished_since_it_was_listed(inspector, tmp_path):
    parts = parts_in(tmp_path / "parts", 3)
    parts[1].unlink()
    summary = inspect_files(inspector, parts, tmp_path / "run")
    assert summary.failed == 1
    assert lines_of(tmp_path / "run")[1]["status"] == "failed"


def test_a_folder_that_grew_and_shrank(inspector, tmp_path, forwarded):
    parts = parts_in(tmp_path / "parts", 6)
    run = tmp_path / "run"
    inspect_files(inspector, parts[1:4], run, **EVERYTHING)
    grown = inspect_files(inspector, parts, run, **EVERYTHING)
    assert (grown.images, grown.inspected) == (6, 3) and forwarded() == 6
    records = lines_of(run)
    assert len({a for r in records for a in r["assets"].values()}) == sum(
        len(r["assets"]) for r in records
    )
    shrunk = inspect_files(inspector, parts[:2], run, **EVERYTHING)
    assert (shrunk.images, shrunk.inspected) == (2, 0) and sum(shrunk.verdicts.values()) == 2
    assert [row["image"] for row in table(run / "results.csv")] == [
        str(p) for p in (parts[1], parts[0])
    ]
    assert "part5.png" not in (run / "report.html").read_text("utf-8")


def test_other_settings_are_refused_and_overwriting_starts_anew(inspector, prepared, tmp_path):
    parts = parts_in(tmp_path / "parts", 2)
    inspect_files(inspector, parts, tmp_path / "run", **EVERYTHING)
    before = lines_of(tmp_path / "run")
    uncalibrated = Inspector(prepared[0])
    uncalibrated.describe("screw")
    with pytest.raises(RunMismatch, match=r"policy\.form.*--overwrite"):
        inspect_files(uncalibrated, parts, tmp_path / "run", **EVERYTHING)
    assert lines_of(tmp_path / "run") == before
    summary = inspect_files(uncalibrated, parts, tmp_path / "run", **NOTHING, overwrite=True)
    assert summary.inspected == 2
    assert not (tmp_path / "run" / "maps").exists()


def test_a_report_of_an_overwritten_run_does_not_stay(inspector, tmp_path):
    parts = parts_in(tmp_path / "parts", 2)
    inspect_files(inspector, parts, tmp_path / "run", **EVERYTHING)
    inspect_files(inspector, parts, tmp_path / "run", **NOTHING, overwrite=True)
    assert not (tmp_path / "run" / "report.html").exists()


# --- a full disk -------------------------------------------------------------------------------


def full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def after(count, function):
    """``function`` for ``count`` calls; then the disk is full."""
    calls = iter(range(count))
    return lambda *a, **k: full() if next(calls, None) is None else function(*a, **k)


@pytest.mark.parametrize("where", ["records", "maps", "pictures", "tables", "report"])
def test_a_full_disk_is_a_clean_error_and_the_run_goes_on(
    inspector, tmp_path, monkeypatch, forwarded, where
):
    parts = parts_in(tmp_path / "parts", 6)
    run = tmp_path / "run"
    with monkeypatch.context() as disk:
        if where == "records":
            disk.setattr(store_module.os, "write", after(3, os.write))
        elif where == "maps":
            disk.setattr(tifffile, "imwrite", after(3, tifffile.imwrite))
        elif where == "pictures":
            disk.setattr(local, "write_assets", after(3, local.write_assets))
            disk.setattr(files_module.os, "fsync", after(20, os.fsync))
        elif where == "tables":
            disk.setattr(result_files, "_cell", full)
        else:
            disk.setattr(run_report, "write_report", in_atomic_write(full))
        with pytest.raises((StoreError, OSError), match="No space left") as caught:
            inspect_files(inspector, parts, run, **EVERYTHING, batch_size=2)
        if where != "pictures":
            assert isinstance(caught.value, StoreError) and "Free some space" in str(caught.value)
    done = len(lines_of(run))
    assert done == (6 if where in ("tables", "report") else done) and done >= 1
    before = forwarded()
    summary = inspect_files(inspector, parts, run, **EVERYTHING, batch_size=2)
    assert forwarded() - before == 6 - done == summary.inspected
    assert [r["image"] for r in lines_of(run)] == [str(p) for p in parts]
    assert summary.report.is_file() and not list(run.rglob("*.tmp"))


def in_atomic_write(fault):
    def write(folder, *_args, **_parts):
        with files_module.atomic_write(folder / "report.html"):
            fault()

    return write


def test_outlines_and_parquet_on_request(inspector, tmp_path, monkeypatch):
    parts, folder = parts_in(tmp_path / "parts", 4), tmp_path / "run"
    inspect_files(inspector, parts, folder, coco="polygons", **NOTHING)
    found = json.loads((folder / "coco.json").read_text())["annotations"]
    assert any(isinstance(one["segmentation"], list) for one in found)
    (folder / "results.parquet").write_text("of an earlier start")
    inspect_files(inspector, parts, folder, **NOTHING)  # the form of a table is no other run
    found = json.loads((folder / "coco.json").read_text())["annotations"]
    assert all(isinstance(one["segmentation"], dict) for one in found)
    assert not (folder / "results.parquet").exists()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"zerodefect\[parquet\]"):  # before anything is inspected
        inspect_files(inspector, parts, tmp_path / "other", parquet=True, **NOTHING)
    assert not (tmp_path / "other").exists()
