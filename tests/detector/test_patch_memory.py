"""The memory of references: in parts or at once, within its budget, and without one of them."""

from __future__ import annotations

import pytest
import torch
from small_detectors import remembered, small_cnn

from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.patch_memory import PatchMemory
from zerodefect.methods import create

EMPTY = Knowledge({})


def features(images: int, seed: int = 0, width: int = 6) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "patches": torch.randn(images, 9, width, generator=generator),
        "windows": torch.randn(images, 4, width, generator=generator),
    }


def part(whole: dict[str, torch.Tensor], rows: slice) -> dict[str, torch.Tensor]:
    return {name: values[rows] for name, values in whole.items()}


def test_in_parts_is_the_same_as_at_once():
    memory, whole = PatchMemory(), features(5)
    at_once = memory.remember(EMPTY, [whole])
    batches = memory.remember(EMPTY, [part(whole, slice(3)), part(whole, slice(3, 5))])
    first = memory.remember(EMPTY, [part(whole, slice(2))])
    calls = memory.remember(first, [part(whole, slice(2, 5))])
    assert (at_once.shots, batches.shots, calls.shots) == (5, 5, 5)
    assert (first.shots, EMPTY.shots, EMPTY.tensors) == (2, 0, {})  # as they were
    for other in (batches, calls):
        assert other.tensors.keys() == at_once.tensors.keys()
        assert all(torch.equal(other[name], at_once[name]) for name in at_once.tensors)
    expected = torch.arange(5).repeat_interleave(9)
    assert torch.equal(memory.bank(calls, "patches").groups, expected)


def test_each_name_is_a_bank_of_its_own():
    memory, whole = PatchMemory("euclidean"), features(2)
    known = memory.remember(EMPTY, [whole])
    for name, values in whole.items():
        assert torch.equal(memory.bank(known, name).features, values.flatten(0, 1))
        assert memory.distance(known, name, values).shape == values.shape[:2]
        assert memory.distance(known, name, values).max() < 1e-5
    assert memory.distance(known, "windows", whole["patches"]).min() > 1e-3


