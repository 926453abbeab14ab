"""Sharp masks for the regions of any detector, by a segmenter that is shown box and peaks.

Only masks change, and what is measured of them: score, p-value, kind, count and verdict rest on the
detector's own map and stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.backbones.backbone import network_facts
from zerodefect.backbones.map_prompts import MapPart, prompts_from
from zerodefect.backbones.segmenter import Segmenter, load_segmenter
from zerodefect.detector.load_detector import pick_device
from zerodefect.images import Picture
from zerodefect.inspection.regions import outlines
from zerodefect.types import Region

SAM = "sam"  # the segmenter that is meant where no other is named

_PEAKS = 3  # of a region that the segmenter is shown, at most
_GROWN = 0.25  # share of a region's sides by which its mask may reach beyond its box
_INSIDE = 0.5  # share of a mask that lies in the detector's region, at least


class Refiner:
    """Turns regions into sharp masks.

    Args:
        segmenter: answers to boxes and points with masks.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter

    @classmethod
    def load(cls, name: str | Path, device: str = "auto") -> Refiner:
        """Load by name: ``sam``, a repository in the hub's cache, or a local folder.

        Raises:
            ValueError: no such device.
            WeightsError: transformers or the weights are not there; the message says what to do.
        """
        chosen = None if name == SAM else str(name)
        return cls(load_segmenter(chosen, device=pick_device(device)))

    def facts(self) -> dict[str, Any]:
        """Which weights these are, plain data."""
        return network_facts(self.segmenter)

    @torch.inference_mode()
    def __call__(
        self,
        picture: Picture,
        regions: Sequence[Region],
        map: np.ndarray | None,
        inspected: np.ndarray | None = None,
    ) -> tuple[Region, ...]:
        """Refine the regions of one picture; without any, the segmenter does not run.

        Of the masks that the segmenter gives for a region, the one is taken that agrees best with
        the map. A mask of which less than half lies in the region is not of it; where none is
        left, the region keeps its own.

        Args:
            picture: that was scored.
            regions: of ``map``, the more important first: what one takes, later ones do not.
            map: ``(H, W)`` raw anomaly map at the picture's size.
            inspected: ``(H, W)`` bool; masks do not reach beyond it.
        """
        if not regions or map is None:
            return tuple(regions)
        device = next(self.segmenter.parameters()).device
        pixels = self.segmenter.preprocess(picture)[None].to(device)
        parts = [_part(region) for region in regions]
        prompts = prompts_from(map, parts, most=_PEAKS)
        answers = self.segmenter.masks(self.segmenter.embed(pixels), 0, prompts, several=True)
        free = np.ones(map.shape, bool) if inspected is None else inspected.copy()
        whole, found = int(np.count_nonzero(free)), []
        for region, part, logits in zip(regions, parts, answers.logits, strict=True):
            window = _window(part, map.shape)
            masks = within(logits, window, map.shape) & free[window]
            mask = best_mask(masks, map[window], _own(part, window))
            made = region if mask is None else _redrawn(region, mask, window, whole)
            x, y, width, height = made.box
            free[y : y + height, x : x + width] &= ~made.mask
            found.append(made)
        return tuple(found)


def best_mask(masks: np.ndarray, values: np.ndarray, own: np.ndarray) -> np.ndarray | None:
    """The mask that agrees best with the map, or None if none lies in the region.

    The agreement is the overlap ``sum min(M, e) / sum max(M, e)`` of a mask M with e, the map from
    its lowest value here, 0, to the highest in the region, 1: coarse maps cross half of that where
    a sharp edge is.

    Args:
        masks: ``(m, h, w)`` bool.
        values: ``(h, w)`` of the map.
        own: ``(h, w)`` bool, the region.
    """
    low, high = values.min(), values[own].max()
    e = np.clip((values - low) / (high - low), 0, 1) if high > low else own.astype(float)
    best, mask = -1.0, None
    for M in masks:
        if np.count_nonzero(M & own) < max(1, _INSIDE * np.count_nonzero(M)):
            continue
        agreement = e[M].sum() / (np.count_nonzero(M) + e[~M].sum())
        if agreement > best:
            best, mask = float(agreement), M
    return mask


def within(logits: Tensor, window: tuple[slice, slice], shape: tuple[int, ...]) -> np.ndarray:
    """Masks ``(m, h, w)`` bool of a part of a picture, from logits of the whole.

    Each pixel takes the bilinear value at its centre, as if all of the picture had been enlarged.

    Args:
        logits: ``(m, H', W')``.
        window: rows and columns of the picture.
        shape: ``(H, W)`` of the picture.
    """
    y, x = (
        2 * (torch.arange(s.start, s.stop, device=logits.device) + 0.5) / side - 1
        for s, side in zip(window, shape, strict=True)
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None].to(logits.dtype)
    sampled = F.grid_sample(logits[None], grid, padding_mode="border", align_corners=False)
    return (sampled[0] > 0).cpu().numpy()


def _part(region: Region) -> MapPart:
    x, y, width, height = region.box
    return MapPart(slice(y, y + height), slice(x, x + width), region.mask)


def _window(part: MapPart, shape: tuple[int, ...]) -> tuple[slice, slice]:
    sides = []
    for own, side in zip((part.rows, part.columns), shape, strict=True):
        more = max(1, round(_GROWN * (own.stop - own.start)))
        sides.append(slice(max(0, own.start - more), min(side, own.stop + more)))
    return sides[0], sides[1]


def _own(part: MapPart, window: tuple[slice, slice]) -> np.ndarray:
    pads = [
        (own.start - outer.start, outer.stop - own.stop)
        for own, outer in zip((part.rows, part.columns), window, strict=True)
    ]
    return np.pad(part.mask, pads)


def _redrawn(
    region: Region, mask: np.ndarray, window: tuple[slice, slice], inspected: int
) -> Region:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    x, y = window[1].start + int(columns[0]), window[0].start + int(rows[0])
    area = int(np.count_nonzero(cut))
    return replace(
        region,
        box=(x, y, cut.shape[1], cut.shape[0]),
        mask=cut,
        polygons=outlines(cut, x, y),
        area=area,
        area_percent=100.0 * area / inspected,
    )
