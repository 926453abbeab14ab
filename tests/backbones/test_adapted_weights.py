"""Adapted weights as what differs from the package's: the same file comes out again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from zerodefect.backbones import adapted_weights
from zerodefect.backbones.adapted_weights import base_of, difference, restore
from zerodefect.backbones.weight_files import WeightsError, file_hash

STATE = {
    "a": torch.randn(40, 50),
    "b": torch.randn(7).half(),
    "scale": torch.tensor(2.5),
    "whole": torch.arange(5),
    "none": torch.empty(0, 3),
}


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "base.safetensors"
    save_file(STATE, path, {"format": "pt"})
    monkeypatch.setattr(adapted_weights, "embedded_file", lambda: path)
    return path


def adapted(folder: Path, base: Path, *names: str, **more: str) -> Path:
    path = folder / "own.safetensors"
    changed = {name: STATE[name] + 1 for name in names}
    save_file({**STATE, **changed}, path, {"base": file_hash(base), "steps": "3", **more})
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(names=st.sets(st.sampled_from(sorted(STATE))))
def test_the_file_comes_out_again_to_the_last_byte(
    base: Path, tmp_path: Path, names: set[str]
) -> None:
    own = adapted(tmp_path, base, *names, word="ä", more="x" * 50)
    (tmp_path / "changed").write_bytes(difference(own) or b"")
    assert load_file(tmp_path / "changed").keys() == names - {"none"}
    restore(tmp_path / "changed", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == own.read_bytes()


def test_what_was_not_adapted_from_the_package_has_no_difference(
    base: Path, tmp_path: Path
) -> None:
    assert difference(base) is None
    other = tmp_path / "other.safetensors"
    save_file(STATE, other, {"base": "0" * 64})
    assert difference(other) is None
    assert (base_of(base), base_of(other)) == (file_hash(base), "0" * 64)


def test_another_model_in_the_package_is_told_with_the_ways_out(base: Path, tmp_path: Path) -> None:
    (tmp_path / "changed").write_bytes(difference(adapted(tmp_path, base, "a")) or b"")
    before = file_hash(base)[:16]
    save_file({**STATE, "b": STATE["b"] + 2}, base, {"format": "pt"})
    with pytest.raises(WeightsError) as told:
        restore(tmp_path / "changed", tmp_path / "again")
    for part in (before, file_hash(base)[:16], "--backbone FILE", "pretrain --good", "--renew"):
        assert part in str(told.value)
    assert not (tmp_path / "again").exists()


def test_damage_is_told_and_nothing_is_written(base: Path, tmp_path: Path) -> None:
    whole = difference(adapted(tmp_path, base, "a"))
    assert whole is not None
    turned = whole[:-1] + bytes([whole[-1] ^ 1])
    for damaged in (turned, whole[:-1], whole[: len(whole) // 2], whole[:4], b"", b"no weights"):
        (tmp_path / "changed").write_bytes(damaged)
        with pytest.raises(WeightsError, match="damaged"):
            restore(tmp_path / "changed", tmp_path / "again")
        assert not (tmp_path / "again").exists()


def test_a_difference_without_its_head_is_damaged(base: Path, tmp_path: Path) -> None:
    for facts in ({}, {"head": "{}"}, {"head": "no JSON", "sha256": ""}, {"head": '{"a": 3}'}):
        save_file({"a": STATE["a"]}, tmp_path / "changed", {"base": file_hash(base), **facts})
        with pytest.raises(WeightsError, match="damaged"):
            restore(tmp_path / "changed", tmp_path / "again")
