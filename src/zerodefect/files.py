"""Writing files so that a crash, a full disk or a pulled plug never leaves half of one.

This file imports nothing of the project.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


class StoreError(RuntimeError):
    """A result could not be written or read back.

    Attributes:
        path: the file or folder concerned.
        reason: what is wrong, in words.
        remedy: what the user can do about it.
    """

    def __init__(self, path: str | Path, reason: str, remedy: str) -> None:
        super().__init__(f"{path}: {reason}. {remedy}")
        self.path = str(path)
        self.reason = reason
        self.remedy = remedy


_REMEDIES = {
    errno.ENOSPC: "Free some space or choose another output folder, then run the command again",
    errno.EDQUOT: "Your disk quota is used up: free some space, then run the command again",
    errno.EFBIG: "The file may not grow further here: choose another output folder",
    errno.EROFS: "Choose an output folder on a disk that can be written to",
    errno.EACCES: "Choose an output folder that you may write to",
    errno.ENAMETOOLONG: "Shorten the name of the image or of the output folder",
}


def store_error(path: str | Path, error: OSError) -> StoreError:
    """Say in words what the operating system refused for ``path``."""
    reason = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "Check the output folder, then run the command again")
    return StoreError(path, f"cannot be written ({reason})", f"{remedy}.")


@contextlib.contextmanager
def atomic_write(path: Path, *, cached: bool = False, shared: bool = False) -> Iterator[BinaryIO]:
    """Open ``path`` for writing; it appears under its name only when it is complete.

    Missing parent folders are made. When the block fails, whatever stood at ``path`` before
    stays as it was.

    Args:
        path: where the file shall stand.
        cached: for what can be made anew: it is not forced to the disk, which takes time, and
            several processes may write the same file at once.
        shared: several processes may write the same file at once: the last one's stays.

    Raises:
        StoreError: the operating system refused to write (disk full, no permission, ...).
    """
    if cached or shared:
        temporary = path.parent / f".{uuid4().hex}.tmp"
    else:
        # The name depends on the target alone: a leftover of a killed run is overwritten, not kept.
        digest = hashlib.sha256(path.name.encode("utf-8", "surrogatepass")).hexdigest()
        temporary = path.parent / f".{digest[:16]}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            if not cached:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        _forget(temporary)
        raise store_error(path, error) from error
    except BaseException:
        _forget(temporary)
        raise
    if not cached:
        sync_folder(path.parent)


def free_space(path: Path) -> tuple[Path, int]:
    """The folder that is there, of a path that may be made, and the bytes that are free on it."""
    absolute = path.absolute()
    folder = next(one for one in (absolute, *absolute.parents) if one.is_dir())
    return folder, shutil.disk_usage(folder).free


def sync_folder(folder: Path) -> None:
    """Make new names in ``folder`` survive a power cut, where the system offers that."""
    with contextlib.suppress(OSError):  # Windows cannot open folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
