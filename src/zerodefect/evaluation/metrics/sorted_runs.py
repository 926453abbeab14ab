"""Any amount of scores in bounded memory: sorted runs, of which all but one lie on disk.

A score is kept as float32, or with its region's area in one integer that sorts alike.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from zerodefect.evaluation.metrics.metric_query import SpillError

PIECE = 1 << 16
"""Numbers that are read from a run at a time; 256 KiB of float32 stay in the processor's cache."""

_SIGN = np.uint32(1 << 31)
_LOW = np.uint64((1 << 32) - 1)
_SHIFT = np.uint64(32)
_SIDES: tuple[Literal["left", "right"], ...] = "left", "right"


def order_key(scores: np.ndarray) -> np.ndarray:
    """uint32 keys, of which ``a < b`` exactly where the finite float32 ``scores`` are.

    A negative zero must have been turned into zero before.
    """
    bits = scores.view(np.uint32)
    # All bits of a negative number are turned, of a positive one only the sign.
    negative = (bits.view(np.int32) >> 31).view(np.uint32)
    return bits ^ (negative | _SIGN)


def score_of(keys: np.ndarray) -> np.ndarray:
    """The float32 scores of :func:`order_key`'s keys."""
    negative = ((keys >> np.uint32(31)) ^ np.uint32(1)) * np.uint32(0xFFFFFFFF)
    return (keys ^ (negative | _SIGN)).view(np.float32)


