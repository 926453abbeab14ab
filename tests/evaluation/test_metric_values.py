import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from metric_oracles import aupro, both_kinds, images, sklearn_values
from sklearn.metrics import auc, precision_recall_curve, roc_curve

from zerodefect.evaluation.metrics import (
    ImageMetrics,
    Metric,
    MetricError,
    PixelMetrics,
    Query,
    average,
    image_metrics,
    pixel_metrics,
)

EXACT = ("auroc", "ap", "ap:trapezoid", "f1max", "aupro", "fpr_at_miss")
# Two regions of 1 and 2 pixels, five normal pixels.
MAP = np.array([[0.9, 0.1, 0.8, 0.3], [0.2, 0.5, 0.4, 0.6]], np.float32)
MASK = np.array([[1, 0, 0, 1], [0, 0, 0, 1]], np.uint8)


def value(metrics: list[Metric]) -> float:
    [metric] = metrics
    return metric.value


@settings(max_examples=60, deadline=None)
@given(images())
def test_pixels_against_scikit_learn(drawn):
    maps, masks = drawn
    assume(both_kinds(masks))
    expected = sklearn_values(maps.ravel(), masks.ravel())
    auroc, ap, f1 = pixel_metrics(maps, masks, ["auroc", "ap", "f1max"])
    assert auroc.value == pytest.approx(expected["auroc"], abs=1e-12)
    assert ap.value == pytest.approx(expected["ap"], abs=1e-12)
    assert f1.value == pytest.approx(expected["f1max"], abs=1e-12)
    assert f1.threshold == expected["threshold"]


@settings(max_examples=60, deadline=None)
@given(images())
def test_trapezoid_and_miss_rate_against_scikit_learn(drawn):
    maps, masks = drawn
    assume(both_kinds(masks))
    precision, recall, _ = precision_recall_curve(masks.ravel(), maps.ravel())
    got = value(pixel_metrics(maps, masks, ["ap:trapezoid"]))
    assert got == pytest.approx(auc(recall, precision), abs=1e-12)
    rates, hits, thresholds = roc_curve(masks.ravel(), maps.ravel(), drop_intermediate=False)
    first = np.flatnonzero(hits >= 0.9 - 1e-12)[0]
    [metric] = pixel_metrics(maps, masks, ["fpr_at_miss@0.1"])
    assert metric.value == pytest.approx(rates[first], abs=1e-12)
    assert metric.threshold == thresholds[first]


@settings(max_examples=60, deadline=None)
@given(images(), st.sampled_from([0.05, 0.3, 1.0]))
def test_region_overlap_against_a_direct_computation(drawn, limit):
    maps, masks = drawn
    assume(both_kinds(masks))
    got = value(pixel_metrics(maps, masks, [Query("aupro", at=limit)]))
    assert got == pytest.approx(aupro(maps, masks, limit), abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.7]), st.booleans()), min_size=2))
def test_images_against_scikit_learn(drawn):
    scores, labels = (np.array(column) for column in zip(*drawn, strict=True))
    assume(both_kinds(labels))
    expected = sklearn_values(scores, labels)
    auroc, ap, f1 = image_metrics(scores, labels, ["auroc", "ap", "f1max"])
    assert auroc.value == pytest.approx(expected["auroc"], abs=1e-12)
    assert ap.value == pytest.approx(expected["ap"], abs=1e-12)
    assert (f1.value, f1.threshold) == pytest.approx((expected["f1max"], expected["threshold"]))


def test_values_computed_by_hand():
    metrics = {str(q): m for q, m in zip(EXACT, pixel_metrics([MAP], [MASK], EXACT), strict=True)}
    # Scores from high to low: 0.9 defective, 0.8, 0.6 defective, 0.5, 0.4, 0.3 defective, 0.2, 0.1.
    assert metrics["auroc"].value == pytest.approx((5 + 4 + 2) / 15)
    assert metrics["ap"].value == pytest.approx((1 + 2 / 3 + 3 / 6) / 3)
    assert metrics["f1max"].value == pytest.approx(2 * 2 / (3 + 3))
    assert metrics["f1max"].threshold == pytest.approx(0.3)  # as good as 0.6, and lower
    assert metrics["fpr_at_miss"].value == pytest.approx(3 / 5)
    # Overlap is 1/2 up to one fifth of the false positives, then 3/4 up to three fifths.
    assert metrics["aupro"].value == pytest.approx((0.2 * 0.5 + 0.1 * 0.75) / 0.3)


