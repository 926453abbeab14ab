"""Batches that are gone through again: in memory and on disk they are the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from zerodefect.layers.grid import Grid
from zerodefect.scoring import spool as spool_module
from zerodefect.scoring.spool import Spool


@dataclass(frozen=True)
class Inner:
    values: torch.Tensor
    name: str


@dataclass(frozen=True)
class Outer:
    grid: Grid
    parts: tuple[torch.Tensor, ...]
    inner: Inner
    absent: torch.Tensor | None = None


class Pair(NamedTuple):
    left: torch.Tensor
    right: int


def batch(seed: int):
    draws = torch.Generator().manual_seed(seed)
    whole = torch.randn(2, 6, 4, generator=draws)
    encoded = Outer(
        Grid(2, 3, (16, 24)),
        (whole[:, :3], whole[:, 3:].half(), whole[:, ::2].bfloat16()),
        Inner(whole > 0, "inner"),
    )
    return [(seed, 0), (seed, 1)], {"a": encoded, "b": [torch.arange(seed)]}, Pair(whole, seed)


def same(one, other) -> None:
    (keys, parts, pair), (keys_2, parts_2, pair_2) = one, other
    assert keys == keys_2 and pair.right == pair_2.right
    encoded, encoded_2 = parts["a"], parts_2["a"]
    assert isinstance(encoded_2, Outer) and isinstance(pair_2, Pair)
    assert (encoded.grid, encoded.inner.name) == (encoded_2.grid, encoded_2.inner.name)
    assert encoded_2.absent is None
    tensors = zip(
        (*encoded.parts, encoded.inner.values, parts["b"][0], pair.left),
        (*encoded_2.parts, encoded_2.inner.values, parts_2["b"][0], pair_2.left),
        strict=True,
    )
    for tensor, tensor_2 in tensors:
        assert tensor.dtype == tensor_2.dtype
        assert torch.equal(tensor, tensor_2)


def folders(temporary: Path) -> list[Path]:
    return list(temporary.glob("zerodefect-*"))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_module.tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("budget", [2**30, 0, 400])
def test_what_was_put_in_comes_out_as_often_as_wanted(temporary, budget):
    with Spool(budget) as spool:
        for seed in range(4):
            spool.add(batch(seed))
        assert len(spool) == 4
        for _ in range(2):
            found = list(spool)
            assert len(found) == 4
            for seed, one in enumerate(found):
                same(batch(seed), one)
        same(batch(2), spool[2])
        assert len(folders(temporary)) == (budget < 2**30)


def test_the_budget_is_kept_in_memory_and_the_rest_is_on_disk(temporary):
    kilobyte = torch.zeros(256)
    with Spool(2500) as spool:
        for _ in range(5):
            spool.add((kilobyte,))
        (folder,) = folders(temporary)
        assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("error", [None, KeyError])
def test_nothing_stays_on_disk(temporary, error):
    try:
        with Spool(0) as spool:
            spool.add(batch(0))
            assert folders(temporary)
            if error:
                raise error
    except KeyError:
        pass
    assert not folders(temporary)
    assert len(spool) == 0


def test_views_of_one_tensor_go_to_disk(temporary):
    whole = torch.arange(12.0).view(3, 4)
    with Spool(0) as spool:
        spool.add((whole, whole, whole[1:], whole.T))
        for found, expected in zip(spool[0], (whole, whole, whole[1:], whole.T), strict=True):
            assert torch.equal(found, expected)


def test_a_batch_without_tensors_needs_no_disk(temporary):
    with Spool(0) as spool:
        spool.add(([(0, 0)], None))
        assert spool[0] == ([(0, 0)], None)
        assert not folders(temporary)


def test_tensors_come_back_to_the_device_they_were_on(temporary, monkeypatch):
    """Told by the place that is kept, since most machines have one device."""
    with Spool(0) as spool:
        spool.add((torch.zeros(2),))
        (place,) = spool._items[0]
        assert place.device == torch.device("cpu")
        spool._items[0] = (spool_module._Place(0, torch.device("meta")),)
        assert spool[0][0].device.type == "meta"
