"""Sharp masks for regions: only masks change, and only where they agree with the map."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage
from small_assemblies import ShadeSegmenter
from small_detectors import Setting

from zerodefect.backbones.map_prompts import MapPart, parts_above, peaks, prompts_from
from zerodefect.backbones.segmenter import Masks, Segmenter
from zerodefect.images import Picture
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.refinement import Refiner, best_mask, within
from zerodefect.inspection.regions import find_regions

SIDE = 128


def plate(*squares: tuple[slice, slice]) -> tuple[Picture, np.ndarray]:
    """A grey plate with bright squares, and where these are."""
    truth = np.zeros((SIDE, SIDE), bool)
    for rows, columns in squares:
        truth[rows, columns] = True
    pixels = np.where(truth, 230, 60).astype(np.uint8)[..., None].repeat(3, axis=2)
    return Picture("plate", pixels), truth


def blurred(truth: np.ndarray) -> np.ndarray:
    """What a detector with coarse patches says of it."""
    return ndimage.gaussian_filter(truth.astype(np.float32), 8)


def overlap(region, truth: np.ndarray) -> float:
    x, y, width, height = region.box
    mask = np.zeros_like(truth)
    mask[y : y + height, x : x + width] = region.mask
    return float((mask & truth).sum() / (mask | truth).sum())


class Counting(ShadeSegmenter):
    calls = 0

    def embed(self, pixels):
        self.calls += 1
        return super().embed(pixels)


def test_a_blob_becomes_the_square_under_it():
    picture, truth = plate((slice(40, 72), slice(24, 64)))
    map = blurred(truth)
    (before,) = find_regions(map, 0.3, p_value=lambda score: 0.01)
    (after,) = Refiner(ShadeSegmenter())(picture, (before,), map)
    assert overlap(before, truth) < 0.85
    assert overlap(after, truth) > 0.9  # the segmenter's own cells are four pixels wide
    assert after.area == after.mask.sum()
    assert after.area_percent == pytest.approx(100 * after.area / SIDE**2)
    changed = {"box", "mask", "polygons", "area", "area_percent"}
    for field in dataclasses.fields(before):
        if field.name not in changed:
            assert getattr(after, field.name) == getattr(before, field.name)


def test_without_regions_or_a_map_the_segmenter_does_not_run():
    picture, truth = plate((slice(40, 72), slice(24, 64)))
    segmenter = Counting()
    refiner = Refiner(segmenter)
    assert refiner(picture, (), blurred(truth)) == ()
    regions = find_regions(blurred(truth), 0.3)
    assert refiner(picture, regions, None) == regions
    assert segmenter.calls == 0
    refiner(picture, regions, blurred(truth))
    assert segmenter.calls == 1


class Elsewhere(ShadeSegmenter):
    """Marks all but what it was asked for."""

    def answer(self, embedded, prompts, several):
        found = super().answer(embedded, prompts, several)
        return Masks(-found.logits.abs() - 1, found.quality)


def test_a_region_keeps_its_mask_where_no_other_agrees():
    picture, truth = plate((slice(40, 72), slice(24, 64)))
    map = blurred(truth)
    regions = find_regions(map, 0.3)
    assert Refiner(Elsewhere())(picture, regions, map) == regions


def test_masks_stay_within_the_inspected_area_and_share_no_pixel():
    picture, truth = plate((slice(20, 60), slice(20, 52)), (slice(20, 60), slice(72, 104)))
    map = blurred(truth)
    inspected = np.ones_like(truth)
    inspected[:30] = False
    regions = find_regions(map, 0.4, inspected=inspected)
    assert len(regions) == 2
    seen = np.zeros_like(truth, int)
    for region in Refiner(ShadeSegmenter())(picture, regions, map, inspected):
        x, y, width, height = region.box
        seen[y : y + height, x : x + width] += region.mask
        assert region.area_percent == pytest.approx(100 * region.area / inspected.sum())
    assert seen.max() == 1
    assert not seen[:30].any()


def test_the_mask_that_fits_the_map_is_taken():
    values = np.zeros((8, 8))
    values[2:6, 2:6] = 1.0
    own = values > 0
    values[own] = np.linspace(0.5, 1.0, 16)
    small, right, large = (np.zeros((8, 8), bool) for _ in range(3))
    small[5:6, 5:6] = right[3:6, 2:6] = large[:, :] = True
    # e is the values: overlaps of about 0.7 with the twelve, 0.3 with the four, 0.2 with all
    assert (best_mask(np.stack([small, right, large]), values, own) == right).all()
    assert best_mask(large[None], values, own) is None  # three quarters of it lie outside
    flat = np.where(own, 1.0, 0.0)
    assert (best_mask(np.stack([small, own]), flat, own) == own).all()


def test_a_window_is_a_part_of_the_whole_enlarged():
    logits = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.functional.interpolate(logits[None], (50, 70), mode="bilinear")[0]
    window = slice(7, 31), slice(40, 70)
    sharp = whole.abs() > 1e-4  # where rounding does not decide
    same = (
        torch.from_numpy(within(logits, window, (50, 70))) == (whole > 0)[:, window[0], window[1]]
    )
    assert same[sharp[:, window[0], window[1]]].all()


def test_prompts_are_boxes_and_the_highest_peaks():
    map = np.zeros((20, 40), np.float32)
    map[4:10, 8:30] = 0.5
    map[5, 10], map[6, 11], map[8, 25] = 0.9, 0.8, 1.0
    map[15, 2] = 0.7
    parts = parts_above(map, 0.1)
    assert [(part.rows, part.columns) for part in parts] == [
        (slice(4, 10), slice(8, 30)),
        (slice(15, 16), slice(2, 3)),
    ]
    assert len(parts_above(map, 0.1, least=2)) == 1
    assert peaks(map, map > 0.6, 5, 6.0) == [(8, 25), (5, 10), (15, 2)]
    given = prompts_from(map, parts, most=2, apart=0.1)
    torch.testing.assert_close(
        given.boxes, torch.tensor([[8 / 40, 0.2, 0.75, 0.5], [0.05, 0.75, 0.075, 0.8]])
    )
    torch.testing.assert_close(given.points[0, 0], torch.tensor([25.5 / 40, 8.5 / 20]))
    assert given.labels.tolist() == [[1, 1], [1, -1]]


def test_an_inspection_keeps_verdict_and_numbers():
    inspector = Inspector(Setting("winclip", {}).build())
    inspector.describe("plate")
    picture, _ = plate((slice(40, 72), slice(24, 64)))
    inspector.policy = inspector.active_policy().with_threshold("x1.0")
    before = inspector.inspect(picture)
    inspector.refiner = Refiner(ShadeSegmenter())
    after = inspector.inspect(picture)
    assert (after.score, after.verdict, after.p_value) == (
        before.score, before.verdict, before.p_value,
    )  # fmt: skip
    assert after.counts == before.counts
    assert [r.score for r in after.regions] == [r.score for r in before.regions]


def test_segmenters_say_what_they_lack():
    with pytest.raises(NotImplementedError):
        Segmenter("none", "0" * 64, 64).embed(torch.zeros(1, 3, 64, 64))
    part = MapPart(slice(0, 1), slice(0, 1), np.ones((1, 1), bool))
    assert len(prompts_from(np.ones((1, 1)), [part])) == 1
