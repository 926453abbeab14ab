"""Kinds by examples and by words: what is decided, with which rate, and what is kept."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zerodefect.inspection.region_kinds import KindExamples, KindsError, by_words
from zerodefect.inspection.regions import find_regions, overlaps

sides = st.integers(1, 14)
maps = hnp.arrays(
    np.float32, st.tuples(sides, sides), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
)


def drawn(seed, count, width=40, kinds=3, apart=4.0):
    """Descriptions of as many regions of each kind, around a centre of its own."""
    draws = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, apart, (kinds, width))
    values = np.concatenate([c + draws.normal(0, 1, (count, width)) for c in centres])
    return values.astype(np.float32), np.repeat(np.arange(kinds), count)


def examples(seed=0, count=10, names=("scratch", "dent", "stain"), unknown=0.1, **how):
    values, kinds = drawn(seed, count, kinds=len(names), **how)
    return KindExamples(names, values, kinds, np.arange(len(kinds)), (30, 10), unknown)


def test_regions_are_called_like_the_examples_they_resemble():
    learned = examples(unknown=0.0)
    values, kinds = drawn(1, 50)
    named = learned.decide(values)
    assert [name for name, _ in named] == [learned.names[k] for k in kinds]
    assert all(0.5 < share < 1 for _, share in named)  # thirty right ones are no certainty
    assert 0.9 < np.mean([share for _, share in named]) < 0.995
    assert learned.right == 1.0
    assert learned.counts() == {"scratch": 10, "dent": 10, "stain": 10}


def test_the_nearest_of_two_examples_by_hand():
    # One example of each kind: nothing varies within a kind, so that all directions weigh alike.
    values = np.array([[0.0, 0.0], [2.0, 0.0]], np.float32)
    pair = KindExamples(("a", "b"), values, np.array([0, 1]), np.array([0, 1]), (2,))
    assert [name for name, _ in pair.decide(np.array([[0.9, 0.0], [1.1, 0.0]]))] == ["a", "b"]
    d = pair.distances(np.array([[1.0, 0.0], [0.5, 0.0]]))
    assert d[0, 0] == pytest.approx(d[0, 1])
    assert d[1, 1] / d[1, 0] == pytest.approx(9)


def test_the_rate_of_unknown_ones_holds_and_strangers_are_unknown():
    rates = []
    for seed in range(30):
        learned = examples(seed, unknown=0.1)
        values, _ = drawn(1000 + seed, 30)
        rates.append(np.mean([name is None for name, _ in learned.decide(values)]))
    assert 0.02 < np.mean(rates) < 0.15
    strangers = np.random.default_rng(5).normal(0, 4, (20, 40)) + 30
    assert all(named == (None, None) for named in examples().decide(strangers))


def test_too_few_examples_for_the_rate_call_nothing_unknown_and_say_so():
    few = examples(count=2, unknown=0.1)  # six: the smallest p-value is a seventh
    assert all(name for name, _ in few.decide(drawn(1, 5)[0] + 1000))
    assert "none is called unknown" in few.told()
    assert "about 10% of such regions are called unknown" in examples().told()


def test_examples_of_one_picture_do_not_vouch_for_each_other():
    values, kinds = drawn(0, 8, apart=0.0)  # nothing tells the kinds apart but the pictures
    twins = np.concatenate([values, values + 1e-4])
    both = np.concatenate([kinds, kinds])
    numbers = np.arange(len(values))
    apart = KindExamples(("a", "b", "c"), twins, both, np.arange(len(twins)), (40,))
    together = KindExamples(("a", "b", "c"), twins, both, np.tile(numbers, 2), (40,))
    assert apart.right > 0.8
    assert together.right < 0.6


def test_kept_as_bytes_and_read_again_they_decide_alike():
    learned, values = examples(), drawn(3, 20)[0]
    again = KindExamples.from_bytes(learned.to_bytes())
    assert again.decide(values) == learned.decide(values)
    assert again.told() == learned.told() and again.facts() == learned.facts()


@given(st.integers(0, 4000), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_damaged_bytes_are_refused_or_read(place, value):
    whole = examples().to_bytes()
    damaged = bytearray(whole)
    damaged[place % len(whole)] = value
    for data in (bytes(damaged), whole[: place % len(whole)]):
        try:
            KindExamples.from_bytes(data)
        except KindsError as error:
            assert str(error)


def test_a_kind_taught_again_forgets_its_examples_and_others_stay():
    first = examples(count=4)
    new, _ = drawn(7, 5, kinds=2, apart=9.0)
    second = KindExamples(("dent", "burr"), new, np.repeat([0, 1], 5), np.arange(10), (30, 10))
    joined = first.joined(second)
    assert joined.counts() == {"scratch": 4, "stain": 4, "dent": 5, "burr": 5}
    assert len(set(joined.pictures.tolist())) == 18
    np.testing.assert_array_equal(joined.values[joined.kinds == 1], first.values[first.kinds == 2])
    other = KindExamples(("x",), new[:1], np.array([0]), np.array([0]), (40,))
    with pytest.raises(KindsError, match="another detector"):
        first.joined(other)
    with pytest.raises(KindsError, match="another detector"):
        first.decide(np.zeros((1, 3)))


@pytest.mark.parametrize("name", ["", "  ", "unknown", "Unknown", "a:b", "a;b"])
def test_names_that_are_none_are_refused(name):
    with pytest.raises(KindsError, match="no name of a kind"):
        examples(names=(name, "dent", "stain"))


def test_a_kind_without_examples_is_refused():
    values, kinds = drawn(0, 3)
    with pytest.raises(KindsError, match="no example"):
        KindExamples(("a", "b", "c", "d"), values, kinds, np.arange(9), (40,))


# --- words ---------------------------------------------------------------------------------------


@given(maps, st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_kind_is_the_largest_mean_share_over_the_region(map, T, h, w):
    rng = np.random.default_rng(h * 7 + w)
    type_map = rng.random((T, h, w)).astype(np.float32)
    type_map /= type_map.sum(axis=0)
    kinds = [f"kind {i}" for i in range(T)]
    rows = np.arange(map.shape[0]) * h // map.shape[0]
    columns = np.arange(map.shape[1]) * w // map.shape[1]
    full = type_map[:, rows][:, :, columns]
    for region in by_words(find_regions(map, 0.3, minimum_area=1), type_map, kinds, map.shape):
        x, y, width, height = region.box
        shares = full[:, y : y + height, x : x + width][:, region.mask].mean(axis=1)
        assert region.kind == kinds[int(shares.argmax())]
        assert region.kind_score == pytest.approx(shares.max(), rel=1e-5)


def test_words_that_do_not_fit_are_refused_and_none_leave_regions_unnamed():
    regions = find_regions(np.ones((9, 9), np.float32), 0.5)
    with pytest.raises(ValueError, match="1 kinds"):
        by_words(regions, np.zeros((2, 2, 2)), ["one"], (9, 9))
    assert by_words(regions, None, [], (9, 9)) == regions


@given(maps, st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_overlaps_are_shares_of_the_regions(map, h, w):
    regions = find_regions(map, 0.3, minimum_area=1)
    if not regions:
        return
    table = overlaps(regions, (h, w), (0, 0, *map.shape)).toarray()
    np.testing.assert_allclose(table.sum(1), 1)
    for row, region in zip(table, regions, strict=True):
        x, y, width, height = region.box
        whole = np.zeros(map.shape)
        whole[y : y + height, x : x + width] = region.mask
        for cell in range(h * w):
            down = np.arange(map.shape[0]) * h // map.shape[0] == cell // w
            across = np.arange(map.shape[1]) * w // map.shape[1] == cell % w
            assert row[cell] == pytest.approx(whole[np.ix_(down, across)].sum() / region.area)


def test_facts_are_plain_data():
    assert json.loads(json.dumps(examples().facts()))["pictures"]["dent"] == 10


def test_examples_keep_their_pictures_names_and_files_without_them_load():
    values, kinds = drawn(0, 2)
    parts = (("a", "b", "c"), values, kinds, np.arange(6), (40,))
    named = KindExamples(*parts, digests=tuple("uvwxyz"))
    assert KindExamples.from_bytes(named.to_bytes()).digests == tuple("uvwxyz")
    plain = KindExamples(*parts)
    assert b"digests" not in plain.to_bytes()  # as earlier versions wrote it
    assert KindExamples.from_bytes(plain.to_bytes()).digests == ("",) * 6
    anew = KindExamples(("b",), values[:1], np.array([0]), np.array([0]), (40,), digests=("n",))
    assert named.joined(anew).digests == ("u", "v", "y", "z", "n")  # what b was is forgotten
    with pytest.raises(KindsError, match="do not fit together"):
        KindExamples(*parts, digests=("u",))
