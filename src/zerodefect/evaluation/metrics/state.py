"""Exact pixel metrics that stream, merge and stay within a memory limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from zerodefect.evaluation.metrics.compute import compute, why_undefined
from zerodefect.evaluation.metrics.curves import Totals
from zerodefect.evaluation.metrics.regions import split
from zerodefect.evaluation.metrics.results import PIXEL_PANEL, Metric, MetricError, Query
from zerodefect.evaluation.metrics.store import (
    MEMORY_LIMIT,
    PixelStore,
    load_stores,
    read_header,
    source_of,
    write_folder,
)
from zerodefect.evaluation.metrics.vertices import CurvePoints, curve_points

_KIND = "pixels"


class PixelMetrics:
    """Exact pixel metrics over any number of maps, fed one by one.

    Every score is kept, in memory up to a limit and beyond it as sorted files in a temporary
    folder, so the numbers are those of all pixels at once (scikit-learn, MVTec's scripts) whatever
    their number. The result is the same to the last bit however images were ordered or split over
    states that were merged.

    Args:
        mask_rule: name of the rule by which the caller resized and binarised the masks; it is
            repeated in every result, as it moves pixel metrics by tenths of a point.
        fill_holes: collect what ``aupro:steps200_winclip`` needs.
        memory_limit: bytes for the buffers, 256 MiB unless given; computing takes about 50 MiB
            more.
        spill_folder: where the temporary folder is made; None for the system's.
    """

    def __init__(
        self,
        *,
        mask_rule: str = "as given",
        fill_holes: bool = False,
        memory_limit: int = MEMORY_LIMIT,
        spill_folder: str | Path | None = None,
    ) -> None:
        self.mask_rule = mask_rule
        self._store = PixelStore(memory_limit, spill_folder, fill_holes)

    @property
    def images(self) -> int:
        """Number of maps taken so far."""
        return self._store.images

    @property
    def totals(self) -> Totals:
        """Pixels and regions taken so far."""
        return self._store.totals

    def update(self, map: Any, mask: Any = None, valid: Any = None) -> None:
        """Take one image.

        Args:
            map: ``(H, W)`` anomaly scores, higher is more anomalous; array or tensor, any finite
                values that are exactly float32.
            mask: ``(H, W)`` defective pixels (True, 1 or 255); None for an image without defects.
            valid: ``(H, W)`` pixels that count; what lies outside counts nowhere. None: all.

        Raises:
            MetricError: for NaN or infinite scores, float64 scores that float32 cannot hold, or
                masks of another shape or not binary. The state is unchanged.
            SpillError: if scores cannot be written; the state then refuses to go on.
        """
        self._store.add(split(map, mask, valid, self._store.keep_holes))

    def merge(self, other: PixelMetrics) -> None:
        """Add all images of another state, which stays as it is.

        Raises:
            MetricError: if the other has another mask rule, or only one collects holes.
            SpillError: as for :meth:`update`.
        """
        if other.mask_rule != self.mask_rule:
            raise MetricError(
                f"masks were made by different rules: {self.mask_rule!r}, {other.mask_rule!r}"
            )
        self._store.absorb(other._store)

    def compute(self, queries: Iterable[str | Query] = PIXEL_PANEL) -> list[Metric]:
        """Compute metrics of everything taken so far; more images may follow.

        Args:
            queries: as described at :class:`Query`.

        Raises:
            MetricError: for an unknown query, sPRO (see :class:`SPROMetrics`), or the WinCLIP
                variant of AUPRO without ``fill_holes``.
            SpillError: if spilled scores have vanished.
        """
        asked = self._checked([Query.parse(query) for query in queries])
        return compute(source_of([self._store]), asked, "pixel", self.mask_rule)

    def curves(self, most: int | None = 500) -> CurvePoints:
        """Points of the ROC, precision-recall and region-overlap curves, for drawing.

        Args:
            most: steps into which every rate is divided; None for all vertices.

        Raises:
            MetricError: if there are no normal or no anomalous pixels.
            SpillError: if spilled scores have vanished.
        """
        reason = why_undefined(self.totals, "pixel")
        if reason:
            raise MetricError(f"no curve: {reason}")
        return curve_points(source_of([self._store]), most)

    def _checked(self, queries: Sequence[Query]) -> Sequence[Query]:
        for query in queries:
            if query.name == "spro":
                raise MetricError("spro needs saturation areas: use SPROMetrics")
            if query.variant == "steps200_winclip" and not self._store.keep_holes:
                raise MetricError(f"{query} needs PixelMetrics(fill_holes=True)")
        return queries

    def save(self, folder: str | Path) -> None:
        """Save to a new folder (JSON and raw numbers with checksums, nothing is pickled).

        Raises:
            MetricError: if the folder exists.
            SpillError: if it cannot be written.
        """
        write_folder(folder, _KIND, {"all": self._store}, {"mask_rule": self.mask_rule})

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        memory_limit: int = MEMORY_LIMIT,
        spill_folder: str | Path | None = None,
    ) -> PixelMetrics:
        """Load a saved state; its files are read in place and must stay there.

        Raises:
            MetricError: if the folder holds no such state, or a damaged one.
            SpillError: if its files cannot be read.
        """
        header = read_header(folder, _KIND)
        state = cls(mask_rule=str(header["facts"]["mask_rule"]), memory_limit=1)
        state._store = load_stores(header, folder, memory_limit, spill_folder)["all"]
        return state


def pixel_metrics(
    maps: Iterable[Any],
    masks: Iterable[Any],
    queries: Iterable[str | Query] = PIXEL_PANEL,
    **options: Any,
) -> list[Metric]:
    """Pixel metrics of maps and masks of equal number, each pair ``(H, W)`` of any size.

    ``options`` are those of :class:`PixelMetrics`; a mask may be None for an image without defects.

    Raises:
        MetricError, SpillError: as :meth:`PixelMetrics.update` and :meth:`PixelMetrics.compute`.
    """
    asked = [Query.parse(query) for query in queries]
    options.setdefault("fill_holes", any(q.variant == "steps200_winclip" for q in asked))
    state = PixelMetrics(**options)
    try:
        for map, mask in zip(maps, masks, strict=True):
            state.update(map, mask)
    except ValueError as error:
        if "zip()" in str(error):
            raise MetricError("maps and masks differ in number") from None
        raise
    return state.compute(asked)