def pack(scores: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """uint64 records of float32 scores and areas in [0, 2^32).

    Ascending records are descending scores, and equal scores ascending areas: one order for a set
    of records however it was split, so that sums over it round alike.
    """
    # Adding zero turns a negative zero, which equals zero, into zero.
    keys = order_key(scores + np.float32(0))
    return (~keys).astype(np.uint64) << _SHIFT | areas.astype(np.uint64)


def unpack(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (float32) and weights (float64, ``1 / area``; 0 for area 0) of packed records."""
    scores = score_of(~(records >> _SHIFT).astype(np.uint32))
    areas = (records & _LOW).astype(np.float64)
    weights = np.divide(1.0, areas, out=np.zeros_like(areas), where=areas > 0)
    return scores, weights


class SpillFolder:
    """A temporary folder, made with its first file and removed when no run refers to it."""

    def __init__(self, parent: str | Path | None = None) -> None:
        self.parent = parent
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def write(self, values: np.ndarray) -> Path:
        """Write an array's bytes to a new file; a partial file is removed.

        Raises:
            SpillError: if the disk is full or the folder has vanished.
        """
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(
                    prefix="zerodefect-metrics-", dir=self.parent, ignore_cleanup_errors=True
                )
        except OSError as error:
            raise SpillError(
                f"cannot make a spill folder in {self.parent or tempfile.gettempdir()}: "
                f"{error.strerror}. Name another one with spill_folder="
            ) from error
        self._files += 1
        path = Path(self._folder.name) / f"{self._files:06d}.run"
        try:
            with path.open("wb") as file:
                file.write(values.data)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise SpillError(
                f"cannot write {values.nbytes >> 20} MiB of scores to {path.parent}: "
                f"{error.strerror}. Free some space, raise memory_limit=, or name another folder "
                "with spill_folder="
            ) from error
        return path


class Run:
    """Sorted numbers, in memory or in a file; never changed, so that states may share it.

    Args:
        values: ``(n,)`` ascending.
        folder: where they are written to; None to keep them in memory.

    Raises:
        SpillError: if they cannot be written.
    """

    def __init__(self, values: np.ndarray, folder: SpillFolder | None = None) -> None:
        self.count = len(values)
        self.dtype = values.dtype
        self.first = values[::PIECE].copy()  # the first number of every piece
        self.folder = folder  # stays as long as one of its runs
        self.path = folder.write(values) if folder else None
        self.values = None if folder else values

    def read(self, start: int, stop: int) -> np.ndarray:
        """Numbers ``start`` up to ``stop`` (cut at the end of the run).

        Raises:
            SpillError: if the run's file has vanished or been cut.
        """
        stop = min(stop, self.count)
        if self.path is None:
            assert self.values is not None
            return self.values[start:stop]
        try:
            offset = start * self.dtype.itemsize
            piece = np.fromfile(self.path, self.dtype, stop - start, offset=offset)
        except OSError as error:
            raise SpillError(
                f"spilled scores {self.path} cannot be read: {error.strerror}. They must stay in "
                "place until the metrics are computed; start over"
            ) from error
        if len(piece) < stop - start:
            raise SpillError(f"spilled scores {self.path} have been cut short; start over")
        return piece

    def rank(self, values: np.ndarray) -> np.ndarray:
        """How many numbers are below, and how many at most, each of ``(K,)`` ascending values.

        Returns:
            ``(2, K)`` int64.
        """
        ranks = np.zeros((2, len(values)), np.int64)
        # The last piece that begins below (or at) a value is the one in which its place lies.
        places = np.stack([np.searchsorted(self.first, values, side) - 1 for side in _SIDES])
        needed = np.zeros(len(self.first) + 1, bool)
        needed[places + 1] = True
        for number in np.flatnonzero(needed[1:]):
            start = int(number) * PIECE
            piece = self.read(start, start + PIECE)
            for rank, place, side in zip(ranks, places, _SIDES, strict=True):
                a, b = np.searchsorted(place, (number, number + 1))
                rank[a:b] = start + np.searchsorted(piece, values[a:b], side)
        return ranks


class SortedRuns:
    """A growing multiset of numbers: a buffer in memory, and sorted runs on disk once it is full.

    Args:
        dtype: of the numbers.
        capacity: how many the buffer holds.
        folder: where full buffers go.
    """

    def __init__(self, dtype: type[np.generic], capacity: int, folder: SpillFolder) -> None:
        self.capacity = max(int(capacity), 1)
        self.folder = folder
        self._spilled: list[Run] = []
        # The system hands out pages only as they are written, so a large buffer costs nothing yet.
        self._buffer = np.empty(self.capacity, dtype)
        self._filled = 0

    def __len__(self) -> int:
        return self._filled + sum(run.count for run in self._spilled)

    def append(self, values: np.ndarray) -> None:
        """Add values ``(n,)`` in any order.

        Raises:
            SpillError: if the full buffer cannot be written.
        """
        while len(values):
            part = values[: self.capacity - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            values = values[len(part) :]
            if self._filled == self.capacity:
                self._buffer.sort()
                self._spilled.append(Run(self._buffer, self.folder))
                self._filled = 0

    def absorb(self, other: SortedRuns) -> None:
        """Add all numbers of another multiset, which stays as it is."""
        for run in other.runs():
            if run.path is None or run.count <= self.capacity // 2:
                for start in range(0, run.count, PIECE):
                    self.append(run.read(start, start + PIECE))
            else:
                self._spilled.append(run)

    def runs(self) -> list[Run]:
        """Sorted runs that hold all numbers; valid until the next change."""
        if not self._filled:
            return list(self._spilled)
        filled = self._buffer[: self._filled]
        filled.sort()
        return [*self._spilled, Run(filled)]


def merged(runs: Sequence[Run], block: int) -> Iterator[np.ndarray]:
    """All numbers of several runs in ascending order, about ``block`` of them at a time."""
    position = [0] * len(runs)
    share = max(block // max(len(runs), 1), 1)
    while any(at < run.count for at, run in zip(position, runs, strict=True)):
        heads = [run.read(at, at + share) for at, run in zip(position, runs, strict=True)]
        # Beyond the smallest last number of an unfinished run, that run may hold smaller ones.
        unfinished = [
            head[-1]
            for head, at, run in zip(heads, position, runs, strict=True)
            if at + len(head) < run.count
        ]
        if unfinished:
            cut = min(unfinished)
            heads = [head[: np.searchsorted(head, cut, "right")] for head in heads]
        position = [at + len(head) for at, head in zip(position, heads, strict=True)]
        yield heads[0] if len(heads) == 1 else np.sort(np.concatenate(heads))
