"""Which local file a labelling tool means by the name that it has for a picture.

Tools write addresses (``s3://bucket/a.jpg``, ``/data/upload/3/1a2b3c4d-a.jpg``), paths of other
machines, or names with ``%20``. What fits several files, or none, is said and never guessed.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from zerodefect.data.folders import any_pictures
from zerodefect.images.find import is_picture, spellings

_UPLOAD = re.compile(r"[0-9a-f]{8}-(?P<name>.+)")  # what Label Studio puts before a file's name
_EXACT = 1_000  # parts of a path that agree, for one that is followed to the letter


@dataclass(frozen=True)
class Found:
    """What a name means.

    Attributes:
        path: the file, or None.
        reason: why there is none; else empty.
        agreeing: how many last parts of the path agree with the name.
    """

    path: Path | None
    reason: str = ""
    agreeing: int = 0


class PictureFinder:
    """Finds files by the names that labelling tools have for them.

    Args:
        root: the folder in which pictures are looked for, at any depth.
        bases: folders that names may be relative to.
    """

    def __init__(self, root: Path, bases: Sequence[Path]) -> None:
        self._bases = tuple(dict.fromkeys([*bases, root]))
        self.pictures = any_pictures(root)
        self._called: dict[str, list[Path]] = defaultdict(list)
        for file in self.pictures:
            self._called[_plain(file.name)].append(file)

    def find_all(self, names: Sequence[str]) -> list[Found]:
        """Find a file for each name; no file is given to two names.

        Where several names mean one file, the one that says most of its path has it.
        """
        found = [self.find(name) for name in names]
        claims: dict[Path, list[int]] = defaultdict(list)
        for number, one in enumerate(found):
            if one.path:
                claims[one.path].append(number)
        for path, numbers in claims.items():
            most = max(found[number].agreeing for number in numbers)
            best = [number for number in numbers if found[number].agreeing == most]
            for number in numbers:
                if len(best) > 1:
                    reason = f"{len(numbers)} entries mean the same picture ({path.name})"
                    found[number] = Found(None, reason)
                elif number not in best:
                    found[number] = Found(None, f"there is no such picture: {names[number]}")
        return found

    def find(self, name: str) -> Found:
        """Find a file: as it is written, else by the end of its path, at least the file's name."""
        for text, literal in _variants(name):
            # not resolve(): the user's name for a linked folder is the one to show
            places = [Path(os.path.normpath(base / text)) for base in self._bases]
            best = list(dict.fromkeys(path for path in places if _is_picture_file(path)))
            most = _EXACT if literal else 1
            if not best:
                wanted = PurePosixPath(text).parts[::-1]
                fitting = self._called.get(_plain(wanted[0]), []) if wanted else []
                agreeing = [_agreement(wanted, file.parts[::-1]) for file in fitting]
                most = max(agreeing, default=0)
                best = [file for file, n in zip(fitting, agreeing, strict=True) if n == most]
            if len(best) == 1:
                return Found(best[0], agreeing=most)
            if best:
                shown = ", ".join(str(file) for file in best[:3])
                return Found(None, f"{name} fits several pictures ({shown})")
        return Found(None, f"there is no such picture: {name}")


def _is_picture_file(path: Path) -> bool:
    return os.path.isfile(path) and is_picture(path)  # noqa: PTH113 - Path's raises on long names


def _variants(name: str) -> Iterator[tuple[str, bool]]:
    """Give the paths that a name may stand for, most literal first, and whether it says them."""
    try:
        parted = urlsplit(name) if "://" in name or "?" in name else None
    except ValueError:
        parted = None
    if parted and (local := parse_qs(parted.query).get("d")):  # /data/local-files/?d=folder/a.jpg
        yield from _variants(local[0])
        return
    texts = dict.fromkeys([*spellings(name), parted.path.lstrip("/") if parted else name])
    texts.update(dict.fromkeys([unquote(text) for text in texts]))
    yield from ((text, True) for text in texts)
    for text in texts:
        if match := _UPLOAD.fullmatch(PurePosixPath(text).name):
            yield match["name"], False


def _plain(name: str) -> str:
    """Make names equal that differ in how accents are stored, or whose spaces became ``_``."""
    return unicodedata.normalize("NFC", name).replace(" ", "_")


def _agreement(wanted: Sequence[str], there: Sequence[str]) -> int:
    pairs = zip(wanted, there, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if _plain(a) != _plain(b)), len(wanted))
