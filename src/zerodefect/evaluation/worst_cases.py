"""The pictures that were judged worst: good ones that score high, defective ones that score low."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from zerodefect.data.drawn_masks import Mask

MOST = 6
"""Pictures of either kind that are kept."""

_SIDE = 512  # longest side of a kept map, pixels: enough to look at


@dataclass(frozen=True)
class WorstCase:
    """A picture that was judged badly.

    Attributes:
        file: the picture.
        image: its path relative to the data set.
        product, kind, anomalous: as the data set has them.
        shots: references that were known.
        rank: from 1, the worst, among those of its label and number of shots.
        score: raw image score.
        map: ``(h, w)`` float32, longest side at most 512, or None.
        masks: of a defective picture.
        crop: side in pixels of the centre that was measured; None for the whole picture.
        bit_depth: bits that a 16-bit picture uses; None where that is not known.
    """

    file: Path
    image: str
    product: str
    kind: str
    anomalous: bool
    shots: int
    rank: int
    score: float
    map: np.ndarray | None
    masks: tuple[Mask, ...] = ()
    crop: int | None = None
    bit_depth: int | None = None

    @property
    def drawing(self) -> str:
        """Name of the picture that shows it."""
        what = "lowest-defective" if self.anomalous else "highest-good"
        return f"{what}-{self.shots}-shot-{self.rank}.jpg"


class WorstCases:
    """Keeps the worst of the pictures that it is told of, of either label and number of shots."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, bool], list[WorstCase]] = {}

    def add(self, case: WorstCase) -> None:
        """Take a picture in; its rank is given later."""
        kept = self._kept.setdefault((case.shots, case.anomalous), [])
        if len(kept) == MOST and _order(kept[-1]) <= _order(case):
            return
        map = None if case.map is None else _shrunk(case.map)
        kept.append(replace(case, map=map))
        kept.sort(key=_order)
        del kept[MOST:]

    def ranked(self) -> tuple[WorstCase, ...]:
        """All that were kept: by shots, good ones first, the worst first."""
        return tuple(
            replace(case, rank=rank)
            for key in sorted(self._kept)
            for rank, case in enumerate(self._kept[key], start=1)
        )


def _order(case: WorstCase) -> tuple[float, str]:
    return (case.score if case.anomalous else -case.score), case.image


def _shrunk(map: np.ndarray) -> np.ndarray:
    """A map of any size, brought to at most 512 pixels on its longer side by averaging."""
    scale = _SIDE / max(map.shape)
    if scale >= 1:
        return map
    size = [max(1, round(side * scale)) for side in map.shape]
    values = torch.from_numpy(np.ascontiguousarray(map))[None, None]
    return F.interpolate(values, size, mode="area")[0, 0].numpy()
