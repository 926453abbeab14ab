"""Metrics against the scripts of MVTec and of the field (see the case's meta)."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from cases import Case, find

from zerodefect.evaluation.metrics import (
    HistogramPixelMetrics,
    ImageMetrics,
    PixelMetrics,
    Saturation,
    SPROMetrics,
    image_metrics,
    pixel_metrics,
)

QUERIES = {
    "auroc": "auroc",
    "auroc_mvtec_official": "auroc",
    "auroc_anomalib": "auroc",
    "ap": "ap",
    "aupr_trapezoid": "ap:trapezoid",
    "aupr_anomalib": "ap:trapezoid",
    "f1max": "f1max",
    "f1max_anomalib": "f1max",
}


@pytest.fixture(scope="module", params=find("metrics"))
def case(request) -> Case:
    return Case(request.param)


def outputs(case: Case, name: str, kind: str) -> dict[str, float]:
    prefix = f"out/{name}/{kind}/"
    found = {k[len(prefix) :]: float(v) for k, v in case.arrays.items() if k.startswith(prefix)}
    assert found
    return found


def tolerance(case: Case, word: str) -> float:
    """The case states one tolerance for several outputs; ``word`` stands in the one meant."""
    found = [value for key, value in case.meta["tolerance"].items() if word in key]
    assert len(found) == 1, word
    return found[0]


def word_for(key: str) -> str:
    if "aupr_" in key:
        return "*aupr_anomalib"
    return "*_anomalib" if key.endswith("_anomalib") else "image/*"


def test_image_metrics(case):
    for name in case.meta["sets"]:
        scores, masks = case.arrays[f"{name}/scores"], case.arrays[f"{name}/masks"]
        image_scores, labels = scores.max((1, 2)), masks.any((1, 2))
        for key, expected in outputs(case, name, "image").items():
            [metric] = image_metrics(image_scores, labels, [QUERIES[key.split("_threshold")[0]]])
            got = metric.threshold if key.endswith("_threshold") else metric.value
            assert got == pytest.approx(expected, abs=tolerance(case, word_for(key)), rel=0), key


def test_pixel_metrics(case):
    for name in case.meta["sets"]:
        scores, masks = case.arrays[f"{name}/scores"], case.arrays[f"{name}/masks"]
        for key, expected in outputs(case, name, "pixel").items():
            if key.endswith("_adeval_hist1000"):
                continue
            [metric] = pixel_metrics(scores, masks, [QUERIES[key.split("_threshold")[0]]])
            got = metric.threshold if key.endswith("_threshold") else metric.value
            assert got == pytest.approx(expected, abs=tolerance(case, word_for(key)), rel=0), key


def test_region_overlap(case):
    for name in case.meta["sets"]:
        scores, masks = case.arrays[f"{name}/scores"], case.arrays[f"{name}/masks"]
        for key, expected in outputs(case, name, "aupro").items():
            exact = key.startswith("exact_")
            query = f"aupro:exact@{key.removeprefix('exact_')}" if exact else f"aupro:{key}"
            word = "exact_*" if exact else key.split("_winclip")[0]
            [metric] = pixel_metrics(scores, masks, [query])
            allowed = tolerance(case, "aupro/" + word if word != "adeval_hist1000" else word)
            assert metric.value == pytest.approx(expected, abs=allowed, rel=0), key


def test_region_overlap_curve(case):
    for name in case.meta["sets"]:
        state = PixelMetrics()
        for scores, mask in zip(
            case.arrays[f"{name}/scores"], case.arrays[f"{name}/masks"], strict=True
        ):
            state.update(scores, mask)
        curve = state.curves()
        rate, overlap = case.arrays[f"out/{name}/pro_curve"]
        # The reference keeps rates in float32, and the curve may rise vertically at one of them.
        margin = 1e-6
        lowest = np.interp(rate - margin, curve.fpr, curve.overlap) - margin
        highest = np.interp(rate + margin, curve.fpr, curve.overlap) + margin
        assert ((lowest <= overlap) & (overlap <= highest)).all()


def test_histogram(case):
    for name in case.meta["sets"]:
        scores, masks = case.arrays[f"{name}/scores"], case.arrays[f"{name}/masks"]
        state = HistogramPixelMetrics(float(scores.min()), float(scores.max()), bins=1000)
        for score, mask in zip(scores, masks, strict=True):
            state.update(score, mask)
        [metric] = state.compute(["auroc"])
        expected = outputs(case, name, "pixel")
        allowed = tolerance(case, "adeval_hist1000")
        assert abs(metric.value - expected["auroc_adeval_hist1000"]) <= allowed
        assert abs(metric.value - expected["auroc"]) <= metric.error_bound


def saturations(case: Case) -> list[Saturation]:
    kinds = {
        kind["pixel_value"]: Saturation(kind["saturation_threshold"], kind["relative_saturation"])
        for kind in case.meta["spro_defects_config"]
    }
    return [kinds[int(channel.max())] for channel in case.arrays["spro/channels"]]


def test_saturation(case):
    thresholds = case.meta["spro_fixed_thresholds"]
    for index, kind in enumerate(saturations(case)):
        region = case.arrays["spro/channels"][index] > 0
        assert kind.area(int(region.sum())) == case.arrays["out/spro/saturation_area"][index]
        state = SPROMetrics(["one"])
        map = case.arrays["spro/maps"][case.arrays["spro/channel_image"][index]]
        state.update(map, [(region, kind)], "one")
        _, overlap = state.states["one"].ranked().positives_above(thresholds, inclusive=False)
        np.testing.assert_allclose(
            overlap,
            case.arrays["out/spro/at_thresholds"][index],
            atol=tolerance(case, "out/spro/at_thresholds"),
            rtol=0,
        )


def test_saturated_region_overlap(case):
    kinds = {int(number): name for number, name in case.meta["kinds"].items()}
    groups = [name for number, name in kinds.items() if number]
    state = SPROMetrics(groups)
    channels = defaultdict(list)
    for index, kind in enumerate(saturations(case)):
        mask = case.arrays["spro/channels"][index] > 0
        channels[int(case.arrays["spro/channel_image"][index])].append((mask, kind))
    for index, (map, kind) in enumerate(
        zip(case.arrays["spro/maps"], case.arrays["spro/kind"], strict=True)
    ):
        state.update(map, channels[index], kinds[int(kind)] if kind else None)
    compared = 0
    for source, word in (("spro", "spro/* (adaptive"), ("spro_exact", "spro_exact/*")):
        expected = {
            key.removeprefix(f"out/{source}/"): float(value)
            for key, value in case.arrays.items()
            if key.startswith(f"out/{source}/") and value.ndim == 0
        }
        limits = sorted({float(key.rsplit("_", 1)[1]) for key in expected})
        for metric in state.compute(limits):
            got = expected[f"{metric.group}_{metric.at}"]
            assert abs(metric.value - got) <= tolerance(case, word), metric
            compared += 1
    assert compared


def test_loco_image_auroc(case):
    maxima, kind = case.arrays["spro/maps"].max((1, 2)), case.arrays["spro/kind"]
    values = []
    for number, name in case.meta["kinds"].items():
        if name == "good":
            continue
        state = ImageMetrics()
        chosen = (kind == 0) | (kind == int(number))
        state.update(maxima[chosen], kind[chosen] > 0)
        [metric] = state.compute(["auroc"])
        values.append(metric.value)
        expected = float(case.arrays[f"out/loco/image_auroc_{name}"])
        assert metric.value == pytest.approx(expected, abs=tolerance(case, "image/*"))
    expected = float(case.arrays["out/loco/image_auroc_mean"])
    assert np.mean(values) == pytest.approx(expected, abs=tolerance(case, "image/*"))
