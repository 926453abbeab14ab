"""The run folder: results are kept line by line, so that a killed run loses and repeats nothing.

``run.json`` (settings, detector, policy) and ``results.jsonl`` (one record per line); tables and
report are made anew from these.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zerodefect.files import StoreError, atomic_write, store_error, sync_folder
from zerodefect.images.part_files import part_of
from zerodefect.inspection.records import Record
from zerodefect.version import __version__

FORMAT = "zerodefect-run"
VERSION = 1

# What a run leaves beside its manifest.
_OF_PARTS, _OF_PICTURES = ("parts.jsonl", "parts.csv"), ("results.jsonl", "results.csv")
TABLES = (*_OF_PARTS, *_OF_PICTURES, "regions.csv", "coco.json", "results.parquet")
"""Records and tables of a run, those that it has."""
_FILES = (*TABLES, "products.json", "repeated.json", "report.html")
_FOLDERS = ("maps", "assets", "report")

# A power cut can cost at most what came within these; a killed process costs nothing.
_SYNC_RECORDS = 64
_SYNC_SECONDS = 1.0

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)

# Differences in these say nothing about the results; "root" is kept from the first start.
_NOT_COMPARED = {"created", "environment", "root"}


class RunMismatch(StoreError):  # noqa: N818 - says what it is
    """The folder holds a run with other settings."""


class RunBusy(StoreError):  # noqa: N818 - says what it is
    """Another process writes into the folder."""


def image_key(path: str | Path) -> str:
    """Name a file's present content: path, size in bytes, and time of change, its cloud's too.

    A file that was changed gets another key and is inspected again; a missing one gets a key too.
    """
    try:
        states = [file.stat() for file in part_of(Path(path))]
    except (OSError, ValueError):  # ValueError: a zero byte in the name
        return f"{path}|missing"
    return "|".join([str(path), *(f"{state.st_size}|{state.st_mtime_ns}" for state in states)])


class RunStore:
    """One run's results on disk; a context manager.

    Opening a folder that holds a run with the same manifest continues it. What a killed process or
    a power cut left half written is cut off, and those images are inspected again.

    Args:
        folder: the run folder; made if missing.
        manifest: settings, detector facts and policy: JSON values. What decides the results must
            be in it. Floats are compared up to rounding (1e-5). Values under ``"created"``,
            ``"environment"`` and ``"root"``, at any depth, are kept but not compared.
        overwrite: throw away the results of a run that is already there.

    Raises:
        RunMismatch: the folder holds a run with another manifest.
        RunBusy: another process writes into the folder.
        StoreError: the folder cannot be read or written.
    """

    def __init__(
        self, folder: str | Path, manifest: Mapping[str, Any], *, overwrite: bool = False
    ) -> None:
        self.folder = Path(folder)
        self.results_path = self.folder / "results.jsonl"
        self._manifest_path = self.folder / "run.json"
        # image -> where its last record begins, and its key; None if it failed
        self._last: dict[str, tuple[int, str | None]] = {}
        self._superseded = 0  # lines that a later one of the same image replaced
        self._size = 0  # bytes of whole lines
        self._unsynced = 0
        self._synced_at = time.monotonic()
        self._file: int | None = None
        self._lock = self._locked()
        try:
            if overwrite:
                self._clear()
            self.manifest = self._open_manifest(manifest)
            self._open_results()
        except OSError as error:
            self._release()
            raise store_error(error.filename or self.folder, error) from error
        except BaseException:
            self._release()
            raise

    @classmethod
    def existing(cls, folder: str | Path) -> RunStore:
        """Open the run that lies in a folder, as it is.

        Raises:
            RunBusy: another process writes into the folder.
            StoreError: there is none, or it is damaged.
        """
        path = Path(folder) / "run.json"
        if not path.is_file():
            remedy = "Name the folder that 'zerodefect inspect' printed as results."
            raise StoreError(folder, "no run lies here (there is no run.json)", remedy)
        return cls(folder, _present_manifest(path))

    def __len__(self) -> int:
        """Number of images with a record, failed ones included."""
        return len(self._last)

    def done(self) -> set[str]:
        """Keys of the images that need no inspection. Failed ones are tried again."""
        return {key for _, key in self._last.values() if key is not None}

    def append(self, record: Record, key: str) -> None:
        """Add one record; a later record of the same image replaces an earlier one.

        Args:
            record: as ``to_record`` or ``failure_record`` gives it.
            key: ``image_key`` of the file, taken before it was read.

        Raises:
            StoreError: the disk is full or the like; what was written before stays readable.
            ValueError: the record is not strict JSON.
        """
        if self._file is None:
            raise ValueError("the store is closed")
        line = json.dumps({**record, "key": key}, allow_nan=False, separators=(",", ":"))
        self._write(line.encode("ascii") + b"\n")
        self._unsynced += 1
        late = time.monotonic() - self._synced_at > _SYNC_SECONDS
        if late or self._unsynced >= _SYNC_RECORDS:
            self.sync()
        self._note(record, key, self._size)
        self._size += len(line) + 1

    def sync(self) -> None:
        """Bring everything appended so far onto the disk.

        Raises:
            StoreError: the disk refused.
        """
        if self._file is not None and self._unsynced:
            try:
                os.fsync(self._file)
            except OSError as error:
                raise store_error(self.results_path, error) from error
        self._unsynced = 0
        self._synced_at = time.monotonic()

    def records(self) -> Iterator[Record]:
        """Read the last record of each image, in the order in which images first came up."""
        if not self._last:
            return
        with self.results_path.open("rb") as file:
            for position, _ in list(self._last.values()):
                file.seek(position)
                record = json.loads(file.readline())
                record.pop("key", None)
                yield record

    def close(self) -> None:
        """Finish: drop records that later ones replaced, and let other processes in.

        Raises:
            StoreError: the disk refused.
        """
        try:
            if self._file is not None:
                self.sync()
                if self._superseded:
                    self._rewrite()
        finally:
            self._release()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
            return
        # The first error is the one to hear of.
        with contextlib.suppress(StoreError):
            self.sync()
        self._release()

    def _locked(self) -> FileLock:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise RunBusy(
                self.folder,
                "another process writes into this run folder",
                "Wait until it ends, or choose another --output.",
            ) from None
        except OSError as error:
            raise store_error(self.folder, error) from error
        return lock

    def _clear(self) -> None:
        if not self._manifest_path.exists():
            return
        with contextlib.suppress(ValueError):  # a damaged one counts as ours
            _read_manifest(self._manifest_path)
        for name in _FILES:
            (self.folder / name).unlink(missing_ok=True)
        for name in _FOLDERS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        # Last: a kill before this line leaves a run folder, which can be cleared again.
        self._manifest_path.unlink()

    def _open_manifest(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        created = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        head = {"format": FORMAT, "version": VERSION, "created": created, "zerodefect": __version__}
        # Through JSON, so that tuples compare equal to the lists they become on disk.
        wanted = json.loads(json.dumps({**head, **manifest}, allow_nan=False))
        if not self._manifest_path.exists():
            if self.results_path.exists():  # nothing is written over that may not be ours
                reason = "results.jsonl lies here without its run.json"
                remedy = "Choose another --output, or move that file away."
                raise StoreError(self.folder, reason, remedy)
            with atomic_write(self._manifest_path) as file:
                file.write(json.dumps(wanted, indent=2).encode() + b"\n")
            return wanted
        found = _present_manifest(self._manifest_path)
        different = list(differences(found, wanted))
        if different:
            more = f" and {len(different) - 5} more" if len(different) > 5 else ""
            raise RunMismatch(
                self.folder,
                f"this folder holds a run with other settings ({'; '.join(different[:5])}{more})",
                "Choose another --output, or --overwrite to throw the old results away.",
            )
        return found

    def _open_results(self) -> None:
        self._file = os.open(self.results_path, _FLAGS, 0o644)
        if self._scan():
            self._rewrite()
        os.ftruncate(self._file, self._size)
        os.fsync(self._file)
        sync_folder(self.folder)

    def _scan(self) -> bool:
        """Index the results file; returns whether a damaged line stands before a whole one."""
        self._last.clear()
        self._superseded = self._size = position = whole = 0
        with self.results_path.open("rb") as file:
            for line in file:
                if parsed := _parse(line):
                    self._note(*parsed, position)
                    whole += len(line)
                    self._size = position + len(line)
                position += len(line)
        return whole < self._size

    def _note(self, record: Record, key: str, position: int) -> None:
        image = record["image"]
        self._superseded += image in self._last
        self._last[image] = position, key if record["status"] == "ok" else None

    def _write(self, line: bytes) -> None:
        assert self._file is not None
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            # Part of the line may be there already.
            try:
                os.ftruncate(self._file, self._size)
            except OSError:
                self._close_file()  # nothing may follow half a line; the next start cuts it
            raise store_error(self.results_path, error) from error

    def _rewrite(self) -> None:
        """Replace the results file in one step by the last line of each image."""
        with self.results_path.open("rb") as old, atomic_write(self.results_path) as new:
            for position, _ in self._last.values():
                old.seek(position)
                new.write(old.readline())
            old.close()  # Windows replaces closed files only
            self._close_file()
        self._file = os.open(self.results_path, _FLAGS)
        self._scan()

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _release(self) -> None:
        self._close_file()
        self._lock.release()


def _parse(line: bytes) -> tuple[Record, str] | None:
    """Read a line of the results; None where it is damaged."""
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
        key = record["key"]
        whole = isinstance(record["image"], str) and record["status"] in ("ok", "failed")
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (record, key) if whole and isinstance(key, str) else None


def _present_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run that this program can continue."""
    remedy = "Choose another --output, or --overwrite to start anew."
    try:
        manifest = _read_manifest(path)
    except ValueError as error:
        raise StoreError(path, f"not valid JSON ({error})", remedy) from error
    if manifest.get("version") != VERSION:
        reason = f"written in run version {manifest.get('version')}, this program knows {VERSION}"
        raise StoreError(path, reason, f"Update ZeroDefect. {remedy}")
    return manifest


def _read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest; a damaged one is a ValueError, some other program's a StoreError."""
    manifest = json.loads(path.read_text("utf-8-sig"))
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise StoreError(path, "not the manifest of a ZeroDefect run", "Choose another --output.")
    return manifest


def differences(then: Any, now: Any, place: str = "") -> Iterator[str]:
    """Name the leaves in which two JSON values differ, but for the ``_NOT_COMPARED``."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted((then.keys() | now.keys()) - _NOT_COMPARED):
            inner = f"{place}.{name}" if place else name
            yield from differences(then.get(name), now.get(name), inner)
    elif not _same(then, now):
        yield f"{place}: {_short(then)} then, {_short(now)} now"


def _same(then: Any, now: Any) -> bool:
    """Whether two JSON values agree, floats up to the rounding of another thread count or batch."""
    if isinstance(then, list) and isinstance(now, list):
        return len(then) == len(now) and all(map(_same, then, now))
    numbers = isinstance(then, int | float) and isinstance(now, int | float)
    if numbers and (isinstance(then, float) or isinstance(now, float)):
        return math.isclose(then, now, rel_tol=1e-5, abs_tol=1e-7)
    return bool(then == now)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
