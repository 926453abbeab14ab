"""Which damage would be found? Drawn onto good pictures, and looked for at the limits in force.

**What is drawn on.** A picture that the memory holds would match itself all around the damage, and
be told from it too easily. So damage is drawn on good pictures that are no references; where all
are, on references, each left out of the memory just as a calibration by leave-one-out does it; a
single reference is mirrored.

**The order.** One size of each kind at the middle contrast comes first, then a larger one, then the
other contrasts, then the sizes between, then more of each. Within a stage every cell gets its next
picture before any gets one more, so that whatever the time, kinds are measured alike. What is drawn
is a function of the seed alone; time decides how much of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from time import monotonic

import numpy as np
import torch

from zerodefect.detector.contract import UnsupportedError
from zerodefect.detector.knowledge import Knowledge
from zerodefect.images import ImageError, Picture
from zerodefect.inspection.conformal import CalibrationError
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.power_curve import Cell, Origin, PowerCurve, Share
from zerodefect.inspection.sources import Source, digest, expand, mirrored
from zerodefect.procedural.draws import Draws
from zerodefect.procedural.sized_damage import LINES, SIZED_KINDS, lay, on_product, sized_damage
from zerodefect.scoring.scorer import DEFAULT_BATCH
from zerodefect.types import Failure, Region

CONTRASTS = (5.0, 15.0, 40.0)  # percent of the grey range
_WIDTHS, _DIAMETERS = (1, 2, 4, 8), (4, 8, 16, 32)  # pixels, of lines and of what is round
_SCALED_FROM = 512  # pixels of the shorter side of a view; twice as many have twice the sizes
_LARGEST = {True: 1 / 32, False: 1 / 6}  # size of lines and others, of the picture's shorter side
_LONGEST = 0.75  # of the shorter side that a line takes
_ROUNDS = (5, 10, 20)  # pictures of each cell after each stage
_MOST_PICTURES, _MOST_PIXELS = 32, 10**8  # that are held in memory
_MOST_LEFT_OUT = 4  # references, where each takes a memory of its own
_TRIES = 16  # places for a damage; most of it must lie on the product


@dataclass(frozen=True)
class Base:
    """A good picture to draw on.

    Attributes:
        picture: as it is.
        on: ``(H, W)`` bool, the product within the inspected area.
        known: by which it is judged, if not by all that is known.
        left_out: number of the reference that does not count for it, -1 for none.
    """

    picture: Picture
    on: np.ndarray
    known: Knowledge | None = None
    left_out: int = -1

    @property
    def side(self) -> int:
        """Pixels of the shorter side."""
        return min(self.picture.height, self.picture.width)


@dataclass(frozen=True)
class Drawn:
    """A picture to be judged: of which cell (None: as it was), with which damage, on what."""

    cell: int | None
    picture: Picture
    mask: np.ndarray | None
    base: Base


def measure_power(
    inspector: Inspector, good: Source | Iterable[Source], seconds: float = 60.0, seed: int = 0
) -> PowerCurve:
    """Measure which share of drawn damage is found at the limits in force.

    Args:
        inspector: as it is to be used; it is not changed.
        good: good pictures, best those it was calibrated on; at most 32 are drawn on. Those that
            cannot be read or show nothing are passed over.
        seconds: time it may take. It is looked at between batches, so that it may be exceeded by
            what learning takes where nothing was learned yet, or by one picture.
        seed: of all draws, at least 0.

    Raises:
        CalibrationError: no good picture can be used.
        UnsupportedError: the method's scores depend on the other images of a set.
        PolicyMismatch: the policy was made for something else.
        ValueError: negative seconds, or no picture was given.
    """
    if "set" in inspector.detector.info.needs:
        name = inspector.detector.info.name
        raise UnsupportedError(f"{name} scores the images of a set against each other")
    if not seconds >= 0:
        raise ValueError(f"the seconds must be 0 or more, got {seconds}")
    end = monotonic() + seconds
    bases, origin = good_bases(inspector, good, seed)
    cells, policy = design(inspector, bases), inspector.active_policy()
    drawn, found = Counter[int | None](), Counter[int | None]()
    for one, outcome in _judged(inspector, _draws(cells, bases, seed), end):
        if isinstance(outcome, Inspection):
            drawn[one.cell] += 1
            found[one.cell] += is_found(outcome, one.mask)
    return PowerCurve(
        method=policy.method,
        fingerprint=policy.fingerprint,
        object=policy.object,
        calibrated=policy.calibrated,
        unsure_limit=policy.limits.unsure,
        region_limit=policy.region_limit,
        pictures=len(bases),
        origin=origin,
        located=policy.region_limit is not None,
        cells=tuple(
            cell.model_copy(update={"drawn": drawn[n], "found": found[n]})
            for n, cell in enumerate(cells)
        ),
        undamaged=Share(drawn=drawn[None], found=found[None]),
        seconds=seconds,
        seed=seed,
    )


def is_found(outcome: Inspection, mask: np.ndarray | None) -> bool:
    """Whether the verdict is not good and a region meets the damage ``(H, W)``.

    Without a map or a mask, the verdict alone decides.
    """
    if outcome.verdict == "good":
        return False
    if mask is None or outcome.map is None:
        return True
    return any(_meets(region, mask) for region in outcome.regions)


def _meets(region: Region, mask: np.ndarray) -> bool:
    x, y, width, height = region.box
    return bool((mask[y : y + height, x : x + width] & region.mask).any())


# --- what is drawn on ----------------------------------------------------------------------------


def good_bases(
    inspector: Inspector, good: Source | Iterable[Source], seed: int
) -> tuple[list[Base], Origin]:
    """Pictures to draw on, that the memory does not hold as they are; see above.

    Raises:
        CalibrationError: none can be used.
    """
    pictures = _some(inspector, good, seed)
    places = {name: number for number, name in enumerate(inspector.snapshot().digests)}
    fresh = [picture for name, picture in pictures.items() if name not in places]
    if fresh:
        return [_base(inspector, picture) for picture in fresh], "held out"
    if not pictures:
        raise CalibrationError("no good picture can be used to draw damage on. Give at least one.")
    if len(places) > 1:
        return _left_out(inspector, pictures, places), "left out"
    (picture,) = pictures.values()
    return [_base(inspector, one) for one in mirrored(picture)], "mirrored"


def _left_out(
    inspector: Inspector, pictures: Mapping[str, Picture], places: Mapping[str, int]
) -> list[Base]:
    """References by their digests, out of the memory as a calibration leaves them out."""
    exact = inspector.leaves_out()
    some = list(pictures.items())[: _MOST_PICTURES if exact else _MOST_LEFT_OUT]
    numbers = [places[name] for name, _ in some]
    bases = [_base(inspector, picture) for _, picture in some]
    if exact:
        return [replace(b, left_out=n) for b, n in zip(bases, numbers, strict=True)]
    known = inspector.without_each(numbers)
    return [replace(b, known=k) for b, k in zip(bases, known, strict=True)]


def _some(inspector: Inspector, good: Source | Iterable[Source], seed: int) -> dict[str, Picture]:
    """Good pictures by their digests, drawn by the seed, as many as may be held."""
    sources = list(expand(good, tolerant=True))
    inspector.infer_bit_depth(sources)
    order = np.random.default_rng(seed).permutation(len(sources))
    references = set(inspector.snapshot().digests)  # they do not take the places of others
    found, pixels = dict[str, Picture](), 0
    for place in order.tolist():
        try:
            picture = inspector.open_good(sources[place])
        except ImageError:
            continue
        found[digest(picture)] = picture
        pixels += picture.height * picture.width
        if len(found.keys() - references) >= _MOST_PICTURES or pixels >= _MOST_PIXELS:
            break
    return found


def _base(inspector: Inspector, picture: Picture) -> Base:
    area = inspector.snapshot().area(picture)
    product = on_product(picture.pixels)
    inside = product if area is None else product & area
    if not inside.any() and area is not None:
        inside = area
    return Base(picture, inside)


# --- the design ----------------------------------------------------------------------------------


def design(inspector: Inspector, bases: Sequence[Base]) -> list[Cell]:
    """All cells, nothing drawn: kinds, sizes that fit the smallest picture, contrasts."""
    side = min(base.side for base in bases)
    tiling = inspector.viewing.tiling
    view = side if tiling is None else min(side, tiling.size)
    scale = 2 ** max(0, int(np.floor(np.log2(view / _SCALED_FROM))))
    cells = []
    for kind in SIZED_KINDS:
        line = kind in LINES
        sizes = [scale * size for size in (_WIDTHS if line else _DIAMETERS)]
        fitting = [size for size in sizes if size <= _LARGEST[line] * side] or sizes[:1]
        cells += [Cell(kind=kind, size=s, contrast=c) for s in fitting for c in CONTRASTS]
    return cells


def order(cells: Sequence[Cell]) -> Iterator[tuple[int, int]]:
    """Numbers of cells, each with the how manieth picture of it comes next; see above."""
    sizes = {kind: sorted({c.size for c in cells if c.kind == kind}) for kind in SIZED_KINDS}
    rank = [sizes[cell.kind].index(cell.size) for cell in cells]
    some = [n for n, cell in enumerate(cells) if rank[n] % 2 or len(sizes[cell.kind]) == 1]
    middle = [n for n in some if cells[n].contrast == CONTRASTS[len(CONTRASTS) // 2]]
    first = [n for n in middle if rank[n] < 2]
    stages = [(numbers, _ROUNDS[0]) for numbers in (first, middle, some)]
    stages += [(list(range(len(cells))), rounds) for rounds in _ROUNDS]
    given = Counter[int]()
    for numbers, rounds in stages:
        # of the kinds in turns, so that whatever is cut off is cut off of all of them
        turns = sorted(numbers, key=lambda n: (rank[n], cells[n].contrast))
        for number in range(rounds):
            for cell in turns:
                if given[cell] == number:
                    given[cell] += 1
                    yield cell, number


def _draws(cells: Sequence[Cell], bases: Sequence[Base], seed: int) -> Iterator[Drawn]:
    """Pictures in the design's order; an undamaged one when a cell of a new round comes up."""
    sizes = list(dict.fromkeys((cell.kind, cell.size) for cell in cells))
    whole = 0
    for place, number in order(cells):
        if number == whole and whole < len(bases):
            base, whole = bases[whole], whole + 1
            yield Drawn(None, base.picture, None, base)
        cell = cells[place]
        # all contrasts have the same places and shapes, so that they differ in contrast alone
        base = bases[(number + 7 * sizes.index((cell.kind, cell.size))) % len(bases)]
        made = damaged(base, cell, seed, number)
        if made is not None:
            picture = replace(base.picture, pixels=made[0])
            yield Drawn(place, picture, made[1], base)


