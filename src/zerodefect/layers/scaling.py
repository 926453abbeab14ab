"""Scaling over a whole set, for official steps that need all images of a class."""

from __future__ import annotations

import torch
from torch import Tensor


class MinMax:
    """Brings values to [0, 1] between the lowest and the highest of all that were seen."""

    def __init__(self) -> None:
        self.low, self.high = float("inf"), float("-inf")

    def see(self, values: Tensor) -> None:
        """Take values of any shape in."""
        self.low = min(self.low, float(values.min()))
        self.high = max(self.high, float(values.max()))

    def scaled(self, values: Tensor) -> Tensor:
        """Values on the scale of all seen; zeros where those were all equal."""
        if self.high <= self.low:
            return torch.zeros_like(values)
        return (values - self.low) / (self.high - self.low)
