"""Small learned layers beside a frozen backbone, and where they read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_Layer = TypeVar("_Layer", nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


def quarter_depths(layers: int) -> tuple[int, ...]:
    """Blocks (from 1) at a quarter, half, three quarters and the end of a tower.

    24 blocks give 6, 12, 18, 24, the taps of AdaCLIP, VCP-CLIP, APRIL-GAN and many others. A tower
    of fewer than four blocks gives each of its blocks once.
    """
    return tuple(sorted({max(1, (layers * quarter + 2) // 4) for quarter in range(1, 5)}))


def check_taps(taps: Sequence[int], layers: int) -> tuple[int, ...]:
    """Return the taps if the tower has such blocks.

    Raises:
        ValueError: none at all, one named twice, or one outside 1..layers.
    """
    if not taps or len(set(taps)) < len(taps) or not all(1 <= tap <= layers for tap in taps):
        raise ValueError(
            f"taps {tuple(taps)}: name different blocks of the image tower, which has 1..{layers}"
        )
    return tuple(taps)


def linear(
    inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True
) -> nn.Linear:
    """Linear layer with torch's default initial values, drawn from ``generator``."""
    return initialised(nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias), generator)


def initialised(layer: _Layer, generator: torch.Generator) -> _Layer:
    """Fill a layer as torch does by default: uniform within ``1 / sqrt(inputs per output)``."""
    bound = layer.weight[0].numel() ** -0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of ``(B, C)`` or ``(B, C, N)`` that also trains on a single value.

    One value per channel has no variance: it is normalised by the running statistics, as in use,
    where torch's own layer fails at the end of an epoch that leaves one picture over.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise, in training by the batch's own statistics."""
        if self.training and input.numel() == input.shape[1]:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(input, mean, variance, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class Projections(nn.Module):
    """One linear layer for each of several inputs, ``(..., W) -> (..., D)``."""

    def __init__(self, count: int, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.head = nn.ModuleList(linear(inputs, outputs, generator) for _ in range(count))

    def forward(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Each input through its own layer; ValueError where there are more or fewer."""
        return [layer(x) for layer, x in zip(self.head, inputs, strict=True)]

    def of_one(self, x: Tensor) -> Tensor:
        """Every layer on the same input: ``(..., W) -> (..., count, D)``."""
        return torch.stack([layer(x) for layer in self.head], dim=-2)


class Bottleneck(nn.Sequential):
    """Two linear layers without bias, a LeakyReLU of slope 0.01 between: ``(..., I) -> (..., O)``.

    ``hidden`` is the width between them.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__(
            linear(inputs, hidden, generator, bias=False),
            nn.LeakyReLU(0.01),
            linear(hidden, outputs, generator, bias=False),
        )