def test_precision_recall_area_by_hand():
    # Vertices (R, P): (0, 1), (0.5, 1), (0.5, 0.5), (1, 2/3).
    got = value(image_metrics([3.0, 2.0, 1.0], [1, 0, 1], ["ap:trapezoid"]))
    assert got == pytest.approx(0.5 + 0.5 * (0.5 + 2 / 3) / 2)


def test_parts_touching_at_a_corner_are_one_region():
    map = np.array([[0.9, 0.8, 0.5], [0.3, 0.0, 0.1]], np.float32)
    mask = np.array([[1, 1, 0], [0, 0, 1]], bool)
    # Two of three pixels found until two of three false positives; as two regions, 1/2.
    got = value(pixel_metrics([map], [mask], ["aupro@1"]))
    assert got == pytest.approx(2 / 3 * 2 / 3 + 1 / 3 * 1)


def test_f1_on_a_grid_by_hand():
    scores, labels = [0.0, 0.449, 0.451, 1.0], [0, 1, 0, 1]
    [metric] = image_metrics(scores, labels, ["f1max:grid21"])
    # The thresholds 0.05 ... 0.4 find all but the lowest: two hits, one false alarm.
    assert metric.value == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert metric.threshold == pytest.approx(0.05)


def test_two_hundred_steps_against_masks_per_threshold():
    random = np.random.default_rng(3)
    maps = random.random((4, 12, 12)).astype(np.float32)
    masks = np.zeros((4, 12, 12), bool)
    masks[1:, 3:6, 2:7] = True
    maps[masks] += 0.3
    low, high = float(maps.min()), float(maps.max())
    thresholds = np.arange(low, high, (high - low) / 200)
    rates = np.array([(maps.astype(float) > t)[~masks].mean() for t in thresholds])
    shares = np.array([(maps.astype(float) > t)[masks].mean() for t in thresholds])
    kept = rates < 0.3
    x, y = rates[kept][::-1], shares[kept][::-1]
    expected = auc((x - x.min()) / (x.max() - x.min()), y)
    assert value(pixel_metrics(maps, masks, ["aupro:steps200"])) == pytest.approx(expected)
    expected = auc(x / x.max(), y)
    assert value(pixel_metrics(maps, masks, ["aupro:steps200_afclip"])) == pytest.approx(expected)


def test_a_rate_at_the_limit_is_kept_by_one_variant_only():
    # Ten normal scores 1 ... 10, so that a rate of 3 / 10 lies exactly on the limit, and a region.
    map = np.array([[*range(1, 11), 9.52, 8.27, 0]], np.float32)
    mask = np.arange(13)[None] >= 10
    plain, winclip = pixel_metrics([map], [mask], ["aupro:steps200", "aupro:steps200_winclip"])
    # Rates 0.1 and 0.2 with one third found between them.
    assert plain.value == pytest.approx(1 / 3)
    # Rates 0 to 0.3: nothing, one third, two thirds found, each over one third of the width.
    assert winclip.value == pytest.approx((0 + 1 / 3 + 2 / 3) / 3)


def test_hits_in_a_hole_count_for_winclip_only():
    map = np.zeros((8, 8), np.float32)
    map[2:5, 2:5] = np.linspace(0.5, 0.9, 9).reshape(3, 3)
    map[0] = np.linspace(0.05, 0.2, 8)
    ring = np.zeros((8, 8), bool)
    ring[2:5, 2:5] = True
    ring[3, 3] = False
    plain, winclip = pixel_metrics([map], [ring], ["aupro:steps200", "aupro:steps200_winclip"])
    assert winclip.value > plain.value
    assert winclip.value > 1
    with pytest.raises(MetricError, match="fill_holes=True"):
        PixelMetrics().compute(["aupro:steps200_winclip"])


