"""Any amount of numbers in bounded memory: sorted runs, of which all but one lie on disk."""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from zerodefect.evaluation.metrics.results import MetricError, SpillError

PIECE = 1 << 16
"""Numbers that are read from a run at a time; 256 KiB of float32 stay in the processor's cache."""


class SpillFolder:
    """A temporary folder, made when the first file is written and removed with this object."""

    def __init__(self, parent: str | Path | None = None) -> None:
        self.parent = parent
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def new_path(self) -> Path:
        """Path of a file that does not exist yet."""
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
        return Path(self._folder.name) / f"{self._files:06d}.run"

    def write(self, values: np.ndarray) -> Path:
        """Write an array as raw bytes.

        Raises:
            SpillError: if the disk is full or the folder has vanished.
        """
        path = self.new_path()
        write_raw(values, path)
        return path

    def adopt(self, path: Path) -> Path:
        """Take in a file of another folder, by a hard link where the disk allows it."""
        target = self.new_path()
        try:
            os.link(path, target)
        except OSError:
            copy_raw(path, target)
        return target


def write_raw(values: np.ndarray, path: Path) -> None:
    """Write an array's bytes; a partial file is removed.

    Raises:
        SpillError: if that fails.
    """
    try:
        with path.open("wb") as file:
            file.write(values.data)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise SpillError(
            f"cannot write {values.nbytes >> 20} MiB of scores to {path.parent}: {error.strerror}. "
            "Free some space, raise memory_limit=, or name another folder with spill_folder="
        ) from error


def copy_raw(source: Path, target: Path) -> None:
    """Copy a run's file.

    Raises:
        SpillError: if that fails.
    """
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise SpillError(f"cannot copy scores {source} to {target}: {error.strerror}") from error


class Run:
    """Sorted numbers, in memory (``values``) or in a file (``path``)."""

    def __init__(
        self,
        count: int,
        dtype: np.dtype,
        first: np.ndarray,
        values: np.ndarray | None = None,
        path: Path | None = None,
    ) -> None:
        self.count = count
        self.dtype = dtype
        self.first = first  # the first number of every piece
        self.values = values
        self.path = path

    @classmethod
    def of(cls, values: np.ndarray, path: Path | None = None) -> Run:
        """A run of sorted values that stay in memory, or that ``path`` already holds."""
        kept = values if path is None else None
        return cls(len(values), values.dtype, values[::PIECE].copy(), kept, path)

    @classmethod
    def open(cls, path: Path, dtype: np.dtype, count: int, checksum: int) -> Run:
        """A run that :meth:`SortedRuns.save` wrote, verified in one pass.

        Raises:
            MetricError: if length, checksum or order are not those that were saved.
            SpillError: if the file cannot be read.
        """
        run = cls(count, dtype, np.empty(-(-count // PIECE), dtype), path=path)
        found, last = 0, None
        for start in range(0, count, PIECE):
            piece = run.read(start, start + PIECE)
            found = zlib.crc32(piece.data, found)
            ascending = bool((piece[1:] >= piece[:-1]).all()) and (last is None or last <= piece[0])
            if not ascending:
                raise MetricError(f"{path}: not a sorted run; the saved state is damaged")
            run.first[start // PIECE], last = piece[0], piece[-1]
        if found != checksum:
            raise MetricError(f"{path}: wrong checksum; the saved state is damaged")
        return run

    def read(self, start: int, stop: int) -> np.ndarray:
        """Numbers ``start`` up to ``stop`` (cut at the end of the run).

        Raises:
            SpillError: if the run's file has vanished or been cut.
        """
        stop = min(stop, self.count)
        if self.values is not None:
            return self.values[start:stop]
        assert self.path is not None
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

    def rank(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How many numbers of the run are below, and how many at most, each ascending value.

        Args:
            values: ``(K,)`` ascending.

        Returns:
            Two int64 arrays ``(K,)``.
        """
        below, at_most = np.zeros((2, len(values)), np.int64)
        # The last piece that begins below (or at) a value is the one in which its place lies.
        left = np.searchsorted(self.first, values, "left") - 1
        right = np.searchsorted(self.first, values, "right") - 1
        needed = np.zeros(len(self.first) + 1, bool)
        needed[left + 1] = needed[right + 1] = True
        for number in np.flatnonzero(needed[1:]):
            start = int(number) * PIECE
            piece = self.read(start, start + PIECE)
            a, b = np.searchsorted(left, (number, number + 1))
            below[a:b] = start + np.searchsorted(piece, values[a:b], "left")
            a, b = np.searchsorted(right, (number, number + 1))
            at_most[a:b] = start + np.searchsorted(piece, values[a:b], "right")
        return below, at_most


class SortedRuns:
    """A growing multiset of numbers: a buffer in memory, and sorted runs on disk once it is full.

    Args:
        dtype: of the numbers.
        capacity: how many the buffer holds.
        folder: where full buffers go.
    """

    def __init__(self, dtype: type[np.generic], capacity: int, folder: SpillFolder) -> None:
        self.dtype = np.dtype(dtype)
        self.capacity = max(int(capacity), 1)
        self.folder = folder
        self._spilled: list[Run] = []
        # The system hands out pages only as they are written, so a large buffer costs nothing yet.
        self._buffer = np.empty(self.capacity, self.dtype)
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
                self._spilled.append(Run.of(self._buffer, self.folder.write(self._buffer)))
                self._filled = 0

    def absorb(self, other: SortedRuns) -> None:
        """Add all numbers of another multiset, which stays as it is."""
        for run in other.runs():
            if run.path is None or run.count <= self.capacity // 2:
                for start in range(0, run.count, PIECE):
                    self.append(run.read(start, start + PIECE))
            else:
                path = self.folder.adopt(run.path)
                self._spilled.append(Run(run.count, run.dtype, run.first, path=path))

    def runs(self) -> list[Run]:
        """Sorted runs that hold all numbers; valid until the next change."""
        if not self._filled:
            return list(self._spilled)
        filled = self._buffer[: self._filled]
        filled.sort()
        return [*self._spilled, Run.of(filled)]

    def save(self, folder: Path, name: str) -> list[dict[str, int | str]]:
        """Write every run as a file ``name-<i>.run``; returns what :meth:`load` needs of each."""
        facts: list[dict[str, int | str]] = []
        for number, run in enumerate(self.runs()):
            path = folder / f"{name}-{number}.run"
            if run.path is None:
                write_raw(run.read(0, run.count), path)
            else:
                copy_raw(run.path, path)
            checksum = 0
            for start in range(0, run.count, PIECE):
                checksum = zlib.crc32(run.read(start, start + PIECE).data, checksum)
            facts.append({"file": path.name, "count": run.count, "crc32": checksum})
        return facts

    def load(self, folder: Path, facts: Sequence[dict[str, int | str]]) -> None:
        """Add the runs of a saved folder, whose files are read in place and must stay there."""
        for fact in facts:
            path = folder / Path(str(fact["file"])).name
            count, checksum = int(fact["count"]), int(fact["crc32"])
            self._spilled.append(Run.open(path, self.dtype, count, checksum))


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
