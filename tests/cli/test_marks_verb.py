"""``zerodefect marks``: the search for repeated marks over a finished run of any method."""

import json

import numpy as np
import pytest
from marked_plates import uncalibrated

from zerodefect.engines.local import inspect_files
from zerodefect.images import encode_png


def striped(seed, marked=False):
    """Grey stripes; the mark is the same on every plate that has it, and brighter than they are."""
    draws = np.random.default_rng(seed)
    stripes = 100 + 50 * ((np.indices((256, 256))[1] + draws.integers(32)) // 16 % 2)
    pixels = np.repeat((stripes + draws.normal(0, 30, (256, 256)))[..., None], 3, axis=2)
    if marked:
        checks = np.indices((32, 32)).sum(0) // 8 % 2 * 100 + 120
        pixels[40:72, 40:72] = checks[..., None] * np.array([1.1, 0.3, 0.2])
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def calibrated():
    """The brightest channel is its map; nothing is compared with anything."""
    made = uncalibrated()
    made.calibrate([striped(seed) for seed in range(50, 70)])
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Twelve good plates, and five that have the same mark."""
    folder = tmp_path_factory.mktemp("parts")
    for seed in range(17):
        (folder / f"{seed:02d}.png").write_bytes(encode_png(striped(seed, seed >= 12)))
    return sorted(folder.iterdir())


def test_a_mark_is_found_in_a_run_that_compared_nothing(run, calibrated, files, tmp_path):
    inspect_files(calibrated, files, tmp_path / "run")
    assert not (tmp_path / "run/repeated.json").exists()
    code, out, err = run("marks", tmp_path / "run")
    assert code == 0, err
    assert "The same mark on 5 of 17 pictures" in out and "report:" in out
    (mark,) = json.loads((tmp_path / "run/repeated.json").read_text())
    assert {one["image"] for one in mark["members"]} == set(map(str, files[12:]))
    page = (tmp_path / "run/report.html").read_text("utf-8")
    assert "The same mark again" in page and "The same mark on 5 of 17 pictures" in page
    code, out, _ = run("marks", tmp_path / "run", "--json")
    assert code == 0 and json.loads(out) == [mark]


def test_what_a_run_lacks_is_said(run, calibrated, files, tmp_path):
    for folder in ("moved", "gone"):
        (tmp_path / folder).mkdir()
    moved = [tmp_path / "moved" / file.name for file in files[10:]]
    for one, file in zip(moved, files[10:], strict=True):
        one.write_bytes(file.read_bytes())
    inspect_files(calibrated, moved, tmp_path / "run", report=False)
    moved[0].unlink()
    code, _, err = run("marks", tmp_path / "run")
    assert code == 0 and "1 of its pictures are no longer where the run found them" in err
    assert not (tmp_path / "run/report.html").exists()
    for one in moved[1:]:
        one.unlink()
    inspect_files(uncalibrated(maps=False), files[:3], tmp_path / "flat")
    for folder, reason in (
        ("run", "none of its pictures is where the run found it"),
        ("flat", "its method does not say where something lies"),
        ("gone", "no run lies here"),
    ):
        code, _, err = run("marks", tmp_path / folder)
        assert code == 1 and reason in " ".join(err.split()), err