def test_a_picture_left_out_is_as_if_it_had_never_been_there():
    memory, whole = PatchMemory(), features(4)
    pictures = [torch.tensor([0, 1, 0, 2])]  # two tiles of the first
    known = memory.remember(EMPTY, [whole], pictures)
    assert known.shots == 3
    assert memory.leaves_out(known)
    others = memory.remember(EMPTY, [{name: v[[1, 3]] for name, v in whole.items()}])
    asked = features(2, seed=1)["patches"]
    got = memory.distance(known, "patches", asked, torch.tensor([0, 0]))
    torch.testing.assert_close(got, memory.distance(others, "patches", asked))
    mixed = memory.distance(known, "patches", asked, torch.tensor([0, 1]))
    torch.testing.assert_close(mixed[0], got[0])
    assert not torch.allclose(mixed[1], got[1])


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_beyond_the_budget_a_coreset_is_kept(batch):
    whole = features(40)
    size = PatchMemory().bytes_of(whole)
    memory = PatchMemory(budget=size // 3)
    parts = [part(whole, slice(first, first + batch)) for first in range(0, 40, batch)]
    known = memory.remember(EMPTY, parts)
    banks = [memory.bank(known, name) for name in whole]
    kept = sum(bank.features.nbytes for bank in banks)
    assert 0.8 * memory.budget <= kept <= memory.budget
    assert known.shots == 40
    assert not memory.leaves_out(known)
    everything = PatchMemory().remember(EMPTY, [whole])
    for name, bank in zip(whole, banks, strict=True):
        every = memory.bank(everything, name)
        rows = {(*f, int(g)) for f, g in zip(every.features.tolist(), every.groups, strict=True)}
        own = {(*f, int(g)) for f, g in zip(bank.features.tolist(), bank.groups, strict=True)}
        assert own < rows  # as they came, each with its picture
        assert len(own) == len(bank.features)  # none twice
    with pytest.raises(RuntimeError, match="cannot leave a picture out"):
        memory.distance(known, "patches", whole["patches"][:1], torch.tensor([0]))
    more = memory.remember(known, [features(1, seed=2)])
    assert not memory.leaves_out(more)


def test_within_the_budget_nothing_is_lost():
    whole = features(5)
    memory = PatchMemory(budget=PatchMemory().bytes_of(whole))
    known = memory.remember(EMPTY, [whole])
    assert memory.leaves_out(known)
    assert memory.settle(known) is known
    assert len(memory.bank(known, "patches").features) == 45


def test_what_a_memory_refuses():
    memory, whole = PatchMemory(), features(2)
    known = memory.remember(EMPTY, [whole])
    with pytest.raises(ValueError, match="not finite"):
        memory.remember(known, [{**whole, "patches": whole["patches"] * float("nan")}])
    with pytest.raises(ValueError, match=r"'patches' of widths \[6, 7\]"):
        memory.remember(known, [features(1, width=7)])
    with pytest.raises(RuntimeError, match="at least two"):
        one = memory.remember(EMPTY, [features(1)])
        memory.distance(one, "patches", whole["patches"][:1], torch.tensor([0]))


def test_a_stream_is_thinned_as_it_comes(monkeypatch):
    """Never much more than the budget is held, whatever comes."""
    memory = PatchMemory(budget=6 * PatchMemory().bytes_of(features(1)))
    held_at_once = []
    thin = PatchMemory._thin

    def watched(self, held):
        held_at_once.append(sum(f.nbytes for parts in held.values() for f, _ in parts))
        return thin(self, held)

    monkeypatch.setattr(PatchMemory, "_thin", watched)
    given = []

    def stream():
        for seed in range(30):
            given.append(seed)
            yield features(2, seed)

    known = memory.remember(EMPTY, stream())
    assert known.shots == 60 and given == list(range(30))
    assert len(held_at_once) > 5
    assert max(held_at_once) <= 1.5 * memory.budget + memory.bytes_of(features(2))
    numbers = memory.bank(known, "patches").groups
    assert len(numbers.unique()) > 20  # early and late ones alike
    assert numbers.min() < 15 and numbers.max() >= 45


def test_pictures_have_the_numbers_that_they_are_given():
    memory, whole = PatchMemory(), features(3)
    first = memory.remember(EMPTY, [whole], [torch.tensor([4, 4, 1])])
    assert first.shots == 5
    groups = memory.bank(first, "windows").groups
    assert torch.equal(groups, torch.tensor([4, 4, 1]).repeat_interleave(4))
    second = memory.remember(first, [features(2, seed=1)])
    assert second.shots == 7
    assert memory.bank(second, "windows").groups[12:].unique().tolist() == [5, 6]
    # what was there before is known by its number, too
    again = memory.remember(second, [features(1, seed=2)], [torch.tensor([1])])
    assert again.shots == 7
    assert int((memory.bank(again, "windows").groups == 1).sum()) == 8


def test_of_a_thinned_memory_every_bank_keeps_its_share():
    whole = features(40)
    memory = PatchMemory(budget=PatchMemory().bytes_of(whole) // 4)
    known = memory.remember(EMPTY, [whole])
    kept = {name: len(memory.bank(known, name).features) for name in whole}
    assert kept == {"patches": 90, "windows": 40}
    tiny = PatchMemory(budget=1).remember(EMPTY, [whole])
    assert all(len(memory.bank(tiny, name).features) == 1 for name in whole)


def stripes(count: int, across: bool, seed: int) -> torch.Tensor:
    """Products of two kinds: stripes along or across, each piece with noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    wave = torch.sin(torch.arange(64) * 0.8)
    picture = wave.expand(64, 64) if across else wave[:, None].expand(64, 64)
    return picture.expand(count, 3, 64, 64) + 0.1 * torch.randn(
        count, 3, 64, 64, generator=generator
    )


@pytest.mark.parametrize("name", ["patchcore", "pyramid", "spade"])
def test_one_memory_serves_several_products(name):
    """Pieces of both products are as normal as they are to a memory of their own product."""
    detector = create(name, small_cnn()).eval()
    detector.resize_inputs((64, 64))
    both = [stripes(3, across, 1) for across in (False, True)]
    joint = remembered(detector, detector.empty(), *both)
    for own, other in (both, both[::-1]):
        across = own is both[1]
        good, broken = stripes(2, across, 5), stripes(2, across, 5)
        broken[..., 20:36, 20:36] = 3.0
        alone = remembered(detector, detector.empty(), other)
        assert detector(good, joint).score.max() < detector(broken, joint).score.min()
        assert detector(good, alone).score.min() > detector(good, joint).score.max()
