"""Predictions kept on disk: an evaluation that was killed goes on; a further metric is free."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from zerodefect.files import StoreError, atomic_write
from zerodefect.images.part_files import part_of

_FORMAT = 3  # raised whenever predictions for the same key would change
_ABOUT = "about.json"
_SCALE = 2.0**16  # brings shares of a map's range to where float16 is finest
_BESIDE = 1200  # bytes of a file beside its map

DEFAULT_LIMIT = 20 * 10**9


@dataclass(frozen=True)
class Kept:
    """A prediction as the network gave it, before anything that a protocol does with it.

    Attributes:
        score: of the picture.
        map: ``(h, w)`` float32 at the size that the network gave it (of a picture in tiles at the
            picture's size), or None.
        size: ``(height, width)`` of the picture in pixels.
    """

    score: float
    map: np.ndarray | None
    size: tuple[int, int]


def to_half(map: np.ndarray) -> dict[str, np.ndarray]:
    """A finite map ``(h, w)`` in two bytes a pixel: float16 distances from its nearer end.

    Metrics look at the order of scores, above all of the highest. Plain float16 makes ties where
    it matters: between 0.5 and 1 it has steps of 5e-4, and probabilities that a sharp softmax gives
    defects differ by less; values below 6e-8 vanish, those above 65504 overflow. A distance from
    the lowest or from the highest value of the map, whichever is nearer, is exact to 1 part in 2048
    at either end, whatever the scale; in the middle to 2^-13 of the map's range.
    """
    low, high = float(map.min()), float(map.max())
    span = high - low or 1.0
    from_low = np.abs(map.astype(np.float64) - low) / span * _SCALE  # never minus zero
    upper = from_low > _SCALE / 2
    # the sign tells the end; zero has one, too
    half = np.where(upper, -np.abs(high - map.astype(np.float64)) / span * _SCALE, from_low)
    half = half.astype(np.float16)
    return {"half": half, "ends": np.array([low, high])}


def from_half(half: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The map of ``to_half``, float32 ``(h, w)``."""
    low, high = ends.tolist()
    shares = np.abs(half.astype(np.float64)) / _SCALE * (high - low or 1.0)
    return np.where(np.signbit(half), high - shares, low + shares).astype(np.float32)


class PredictionCache:
    """Maps and scores by everything that decides them, one file per picture.

    Args:
        folder: where they are kept, or None to keep nothing.
        limit: bytes that all of them may take; the longest unused give way.
        full: keep maps as float32, so that figures are those without a cache to the last bit;
            else by ``to_half``, which moves pixel metrics by at most 1e-3 (a tenth of a point, the
            last digit that is printed), mostly by less than 1e-5, and image metrics not at all.
    """

    def __init__(
        self, folder: Path | None, *, limit: int = DEFAULT_LIMIT, full: bool = False
    ) -> None:
        self.folder, self.limit, self.full = folder, limit, full
        self._taken: int | None = None
        self._told = False

    @property
    def precision(self) -> str:
        """How maps are measured."""
        return "float32" if self.full or not self.folder else "16 bits"

    def bytes_of(self, height: int, width: int) -> int:
        """What a prediction with a map of this size takes."""
        return height * width * (4 if self.full else 2) + _BESIDE

    def shelf(self, key: dict[str, Any], about: dict[str, Any] | None = None) -> Shelf:
        """The part for one detector in one state.

        Args:
            key: plain data that identifies it.
            about: what people want to know of it.
        """
        if self.folder is None:
            return Shelf(self, None, {})
        text = json.dumps([_FORMAT, self.full, key], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        return Shelf(self, self.folder / digest, about or {})

    def added(self, size: int) -> None:
        """Count what was written; beyond the limit the longest unused tenth gives way."""
        self._taken = self.taken() if self._taken is None else self._taken + size
        if self._taken > self.limit:
            self._taken = self._shrink(round(0.9 * self.limit))

    def keep_limit(self) -> None:
        """Let the longest unused give way where there is more than the limit, from before."""
        self._taken = self._shrink(self.limit)

    def taken(self) -> int:
        """Bytes that all predictions take."""
        return sum(size for _, size, _ in self._files())

    def _shrink(self, limit: int) -> int:
        files = sorted(self._files(), key=lambda file: file[2])
        left = sum(size for _, size, _ in files)
        for path, size, _ in files:
            if left <= limit:
                break
            path.unlink(missing_ok=True)
            left -= size
        return left

    def _files(self) -> Iterator[tuple[Path, int, float]]:
        """Files of predictions, also half written ones, with their bytes and time of last use."""
        for pattern in ("*/*.npz", "*/.*.tmp"):
            for path in self.folder.glob(pattern) if self.folder else ():
                with contextlib.suppress(OSError):  # another process may shrink it, too
                    state = path.stat()
                    yield path, state.st_size, state.st_mtime

    def refused(self, error: StoreError | OSError) -> None:
        """Say once that predictions cannot be kept: it costs time, never the job."""
        if not self._told:
            reason = error.reason if isinstance(error, StoreError) else str(error)
            logging.getLogger(__name__).warning(
                "%s: predictions are not kept, %s. 'zerodefect cache --clear' makes room, "
                "ZERODEFECT_CACHE names another disk",
                self.folder,
                reason,
            )
        self._told = True

    def holdings(self) -> list[Holding]:
        """What is kept, the largest first; shelves of the same words together."""
        found: dict[str, Holding] = {}
        for path, size, used in self._files():
            what = _what(path.parent)
            one = found.get(what, Holding(what, 0, 0, used))
            found[what] = Holding(what, one.files + 1, one.bytes + size, max(one.used, used))
        return sorted(found.values(), key=lambda one: -one.bytes)

    def clear(self) -> None:
        """Remove all predictions; nothing else in the folder is touched."""
        for path, _, _ in list(self._files()):
            path.unlink(missing_ok=True)
        for shelf in filter(Path.is_dir, self.folder.glob("*")) if self.folder else ():
            (shelf / _ABOUT).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else lies there
                shelf.rmdir()
        self._taken = None


@dataclass(frozen=True)
class Holding:
    """A part of the cache: what it is, files, bytes, and when it was last used (seconds, epoch)."""

    what: str
    files: int
    bytes: int
    used: float


def _what(shelf: Path) -> str:
    try:
        about = json.loads((shelf / _ABOUT).read_text("utf-8"))
        return f"{about['method']} on {about['data']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "predictions of an older version"


class Shelf:
    """Predictions of one detector in one state."""

    def __init__(self, cache: PredictionCache, folder: Path | None, about: dict[str, Any]) -> None:
        self.cache, self.folder, self._about = cache, folder, about

    def has(self, image: Path) -> bool:
        """Whether there is a prediction; it may still turn out to be damaged."""
        with contextlib.suppress(OSError):
            return self._path(image).exists()
        return False

    def get(self, image: Path) -> Kept | None:
        """The prediction of a picture that has not changed."""
        try:
            path = self._path(image)
            with np.load(path, allow_pickle=False) as stored:
                height, width = stored["size"].tolist()
                map = stored.get("map")
                if "half" in stored:
                    map = from_half(stored["half"], stored["ends"])
                kept = Kept(float(stored["score"]), map, (height, width))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # it was used
        return kept

    def put(self, image: Path, kept: Kept) -> Kept:
        """Keep a prediction, and give it as ``get`` will; a full disk costs time, never the job."""
        if self.folder is None:
            return kept
        parts = {"score": np.float64(kept.score), "size": np.array(kept.size)}
        if kept.map is not None:
            as_half = not self.cache.full and bool(np.isfinite(kept.map).all())
            coded = to_half(kept.map) if as_half else {"map": kept.map}
            parts |= coded
            if as_half:
                kept = replace(kept, map=from_half(**coded))
        try:
            path = self._path(image)
            self._describe()
            with atomic_write(path, cached=True) as file:
                np.savez(file, **parts)
                size = file.tell()
            self.cache.added(size)
        except (OSError, StoreError) as error:
            self.cache.refused(error)
        return kept

    def _describe(self) -> None:
        if self.folder and self._about and not (self.folder / _ABOUT).exists():
            with atomic_write(self.folder / _ABOUT, cached=True) as file:
                file.write(json.dumps(self._about).encode())

    def _path(self, image: Path) -> Path:
        if self.folder is None:
            raise FileNotFoundError("nothing is kept")
        facts = "|".join([os.fspath(image), *map(_state, part_of(image))])
        digest = hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return self.folder / f"{digest}.npz"


def _state(file: Path) -> str:
    state = file.stat()
    return f"{state.st_size}|{state.st_mtime_ns}"
