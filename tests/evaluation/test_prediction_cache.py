"""Kept predictions: what 16 bits cost, what the budget keeps, what is told of them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from zerodefect.evaluation.metrics import pixel_metrics
from zerodefect.evaluation.prediction_cache import Kept, PredictionCache, from_half, to_half
from zerodefect.scoring.joining import sized_map

SPANS = st.floats(2.0**-100, 2.0**100, width=32)


@given(
    arrays(np.float32, (5, 7), elements=st.floats(0, 1, width=32)),
    SPANS,
    st.floats(-1e3, 1e3, width=32),
)
def test_sixteen_bits_are_exact_to_a_part_in_2048_of_the_distance_to_the_nearer_end(
    shares, span, offset
):
    map = (shares.astype(np.float64) * span + offset).astype(np.float32)
    got = from_half(**to_half(map)).astype(np.float64)
    low, high = map.min().astype(np.float64), map.max().astype(np.float64)
    nearer = np.minimum(map - low, high - map.astype(np.float64))
    rounding = np.spacing(np.abs(map).max()).astype(np.float64)  # of the float32 result
    assert (np.abs(got - map) <= nearer / 2048 + (high - low) * 2.0**-39 + rounding).all()
    assert got.min() == low and got.max() == high


@given(arrays(np.float32, (4, 6), elements=st.floats(-1e6, 1e6, width=32)))
def test_sixteen_bits_never_turn_an_order_around(map):
    got = from_half(**to_half(map)).ravel()[np.argsort(map, axis=None)]
    assert (np.diff(got) >= 0).all()


def _maps(after, gain: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Logits of 15 x 15 patches made maps of 120 pixels, and masks of 360."""
    draws = np.random.default_rng(0)
    maps, masks = [], []
    for number in range(12):
        logits, mask = draws.normal(-1, 1, (15, 15)).astype(np.float32), np.zeros((15, 15), bool)
        if number % 2:
            y, x = draws.integers(0, 11, 2)
            mask[y : y + 4, x : x + 4] = True
            logits[mask] += 1.6
        smooth = sized_map(logits * np.float32(gain), (120, 120), None, 0.0)
        maps.append(after(smooth).astype(np.float32))
        masks.append(np.kron(mask, np.ones((24, 24), bool)))
    return maps, masks


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("after", "gain", "plain_fails"),
    [
        (_sigmoid, 1, False),
        (lambda x: _sigmoid(x + 20), 10, True),  # defects at 1 - 1e-6, good ones at 1 - 1e-5
        (lambda x: 0.5 + 1e-4 * x, 1, True),  # a narrow scale
        (lambda x: 1e-7 * _sigmoid(x), 1, True),  # a tiny one
        (lambda x: 30 + 3 * x, 1, False),  # distances
        (np.exp, 2, False),  # a long tail
    ],
    ids=["probabilities", "saturated", "narrow", "tiny", "distances", "tail"],
)
def test_sixteen_bits_move_no_metric_where_plain_float16_would(after, gain, plain_fails):
    maps, masks = _maps(after, gain)
    queries = ["auroc", "ap", "f1max", "aupro@0.3", "aupro@0.05", "fpr_at_miss@0.05"]

    def measured(change) -> np.ndarray:
        whole = [sized_map(change(map), (360, 360), None, 0.0) for map in maps]
        return np.array([metric.value for metric in pixel_metrics(whole, masks, queries)])

    exact = measured(lambda map: map)
    assert (
        np.abs(measured(lambda map: from_half(**to_half(map))) - exact).max() < 3e-4
    )  # stated: 1e-3
    plain = measured(lambda map: map.astype(np.float16).astype(np.float32))
    assert (np.abs(plain - exact).max() > 0.05) == plain_fails


def pictures(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]))
    return paths


