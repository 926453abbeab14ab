"""Random numbers by name and index, so that a picture never depends on the batch it is drawn in."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
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


Record = TypeVar("Record", bound="PerPicture")


@dataclass(frozen=True)
class PerPicture:
    """A record whose tensors, arrays and lists have one row per picture of a batch."""

    def rows(self: Record, rows: Tensor) -> Record:
        """The same for some of the pictures; ``rows`` are positions in this batch."""
        parts: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                parts[name] = value[rows.to(value.device)]
            elif isinstance(value, np.ndarray):
                parts[name] = value[rows.cpu().numpy()]
            elif isinstance(value, list):
                parts[name] = [value[row] for row in rows.tolist()]
        return replace(self, **parts)


def by_name(names: list[str], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Each name that occurs, and the positions where it stands."""
    for name in dict.fromkeys(names):
        rows = [row for row, other in enumerate(names) if other == name]
        yield name, torch.tensor(rows, device=device)


@dataclass(frozen=True)
class Draws(PerPicture):
    """Named random numbers of a batch of pictures: a pure function of (seed, index, name)."""

    seed: int  # any integer in [0, 2**63)
    indices: np.ndarray  # (B,) uint64 numbers of the pictures
    device: torch.device  # where the drawn tensors go
    prefix: str = ""  # put before every name, to draw the same things again independently

    def __len__(self) -> int:
        return len(self.indices)

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

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.device)

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> Tensor:
        """``(B,)`` uniform in [low, high)."""
        return self.uniforms(name, 1, low, high)[:, 0]

    def uniforms(self, name: str, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """``(B, count)`` uniform in [low, high)."""
        return self._tensor(low + (high - low) * self._unit(name, count))

    def log_uniform(self, name: str, low: float, high: float) -> Tensor:
        """``(B,)`` with a uniform logarithm in [log low, log high)."""
        return self._tensor(low * np.exp(math.log(high / low) * self._unit(name, 1)[:, 0]))

    def chance(self, name: str, probability: float) -> Tensor:
        """``(B,)`` bool, true with the given probability."""
        return torch.from_numpy(self._unit(name, 1)[:, 0] < probability).to(self.device)

    def integers(self, name: str, count: int) -> Tensor:
        """``(B,)`` int64 in {0, ..., count - 1}."""
        drawn = (self._unit(name, 1)[:, 0] * count).astype(np.int64)
        return torch.from_numpy(drawn).to(self.device)

    def weighted(self, name: str, weights: dict[str, float]) -> list[str]:
        """A name for each picture, drawn in proportion to the weights of the names."""
        shares = np.array(list(weights.values()))
        edges = np.cumsum(shares) / np.sum(shares)
        places = np.searchsorted(edges, self._unit(name, 1)[:, 0], side="right")
        return [list(weights)[place] for place in places]


@functools.lru_cache(maxsize=4)
def _noise_bank(device: torch.device) -> Tensor:
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


def column(values: Tensor) -> Tensor:
    """``(B,)`` as ``(B, 1, 1)``, ready to meet a field."""
    return values[:, None, None]


def turned(u: Tensor, v: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """The same points in a system turned by ``angle`` (radians), which meets u and v."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    return u * cos + v * sin, v * cos - u * sin


@dataclass(frozen=True)
class Field:
    """The picture plane: x to the right, y down, both in [-64, 64] whatever the pixel count.

    One unit is one pixel of a 128-pixel picture, so that a picture shows the same at any size.
    """

    size: int
    device: torch.device

    @property
    def step(self) -> float:
        """Side of a pixel in units."""
        return 128.0 / self.size

    @functools.cached_property
    def xy(self) -> tuple[Tensor, Tensor]:
        """Two ``(1, S, S)`` coordinate planes."""
        numbers = torch.arange(self.size, device=self.device, dtype=torch.float32)
        axis = (numbers + 0.5) * self.step - 64
        shape = (1, self.size, self.size)
        return axis[None, None, :].expand(shape), axis[None, :, None].expand(shape)

    def turned(self, angle: Tensor, centre: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(B, S, S)`` coordinates along and across ``angle`` (radians).

        They are zero at ``centre``, ``(B, 2)`` in units of the plane, or in its middle.
        """
        x, y = self.xy
        if centre is not None:
            x, y = x - column(centre[:, 0]), y - column(centre[:, 1])
        cos = column(torch.cos(angle.double()).float())
        sin = column(torch.sin(angle.double()).float())
        return x * cos + y * sin, y * cos - x * sin

    def noise(
        self,
        draws: Draws,
        name: str,
        noise: str,
        scale: Tensor | float = 1.0,
        stretch: Tensor | float = 1.0,
        at: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Read stored noise at a random place: ``(B, S, S)`` of about zero mean and unit variance.

        Args:
            draws: decides the place.
            name: which reading; another name is another place.
            noise: one of ``NOISES``.
            scale: noise pixels per unit of the plane: above one is finer.
            stretch: above one is longer along the first coordinate.
            at: two ``(B, S, S)`` planes to read at, by default the plane's own.
        """
        x, y = at if at is not None else self.xy
        count = len(draws)
        place = draws.uniforms(f"noise/{name}", 2, 0.0, BANK_SIZE)
        fine, long = (column(v) if isinstance(v, Tensor) else v for v in (scale, stretch))
        column_at = torch.remainder(x * (fine / long) + column(place[:, 0]), BANK_SIZE)
        row_at = torch.remainder(y * fine + column(place[:, 1]), BANK_SIZE)
        bank = _noise_bank(self.device)[NOISES.index(noise)]
        grid = torch.stack(torch.broadcast_tensors(column_at, row_at), -1) * (2 / BANK_SIZE) - 1
        grid = grid.reshape(1, count * self.size, self.size, 2)
        read = F.grid_sample(bank[None, None], grid, padding_mode="border", align_corners=True)
        return read.view(count, self.size, self.size)


def smoothstep(low: float | Tensor, high: float | Tensor, x: Tensor) -> Tensor:
    """Cubic rise from 0 at ``low`` to 1 at ``high``."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)
