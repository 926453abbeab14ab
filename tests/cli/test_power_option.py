"""``calibrate --power``: drawn damage, looked for within the time that was stated."""

import json
from pathlib import Path

import pytest
from models import picture, write_tiny_weights

from zerodefect.cli.drawn_damage import power_seconds
from zerodefect.images import encode_png


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("2.5", 2.5), ("2m", 120), ("off", None), (" 90 S", 90)]
)
def test_times(text, seconds):
    assert power_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "fast", "-3s", "0s", "1h", "60ss"])
def test_what_is_no_time_is_said(text):
    with pytest.raises(ValueError, match="Write 60s, 2m, or off"):
        power_seconds(text)


@pytest.mark.slow
def test_calibrate_tells_which_damage_it_would_find(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiny_weights(tmp_path)
    for seed in range(4):
        (tmp_path / "good").mkdir(exist_ok=True)
        (tmp_path / "good" / f"{seed}.png").write_bytes(encode_png(picture(seed, 40, 48)))
    words = ["calibrate", "good", "--backbone", "tiny.safetensors", "--object", "screw"]
    code, plain, _ = run(*words)
    assert code == 0 and "amage" not in plain
    code, out, err = run(*words, "--power", "1s")
    assert code == 0 and out.startswith(plain) and "drawing damage" in err
    assert "onto 4 good pictures that are no references" in out
    code, out, err = run(*words, "--leave-one-out", "--power", "1s", "--json")
    assert code == 0 and json.loads(out)["form"] == "leave-one-out"
    assert "each left out of the memory" in err
    Path("policy.json").unlink()
    code, _, err = run(*words, "--power", "soon")
    assert code == 1 and "--power 'soon' is no time" in err
    assert not Path("policy.json").exists()  # refused before the work