def test_what_is_put_is_what_is_got_and_a_full_map_is_the_very_same(tmp_path):
    (image,) = pictures(tmp_path, 1)
    map = np.random.default_rng(0).random((24, 32), np.float32)
    for full in (False, True):
        shelf = PredictionCache(tmp_path / str(full), full=full).shelf({"a": 1})
        given = shelf.put(image, Kept(0.1 + 0.2, map, (48, 64)))
        got = shelf.get(image)
        assert got.score == 0.1 + 0.2 and got.size == (48, 64)
        np.testing.assert_array_equal(got.map, given.map)
        assert np.array_equal(got.map, map) == full
    assert shelf.put(image, Kept(1.0, None, (48, 64))) == shelf.get(image)
    odd = np.array([[np.nan, np.inf]], np.float32)
    half = PredictionCache(tmp_path / "odd").shelf({})
    half.put(image, Kept(0.0, odd, (1, 2)))
    np.testing.assert_array_equal(half.get(image).map, odd)


def test_the_estimate_is_what_files_take(tmp_path):
    (image,) = pictures(tmp_path, 1)
    for full in (False, True):
        cache = PredictionCache(tmp_path / str(full), full=full)
        cache.shelf({}).put(image, Kept(0.5, np.ones((240, 320), np.float32), (480, 640)))
        assert cache.taken() == pytest.approx(cache.bytes_of(240, 320), rel=0.005)
    assert cache.bytes_of(240, 320) == 4 * 240 * 320 + 1200


def test_beyond_the_limit_the_longest_unused_give_way(tmp_path):
    images = pictures(tmp_path, 12)
    cache = PredictionCache(tmp_path / "cache")
    one = cache.bytes_of(100, 100)
    cache.limit = 10 * one
    shelf = cache.shelf({"method": "x"}, {"method": "x", "data": "y"})
    map = np.zeros((100, 100), np.float32)
    for place, image in enumerate(images[:9]):
        shelf.put(image, Kept(float(place), map, (100, 100)))
        os.utime(shelf._path(image), (place, place))
    assert shelf.get(images[0]).score == 0  # used again just now
    for image in images[9:]:
        shelf.put(image, Kept(9.0, map, (100, 100)))
    assert cache.taken() <= cache.limit
    kept = [shelf.has(image) for image in images]
    assert kept[0] and all(kept[9:])  # the used one, and the new ones
    gone = kept.index(False)
    assert gone == 1 and not any(kept[1 : kept.index(True, 1)])  # the oldest first
    assert sum(kept) in (9, 10)


def test_holdings_name_what_they_are_and_clear_leaves_the_rest(tmp_path):
    images = pictures(tmp_path, 3)
    cache = PredictionCache(tmp_path / "cache")
    for shots, some in ((0, images), (1, images[:2])):
        shelf = cache.shelf({"shots": shots}, {"method": "winclip", "data": "parts"})
        for image in some:
            shelf.put(image, Kept(0.0, np.zeros((8, 8), np.float32), (8, 8)))
    cache.shelf({"other": 1}).put(images[0], Kept(0.0, None, (8, 8)))
    held = {holding.what: holding.files for holding in cache.holdings()}
    assert held == {"winclip on parts": 5, "predictions of an older version": 1}
    own = tmp_path / "cache" / "notes.txt"
    own.write_text("mine")
    cache.clear()
    assert [path.name for path in (tmp_path / "cache").rglob("*")] == ["notes.txt"]


def test_a_disk_that_refuses_costs_time_and_is_told_once(tmp_path, caplog):
    images = pictures(tmp_path, 3)
    (tmp_path / "cache").write_bytes(b"")  # a file where the folder should be
    shelf = PredictionCache(tmp_path / "cache").shelf({})
    with caplog.at_level(logging.WARNING):
        for image in images:
            assert shelf.put(image, Kept(0.5, None, (1, 1))).score == 0.5
            assert shelf.get(image) is None
    (record,) = caplog.records
    assert "predictions are not kept" in record.getMessage()
    assert "ZERODEFECT_CACHE" in record.getMessage()
