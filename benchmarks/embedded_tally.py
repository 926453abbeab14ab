"""What a contender says of the pictures of one product: figures per kind, as Markdown tables."""

from __future__ import annotations

import itertools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from zerodefect.evaluation.metrics import ImageMetrics, PixelMetrics
from zerodefect.inspection.region_kinds import by_words
from zerodefect.inspection.regions import find_regions
from zerodefect.scoring.joining import Scored
from zerodefect.types import Region

BEGIN, END = "<!-- bench-embedded:begin -->", "<!-- bench-embedded:end -->"

_SPILL = 4 * 2**20  # bytes that the pixels of one kind may take before they go to disk

IMAGE = {"image AUROC": "auroc", "image AP": "ap"}
IMAGE_ALIKE = {f"{title}, cropped alike": query for title, query in IMAGE.items()}
PIXEL = {
    "pixel AUROC": "auroc",
    "pixel AP": "ap",
    "pixel F1-max": "f1max",
    "pixel AUPRO": "aupro@0.3",
}
PIXEL_GOOD = {
    "pixel AUROC, with the good pictures": "auroc",
    "pixel AUPRO, with the good pictures": "aupro@0.3",
}

# (table, line, column) -> one value per seed
Values = dict[tuple[str, str, str], list[float]]
M = TypeVar("M", ImageMetrics, PixelMetrics)


def new_pixels() -> PixelMetrics:
    return PixelMetrics(memory_limit=_SPILL)


@dataclass
class Tally:
    """What one detector in one state says of the pictures of one product, kind by kind."""

    image: dict[str, ImageMetrics] = field(default_factory=lambda: defaultdict(ImageMetrics))
    pixel: dict[str, PixelMetrics] = field(default_factory=lambda: defaultdict(new_pixels))
    known: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    named: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    found: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    true: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, scored: Scored, mask: np.ndarray) -> None:
        self.image[kind].update(scored.score, kind != "good")
        self.pixel[kind].update(scored.map, mask)

    def add_kinds(
        self, kind: str, scored: Scored, mask: np.ndarray, kinds: Sequence[str], limit: float | None
    ) -> None:
        """The kind of the damaged area, taken as known, and of the regions that meet it."""
        if kind == "good" or not mask.any():
            return
        if scored.type_map is not None:
            self.known[kind].append(likeliest(scored.type_map, mask, kinds) == kind)
        if limit is not None:
            regions = find_regions(scored.map, limit)
            regions = by_words(regions, scored.type_map, kinds, mask.shape)
            hits = [meets(region, mask) for region in regions]
            self.found[kind].append(any(hits))
            self.true[kind] += hits
            if scored.type_map is not None:
                right = [region.kind == kind for region in regions]
                self.named[kind] += list(itertools.compress(right, hits))

    def figures(self, alike: bool) -> Iterator[tuple[str, str, float]]:
        """``(table, column, value)``; a column per kind, their plain mean, and all together."""
        good = [kind for kind in self.image if kind == "good"]
        columns = {kind: [kind] for kind in self.image if kind != "good"}
        columns["all"] = list(columns)
        found: list[tuple[str, str, float]] = []
        for column, kinds in columns.items():
            if good:
                image = merged(ImageMetrics(), [self.image[kind] for kind in [*good, *kinds]])
                found += named(column, image, IMAGE_ALIKE if alike else IMAGE)
            if not alike:
                pixel = merged(new_pixels(), [self.pixel[kind] for kind in kinds])
                found += named(column, pixel, PIXEL)
            if good and not alike:
                pixel.merge(self.pixel["good"])
                found += named(column, pixel, PIXEL_GOOD)
        shares = {
            "damaged pictures with a region on the damage": self.found,
            "regions of damaged pictures that lie on damage": self.true,
            "kind right, damaged area known": self.known,
            "kind right, regions on damage": self.named,
        }
        for title, by_kind in shares.items():
            found += [(title, kind, statistics.mean(v)) for kind, v in by_kind.items() if v]
        yield from found
        for title in dict.fromkeys(title for title, _, _ in found):
            each = [v for t, column, v in found if t == title and column != "all"]
            yield title, "mean", mean(each)


def named(
    column: str, metrics: ImageMetrics | PixelMetrics, queries: dict[str, str]
) -> Iterator[tuple[str, str, float]]:
    """``(table, column, value)`` of each query, given by the table's name."""
    for title, metric in zip(queries, metrics.compute(queries.values()), strict=True):
        yield title, column, metric.value


def merged(into: M, parts: Iterable[M]) -> M:
    for part in parts:
        into.merge(part)
    return into


def likeliest(type_map: np.ndarray, mask: np.ndarray, kinds: Sequence[str]) -> str:
    """Kind with the largest share of ``(T, h, w)`` over the damaged area of ``(H, W)``."""
    area = torch.from_numpy(mask)[None, None].float()
    area = F.interpolate(area, type_map.shape[-2:], mode="area")[0, 0]
    return kinds[int((torch.from_numpy(type_map) * area).sum((1, 2)).argmax())]


def meets(region: Region, mask: np.ndarray) -> bool:
    """Whether a region covers any damaged pixel."""
    x, y, width, height = region.box
    return bool((mask[y : y + height, x : x + width] & region.mask).any())


def mean(numbers: Iterable[float]) -> float:
    """Plain mean of what is defined; NaN if nothing is."""
    defined = [number for number in numbers if not math.isnan(number)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def over_seeds(numbers: Sequence[float]) -> str:
    """Percent; with several seeds, mean ± sample deviation; a dash where undefined."""
    defined = [number for number in numbers if not math.isnan(number)]
    if not defined:
        return "-"
    spread = f" ± {100 * statistics.stdev(defined):.1f}" if len(defined) > 1 else ""
    return f"{100 * mean(defined):.1f}{spread}"


def table(found: Values, title: str, columns: Sequence[str]) -> Iterator[str]:
    """Markdown: a line per contender, a column per kind."""
    lines = dict.fromkeys(line for t, line, _ in found if t == title)
    columns = [c for c in columns if any((title, line, c) in found for line in lines)]
    yield f"| | {' | '.join(columns)} |"
    yield "|---|" + "---|" * len(columns)
    for line in lines:
        cells = [over_seeds(found.get((title, line, column), [])) for column in columns]
        yield f"| {line} | {' | '.join(cells)} |"


def replaced(text: str, block: str) -> str:
    """The text with everything between the two markers replaced.

    Raises:
        ValueError: the markers are not both there, once and in order.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in tail or END in tail:
        raise ValueError(f"the text needs {BEGIN} and then {END}, once each")
    return f"{head}{BEGIN}\n{block.strip()}\n{END}{tail}"