@settings(max_examples=40, deadline=None)
@given(images(levels=30), st.sampled_from([np.exp, np.cbrt, lambda x: 3 * x - 1]))
def test_a_rising_transform_changes_no_rank_metric(drawn, transform):
    maps, masks = drawn
    assume(both_kinds(masks))
    levels = np.unique(maps, return_inverse=True)[1].reshape(maps.shape)
    names = ["auroc", "ap", "ap:trapezoid", "f1max", "aupro", "fpr_at_miss", "aupro:anomalib"]
    before = pixel_metrics(maps, masks, names)
    after = pixel_metrics(transform(levels / 16).astype(np.float32), masks, names)
    assert [m.value for m in before] == [m.value for m in after]


@settings(max_examples=30, deadline=None)
@given(images(), st.booleans())
def test_pixels_outside_count_nowhere(drawn, noise):
    maps, masks = drawn
    valid = np.zeros(masks.shape, bool)
    valid[:, :4, :5] = True
    changed = np.where(valid, maps, maps.max() if noise else maps.min()).astype(np.float32)
    inside = valid & masks
    assume(inside.any() and (valid & ~masks).any())

    def values(maps, masks, valid):
        state = PixelMetrics()
        for map, mask, window in zip(maps, masks, valid, strict=True):
            state.update(map, mask, window)
        return [m.value for m in state.compute(EXACT)]

    assert values(maps, masks, valid) == values(changed, masks, valid)
    cropped = pixel_metrics(maps[:, :4, :5], masks[:, :4, :5], ["auroc", "ap", "f1max"])
    whole = values(maps, masks, valid)
    assert [whole[0], whole[1], whole[3]] == [m.value for m in cropped]


def test_regions_that_lie_outside_as_a_whole_have_no_holes():
    state = PixelMetrics(fill_holes=True)
    state.update(MAP, MASK, MASK == 0)
    assert (state.totals.regions, state.totals.positives, state.totals.negatives) == (0, 0, 5)


def test_a_region_cut_in_two_by_the_valid_area_stays_one():
    map = np.array([[0.9, 0.5, 0.1, 0.2]], np.float32)
    mask = np.array([[1, 1, 1, 0]], bool)
    state = PixelMetrics()
    state.update(map, mask, np.array([[1, 0, 1, 1]], bool))
    assert (state.totals.regions, state.totals.positives, state.totals.negatives) == (1, 2, 1)
    [metric] = state.compute(["aupro@1"])
    assert metric.value == pytest.approx(0.5)


def test_constant_scores():
    maps = np.full((3, 5, 5), 0.7, np.float32)
    masks = np.zeros((3, 5, 5), bool)
    masks[0, 1:3, 1:4] = True
    p = masks.mean()
    found = {m.name: m.value for m in pixel_metrics(maps, masks)}
    assert found["auroc"] == 0.5
    assert found["ap"] == pytest.approx(p)
    assert found["f1max"] == pytest.approx(2 * p / (1 + p))
    assert found["aupro"] == pytest.approx(0.15)
    assert found["fpr_at_miss"] == 1
    for variant in ("steps200", "steps200_winclip", "steps200_afclip", "adeval_hist1000"):
        [metric] = pixel_metrics(maps, masks, [f"aupro:{variant}"])
        assert math.isnan(metric.value)
        assert "equal" in metric.reason


def test_one_outlier_leaves_two_hundred_steps_undefined():
    maps = np.zeros((1, 5, 5), np.float32)
    maps[0, 2, 2] = 1
    [metric] = pixel_metrics(maps, maps > 0, ["aupro:steps200"])
    assert math.isnan(metric.value)
    assert "only one" in metric.reason


@pytest.mark.parametrize(
    ("mask", "reason"),
    [(None, "no anomalous pixels"), (0, "no anomalous pixels"), (1, "no normal pixels")],
)
def test_one_kind_of_pixels_is_undefined_and_never_zero(mask, reason):
    map = np.arange(12, dtype=np.float32).reshape(3, 4)
    mask = None if mask is None else np.full((3, 4), mask)
    queries = [*EXACT, "aupro:steps200", "aupro:quantile100_mvtec3d", "f1max:grid21"]
    for metric in pixel_metrics([map], [mask], queries):
        assert math.isnan(metric.value)
        assert metric.reason == reason
        assert reason in str(metric)
        assert metric.threshold is None


