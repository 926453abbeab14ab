"""The same mark on many pictures of a run: which of its regions are one and the same thing.

The patches of the run's pictures are compared with each other once more, with the features that the
method compares (``Detector.patch_features``), whatever it made of them. Patches that some pictures
share and the others do not have (``layers/consistency.py``) are a repeated mark if they lie in
regions of two of them at least; the others have it, too, below the limit for regions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.detector.contract import PatchFeatures
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.sources import evenly, open_source
from zerodefect.layers.consistency import consistency_filter
from zerodefect.layers.mutual import Remade, finer, mutual_distances
from zerodefect.scoring.scorer import DEFAULT_BATCH
from zerodefect.scoring.spool import Spool
from zerodefect.scoring.stream import stream
from zerodefect.types import Failure

MOST = 200
"""Pictures that are compared: those with the most anomalous regions, and others of the run."""

FEWEST = 3  # pictures that share a mark
_SEEN = 2  # of them that have it in a region: what is nowhere anomalous is no mark


@dataclass(frozen=True)
class Member:
    """One picture that has a mark.

    Attributes:
        image: its path.
        name: the end of the path that no other compared picture has, the file's name or more.
        box: ``(x, y, width, height)`` of the region, or of the shared patches, in pixels.
        region: number of the region, from 1, as ``regions.csv`` counts; None where the mark stayed
            below the limit for regions.
        score: of the region.
    """

    image: str
    name: str
    box: tuple[int, int, int, int]
    region: int | None = None
    score: float | None = None

    def place(self) -> tuple[float, str]:
        """Where it stands among others: the highest score first."""
        return (-self.score if self.score is not None else float("inf")), self.image


@dataclass(frozen=True)
class RepeatedMark:
    """One mark on several pictures.

    Attributes:
        members: the pictures, the highest region score first.
        compared: pictures that were looked at.
    """

    members: tuple[Member, ...]
    compared: int

    def sentence(self) -> str:
        """How many have it, and where it can be seen."""
        count, examples = len(self.members), [one.name for one in self.members[:3]]
        seen = sum(one.region is not None for one in self.members)
        below = f" ({seen} of them with a region)" if seen < count else ""
        return (
            f"The same mark on {count} of {self.compared} pictures{below}, such as "
            f"{', '.join(examples)}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def repeated_marks(
    inspector: Inspector, records: Iterable[Mapping[str, Any]], batch_size: int = DEFAULT_BATCH
) -> list[RepeatedMark]:
    """Find the marks that several pictures of a finished run share, the commonest first.

    Of more than ``MOST`` pictures a part is compared, half of it at most with regions. A mark on
    more than half of the pictures is not told from what is normal, and a method that
    gives no features of patches finds none.

    Args:
        inspector: that made the run, or another one.
        records: of the run, see ``records.py``; the pictures must still be there.
        batch_size: pictures that go through the network at once.
    """
    chosen = _chosen([_needed(record) for record in records if record["status"] == "ok"])
    if sum(bool(record["regions"]) for record in chosen) < _SEEN:
        return []
    with Spool() as spool:
        used = _encoded(inspector, chosen, spool, batch_size)
        if not used or not spool[0]:
            return []
        D = _distances(spool, len(used))
        grids = [batch[0].grid.shape for batch in spool for _ in range(len(batch[0].values))]
    found = consistency_filter(D)
    names = _short_names([record["image"] for record in used])
    marks = []
    for group in found.repeated:
        members = [
            _member(used[number], names[number], ~found.keep[number].reshape(grids[number]))
            for number in group
        ]
        if len(members) >= FEWEST and sum(one.region is not None for one in members) >= _SEEN:
            marks.append(RepeatedMark(tuple(sorted(members, key=Member.place)), len(used)))
    return sorted(marks, key=lambda mark: -len(mark.members))


def repeated_in_products(
    inspector: Inspector,
    records: Callable[[], Iterable[Mapping[str, Any]]],
    products: Iterable[Collection[str]],
    batch_size: int = DEFAULT_BATCH,
) -> list[RepeatedMark]:
    """``repeated_marks`` product by product: what all of one have is no mark on the others.

    Args:
        inspector, batch_size: as of ``repeated_marks``.
        records: gives those of the run.
        products: images of each.
    """
    found = []
    for images in products:
        some = (record for record in records() if record["image"] in images)
        found += repeated_marks(inspector, some, batch_size)
    return sorted(found, key=lambda mark: -len(mark.members))


def _needed(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is read of a record: those of a long run are not held whole."""
    regions = [{"box": one["box"], "score": one["score"]} for one in record["regions"]]
    return {**{n: record[n] for n in ("image", "width", "height", "score")}, "regions": regions}


