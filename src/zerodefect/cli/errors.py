"""Errors that are the user's to solve, as against faults of the program."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zerodefect.files import free_space
from zerodefect.types import printable

_FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "the disk quota is used up"}


def expected(error: Exception) -> bool:
    """Whether an exception tells the user what to do, so that no traceback is needed."""
    from pydantic import ValidationError

    from zerodefect.backbones.chat_model import ChatModelError
    from zerodefect.backbones.weight_files import WeightsError
    from zerodefect.detector.contract import UnsupportedError
    from zerodefect.evaluation.metrics import SpillError
    from zerodefect.files import StoreError
    from zerodefect.training.run_state import TrainingError

    ours = (WeightsError, StoreError, SpillError, UnsupportedError, TrainingError, ChatModelError)
    return isinstance(error, (ValueError, OSError, *ours)) and not isinstance(
        error, ValidationError
    )


def told(error: BaseException) -> str:
    """What an error says; of a full disk always where it is and what helps.

    One line, and more only where it draws what would be right.
    """
    from zerodefect.evaluation.metrics import SpillError
    from zerodefect.files import StoreError
    from zerodefect.images.decode import InputError

    place: Path | None = None
    for one in _chain(error):
        if isinstance(one, StoreError):
            place = place or Path(one.path)
        elif isinstance(one, SpillError):
            place = place or Path(tempfile.gettempdir(), "zerodefect-metrics", "scores")
        elif isinstance(one, OSError) and one.errno in _FULL:
            place = place or (Path(one.filename) if one.filename else None)
            return printable(f"{_FULL[one.errno]} {_where(place)}")
    return str(error) if isinstance(error, InputError) else printable(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _where(place: Path | None) -> str:
    """The folder of a file that found no space, what is free there, and what helps."""
    from zerodefect.paths import cache_folder

    if place is None:
        return "on the disk: free some, or name another disk with --output"
    place, temporary = place.absolute(), Path(tempfile.gettempdir())
    folder, free = free_space(place.parent)
    ours = place.relative_to(temporary).parts[0] if place.is_relative_to(temporary) else ""
    remedy = "name another disk with --output"
    if place.is_relative_to(cache_folder().absolute()):
        remedy = "'zerodefect cache --clear', or name another disk with ZERODEFECT_CACHE"
    elif ours.startswith("zerodefect-"):
        remedy = "name another disk for temporary files with TMPDIR"
    return f"on {folder} ({free / 1e6:,.1f} MB free): free some, or {remedy}"
