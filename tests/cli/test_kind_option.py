"""``--kind``: kinds by examples on the command line, and in the product file."""

import json

import numpy as np
import pytest
from models import picture, write_tiny_weights

from zerodefect.images import encode_png
from zerodefect.inspection.product_file import opened_product


def damaged(seed, kind):
    pixels = picture(seed, 60, 90)
    if kind == "line":
        pixels[28:31, 10:80] = 255
    else:
        pixels[20:40, 30:50] = 255
    mask = np.where((pixels == 255).all(-1), 255, 0).astype(np.uint8)
    return pixels, mask


@pytest.fixture
def product(tmp_path):
    for seed in range(8):
        for name in ("good", "line", "spot", "parts"):
            (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / "good" / f"{seed}.png").write_bytes(encode_png(picture(seed, 60, 90)))
        for place, kind in enumerate(("line", "spot")):
            pixels, mask = damaged(100 * place + 50 + seed, kind)
            (tmp_path / kind / f"{seed}.png").write_bytes(encode_png(pixels))
            (tmp_path / kind / f"{seed}_mask.png").write_bytes(encode_png(mask))
    pixels, _ = damaged(777, "spot")
    (tmp_path / "parts" / "spot.png").write_bytes(encode_png(pixels))
    weights = write_tiny_weights(tmp_path)
    return tmp_path, ["--method", "dense", "--backbone", weights, "--device", "cpu"]


@pytest.mark.slow
def test_kinds_by_examples_travel_in_the_product_file(run, product):
    folder, how = product
    told = [f"--kind=line={folder / 'line'}", f"--kind=spot={folder / 'spot'}"]
    file = folder / "plate.zd"
    code, _, err = run("calibrate", folder / "good", "--object", "plate", "--leave-one-out",
                       *how, *told, "-o", file)  # fmt: skip
    assert code == 0, err
    assert "kinds from examples: line (8), spot (8)" in err
    assert opened_product(file).kinds.counts() == {"line": 8, "spot": 8}
    code, _, err = run("inspect", folder / "parts", "--product", file, "-o", folder / "run")
    assert code == 0, err
    manifest = json.loads((folder / "run" / "run.json").read_text())
    assert manifest["kinds"]["pictures"] == {"line": 8, "spot": 8}
    record = json.loads((folder / "run" / "results.jsonl").read_text())
    assert {region["kind"] for region in record["regions"]} <= {"line", "spot", None}
    assert [one["kind"] for one in record["counts"]] == list(
        dict.fromkeys(region["kind"] for region in record["regions"])
    )
    # a kind alone is added without learning the limits anew
    policy = opened_product(file).policy
    code, _, err = run("calibrate", "--product", file, "--kind", f"dent={folder / 'line'}")
    assert code == 0, err
    assert list(opened_product(file).kinds.counts()) == ["line", "spot", "dent"]
    assert opened_product(file).policy.limits == policy.limits


@pytest.mark.parametrize("entry", ["scratch", "=folder", "scratch="])
def test_an_entry_that_is_no_kind_is_refused(run, product, entry):
    folder, how = product
    code, _, err = run("inspect", folder / "parts", *how, "--object", "plate", "--kind", entry)
    assert code == 1 and "write NAME=FOLDER" in err


def test_a_kind_named_twice_and_an_empty_folder_are_said_in_a_line(run, product):
    folder, how = product
    (folder / "none").mkdir()
    told = [f"--kind=line={folder / 'line'}", f"--kind=line={folder / 'spot'}"]
    code, _, err = run("inspect", folder / "parts", *how, "--object", "plate", *told,
                       "-o", folder / "run")  # fmt: skip
    assert code in (0, 2), err
    assert "--kind line: given 2 times, its examples are taken together" in err
    assert "line (16); one kind alone cannot be told from others" in err
    code, _, err = run("inspect", folder / "parts", *how, "--object", "plate",
                       f"--kind=spot={folder / 'none'}")  # fmt: skip
    assert code == 1 and "Give a folder with pictures of the kind" in err
    assert len(err.strip().splitlines()) <= 2
