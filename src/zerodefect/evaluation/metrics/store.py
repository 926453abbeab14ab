"""What a streaming state keeps of its images: sorted runs, counts, range; saved as plain files."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zerodefect.evaluation.metrics.curves import Totals
from zerodefect.evaluation.metrics.keys import pack
from zerodefect.evaluation.metrics.regions import Pixels
from zerodefect.evaluation.metrics.results import MetricError, SpillError
from zerodefect.evaluation.metrics.runs import Run, SortedRuns, SpillFolder
from zerodefect.evaluation.metrics.source import RunsSource

FORMAT = "zerodefect-pixel-scores"
VERSION = 1
MEMORY_LIMIT = 256 << 20
"""Bytes that a state's buffers may take by default (256 MiB)."""

_LARGEST_AREA = (1 << 32) - 1


class PixelStore:
    """Scores of normal and defective pixels of any number of images.

    Args:
        memory_limit: bytes for the buffers. Half goes to normal pixels (4 bytes each), a quarter
            to defective ones (8 bytes), an eighth to holes if they are kept; computing needs the
            rest and about 50 MiB of its own.
        spill_folder: where a temporary folder for what exceeds the buffers is made; None for
            the system's. Disk needed: 4 bytes per normal and 8 per defective pixel.
        keep_holes: whether pixels in holes of regions are kept.
    """

    def __init__(
        self,
        memory_limit: int = MEMORY_LIMIT,
        spill_folder: str | Path | None = None,
        keep_holes: bool = False,
    ) -> None:
        self.keep_holes = keep_holes
        self._folder = SpillFolder(spill_folder)
        self.normal = SortedRuns(np.float32, memory_limit // 8, self._folder)
        self.defective = SortedRuns(np.uint64, memory_limit // 32, self._folder)
        self.holes = SortedRuns(np.uint64, memory_limit // 64 if keep_holes else 1, self._folder)
        self.images = 0
        self.regions = 0
        self.low, self.high = math.inf, -math.inf
        self._broken = False

    def add(self, pixels: Pixels) -> None:
        """Add one image.

        Raises:
            SpillError: if the disk is full; the store is then incomplete and refuses to go on.
        """
        self._check_whole()
        if len(pixels.areas) and pixels.areas.max() > _LARGEST_AREA:
            raise MetricError("a region has more than 2^32 pixels")
        for scores in (pixels.normal, pixels.defective):
            if len(scores):
                self.low = min(self.low, float(scores.min()))
                self.high = max(self.high, float(scores.max()))
        self._broken = True  # until everything is in
        self.normal.append(pixels.normal)
        self.defective.append(pack(pixels.defective, pixels.areas))
        self.holes.append(pack(pixels.holes, pixels.hole_areas))
        self.images += 1
        self.regions += pixels.regions
        self._broken = False

    def absorb(self, other: PixelStore) -> None:
        """Add all images of another store, which stays as it is.

        Raises:
            SpillError: as for :meth:`add`.
            MetricError: if only one of the two keeps holes.
        """
        self._check_whole()
        other._check_whole()
        if other is self:
            raise MetricError("a state cannot be merged with itself: every image would count twice")
        if other.keep_holes != self.keep_holes:
            raise MetricError("only one of the states keeps the pixels in holes of regions")
        self._broken = True
        self.normal.absorb(other.normal)
        self.defective.absorb(other.defective)
        self.holes.absorb(other.holes)
        self.images += other.images
        self.regions += other.regions
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self._broken = False

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a state is handed to another process by save() and load(), not by pickle")

    def _check_whole(self) -> None:
        if self._broken:
            raise SpillError("spilling failed before, so that scores are missing; start over")

    @property
    def totals(self) -> Totals:
        """Counts of pixels and regions."""
        return Totals(len(self.defective), len(self.normal), self.regions)

    def save(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the runs into a folder; returns what :meth:`load` needs."""
        self._check_whole()
        return {
            "images": self.images,
            "regions": self.regions,
            "range": [self.low, self.high] if self.low <= self.high else None,
            "keep_holes": self.keep_holes,
            "normal": self.normal.save(folder, f"{name}-normal"),
            "defective": self.defective.save(folder, f"{name}-defective"),
            "holes": self.holes.save(folder, f"{name}-holes"),
        }

    def load(self, folder: Path, facts: dict[str, Any]) -> None:
        """Fill an empty store from what :meth:`save` wrote; the files stay where they are."""
        self.images, self.regions = int(facts["images"]), int(facts["regions"])
        if facts["range"]:
            self.low, self.high = (float(edge) for edge in facts["range"])
        self.normal.load(folder, facts["normal"])
        self.defective.load(folder, facts["defective"])
        self.holes.load(folder, facts["holes"])


def source_of(stores: Sequence[PixelStore]) -> RunsSource:
    """All pixels of several stores as one set, without copying them."""

    def runs(name: str) -> list[Run]:
        return [run for store in stores for run in getattr(store, name).runs()]

    for store in stores:
        store._check_whole()
    totals = [store.totals for store in stores]
    return RunsSource(
        Totals(
            sum(t.positives for t in totals),
            sum(t.negatives for t in totals),
            sum(t.regions for t in totals),
        ),
        (min(store.low for store in stores), max(store.high for store in stores)),
        runs("normal"),
        runs("defective"),
        runs("holes") if all(store.keep_holes for store in stores) else None,
    )


def write_folder(folder: str | Path, kind: str, stores: dict[str, PixelStore], facts: Any) -> None:
    """Save stores and further facts as a new folder: ``state.json`` and one file per run.

    The folder appears only when it is complete.

    Raises:
        MetricError: if the folder exists.
        SpillError: if it cannot be written.
    """
    target = Path(folder)
    if target.exists():
        raise MetricError(f"{target} exists; a state is saved to a new folder")
    scratch: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        header = {
            "format": FORMAT,
            "version": VERSION,
            "kind": kind,
            "byteorder": "little" if np.little_endian else "big",
            "facts": facts,
            "stores": {
                name: store.save(scratch, str(number))
                for number, (name, store) in enumerate(stores.items())
            },
        }
        (scratch / "state.json").write_text(json.dumps(header, indent=1), "utf-8")
        scratch.replace(target)
    except OSError as error:
        raise SpillError(f"cannot save a state to {target}: {error.strerror}") from error
    finally:
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)


def read_header(folder: str | Path, kind: str) -> dict[str, Any]:
    """Read ``state.json`` of a saved state.

    Raises:
        MetricError: if the folder holds no state of this kind, version and byte order.
    """
    path = Path(folder) / "state.json"
    try:
        header = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise MetricError(f"{folder} holds no saved state: {error}") from error
    order = "little" if np.little_endian else "big"
    found = (
        [header.get(key) for key in ("format", "version", "kind", "byteorder")]
        if isinstance(header, dict)
        else header
    )
    if found != [FORMAT, VERSION, kind, order]:
        raise MetricError(f"{path}: expected {[FORMAT, VERSION, kind, order]}, found {found}")
    return dict(header)


def load_stores(
    header: dict[str, Any],
    folder: str | Path,
    memory_limit: int,
    spill_folder: str | Path | None,
) -> dict[str, PixelStore]:
    """Rebuild the stores of a saved state.

    Raises:
        MetricError: if entries are missing or files damaged.
    """
    stores = {}
    try:
        for name, facts in header["stores"].items():
            stores[name] = PixelStore(memory_limit, spill_folder, bool(facts["keep_holes"]))
            stores[name].load(Path(folder), facts)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, MetricError):
            raise
        raise MetricError(f"{folder}: the saved state is damaged ({error!r})") from error
    return stores
