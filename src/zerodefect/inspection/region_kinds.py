"""Of what kind a region is: from a user's examples where there are some, else from words.

Examples are compared by a linear discriminant (Fisher, Annals of Eugenics 1936) whose within-kind
covariance is shrunk towards a multiple of the identity, as few examples of many numbers need it
(Ledoit and Wolf, J. Multivariate Analysis 2004). How strange an example is, far from its nearest
kind or between two, when the examples of its own picture are left out says what is usual; a region
that is stranger than all but the stated share of them is of an unknown kind (conformal prediction
within groups, by kind and size; Vovk et al., 2005, section 4.5; left out in turn, so that the rate
holds nearly, and is not proven).

Symbols: x a region's description, mu_k the mean of kind k, S the shrunk covariance,
d_k^2 = (x - mu_k)' S^-1 (x - mu_k), T the temperature of shares softmax(-d_k^2 / 2T).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from scipy.special import log_softmax

from zerodefect.inspection.allowances import UNNAMED
from zerodefect.inspection.regions import overlaps
from zerodefect.types import Region

USUAL_UNKNOWN = 0.1
"""Share of regions of taught kinds that may be called unknown."""

_SHRINKAGE = 0.5  # chosen on steel and fabric; from 0.1 to 0.6 it makes no difference
_FOLDS = 20  # of pictures, at most, that are left out in turn
_ENOUGH = 2  # examples, at least, that may be stranger than a region at the stated rate
_TEMPERATURES = np.geomspace(0.25, 4096, 57)

Named = tuple[str | None, float | None]
"""Kind and its share of all kinds; neither where nothing fits."""


class KindsError(ValueError):
    """Examples that no kinds can be learned from; the message says what to give."""


@dataclass(frozen=True)
class _Discriminant:
    """The shrunk linear discriminant of examples."""

    centre: np.ndarray  # (D,)
    scale: np.ndarray  # (D,)
    axes: np.ndarray  # (r, D) along which examples of a kind differ
    stretch: np.ndarray  # (r,) S^-1/2 along them
    rest: float  # S^-1/2 across them
    means: np.ndarray  # (K, r + D) of the kinds, stretched

    @classmethod
    def of(
        cls, x: np.ndarray, kinds: np.ndarray, count: int, widths: Sequence[int]
    ) -> _Discriminant:
        """Learn from descriptions ``(n, D)`` of kinds ``(n,)`` below ``count``."""
        block = np.repeat(np.sqrt(widths), widths)  # each block weighs as much as any other
        centre, spread = x.mean(0), x.std(0)
        scale = (spread + 1e-6 * np.abs(x).max(0) + 1e-9) * block
        z = (x - centre) / scale
        there = np.bincount(kinds, minlength=count) > 0
        means = np.full((count, z.shape[1]), np.nan)
        for k in np.flatnonzero(there):
            means[k] = z[kinds == k].mean(0)
        residuals = z - means[kinds]
        _, s, axes = np.linalg.svd(residuals, full_matrices=False)
        variance = s**2 / max(1, len(x) - int(there.sum()))
        usual = variance.sum() / z.shape[1] or 1.0
        stretch = 1 / np.sqrt((1 - _SHRINKAGE) * variance + _SHRINKAGE * usual)
        made = cls(centre, scale, axes, stretch, 1 / math.sqrt(_SHRINKAGE * usual), means)
        return replace(made, means=made._stretched(means))

    def _stretched(self, z: np.ndarray) -> np.ndarray:
        along = z @ self.axes.T
        return np.concatenate([along * self.stretch, (z - along @ self.axes) * self.rest], axis=1)

    def distances(self, x: np.ndarray) -> np.ndarray:
        """Squared distance to each kind ``(n, K)``; infinite to one without examples."""
        seen = self._stretched((x - self.centre) / self.scale)
        squared = np.stack([((seen - mean) ** 2).sum(1) for mean in self.means], axis=1)
        return np.nan_to_num(squared, nan=np.inf)


@dataclass(frozen=True)
class KindExamples:
    """Examples of kinds of defects, and what is learned from them.

    Attributes:
        names: of the kinds.
        values: ``(n, D)`` float32 descriptions of the examples' regions.
        kinds: ``(n,)`` number of the kind of each.
        pictures: ``(n,)`` number of the picture that each is from.
        widths: of the blocks of the D columns; the last one begins with the region's size.
        unknown: share of regions of these kinds that may be called unknown.
        digests: of the picture of each, as ``sources.digest`` names it; "" where it is not known,
            as in files of earlier versions.
    """

    names: tuple[str, ...]
    values: np.ndarray
    kinds: np.ndarray
    pictures: np.ndarray
    widths: tuple[int, ...]
    unknown: float = USUAL_UNKNOWN
    digests: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.values)
        object.__setattr__(self, "digests", self.digests or ("",) * n)
        rows = self.values.ndim == 2 and self.kinds.shape == self.pictures.shape == (n,)
        rows = rows and len(self.digests) == n
        if not rows or not n or sum(self.widths) != self.values.shape[1]:
            raise KindsError("the examples of kinds do not fit together. Teach the kinds again")
        if not np.isfinite(self.values).all():
            raise KindsError("an example of a kind is not finite. Check the weights")
        if set(self.kinds.tolist()) != set(range(len(self.names))):
            raise KindsError("a kind has no example. Give pictures of every kind")
        if not 0 <= self.unknown < 1:
            raise KindsError(f"the rate of unknown kinds must lie in [0, 1), got {self.unknown}")
        for name in self.names:
            check_name(name)

    def counts(self) -> dict[str, int]:
        """Pictures of each kind."""
        numbers = range(len(self.names))
        return {self.names[k]: len(set(self.pictures[self.kinds == k].tolist())) for k in numbers}

    def joined(self, new: KindExamples) -> KindExamples:
        """These and new ones; a kind that is taught anew forgets its earlier examples.

        Raises:
            KindsError: they were described by another detector, or a new name is nearly an old one.
        """
        if new.widths != self.widths:
            raise KindsError("the examples were described by another detector. Teach all anew")
        kept = [k for k, name in enumerate(self.names) if name not in new.names]
        names = checked_names([*(self.names[k] for k in kept), *new.names])
        old = np.isin(self.kinds, kept)
        renamed = [kept.index(k) for k in self.kinds[old]]
        shift = int(self.pictures.max()) + 1
        return replace(
            new,
            names=names,
            values=np.concatenate([self.values[old], new.values]),
            kinds=np.concatenate([np.array(renamed, int), new.kinds + len(kept)]),
            pictures=np.concatenate([self.pictures[old], new.pictures + shift]),
            digests=(*np.array(self.digests)[old].tolist(), *new.digests),
        )

    @cached_property
    def _whole(self) -> _Discriminant:
        return self._learned(np.ones(len(self.values), bool))

    def _learned(self, rows: np.ndarray) -> _Discriminant:
        x = self.values[rows].astype(np.float64)
        return _Discriminant.of(x, self.kinds[rows], len(self.names), self.widths)

    @cached_property
    def left_out(self) -> np.ndarray:
        """Squared distances ``(n, K)`` of each example, those of its picture left out."""
        order = {picture: i for i, picture in enumerate(dict.fromkeys(self.pictures.tolist()))}
        folds = np.array([order[picture] for picture in self.pictures.tolist()]) % _FOLDS
        found = np.full((len(folds), len(self.names)), np.inf)
        for fold in np.unique(folds):
            rows = folds != fold
            if rows.any():
                found[~rows] = self._learned(rows).distances(self.values[~rows].astype(np.float64))
        return found

    @cached_property
    def right(self) -> float | None:
        """Share of examples that are called what they are, left out in turn; None if unknown."""
        told = np.isfinite(self.left_out).any(1)
        if not told.any() or len(self.names) < 2:
            return None
        return float((self.left_out[told].argmin(1) == self.kinds[told]).mean())

    @cached_property
    def _temperature(self) -> float:
        """The one under which the examples left out, and one more that is mistaken, are likeliest.

        Few examples that are all told right do not make the next one certain.
        """
        told = np.isfinite(self.left_out).all(1)
        d, own = self.left_out[told], self.kinds[told]
        if not len(d) or len(self.names) < 2:
            return float(_TEMPERATURES[-1])
        mine = np.eye(len(self.names), dtype=bool)[own]
        fits = []
        for t in _TEMPERATURES:
            logs = log_softmax(-d / (2 * t), axis=1)
            mistaken = np.where(mine, -np.inf, logs).max(1)
            fits.append(logs[mine].sum() + mistaken.mean())
        return float(_TEMPERATURES[int(np.argmax(fits))])

    def distances(self, values: np.ndarray) -> np.ndarray:
        """Squared distances ``(m, K)`` of descriptions ``(m, D)`` to the kinds.

        Raises:
            KindsError: they were described by another detector.
        """
        if values.shape[1] != self.values.shape[1]:
            raise KindsError("the examples were described by another detector. Teach them anew")
        return self._whole.distances(values.astype(np.float64))

    def decide(self, values: np.ndarray) -> list[Named]:
        """Kind and share of regions from their descriptions ``(m, D)``; errors as ``distances``."""
        d = self.distances(values)
        shares = np.exp(log_softmax(-d / (2 * self._temperature), axis=1))
        usual = _strangeness(self.left_out)
        found: list[Named] = []
        for row, best, strange in zip(values, d.argmin(1), _strangeness(d), strict=True):
            like = usual[self._comparable(row, best)]
            p = (1 + np.count_nonzero(like >= strange)) / (len(like) + 1)
            share = float(shares[len(found), best])
            found.append((self.names[best], share) if p > self.unknown else (None, None))
        return found

    def _comparable(self, value: np.ndarray, nearest: int) -> np.ndarray:
        """Numbers of the examples whose strangeness says what is usual for a region.

        Those of the kind that is nearest to it, if they are enough, else all; of these the half
        that is nearest in size, since means over few patches scatter more.
        """
        told = np.flatnonzero(np.isfinite(self.left_out).any(1))
        enough = math.ceil(_ENOUGH / self.unknown) - 1 if self.unknown else len(told)
        own = told[self.kinds[told] == nearest]
        some = own if len(own) >= enough else told
        size = self.values[some, -self.widths[-1]] - value[-self.widths[-1]]
        most = max(enough, len(some) // 2)
        return some[np.argsort(np.abs(size), kind="stable")[:most]]

    def facts(self) -> dict[str, Any]:
        """What decides kinds, as plain data for manifests."""
        digest = hashlib.sha256(self.to_bytes()).hexdigest()
        facts = {"pictures": self.counts(), "right": self.right, "unknown": self.unknown}
        return {**facts, "sha256": digest}

    def told(self) -> str:
        """One sentence: which kinds, from how many examples, how well they are told apart."""
        taught = ", ".join(f"{name} ({n})" for name, n in self.counts().items())
        right = "" if self.right is None else f"; {self.right:.0%} right, each left out in turn"
        if len(self.names) == 1:
            right = "; one kind alone cannot be told from others: teach a second one"
        smallest = 1 / (len(self.values) + 1)
        rate = (
            f"about {self.unknown:.0%} of such regions are called unknown"
            if self.unknown >= smallest
            else f"too few for a rate of unknown ones below {smallest:.0%}: none is called unknown"
        )
        return f"kinds from examples: {taught}{right}; {rate}"

    def to_bytes(self) -> bytes:
        """As safetensors."""
        tensors = {
            "values": torch.from_numpy(np.ascontiguousarray(self.values, np.float32)),
            "kinds": torch.from_numpy(self.kinds.astype(np.int64)),
            "pictures": torch.from_numpy(self.pictures.astype(np.int64)),
        }
        about: dict[str, Any] = {"names": self.names, "widths": self.widths}
        about["unknown"] = self.unknown
        if any(self.digests):
            about["digests"] = self.digests
        return save(tensors, {"kinds": json.dumps(about)})

    @classmethod
    def from_bytes(cls, data: bytes) -> KindExamples:
        """Read what ``to_bytes`` gave.

        Raises:
            KindsError: damaged.
        """
        try:
            size = int.from_bytes(data[:8], "little")
            about = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["kinds"])
            found = load(data)
            values, kinds, pictures = (
                found[name].numpy() for name in ("values", "kinds", "pictures")
            )
            names = tuple(map(str, about["names"]))
            widths, unknown = tuple(map(int, about["widths"])), float(about["unknown"])
            digests = tuple(map(str, about.get("digests", ())))
            return cls(names, values, kinds, pictures, widths, unknown, digests)
        except (SafetensorError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise KindsError(f"the examples of kinds are damaged ({error})") from None


def _strangeness(d: np.ndarray) -> np.ndarray:
    """Distance ``(n,)`` to the nearest kind less half of that to the next one, if there is one.

    What lies between two kinds is as strange as what lies far from all.
    """
    ordered = np.sort(d, axis=1)
    if d.shape[1] < 2:
        return ordered[:, 0]
    second = np.where(np.isfinite(ordered[:, 1]), ordered[:, 1], 0.0)
    return ordered[:, 0] - second / 2


def checked_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of kinds without the space around them.

    Raises:
        KindsError: one cannot be a name, or differs from another in case or spaces alone.
    """
    found: dict[str, str] = {}
    for name in names:
        check_name(name)
        plain = "".join(name.split()).casefold()
        if plain in found:
            raise KindsError(
                f"kinds {found[plain]!r} and {name!r} differ in case or spaces alone. Call them "
                "the same, or something else"
            )
        found[plain] = name
    return tuple(name.strip() for name in found.values())


