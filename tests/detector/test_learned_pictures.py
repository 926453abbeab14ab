"""Which pictures learned values come from."""

from __future__ import annotations

import hashlib

import torch
from models import tiny_backbone
from toy_method import Toy, registered

from zerodefect.detector.checkpoint_file import load_checkpoint, save_checkpoint
from zerodefect.detector.learned_pictures import known_among, picture_names


def test_names_are_contents(tmp_path):
    contents = [b"one", b"two", b"one"]
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    names = picture_names(files)
    expected = sorted(
        int.from_bytes(hashlib.sha256(text).digest()[:8], "big", signed=True)
        for text in (b"one", b"two")
    )
    assert names.tolist() == expected
    other = tmp_path / "elsewhere.png"
    other.write_bytes(b"two")
    new = tmp_path / "new.png"
    new.write_bytes(b"three")
    assert known_among([new, other, tmp_path / "gone.png"], names) == [other]
    assert known_among(files, picture_names([])) == []


def test_they_travel_in_the_checkpoint_and_are_no_learned_values(tmp_path):
    with registered():
        saved = {}
        for name, learned_from in (
            ("none", None),
            ("few", torch.arange(3)),
            ("many", torch.arange(100_000)),
        ):
            path = tmp_path / f"{name}.safetensors"
            saved[name] = save_checkpoint(Toy.build(tiny_backbone()), path, {}, learned_from)
            loaded = Toy.build(tiny_backbone())
            assert loaded.learned_from is None
            load_checkpoint(loaded, path)
            got = loaded.learned_from
            assert got is None if learned_from is None else torch.equal(got, learned_from)
        sizes = {name: made.path.stat().st_size for name, made in saved.items()}
        assert 800_000 <= sizes["many"] - sizes["none"] < 801_000
        again = save_checkpoint(
            Toy.build(tiny_backbone()), tmp_path / "again.safetensors", {}, torch.arange(3)
        )
        assert again.sha256 == saved["few"].sha256
