"""Connected parts of masks: which there are, where they lie and how large they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class Components:
    """Parts of one mask whose pixels touch by an edge or a corner.

    Attributes:
        labels: ``(h, w)`` int64, 0 where there is none, else 1 to n, row by row.
        areas: ``(n,)`` int64, in pixels.
    """

    labels: Tensor
    areas: Tensor

    def __len__(self) -> int:
        return len(self.areas)

    @property
    def masks(self) -> Tensor:
        """``(n, h, w)`` bool."""
        numbers = torch.arange(1, len(self) + 1, device=self.labels.device)
        return self.labels[None] == numbers[:, None, None]

    @property
    def centres(self) -> Tensor:
        """Centroids ``(n, 2)``, y and x as shares of height and width in [0, 1]."""
        h, w = self.labels.shape
        rows = (torch.arange(h, device=self.labels.device) + 0.5) / h
        columns = (torch.arange(w, device=self.labels.device) + 0.5) / w
        masks = self.masks.float()
        y, x = (masks * rows[:, None]).sum((1, 2)), (masks * columns).sum((1, 2))
        return torch.stack([y, x], 1) / self.areas[:, None].clamp(min=1)

    @property
    def boxes(self) -> Tensor:
        """``(n, 4)`` int64 in pixels: left, top, and right, bottom behind the last pixel."""
        found = ndimage.find_objects(self.labels.cpu().numpy())
        boxes = [(x.start, y.start, x.stop, y.stop) for y, x in found]
        return torch.tensor(boxes, dtype=torch.long, device=self.labels.device).reshape(-1, 4)


def components(mask: Tensor, smallest: int = 1) -> Components:
    """The 8-connected parts of a mask ``(h, w)`` bool that have at least so many pixels.

    Raises:
        ValueError: no mask ``(h, w)``.
    """
    if mask.dim() != 2:
        raise ValueError(f"a mask is (h, w), got {tuple(mask.shape)}")
    labels, count = ndimage.label(mask.bool().cpu().numpy(), _EIGHT)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    kept = areas >= smallest
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0)
    return Components(
        torch.from_numpy(numbers[labels]).to(mask.device),
        torch.from_numpy(areas[kept]).to(mask.device),
    )


def without_small(mask: Tensor, smallest: int) -> Tensor:
    """The mask ``(h, w)`` bool without its 8-connected parts of fewer pixels."""
    return components(mask, smallest).labels > 0


def dilated(mask: Tensor, side: int = 3) -> Tensor:
    """A mask ``(h, w)`` bool grown by a square of an odd side; nothing outside grows into it."""
    grown = F.max_pool2d(mask[None, None].float(), (side, 1), 1, (side // 2, 0))
    grown = F.max_pool2d(grown, (1, side), 1, (0, side // 2))  # one axis after the other
    return grown[0, 0] > 0


def eroded(mask: Tensor, side: int = 3) -> Tensor:
    """A mask ``(h, w)`` bool shrunk by a square of an odd side; nothing outside shrinks it."""
    return ~dilated(~mask, side)