def check_name(name: str) -> None:
    """Make sure that a kind can be called that.

    Raises:
        KindsError: no name, or the word for no kind.
    """
    if not isinstance(name, str):
        raise KindsError(f"{name!r} is no name of a kind. Give it a text")
    if not name.strip() or name.strip().casefold() == UNNAMED or set(name) & set(":;,"):
        raise KindsError(
            f"{name!r} is no name of a kind. Give it one without : ; and , other than {UNNAMED!r}"
        )


def by_words(
    regions: Sequence[Region],
    type_map: np.ndarray | None,
    kinds: Sequence[str],
    size: tuple[int, int],
) -> tuple[Region, ...]:
    """Name regions by a detector's map of kinds.

    Args:
        regions: of one picture.
        type_map: ``(T, h, w)`` non-negative share per defect kind; may be coarser than the picture
            (each pixel takes the cell it lies in). A region's kind is the one with the largest
            mean over the region; it is not known where no kind has any share. None: none is told.
        kinds: the T names.
        size: ``(height, width)`` of the picture.

    Raises:
        ValueError: the number of names differs from the number of maps.
    """
    if type_map is None or not regions:
        return tuple(regions)
    if type_map.ndim != 3 or len(type_map) != len(kinds):
        raise ValueError(f"{len(kinds)} kinds do not fit type maps of shape {type_map.shape}")
    named = (_largest(shares, kinds) for shares in _mean_shares(regions, type_map, size))
    pairs = zip(regions, named, strict=True)
    return tuple(replace(region, kind=kind, kind_score=share) for region, (kind, share) in pairs)


def _largest(shares: np.ndarray, kinds: Sequence[str]) -> Named:
    best = int(shares.argmax())
    return (kinds[best], float(shares[best])) if shares[best] > 0 else (None, None)


def _mean_shares(
    regions: Sequence[Region], type_map: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Mean of each kind over each region ``(regions, T)``; rows sum to one."""
    T, h, w = type_map.shape
    means = overlaps(regions, (h, w), (0, 0, *size)) @ type_map.reshape(T, -1).T.astype(np.float64)
    total = means.sum(axis=1, keepdims=True)
    return means / np.where(total > 0, total, 1.0)
