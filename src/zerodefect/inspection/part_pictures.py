"""A part of several pictures (sides, lights, frames): which pictures belong together.

Limits are then learned from parts: the score of a part is the highest of its pictures', and the
good parts are what is exchangeable, however alike the pictures of one part are. All that is proven
of pictures in ``conformal`` and ``frames`` is so proven of parts.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, PositiveInt

from zerodefect.inspection.conformal import CalibrationError, PolicyError
from zerodefect.inspection.frames import Frame
from zerodefect.inspection.sources import Source, expand
from zerodefect.scoring.joining import Scored

T = TypeVar("T")

_SHOWN = 3  # names in a message


class Parts(BaseModel):
    """What a policy knows of the good parts it was learned from; its own section of the file.

    Fields that a later version adds are passed over.

    Attributes:
        version: of the section; a later one is refused.
        by: pattern that gives a picture's part, see ``part_names``; None where parts were named.
        pictures: how many good parts had so many pictures.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = 1
    by: str | None = None
    pictures: dict[PositiveInt, PositiveInt]

    @classmethod
    def of(cls, by: str | None, parts: Iterable[Sequence[Any]]) -> Parts:
        """The section of parts, each with its pictures."""
        return cls(by=by, pictures=dict(sorted(Counter(map(len, parts)).items())))

    def told(self) -> str:
        """How many pictures a good part has, to follow on how many parts there are."""
        known = " or ".join(map(str, sorted(self.pictures)))
        return f" of {known} picture{'s' * (known != '1')}"

    def unlike(self, count: int) -> str | None:
        """Why a part of so many pictures is not like the good ones; None where it is."""
        if count in self.pictures:
            return None
        known = " or ".join(map(str, sorted(self.pictures)))
        return f"it has {count} picture{'s' * (count != 1)} where good parts have {known}"

    def fewest(self) -> int:
        """Pictures that every good part had."""
        return min(self.pictures)


def part_names(paths: Iterable[str | os.PathLike[str]], by: str) -> list[str]:
    r"""Name of the part that each picture shows.

    Args:
        paths: of the pictures.
        by: regular expression with a group ``part``, such as ``(?P<part>\d+)_.*``. It is held
            against the beginning of the file's name or, with a ``/`` in it, against any place of
            the path as it was named, with ``/`` between folders on every system.

    Raises:
        PolicyError: no regular expression, or one without the group; a picture that it gives no
            part for (some are named).
    """
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise PolicyError(f"--part-by {by!r}: not a regular expression ({error}).") from None
    if "part" not in pattern.groupindex:
        raise PolicyError(
            f"--part-by {by!r} has no group 'part'. Mark what names the part, such as "
            r"(?P<part>\d+)_.* for 0012_left.png and 0012_right.png."
        )
    find = pattern.search if "/" in by else pattern.match
    names, strange = [], []
    for path in map(PurePath, paths):
        match = find(path.as_posix() if "/" in by else path.name)
        names.append((match and match["part"]) or "")
        if not names[-1]:
            strange.append(str(path))
    if strange:
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        raise PolicyError(
            f"{', '.join(strange[:_SHOWN])}{more}: --part-by {by!r} gives no part. Correct the "
            "pattern, or leave out what is no picture of a part."
        )
    return names


def grouped(
    sources: Mapping[str, Iterable[Source]] | Source | Iterable[Source],
    by: str | None,
    *,
    tolerant: bool = False,
) -> dict[str, list[Source]]:
    """Parts with their pictures, in the order in which parts first come up.

    Args:
        sources: pictures by the names of parts; or files and folders, for a pattern.
        by: see ``part_names``; None for sources that are named.
        tolerant: as in ``expand``.

    Raises:
        PolicyError: see ``part_names``; a pattern and names, or neither; what is no file.
        FileNotFoundError, ValueError: as ``expand`` does.
    """
    if isinstance(sources, Mapping):
        if by is not None:
            raise PolicyError("the parts are named already; leave the pattern out.")
        return {name: list(expand(some, tolerant=tolerant)) for name, some in sources.items()}
    if by is None:
        raise PolicyError(
            "which pictures show one part is not known. Give part_by, or a mapping from names of "
            "parts to their pictures."
        )
    files: list[Any] = list(expand(sources, tolerant=tolerant))
    if not all(isinstance(file, (str, os.PathLike)) for file in files):
        raise PolicyError("part_by reads the names of files; name the parts of other pictures.")
    return together(files, part_names(files, by))


def together(items: Iterable[T], names: Iterable[str]) -> dict[str, list[T]]:
    """What has the same name, in the order in which names first come up."""
    groups: dict[str, list[T]] = {}
    for item, name in zip(items, names, strict=True):
        groups.setdefault(name, []).append(item)
    return groups


def whole_parts(
    by: str | None, names: Sequence[str], found: Iterable[tuple[Scored, Frame] | None]
) -> tuple[list[Scored], dict[str, Any]]:
    """What good parts teach, those alone all of whose pictures could be used.

    Args:
        by: pattern that the names are from, if any.
        names: of the part that each picture shows.
        found: score and frame of each picture; None for what cannot be used.

    Returns:
        Score and highest map value of each part, each the highest of its pictures'; and ``frames``,
        ``parts`` and ``notes`` as ``calibrate`` takes them.
    """
    groups = together(found, names)
    whole = {name: [one for one in some if one] for name, some in groups.items() if all(some)}
    scored = []
    for pictures in whole.values():
        peaks = [one.highest for one, _ in pictures if one.highest is not None]
        first = max((one for one, _ in pictures), key=lambda one: one.score)
        scored.append(replace(first, highest=max(peaks, default=None)))
    less = len(groups) - len(whole)
    return scored, {
        "frames": [replace(f, part=name) for name, some in whole.items() for _, f in some],
        "parts": Parts.of(by, whole.values()) if whole else None,
        "notes": [f"Parts with a picture that does not count, left out: {less}."] * bool(less),
    }


def agreed(section: Parts | None, calibrated: bool, by: str | None) -> str | None:
    """The pattern that parts go by in a run; None where they are named.

    Args:
        section: of the policy.
        calibrated: whether its limits were learned from anything.
        by: pattern of the run, if it has one.

    Raises:
        PolicyError: they contradict each other.
    """
    if section is None and calibrated:
        raise PolicyError(
            "the limits were learned from single pictures, and the rates that they keep are not "
            "those of parts with several pictures. Calibrate with --part-by, too, on good parts "
            "that are no references."
        )
    if section and section.by is not None and by not in (None, section.by):
        raise PolicyError(
            f"--part-by {by!r} is not what the policy was calibrated with ({section.by!r}). Leave "
            "it out, or calibrate again."
        )
    return section.by if section and section.by is not None else by


def check_form(leave_one_out: bool) -> None:
    """Make sure that parts can be scored.

    Raises:
        CalibrationError: references were to be left out.
    """
    if leave_one_out:
        raise CalibrationError(
            "parts of several pictures cannot be their own references: left out alone, a picture "
            "would still find the others of its part. Calibrate on good parts that are no "
            "references."
        )
