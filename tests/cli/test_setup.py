"""``setup``: good parts in, a product file and a page out."""

import json
import re
from pathlib import Path

import pytest
from models import picture, write_tiny_weights

from zerodefect.images import encode_png


@pytest.fixture
def good(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiny_weights(tmp_path)

    def folder(count):
        Path("good").mkdir(exist_ok=True)
        for seed in range(count):
            (Path("good") / f"{seed:02d}.png").write_bytes(encode_png(picture(seed, 40, 48)))

    return folder


DRAWN = re.compile("Damage was drawn|the time allowed")
WORDS = ("setup", "good", "--object", "Metal plate #3", "--backbone", "tiny.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(("count", "split"), [(4, "each left out"), (24, "from 16 others")])
def test_the_product_inspects_what_it_was_set_up_for(run, good, count, split):
    good(count)
    code, out, err = run(*WORDS, "--power", "1s")
    assert code == 0, err
    assert split in out and DRAWN.search(out)
    assert "next:    zerodefect inspect parts/ --product metal-plate-3.zd" in out
    assert "Metal plate #3" in Path("metal-plate-3.html").read_text("utf-8")
    code, out, err = run("inspect", "good", "--product", "metal-plate-3.zd", "--json")
    assert code in (0, 2), err
    assert len(out.splitlines()) == count
    assert all(json.loads(line)["calibrated"] for line in out.splitlines())
    code, out, _ = run("show", "metal-plate-3.zd")
    assert code == 0 and "Metal plate #3" in out and DRAWN.search(out)


def test_what_cannot_be_done_is_said_before_the_work(run, good):
    good(2)
    Path("metal-plate-3.zd").write_bytes(b"precious")
    code, _, err = run(*WORDS)
    assert code == 1 and "--overwrite" in err
    assert Path("metal-plate-3.zd").read_bytes() == b"precious"
    code, _, err = run(*WORDS, "--output", "plate.json")
    assert code == 1 and "plate.zd" in err
    Path("other.html").write_text("precious")
    code, _, err = run(*WORDS, "--output", "other.zd")
    assert code == 1 and "other.html" in err and Path("other.html").read_text() == "precious"
    Path("good/01.png").unlink()
    code, _, err = run(*WORDS, "--output", "one.zd")
    assert code == 1 and "two good parts or more" in err
    code, _, err = run("setup", "nowhere", "--object", "plate")
    assert code == 1 and "nowhere" in err


def test_a_broken_file_costs_nobody_else_anything(run, good):
    good(4)
    Path("good/broken.png").write_bytes(b"\x89PNG")
    code, out, err = run(*WORDS, "--power", "off", "--output", "p.zd")
    assert code == 3 and "broken.png" in err
    assert "references: 4 good pictures" in out
    assert Path("p.zd").exists() and Path("p.html").exists()
