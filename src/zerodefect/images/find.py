"""Which pictures a user means by the files and folders that were named."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from zerodefect.images import formats
from zerodefect.images.decode import ImageError

_LISTED_ENDINGS = formats.IMAGE_ENDINGS | formats.FOREIGN_ENDINGS | formats.CLOUD_ENDINGS


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """List the pictures that files and folders stand for, each once.

    A named file is always listed. Folders are searched to any depth, in natural order
    (``part2`` before ``part10``), without hidden files and folders and without run folders of
    ``zerodefect inspect``; symbolic links are followed, but no folder is entered twice. In a
    folder, a file counts as a picture if its ending or its first bytes say so: a broken file with
    an image ending is listed, so that its error is reported, and so is a format that cannot be
    read (HEIC, ...). So is, under its own name, a folder that cannot be opened and, among others, a
    path that does not exist or a folder without pictures: opening it says why, and the rest goes
    on.

    Args:
        paths: files and folders. Paths written with backslashes are understood everywhere.

    Returns:
        Paths in the order of the arguments, naturally sorted within each folder.

    Raises:
        FileNotFoundError: if nothing was found, and a path does not exist.
        ImageError: if nothing was found but folders without pictures, or that cannot be opened.
    """
    found: dict[Path, None] = {}  # a set that keeps its order
    errors: dict[Path, Exception] = {}
    for path in paths:
        try:
            found.update(dict.fromkeys(_expand(_existing(path), errors)))
        except (FileNotFoundError, ImageError) as error:
            errors[Path(path)] = error
            found[Path(path)] = None
    if errors and len(errors) == len(found):
        raise next(iter(errors.values()))
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


def _expand(path: Path, closed: dict[Path, Exception]) -> list[Path]:
    if not is_folder(path):
        return [path]
    images = list(_walk(path, closed))
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
    found = os.listdir(folder)  # noqa: PTH208 - names are sorted before paths are made of them
    names = [name for name in found if not name.startswith(".")]
    return [folder / name for name in sorted(names, key=natural_key)]


def is_folder(path: Path) -> bool:
    """As ``Path.is_dir``, which up to Python 3.13 raises for what lies in a closed folder."""
    return os.path.isdir(path)  # noqa: PTH112 - see above


def is_picture(path: Path) -> bool:
    """Whether a file in a folder counts as a picture, by its ending or its first bytes."""
    if is_folder(path):
        return False
    return path.suffix.lower() in _LISTED_ENDINGS or formats.is_picture(_head(path))


def _walk(top: Path, closed: dict[Path, Exception]) -> Iterator[Path]:
    """Pictures at any depth, and folders that cannot be opened, which ``closed`` says why."""
    entered: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        path = waiting.pop()
        if is_folder(path):
            try:
                waiting += reversed(_enter(path, entered))
            except OSError as error:
                reason = f"the folder cannot be read ({error.strerror or error})"
                closed[path] = ImageError(path, reason, "Ask for access to it, or leave it out")
                yield path
        elif is_picture(path):
            yield path


def _enter(folder: Path, entered: set[tuple[int, int]]) -> list[Path]:
    """What lies in a folder; nothing if it was entered before, or holds a report's pictures.

    Raises:
        OSError: it cannot be opened.
    """
    status, inside = folder.stat(), visible(folder)
    if not os.access(folder, os.X_OK):  # its names can be read, but nothing behind them
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    if (status.st_dev, status.st_ino) in entered or _is_run(folder):
        return []
    entered.add((status.st_dev, status.st_ino))
    return inside


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