def damaged(base: Base, cell: Cell, seed: int, number: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The picture with one damage, and its mask; None where it finds no place."""
    draws = Draws(seed, np.array([number], np.uint64), torch.device("cpu"))
    draws = draws.under(f"{cell.kind}/{cell.size}")
    damage = sized_damage(cell.kind, cell.size, draws, _LONGEST * base.side)
    rows, columns = np.nonzero(base.on)
    spots = (draws.uniforms("place", _TRIES)[0].double().numpy() * len(rows)).astype(int)
    whole = (damage.opacity > 0.5).sum()
    for spot in spots:
        centre = (int(rows[spot]), int(columns[spot]))
        pixels, mask = lay(base.picture.pixels, damage, cell.contrast / 100, centre, base.on)
        if 2 * mask.sum() >= whole and mask.any() and (pixels != base.picture.pixels).any():
            return pixels, mask
    return None


# --- time ----------------------------------------------------------------------------------------


def _judged(
    inspector: Inspector, drawn: Iterator[Drawn], end: float
) -> Iterator[tuple[Drawn, Inspection | Failure]]:
    """What comes of pictures until the time is over; batches grow as far as time allows."""
    count, spent = 1, 0.0
    while monotonic() < end:
        began = monotonic()
        batch = list(islice(drawn, count))
        if not batch:
            return
        yield from _of_batch(inspector, batch)
        spent = (monotonic() - began) / len(batch)
        count = min(DEFAULT_BATCH, int((end - monotonic()) / max(spent, 1e-9)))
        if count < 1:
            return


def _of_batch(
    inspector: Inspector, batch: Sequence[Drawn]
) -> Iterator[tuple[Drawn, Inspection | Failure]]:
    """Those that are judged by one knowledge go together."""
    groups: dict[int, list[Drawn]] = {}
    for one in batch:
        groups.setdefault(id(one.base.known), []).append(one)
    for group in groups.values():
        numbers = {id(one.picture): one.base.left_out for one in group}
        left_out = None if max(numbers.values()) < 0 else partial(_number, numbers)
        outcomes = inspector.judge([one.picture for one in group], group[0].base.known, left_out)
        yield from zip(group, outcomes, strict=True)


def _number(numbers: Mapping[int, int], picture: Picture) -> int:
    return numbers[id(picture)]