def _chosen(seen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(seen) <= MOST:
        return seen
    marked = [record for record in seen if record["regions"]]
    marked = sorted(marked, key=lambda record: -float(record["score"]))[: MOST // 2]
    names = {record["image"] for record in marked}
    others = [record for record in seen if record["image"] not in names]
    return [*marked, *evenly(others, MOST - len(marked))]


def _encoded(
    inspector: Inspector, records: Sequence[Mapping[str, Any]], spool: Spool, batch_size: int
) -> list[Mapping[str, Any]]:
    """Features of the pictures that can still be opened, batch by batch, and their records."""
    scorer, area = inspector.scorer, inspector.snapshot().area
    by_name = {record["image"]: record for record in records}
    opened: list[Mapping[str, Any]] = []

    def pictures() -> Iterable[Any]:
        names = list(by_name)
        depth, view = inspector.bit_depth, inspector.viewing.view
        how = (lambda name: open_source(name, depth, view), lambda some: some)
        for seen in stream(names, *how, batch_size):
            if not isinstance(seen.result, Failure):
                opened.append(by_name[seen.source])
                yield seen.result, area(seen.result)

    used = []
    with torch.inference_mode():
        for keys, inputs in scorer.batches(pictures(), batch_size):
            whole = [row for row, (_, view) in enumerate(keys) if view == 0]  # no tiles
            if not whole:
                continue
            found = inspector.detector.patch_features(inspector.detector.encode(inputs))
            spool.add(tuple(PatchFeatures(f.values[whole], f.grid, f.joint) for f in found))
            used += [opened[keys[row][0]] for row in whole]
    return used


def _distances(spool: Spool, count: int) -> list[Tensor]:
    """Mean over all features of the distances ``(L, N)``, at the grid of the first ones."""
    mean: list[Tensor] = []
    ways = len(spool[0])
    for way in range(ways):
        z = Remade(spool, partial(_unit, way))
        grids = [
            (batch[0].grid.shape, batch[way].grid.shape)
            for batch in spool
            for _ in range(len(batch[0].values))
        ]
        d = mutual_distances(z, count=count)
        d = [finer(one, *grid) / ways for one, grid in zip(d, grids, strict=True)]
        mean = d if not mean else [m + one for m, one in zip(mean, d, strict=True)]
    return mean


def _unit(way: int, batch: Sequence[PatchFeatures]) -> Tensor:
    return F.normalize(batch[way].values.float(), dim=-1)


def _short_names(images: Sequence[str]) -> list[str]:
    """The shortest end of each path that none of the others has, with ``/`` between folders."""
    ways = [Path(image).parts for image in images]
    ends = Counter(way[-n:] for way in ways for n in range(1, len(way) + 1))
    alone = [next((n for n in range(1, len(w)) if ends[w[-n:]] == 1), len(w)) for w in ways]
    return [Path(*way[-n:]).as_posix() for way, n in zip(ways, alone, strict=True)]


def _member(record: Mapping[str, Any], name: str, shared: np.ndarray) -> Member:
    """Where a picture has the patches ``(h, w)`` that it shares with others."""
    height, width = record["height"] / shared.shape[0], record["width"] / shared.shape[1]
    rows, columns = np.nonzero(shared)
    x, y = (columns + 0.5) * width, (rows + 0.5) * height
    best, most = None, 0
    for number, region in enumerate(record["regions"], start=1):
        left, top, across, down = region["box"]
        inside = (x > left - width / 2) & (x < left + across + width / 2)
        count = int((inside & (y > top - height / 2) & (y < top + down + height / 2)).sum())
        if count > most:
            best, most = number, count
    if best is not None:
        region = record["regions"][best - 1]
        return Member(record["image"], name, tuple(region["box"]), best, float(region["score"]))
    left, top = int(columns.min() * width), int(rows.min() * height)
    right, bottom = int((columns.max() + 1) * width), int((rows.max() + 1) * height)
    return Member(record["image"], name, (left, top, right - left, bottom - top))
