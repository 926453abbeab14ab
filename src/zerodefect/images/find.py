"""Which pictures a user means by the files and folders that were named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from zerodefect.images import formats
from zerodefect.images.decode import ImageError

_LISTED_ENDINGS = formats.IMAGE_ENDINGS | formats.FOREIGN_ENDINGS


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the pictures that files and folders stand for, each once.

    A named file is always listed. Folders are searched to any depth, in natural order
    (``part2`` before ``part10``), without hidden files and folders and without run folders of
    ``zerodefect inspect``; symbolic links are followed, but no folder is entered twice. In a
    folder, a file counts as a picture if its ending or its first bytes say so: a broken file with
    an image ending is listed, so that its error is reported, and so are a format that cannot be
    read (HEIC, ...) and a sub-folder that cannot be opened.

    Args:
        paths: files and folders. Paths written with backslashes are understood everywhere.

    Returns:
        Paths in the order of the arguments, naturally sorted within each folder.

    Raises:
        FileNotFoundError: if a path does not exist.
        ImageError: if a named folder holds no picture or may not be read.
    """
    found: dict[Path, None] = {}  # a set that keeps its order
    for path in paths:
        found.update(dict.fromkeys(_expand(_existing(path))))
    return list(found)


def natural_key(path: str | Path) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Give a sort key that orders numbers in names by their value and ignores upper case."""
    parts = re.split(r"(\d+)", str(path).casefold())
    # re.split with one group alternates text and digits, so every second part is a number.
    key = tuple((1, int(p), "") if i % 2 else (0, 0, p) for i, p in enumerate(parts))
    return key, str(path)


def spellings(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """A path as it was written and, for one that was written elsewhere, with forward slashes."""
    return tuple(dict.fromkeys([str(path), str(path).replace("\\", "/")]))


def _existing(path: str | os.PathLike[str]) -> Path:
    for text in spellings(path):
        if os.path.lexists(text):  # a dangling link is listed and gets its error record
            return Path(text)
    raise FileNotFoundError(f"{path}: there is no such file or folder. Check the path's spelling")


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    images = list(_walk(path, set(), _inside(path)))
    if not images:
        endings = ", ".join(sorted(formats.IMAGE_ENDINGS))
        run = "the results of an inspection, not pictures to inspect"
        reason = f"the folder holds {run if _is_run(path) else 'no pictures'}"
        raise ImageError(path, reason, f"Name a folder with picture files ({endings})")
    return images


def visible(folder: Path) -> list[Path]:
    """List what lies in a folder in natural order, without what is hidden.

    Raises:
        OSError: if it may not be read.
    """
    names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208
    return [folder / name for name in sorted(names, key=natural_key)]


def _inside(folder: Path) -> list[Path]:
    """What lies in a named folder.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        return visible(folder)
    except OSError as error:
        reason = f"the folder cannot be read ({error.strerror or error})"
        raise ImageError(folder, reason, "Ask for access to it, or leave it out") from None


def _walk(folder: Path, entered: set[tuple[int, int]], inside: list[Path]) -> Iterator[Path]:
    """Pictures, and sub-folders that cannot be read: opening such a one says so by its name."""
    status = folder.stat()
    if (status.st_dev, status.st_ino) in entered:
        return
    entered.add((status.st_dev, status.st_ino))
    if _is_run(folder):
        return  # pictures of a report are no parts
    for path in inside:
        if path.is_dir():
            try:
                below = visible(path)
            except OSError:
                yield path
                continue
            yield from _walk(path, entered, below)
        elif path.suffix.lower() in _LISTED_ENDINGS or formats.is_picture(_head(path)):
            yield path


def _is_run(folder: Path) -> bool:
    """Whether a folder holds results of an inspection, which would otherwise inspect itself."""
    return b'"zerodefect-run"' in _head(folder / "run.json")


def _head(path: Path) -> bytes:
    """Read the first bytes of a file; none if it cannot be read."""
    try:
        if not path.is_file():  # opening a named pipe would wait forever
            return b""
        with path.open("rb") as file:
            return file.read(formats.HEAD_BYTES)
    except OSError:
        return b""