def test_no_image_is_undefined():
    assert {m.reason for m in PixelMetrics().compute(EXACT)} == {"no pixels"}
    assert {m.reason for m in image_metrics([], [])} == {"no images"}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_are_refused_and_change_nothing(bad):
    state = PixelMetrics()
    state.update(MAP, MASK)
    wrong = MAP.copy()
    wrong[1, 2] = bad
    with pytest.raises(MetricError, match="1 NaN or infinite"):
        state.update(wrong, MASK)
    assert state.images == 1
    assert [m.value for m in state.compute()] == [m.value for m in pixel_metrics([MAP], [MASK])]
    with pytest.raises(MetricError, match="NaN or infinite"):
        image_metrics([0.1, bad], [0, 1])


def test_scores_that_float32_would_round_are_refused():
    with pytest.raises(MetricError, match="rounded to float32"):
        PixelMetrics().update(MAP.astype(np.float64) + 1e-12, MASK)
    with pytest.raises(MetricError, match="beyond the range"):
        PixelMetrics().update(np.full((2, 2), 1e300))
    expected = pixel_metrics([MAP], [MASK])
    assert pixel_metrics([MAP.astype(np.float64)], [MASK]) == expected


@pytest.mark.parametrize(
    ("map", "mask", "words"),
    [
        (MAP, MASK[:1], "mask is 1 x 4, map 2 x 4"),
        (MAP, MASK * np.uint8(128), "binarise"),
        (MAP, MASK * 0.5, "binarise"),
        (MAP, np.array([[0, 1, 2, 255], [0, 0, 0, 0]]), "binarise"),
        (MAP[0], MASK, r"\(height, width\)"),
        (np.zeros((0, 3)), None, r"\(height, width\)"),
        (MAP.astype(complex), MASK, "real numbers"),
    ],
)
def test_wrong_shapes_and_masks_are_refused(map, mask, words):
    with pytest.raises(MetricError, match=words):
        PixelMetrics().update(map, mask)


def test_maps_and_masks_of_different_number_are_refused():
    with pytest.raises(MetricError, match="differ in number"):
        pixel_metrics([MAP, MAP], [MASK])


@pytest.mark.parametrize("labels", [[0, 2], [0.5, 1], [0, 1, 1]])
def test_wrong_labels_are_refused(labels):
    with pytest.raises(MetricError, match="label"):
        image_metrics([0.1, 0.2], labels)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_and_arrays_give_the_same(kind):
    map = torch.from_numpy(MAP).to(kind).requires_grad_()
    plain = map.detach().float().numpy()
    expected = pixel_metrics([plain], [MASK])
    assert pixel_metrics([map], [torch.from_numpy(MASK)]) == expected
    assert pixel_metrics([map[None]], [torch.from_numpy(MASK)[None] > 0]) == expected
    assert pixel_metrics([plain], [MASK * np.uint8(255)]) == expected
    scores = torch.tensor([0.25, 0.5, 0.75], dtype=kind)
    labels = torch.tensor([False, True, True])
    assert image_metrics(scores, labels) == image_metrics([0.25, 0.5, 0.75], [0, 1, 1])


def test_negative_zero_equals_zero():
    map = np.array([[-0.0, 0.0, 0.0, -0.0]], np.float32)
    mask = np.array([[1, 1, 0, 0]], bool)
    expected = {"auroc": 0.5, "ap": 0.5}
    for metric in pixel_metrics([map], [mask], list(expected)):
        assert metric.value == expected[metric.name]
    [f1] = pixel_metrics([map], [mask], ["f1max"])
    assert str(f1.threshold) == "0.0"


def test_images_of_different_sizes():
    map, mask = np.tile(MAP, (2, 3)), np.tile(MASK, (2, 3))
    [auroc] = pixel_metrics([MAP, map], [MASK, mask], ["auroc"])
    scores = np.concatenate((MAP.ravel(), map.ravel()))
    labels = np.concatenate((MASK.ravel(), mask.ravel()))
    assert auroc.value == pytest.approx(sklearn_values(scores, labels)["auroc"], abs=1e-12)


