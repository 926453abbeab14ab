import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from metric_oracles import both_kinds, images
from sklearn.metrics import auc

from zerodefect.evaluation.metrics import (
    PIXEL_PANEL,
    HistogramPixelMetrics,
    MetricError,
    pixel_metrics,
)

QUERIES = (*PIXEL_PANEL, "aupro@0.05", "aupro@1", "fpr_at_miss@0.5")


def filled(maps, masks, low=-1.0, high=1.0, bins=16, **options) -> HistogramPixelMetrics:
    state = HistogramPixelMetrics(low, high, bins=bins, **options)
    for map, mask in zip(maps, masks, strict=True):
        state.update(map, mask)
    return state


@settings(max_examples=150, deadline=None)
@given(
    images(levels=40),
    st.sampled_from([1, 3, 16, 1000]),
    st.sampled_from([(-1.0, 1.0), (0.0, 0.3), (-4.0, 9.0), (None, None)]),
)
def test_the_exact_value_lies_within_the_bound(drawn, bins, ends):
    maps, masks = drawn
    assume(both_kinds(masks))
    exact = pixel_metrics(maps, masks, QUERIES)
    for metric, expected in zip(
        filled(maps, masks, *ends, bins).compute(QUERIES), exact, strict=True
    ):
        assert 0 <= metric.value <= 1
        assert abs(metric.value - expected.value) <= metric.error_bound, metric.label


def test_the_bound_is_small_with_many_bins():
    random = np.random.default_rng(0)
    maps = random.random((4, 64, 64)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    masks[1:, 8:24, 8:40] = True
    maps[masks] = maps[masks] ** 0.5
    for metric in filled(maps, masks, 0.0, 1.0, 65536).compute():
        assert 0 < metric.error_bound < 2e-3, metric.label
    [auroc] = filled(maps, masks, 0.0, 1.0, 65536).compute(["auroc"])
    assert auroc.error_bound < 2e-5
    assert "±" in str(auroc)


@settings(max_examples=30, deadline=None)
@given(images(most=6), st.randoms(use_true_random=False))
def test_any_order_and_split_gives_the_same_bits(drawn, random):
    maps, masks = drawn
    ends = random.choice([(-1, 1), (None, None)])
    states = [HistogramPixelMetrics(*ends, bins=16) for _ in range(3)]
    for index in random.sample(range(len(maps)), len(maps)):
        random.choice(states).update(maps[index], masks[index])
    states[2].merge(states[0])
    states[1].merge(states[2])
    whole = filled(maps, masks, *ends)
    assert repr(states[1].compute(QUERIES)) == repr(whole.compute(QUERIES))


@settings(max_examples=60, deadline=None)
@given(images(levels=40), st.sampled_from([0.0, 1.0, -1e4]))
def test_bins_find_the_range_by_themselves(drawn, offset):
    """Whatever the scale, as narrow as the lowest and the highest score let them be."""
    maps, masks = drawn
    maps = (maps + np.float32(offset)).astype(np.float32)
    assume(both_kinds(masks) and np.ptp(maps) > 1e-6)
    state = HistogramPixelMetrics(bins=64)
    for map, mask in zip(maps, masks, strict=True):
        state.update(map, mask)
    filled = np.flatnonzero(state._counts.any(0))
    assert filled[0] == 0
    assert filled[-1] >= 31 or len(filled) == len(np.unique(maps))
    exact = pixel_metrics(maps, masks, QUERIES)
    for metric, expected in zip(state.compute(QUERIES), exact, strict=True):
        assert abs(metric.value - expected.value) <= metric.error_bound, metric.label


@pytest.mark.parametrize("spread", [lambda x: x, lambda x: np.exp(10 * x), lambda x: 0.5 + x / 99])
def test_the_bound_is_small_at_any_scale(spread):
    random = np.random.default_rng(3)
    maps = random.standard_normal((3, 64, 64))
    masks = np.zeros(maps.shape, bool)
    masks[1:, 8:24, 8:40] = True
    maps = spread(maps + masks).astype(np.float32)
    state = HistogramPixelMetrics()
    for map, mask in zip(maps, masks, strict=True):
        state.update(map, mask)
    for metric, expected in zip(state.compute(), pixel_metrics(maps, masks), strict=True):
        assert abs(metric.value - expected.value) <= metric.error_bound < 1e-3, metric.label


def test_a_few_distinct_scores_need_no_bound():
    """Where no bin holds both kinds, nothing is approximate."""
    map = np.array([[0.5, 0.25], [-3.0, 1e30]], np.float32)
    mask = np.array([[1, 0], [0, 1]], bool)
    state = HistogramPixelMetrics()
    state.update(map[:1], mask[:1])
    for metric, expected in zip(state.compute(), pixel_metrics([map[:1]], [mask[:1]]), strict=True):
        assert metric.value == pytest.approx(expected.value)
        assert metric.error_bound < 1e-11
        assert metric.threshold == expected.threshold
    state.update(map[1:], mask[1:])
    assert state.totals.positives == 2


def test_curves_of_bins():
    random = np.random.default_rng(2)
    map, mask = random.random((40, 40)).astype(np.float32), random.random((40, 40)) < 0.3
    state = filled([map], [mask], 0, 1, 4096)
    curve = state.curves()
    [auroc] = state.compute(["auroc"])
    assert auc(curve.fpr, curve.tpr) == pytest.approx(auroc.value)
    assert map.min() - 1 / 4096 < curve.threshold[-1] <= map.min()


def test_memory_does_not_grow():
    state = HistogramPixelMetrics(0, 1, bins=100)
    size = state._counts.nbytes
    for _ in range(3):
        state.update(np.ones((50, 50), np.float32), np.eye(50, dtype=bool))
    assert state._counts.nbytes == size
    assert state.totals.positives == 150
    assert state.totals.regions == 3


def test_undefined_values_stay_undefined():
    state = HistogramPixelMetrics(0, 1)
    assert {metric.reason for metric in state.compute()} == {"no pixels"}
    state.merge(HistogramPixelMetrics(0, 1))
    state.update(np.zeros((3, 3), np.float32))
    for metric in state.compute():
        assert np.isnan(metric.value)
        assert metric.reason == "no anomalous pixels"


def test_what_makes_no_sense_is_refused():
    with pytest.raises(MetricError, match="no histogram"):
        HistogramPixelMetrics(1, 1)
    with pytest.raises(MetricError, match="no histogram"):
        HistogramPixelMetrics(0, float("inf"))
    for wrong in ({"low": 0.0}, {"low": 0, "high": 1e-300}, {"bins": 0}):
        with pytest.raises(MetricError, match="no histogram"):
            HistogramPixelMetrics(**wrong)
    state = HistogramPixelMetrics(0, 1)
    for query in ("ap:trapezoid", "aupro:steps200"):
        with pytest.raises(MetricError, match="cannot be bounded"):
            state.compute([query])
    with pytest.raises(MetricError, match="histograms differ"):
        state.merge(HistogramPixelMetrics(0, 2))
    with pytest.raises(MetricError, match="itself"):
        state.merge(state)
    with pytest.raises(MetricError, match="NaN"):
        state.update(np.full((2, 2), np.nan))
