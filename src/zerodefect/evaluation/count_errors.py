"""How far the number of defects that is told lies from the areas of the masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zerodefect.inspection.counting import count_kinds
from zerodefect.inspection.regions import find_regions

ALL = "all"


@dataclass(frozen=True)
class CountError:
    """Of the damaged pictures of a kind; means over them.

    Attributes:
        kind: of the pictures; ``ALL`` for all of them.
        pictures: how many there are.
        true: connected areas of the mask.
        plain: absolute error of the number of regions above the limit.
        told: absolute error of ``Count.count``.
        holds: share of the pictures whose true number lies between ``low`` and ``high``.
    """

    kind: str
    pictures: int
    true: float
    plain: float
    told: float
    holds: float


@dataclass(frozen=True)
class CountErrors:
    """Errors of counts on a product, by kind.

    Attributes:
        product: of the data set.
        by: where the limit of regions is from, in words.
        limit: of the map.
        rows: all pictures first, then each kind.
    """

    product: str
    by: str
    limit: float
    rows: tuple[CountError, ...]

    @classmethod
    def of(
        cls, product: str, by: str, limit: float, seen: Iterable[tuple[str, np.ndarray, np.ndarray]]
    ) -> CountErrors:
        """From the kind, map ``(H, W)`` and whole mask ``(h, w)`` of damaged pictures.

        A picture shows defects of one kind, so its regions are counted as one.
        """
        counted = [(kind, *_counted(map, mask, limit)) for kind, map, mask in seen]
        kinds = dict.fromkeys(kind for kind, *_ in counted)
        groups = [ALL, *kinds] if counted else []
        rows = tuple(
            _error(name, np.array([n for kind, *n in counted if name in (ALL, kind)]))
            for name in groups
        )
        return cls(product, by, limit, rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Markdown: a row for each kind."""
        yield f"## Number of defects of {self.product}"
        yield ""
        yield f"Regions above {self.limit:.4g}, {self.by}. Mean absolute errors per picture."
        yield ""
        yield "| kind | pictures | true, mean | error | of plain components | interval holds |"
        yield "|---|---|---|---|---|---|"
        for row in self.rows:
            yield (
                f"| {row.kind} | {row.pictures} | {row.true:.2f} | {row.told:.2f} | "
                f"{row.plain:.2f} | {100 * row.holds:.0f} % |"
            )


def _counted(map: np.ndarray, mask: np.ndarray, limit: float) -> tuple[int, int, int, int, int]:
    """True number, plain components, told, low, high."""
    true = len(find_regions(mask.astype(np.float32), 0.5))
    regions = find_regions(map, limit)
    told = count_kinds(map, regions, limit)
    sums = (sum(getattr(one, name) for one in told) for name in ("count", "low", "high"))
    count, low, high = sums
    return true, len(regions), count, low, high


def _error(kind: str, counts: np.ndarray) -> CountError:
    true, plain, told, low, high = counts.T
    return CountError(
        kind,
        len(counts),
        float(true.mean()),
        float(abs(plain - true).mean()),
        float(abs(told - true).mean()),
        float(((low <= true) & (true <= high)).mean()),
    )
