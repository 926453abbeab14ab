"""From good pictures alone to an inspector with limits: which are references, which calibrate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerodefect.images import ImageError, Picture
from zerodefect.inspection.conformal import CalibrationError
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.sources import GoodPictures, digest, evenly
from zerodefect.types import Failure

ENOUGH_TO_SPLIT = 24
"""Good pictures from which on limits are learned from others than the references."""

_MOST_REFERENCES = 48


@dataclass(frozen=True)
class SetUp:
    """What good pictures were made into.

    Attributes:
        references: those that parts are compared with.
        apart: files that limits were learned from, none where each reference was left out in turn.
        policy: the limits, which are the inspector's now.
    """

    references: tuple[Picture, ...]
    apart: tuple[Path, ...]
    policy: Policy


def set_up(
    inspector: Inspector,
    good: Sequence[Path],
    *,
    on_scored: Callable[[int], None] = lambda count: None,
    on_failure: Callable[[Failure], None] = lambda failure: None,
    before_limits: Callable[[], object] | None = None,
    with_boxes: Sequence[Path] = (),
    **rates: Any,
) -> SetUp:
    """Split good pictures into references and calibration, and calibrate.

    From ``ENOUGH_TO_SPLIT`` pictures on a third of them, evenly spread and 48 at most, are
    references, and the others calibrate: what the limits promise is proven then for every method.
    Fewer are all references, each left out in turn.

    Args:
        inspector: described, without references.
        good: files.
        on_scored, on_failure, rates: as of ``Inspector.calibrate``.
        with_boxes: files that something else was learned from: references, if they are among the
            good ones, so that limits rest on none of them.
        before_limits: called when the references are known, before the limits are learned.

    Raises:
        CalibrationError: fewer than two good pictures that can be used, or too few for a rate that
            was asked for.
        UnsupportedError: the method takes no references.
    """
    if len(good) < ENOUGH_TO_SPLIT:
        references = _opened(inspector, good, lambda failure: None)
        if len(references) < 2:
            raise CalibrationError(
                f"of {len(good)} good pictures {len(references)} can be used; copies count once. "
                "Give two different ones or more."
            )
        if before_limits:
            inspector.remember(references)
            before_limits()
        policy = inspector.calibrate(
            list(good), leave_one_out=True, on_scored=on_scored, on_failure=on_failure, **rates
        )
        return SetUp(references, (), policy)
    count = min(_MOST_REFERENCES, len(good) // 3)
    chosen = set(evenly(range(len(good)), count))
    boxed = {file.absolute() for file in with_boxes}
    chosen |= {place for place, file in enumerate(good) if file.absolute() in boxed}
    references = _opened(inspector, [good[place] for place in sorted(chosen)], on_failure)
    if not references:
        raise CalibrationError("no good image can be read. Give at least one.")
    inspector.remember(references)
    if before_limits:
        before_limits()
    on_scored(len(chosen))
    names = {digest(picture) for picture in references}
    others = [file for place, file in enumerate(good) if place not in chosen]
    apart = tuple(file for file in others if _name(inspector, file) not in names)
    policy = inspector.calibrate(apart, on_scored=on_scored, on_failure=on_failure, **rates)
    return SetUp(references, apart, policy)


def _name(inspector: Inspector, file: Path) -> str | None:
    """A picture's digest, by which a copy of a reference is found; None where it cannot be read."""
    try:
        return digest(inspector.open_good(file))
    except ImageError:
        return None  # it is reported when its turn comes


def _opened(
    inspector: Inspector, files: Sequence[Path], on_failure: Callable[[Failure], None]
) -> tuple[Picture, ...]:
    """Pictures that can be learned from, each once."""
    inspector.infer_bit_depth(files)
    return tuple(GoodPictures(inspector.open_good, on_failure).pictures(files))
