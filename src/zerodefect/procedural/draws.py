"""Random numbers by name and index, so that a picture never depends on the batch it is drawn in."""

from __future__ import annotations

import functools
import math
import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

BANK_SIZE = 512
# Spectral slopes of the stored noise fields: amplitude ~ frequency ** -slope.
_SLOPES = {"white": 0.0, "rough": 0.6, "pink": 1.0, "cloud": 1.6, "smooth": 2.2}
_BANDS = {"grains": (0.10, 0.03), "cells": (0.05, 0.015)}  # centre and width, cycles per pixel
NOISES = (*_SLOPES, *_BANDS)


def _mix(value: np.ndarray) -> np.ndarray:
    """Finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


@dataclass(frozen=True)
class Draws:
    """Named random numbers of a batch of pictures: a pure function of (seed, index, name).

    Attributes:
        seed: any integer in [0, 2**63).
        indices: ``(B,)`` uint64 numbers of the pictures.
        device: where the drawn tensors go.
        prefix: put before every name, to draw the same things again independently.
    """

    seed: int
    indices: np.ndarray
    device: torch.device
    prefix: str = ""

    def __len__(self) -> int:
        return len(self.indices)

    def rows(self, rows: torch.Tensor) -> Draws:
        """The same numbers for some of the pictures; ``rows`` are positions in this batch."""
        return replace(self, indices=self.indices[rows.cpu().numpy()])

    def under(self, prefix: str) -> Draws:
        """Independent numbers for a part of the picture that is drawn more than once."""
        return replace(self, prefix=f"{self.prefix}{prefix}/")

    def _unit(self, name: str, count: int) -> np.ndarray:
        """``(B, count)`` float64 in [0, 1)."""
        stream = zlib.crc32(f"{self.prefix}{name}".encode())
        key = _mix(np.array([self.seed], dtype=np.uint64) * _GOLDEN + np.uint64(stream))
        row = _mix(self.indices * _GOLDEN + key)[:, None]
        column = np.arange(1, count + 1, dtype=np.uint64)[None]
        return (_mix(row + column * _GOLDEN) >> np.uint64(11)) * 2.0**-53

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.device)

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """``(B,)`` uniform in [low, high)."""
        return self._tensor(low + (high - low) * self._unit(name, 1)[:, 0])

    def uniforms(self, name: str, count: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """``(B, count)`` uniform in [low, high)."""
        return self._tensor(low + (high - low) * self._unit(name, count))

    def log_uniform(self, name: str, low: float, high: float) -> torch.Tensor:
        """``(B,)`` with a uniform logarithm in [log low, log high)."""
        return self._tensor(low * np.exp(math.log(high / low) * self._unit(name, 1)[:, 0]))

    def chance(self, name: str, probability: float) -> torch.Tensor:
        """``(B,)`` bool, true with the given probability."""
        return torch.from_numpy(self._unit(name, 1)[:, 0] < probability).to(self.device)

    def integers(self, name: str, count: int) -> np.ndarray:
        """``(B,)`` int64 in {0, ..., count - 1}."""
        return (self._unit(name, 1)[:, 0] * count).astype(np.int64)

    def weighted(self, name: str, weights: np.ndarray) -> np.ndarray:
        """``(B,)`` int64 positions in ``weights``, drawn in proportion to them."""
        edges = np.cumsum(weights) / np.sum(weights)
        return np.searchsorted(edges, self._unit(name, 1)[:, 0], side="right")


@functools.lru_cache(maxsize=4)
def _noise_bank(device: torch.device) -> torch.Tensor:
    """``(len(NOISES), N + 1, N + 1)`` tileable fields of zero mean and unit variance.

    One bank serves all seeds: pictures differ by where, how large and how turned they read it.
    """
    generator = torch.Generator().manual_seed(20240229)
    spectrum = torch.fft.fft2(torch.randn(BANK_SIZE, BANK_SIZE, generator=generator))
    axis = torch.fft.fftfreq(BANK_SIZE)
    frequency = torch.hypot(axis[:, None], axis[None, :]).clamp_min(1.0 / BANK_SIZE)
    filters = [frequency**-slope for slope in _SLOPES.values()]
    filters += [torch.exp(-(((frequency - c) / w) ** 2) / 2) for c, w in _BANDS.values()]
    fields = []
    for number, response in enumerate(filters):
        shifted = torch.roll(spectrum, 7 * number, 0)  # decorrelates the fields
        field = torch.fft.ifft2(shifted * response).real
        field = (field - field.mean()) / field.std()
        fields.append(F.pad(field[None, None], (0, 1, 0, 1), mode="circular")[0, 0])
    return torch.stack(fields).to(device)


def column(values: torch.Tensor) -> torch.Tensor:
    """``(B,)`` as ``(B, 1, 1)``, ready to meet a field."""
    return values[:, None, None]


@dataclass(frozen=True)
class Field:
    """The picture plane: x to the right, y down, both in [-64, 64] whatever the pixel count.

    One unit is one pixel of a 128-pixel picture, so that a picture shows the same at any size.
    """

    size: int
    device: torch.device

    @functools.cached_property
    def xy(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Two ``(1, S, S)`` coordinate planes."""
        step = 128.0 / self.size
        axis = (torch.arange(self.size, device=self.device, dtype=torch.float32) + 0.5) * step - 64
        return axis[None, None, :].expand(1, self.size, -1), axis[None, :, None].expand(
            1, -1, self.size
        )

    def turned(self, angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B, S, S)`` coordinates (along, across) of a system turned by ``angle`` (radians)."""
        x, y = self.xy
        cos, sin = (
            column(torch.cos(angle.double()).float()),
            column(torch.sin(angle.double()).float()),
        )
        return x * cos + y * sin, y * cos - x * sin

    def noise(
        self,
        draws: Draws,
        name: str,
        noise: str,
        scale: torch.Tensor | float = 1.0,
        stretch: torch.Tensor | float = 1.0,
        at: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Read stored noise at a random place.

        Args:
            draws: names the place.
            name: which reading; another name is another place.
            noise: one of ``NOISES``.
            scale: noise pixels per unit of the plane: above one is finer.
            stretch: above one is longer along the first coordinate.
            at: two ``(B, S, S)`` planes to read at, by default the plane's own.

        Returns:
            ``(B, S, S)`` of about zero mean and unit variance over the whole bank.
        """
        x, y = at if at is not None else self.xy
        count = len(draws)
        place = draws.uniforms(f"noise/{name}", 2, 0.0, BANK_SIZE)
        scale_c = column(scale) if isinstance(scale, torch.Tensor) else scale
        stretch_c = column(stretch) if isinstance(stretch, torch.Tensor) else stretch
        column_at = torch.remainder(x * (scale_c / stretch_c) + column(place[:, 0]), BANK_SIZE)
        row_at = torch.remainder(y * scale_c + column(place[:, 1]), BANK_SIZE)
        bank = _noise_bank(self.device)[NOISES.index(noise)]
        grid = torch.stack(torch.broadcast_tensors(column_at, row_at), -1) * (2 / BANK_SIZE) - 1
        read = F.grid_sample(
            bank[None, None],
            grid.reshape(1, count * self.size, self.size, 2),
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )
        return read.view(count, self.size, self.size)


def smoothstep(
    low: float | torch.Tensor, high: float | torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """Cubic rise from 0 at ``low`` to 1 at ``high``."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
