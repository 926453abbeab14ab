"""Without a good part: the pictures of a folder are compared with each other.

A newcomer has a folder and nothing else, and a score from words alone says little about where
"defect" begins on this product. In a first pass some pictures of the folder, evenly spread over it,
are remembered, and each is scored with all of them but itself; a method that judges a set compares
them by itself, and where a method does neither, its scores are taken as they are. The limits follow
from these scores by a rule that stands a third of the pictures being damaged, since it looks at the
lowest two thirds of the scores alone: a limit lies a multiple of their interquartile range above
their median. What the multiples do was tried on random numbers and on the sets called "choosing" in
docs/benchmarks.md, see there.

None of it is proven, and a folder whose pictures are mostly damaged, or of several products, says
nothing of good parts: the limits are provisional, and every output says what makes them real.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from zerodefect.images import ImageError, Picture, picture_size
from zerodefect.inspection.calibration import calibrate
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.picture_sets import PictureSets
from zerodefect.inspection.policy import Limits, Policy
from zerodefect.inspection.product_groups import ProductGroup
from zerodefect.inspection.sources import GoodPictures, evenly
from zerodefect.scoring.scorer import DEFAULT_BATCH
from zerodefect.types import Failure, told_score

ENOUGH = 12
"""Pictures from which on a folder is compared with itself; fewer are ranked."""

_MOST = 48  # pictures that the others are compared with
_PIXELS = 4e8  # that all of these may have
_NORMAL = 1.349  # interquartile range of a normal distribution, in deviations
_UNSURE, _DEFECT = 3.0, 4.5  # deviations
_WITHIN = "The limits were learned from good parts scored in the same set, and hold for it alone."
_SHARE = "about a third"  # of the pictures, which may be damaged


def limits_of_sets(
    inspector: Inspector,
    sets: PictureSets,
    *,
    batch_size: int = DEFAULT_BATCH,
    on_seen: Callable[[], object] = lambda: None,
) -> PictureSets:
    """Give each product of a batch limits of its own.

    From good parts that are scored in the same set, where there are some, else provisional ones.

    Args:
        inspector: without a policy; afterwards it has that of the only product, or, of several, one
            without limits that tells of theirs.
        sets: of one product or more.
        batch_size, on_seen: as of ``compare_with_itself``.

    Returns:
        The sets; of several products with their ``policies``.

    Raises:
        ImageError: a good picture cannot be used.
    """
    whole, told, made = inspector.active_policy(), sets.sentence(), []
    for group in sets.groups:
        inspector.policy = None
        how: dict[str, Any] = {"batch_size": batch_size, "told": told, "on_seen": on_seen}
        if group.good:
            made.append(calibrate_within(inspector, group.good, group.files, **how))
        else:
            made.append(compare_with_itself(inspector, group.files, **how))
    if len(made) == 1:
        return sets
    inspector.policy = _of_several(inspector, whole, sets.groups, made, told)
    return sets.judged_by(made)


def _of_several(
    inspector: Inspector,
    whole: Policy,
    groups: Sequence[ProductGroup],
    policies: Sequence[Policy],
    told: str,
) -> Policy:
    """Without limits: what the run as a whole says of those of its products."""
    each = "; ".join(map(_own_limits, groups, policies))
    notes = [f"{len(groups)} products, each judged by limits of its own. {each}.", told]
    if not all(policy.calibrated for policy in policies):
        notes.append(inspector.remedy)
    made = _provisional(inspector, whole, None, "")
    return made.model_copy(update={"notes": tuple(notes), "region_limit": None})


def _own_limits(group: ProductGroup, policy: Policy) -> str:
    count = f"{group.name} ({len(group.files)} picture{'s' * (len(group.files) != 1)})"
    defect = policy.limits.defect
    if policy.calibrated:
        rest = f"limits from {len(policy.scores)} good parts in its set"
    elif defect is None:
        return f"{count}: ranked, fewer than {ENOUGH} pictures"
    else:
        rest = "provisional limits"
    return f"{count}: {rest}" + ("" if defect is None else f", defect above {told_score(defect)}")


def compare_with_itself(
    inspector: Inspector,
    files: Sequence[Path],
    *,
    batch_size: int = DEFAULT_BATCH,
    told: str = "",
    on_seen: Callable[[], object] = lambda: None,
) -> Policy:
    """Give an inspector that was shown no good part provisional limits, from what it will inspect.

    Afterwards it remembers some of the files, and never compares one with itself.

    Args:
        inspector: with neither references nor policy.
        files: pictures that will be inspected. Fewer than ``ENOUGH`` get no limits: they are
            ranked, and every verdict is "unsure".
        batch_size: pictures that go through the network at once.
        told: what else readers should know of the comparison, in sentences.
        on_seen: called after every picture that was scored.

    Returns:
        The provisional policy, which is the inspector's now.
    """
    whole = inspector.active_policy()
    pictures = _sample(inspector, files) if len(files) >= ENOUGH else []
    if len(pictures) < ENOUGH:
        inspector.policy = _ranked(inspector, whole, told)
        return inspector.policy
    remembers = inspector.transductive or _remember(inspector, pictures)
    inspector.policy = _provisional(inspector, whole, None, "")
    scores, maxima = [], []
    for seen in inspector.stream(pictures, batch_size=batch_size):
        on_seen()
        if isinstance(seen.result, Failure) or seen.result.reason is not None:
            continue
        scores.append(seen.result.score)
        if seen.result.map is not None:
            maxima.append(float(seen.result.map.max()))
    how = "compared with each other" if remembers else "set beside each other by their scores"
    note = (
        f"No good part was shown: the pictures are {how}, and what stands out from the usual is "
        f"called unsure or defect. This holds as long as no more than {_SHARE} are damaged."
    )
    limits = Limits(unsure=usual_up_to(scores, _UNSURE), defect=usual_up_to(scores, _DEFECT))
    made = _provisional(inspector, whole, limits, f"{note} {told}".rstrip())
    if maxima:
        low, limit = statistics.median(maxima), usual_up_to(maxima, _UNSURE)
        half = max(limit - low, 1e-3)
        made = made.model_copy(
            update={"region_limit": limit, "colour_range": (limit - half, limit + half)}
        )
    inspector.policy = made
    return made


def calibrate_within(
    inspector: Inspector,
    good: Sequence[Path],
    files: Sequence[Path],
    *,
    batch_size: int = DEFAULT_BATCH,
    told: str = "",
    on_seen: Callable[[], object] = lambda: None,
) -> Policy:
    """Give an inspector whose method compares pictures limits for one set of them.

    Good parts are scored in the set with all others: they are as much compared with damaged ones as
    a good part that is inspected. The limits are those of a calibration, hold for this set alone,
    and are not said to be proven.

    Args:
        inspector: without a policy.
        good: pictures of good parts.
        files: pictures that will be inspected with them.
        batch_size, told, on_seen: as of ``compare_with_itself``.

    Returns:
        The policy, which is the inspector's now.

    Raises:
        ImageError: a good picture cannot be used.
    """
    whole = inspector.active_policy()
    scores, maxima = [], []
    for seen in islice(inspector.stream([*good, *files], batch_size=batch_size), len(good)):
        on_seen()
        if isinstance(seen.result, Failure):
            raise ImageError(seen.result.image, seen.result.reason, seen.result.remedy)
        scores.append(seen.result.score)
        if seen.result.map is not None:
            maxima.append(float(seen.result.map.max()))
    made = calibrate(
        scores,
        maxima,
        form="split",
        map_range=inspector.detector.map_range(inspector.snapshot().known) or (0.0, 1.0),
        monotone=False,
        method=whole.method,
        fingerprint=whole.fingerprint,
        object=whole.object,
    )
    note = f"{_WITHIN} {told}".rstrip()
    inspector.policy = made.model_copy(update={"guaranteed": False, "notes": (note,)})
    return inspector.policy


def usual_up_to(scores: Sequence[float], deviations: float) -> float:
    """Limit of what is usual among scores of which a third may be those of damaged pictures.

    Args:
        scores: one or more.
        deviations: of the lowest two thirds, by their interquartile range, that the limit lies
            above their median.
    """
    lowest = sorted(scores)[: math.ceil(2 * len(scores) / 3)]
    low, middle, high = np.quantile(lowest, [0.25, 0.5, 0.75])
    return float(middle + deviations * (high - low) / _NORMAL)


def _sample(inspector: Inspector, files: Sequence[Path]) -> list[Picture]:
    """Pictures that show something, each once, evenly spread over the files."""
    count = min(len(files), _MOST)
    spread = evenly(files, count)
    sizes = [width * height for width, height in map(_size, spread)]
    most = max(ENOUGH, int(_PIXELS // max(1, *sizes)))
    if count > most:
        spread = evenly(spread, most)
    return GoodPictures(inspector.open_good, lambda failure: None).pictures(spread)


def _size(file: Path) -> tuple[int, int]:
    try:
        return picture_size(file)
    except ImageError:
        return 0, 0  # it is reported when its turn comes


def _remember(inspector: Inspector, pictures: Sequence[Picture]) -> bool:
    """Let the pictures be compared with each other, where the method can; says whether it does."""
    memory = inspector.detector.memory
    if memory is None:
        return False
    inspector.remember(pictures)
    if not inspector.leaves_out():
        inspector.forget()
        return False
    inspector.among_themselves = True
    return True


def _ranked(inspector: Inspector, whole: Policy, told: str) -> Policy:
    """Without a verdict; says why."""
    # no count of them: a run goes on when the folder has grown
    why = (
        f"Fewer than {ENOUGH} pictures: too few to compare with each other, so they are only "
        "ranked by score."
    )
    return _provisional(inspector, whole, None, f"{why} {told}".rstrip())


def _provisional(inspector: Inspector, whole: Policy, limits: Limits | None, note: str) -> Policy:
    """Of the inspector as it is now, with the regions of ``whole`` until others are known."""
    first = f"Not calibrated: verdicts and regions are provisional. {note}"
    return whole.model_copy(
        update={
            "fingerprint": inspector.fingerprint(),
            "limits": limits or Limits(unsure=None, defect=None),
            "notes": (first, inspector.remedy),
        }
    )
