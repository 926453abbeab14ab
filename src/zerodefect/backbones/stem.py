"""A frozen convolutional network in the place of CLIP's patch convolution (ours).

A small tower that learns from drawn pictures alone never sees a real surface. The stages of a
network that was trained on ImageNet have: they say of every place what it looks like and,
standardised within the picture, how unusual that is there. A linear layer makes tokens of both, and
the tower's blocks go on from them as from any patches.

Symbols: f the features of a stage, mu and sigma their mean and deviation per channel over the
places of a picture, s the deviation per channel over many pictures, z = (f - mu) / (sigma + 0.1 s).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerodefect.backbones.efficientnet import STRIDES, EfficientNetLite
from zerodefect.backbones.efficientnet_weights import lite_network
from zerodefect.images import CLIP_MEAN, CLIP_STD

STRIDE = 8  # of the tokens, in pixels
STEMS = ("efficientnet_lite0",)
_READ = [stage for stage, stride in STRIDES.items() if stride >= 4]

_USUAL = 0.8  # mean of |z| where z is Gaussian
_LEAST = 0.05  # of the mean square of z: below it all places are equally usual
_STEADY = 0.1  # share of s that is added to sigma, so that noise of plain pictures stays small


class Stem(nn.Module):
    """Tokens at stride 8 from four stages of a frozen network.

    Of every stage there enter f (standardised over many pictures), z and |z|, and the mean square
    of z over the channels, which is how far a place lies from the middle of its own picture. The
    stage at stride 4 is averaged down, coarser ones are interpolated behind their linear layer.

    Args:
        name: one of ``STEMS``.
        width: W, channels of the tokens.

    Raises:
        ValueError: no such stem.
    """

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        if name not in STEMS:
            raise ValueError(f"no stem {name!r}; known are {', '.join(STEMS)}")
        self.eyes = EfficientNetLite(name).eval().requires_grad_(False)
        channels = [self.eyes.channels[stage] for stage in _READ]
        self.project = nn.ModuleList(nn.Linear(3 * c, width, bias=False) for c in channels)
        self.unusual = nn.Linear(len(channels), width)
        for number, count in enumerate(channels):
            self.register_buffer(f"mean{number}", torch.zeros(count))
            self.register_buffer(f"deviation{number}", torch.ones(count))

    @torch.no_grad()
    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Features ``(B, C, h, w)`` of the stages; pixels ``(B, 3, H, W)`` normalised as CLIP's."""
        mean, deviation = (pixels.new_tensor(v)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
        shown = (pixels * deviation + mean) * 2 - 1
        found: list[Tensor] = self.eyes(shown, _READ)
        return found

    @torch.no_grad()
    def learn_usual(self, pixels: Tensor) -> None:
        """Take mean and deviation of every channel from pixels as ``maps`` takes them."""
        for number, f in enumerate(self.maps(pixels)):
            mean, deviation = self._usual(number)
            mean.copy_(f.mean((0, 2, 3)))
            deviation.copy_(f.std((0, 2, 3)).clamp(min=1e-3))

    def forward(self, pixels: Tensor) -> Tensor:
        """Tokens ``(B, H / 8 * W / 8, W)`` of ``(B, 3, H, W)`` pixels normalised as CLIP's."""
        return self.tokens(self.maps(pixels))

    def tokens(
        self, maps: Sequence[Tensor], changed: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Tokens ``(B, N, W)`` of what ``maps`` gave.

        Args:
            maps: of the stages, finest first.
            changed: what training does to the ``(B, n, 3 C)`` inputs of every linear layer.
        """
        grid = maps[1].shape[-2:]
        tokens, squares = [], []
        for number, (f, linear) in enumerate(zip(maps, self.project, strict=True)):
            x, square = self._described(f, number)
            if number == 0:
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            squares.append(_at(square, grid))
            rows = x.flatten(2).mT
            rows = rows if changed is None else changed(rows)
            y = linear(rows.to(self.unusual.weight.dtype)).mT.unflatten(2, x.shape[-2:])
            tokens.append(_at(y, grid).flatten(2).mT)
        unusual = (torch.cat(squares, 1) + _LEAST).log().flatten(2).mT
        return sum(tokens, self.unusual(unusual.to(self.unusual.weight.dtype)))

    def _usual(self, number: int) -> tuple[Tensor, Tensor]:
        return getattr(self, f"mean{number}"), getattr(self, f"deviation{number}")

    def _described(self, f: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """f standardised, z and |z| as ``(B, 3 C, h, w)``, and the mean square ``(B, 1, h, w)``."""
        f = f.float()
        mean, s = (each.float()[:, None, None] for each in self._usual(number))
        mu, sigma = f.mean((2, 3), keepdim=True), f.std((2, 3), keepdim=True, correction=0)
        z = (f - mu) / (sigma + _STEADY * s)
        size = z.abs()
        return torch.cat([(f - mean) / s, z, size - _USUAL], 1), z.square().mean(1, keepdim=True)


def _at(plane: Tensor, grid: tuple[int, ...]) -> Tensor:
    """``(B, C, h, w)`` at another grid: averaged down, or interpolated."""
    if plane.shape[-2:] == grid:
        return plane
    if plane.shape[-2] > grid[0]:
        return F.avg_pool2d(plane, 2, ceil_mode=True)
    return F.interpolate(plane, size=grid, mode="bilinear", align_corners=False)


def pretrained_eyes(name: str) -> dict[str, Tensor]:
    """Values of ``Stem.eyes``, from the package that the weights come with.

    Raises:
        WeightsError: the package is not installed, or another one.
    """
    return lite_network(name)[0].state_dict()