def test_queries():
    assert Query.parse("aupro") == Query("aupro", "exact", 0.3)
    assert Query.parse(" aupro:steps200@0.1 ") == Query("aupro", "steps200", 0.1)
    assert str(Query.parse("fpr_at_miss")) == "fpr_at_miss:exact@0.05"
    for text in ("ap:trapezoid", "aupro:anomalib@0.05", "f1max:grid21"):
        assert str(Query.parse(str(Query.parse(text)))) == str(Query.parse(text))
    assert Query.parse("fpr_at_miss@0").limit == 0


@pytest.mark.parametrize(
    "text",
    ["pro", "ap:simpson", "aupro@0", "aupro@1.5", "aupro@x", "auroc@0.3", "fpr_at_miss@-1", ""],
)
def test_wrong_queries_are_refused(text):
    with pytest.raises(MetricError):
        Query.parse(text)


def test_metrics_of_pixels_are_refused_for_images():
    with pytest.raises(MetricError, match="ranks pixels"):
        image_metrics([0.1, 0.2], [0, 1], ["aupro"])
    with pytest.raises(MetricError, match="SPROMetrics"):
        pixel_metrics([MAP], [MASK], ["spro"])


def test_every_result_names_its_definition():
    [metric] = pixel_metrics([MAP], [MASK], ["aupro:steps200@0.5"], mask_rule="nearest>0")
    assert (metric.name, metric.variant, metric.at) == ("aupro", "steps200", 0.5)
    assert metric.mask_rule == "nearest>0"
    assert str(metric).startswith("pixel aupro:steps200@0.5: 0.")


def test_mean_leaves_undefined_values_out_and_says_so():
    one, two = pixel_metrics([MAP], [MASK], ["auroc"]) + pixel_metrics([MAP], [None], ["auroc"])
    mean = average([one, two, one])
    assert mean.value == pytest.approx(one.value)
    assert mean.group == "mean of 2 of 3"
    assert average([one]).group == "mean"
    nothing = average([two])
    assert math.isnan(nothing.value)
    assert nothing.reason
    [other] = pixel_metrics([MAP], [MASK], ["ap"])
    with pytest.raises(MetricError, match="not the same metric"):
        average([one, other])
    with pytest.raises(MetricError, match="nothing"):
        average([])


def test_curves_hold_what_scikit_learn_draws():
    random = np.random.default_rng(0)
    maps = np.round(random.random((3, 9, 9)), 1).astype(np.float32)
    masks = random.random((3, 9, 9)) < 0.2
    state = PixelMetrics()
    for map, mask in zip(maps, masks, strict=True):
        state.update(map, mask)
    curve = state.curves()
    rates, hits, _ = roc_curve(masks.ravel(), maps.ravel())
    drawn = set(zip(curve.fpr.round(12), curve.tpr.round(12), strict=True))
    assert set(zip(rates.round(12), hits.round(12), strict=True)) <= drawn
    assert auc(curve.fpr, curve.tpr) == pytest.approx(value(state.compute(["auroc"])))
    for column in (curve.fpr, curve.tpr, curve.overlap):
        assert (np.diff(column) >= 0).all()
        assert column[-1] == 1
        assert column[0] == 0
    normal = PixelMetrics()
    normal.update(MAP)
    with pytest.raises(MetricError, match="no anomalous"):
        normal.curves()


def test_image_curves_hold_what_scikit_learn_draws():
    scores, labels = [0.1, 0.4, 0.4, 0.8, 0.9], [0, 1, 0, 0, 1]
    state = ImageMetrics()
    state.update(scores, labels)
    curve = state.curves()
    rates, hits, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert set(zip(rates, hits, strict=True)) <= set(zip(curve.fpr, curve.tpr, strict=True))
    precision, recall, _ = precision_recall_curve(labels, scores)
    drawn = set(zip(curve.tpr, curve.precision, strict=True))
    assert set(zip(recall, precision, strict=True)) <= drawn
    assert curve.threshold.tolist() == [0.9, 0.9, 0.9, 0.4, 0.4, 0.1]
