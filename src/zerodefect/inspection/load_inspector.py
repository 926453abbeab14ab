"""``zerodefect.load``: from names and files to an inspector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from zerodefect.detector.contract import Detector
from zerodefect.images.tiling import Tiling
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.sources import Source, open_source
from zerodefect.methods import load_detector
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.scoring.viewing import Viewing


def load(
    method: str | None = None,
    *,
    object: str | None = None,
    references: Source | Iterable[Source] | None = None,
    vocabulary: Vocabulary | str | Path | None = None,
    policy: Policy | str | Path | None = None,
    tile: int | None = None,
    overlap: float = 0.25,
    keep_aspect: bool = False,
    roi: Source | None = None,
    ignore: Source | None = None,
    bit_depth: int | None = None,
    memory_budget: int | None = None,
    **loading: Any,
) -> Inspector:
    """Load an inspector as ``zerodefect inspect`` has it, but for ``self_comparison``.

    Args:
        method: a name from ``zerodefect methods``; by default the checkpoint's, or chosen at first
            use: what the weights' side-car recommends, or WinCLIP.
        object: what the product is called; by default the policy's name for it.
        references: good parts, as files, folders or arrays.
        vocabulary: defect kinds to tell apart, or the file of them.
        policy: a calibration, or the file of one.
        tile, overlap: side of tiles in pixels for large pictures, and the least share of a tile
            that its neighbour shows, too.
        keep_aspect: keep the pictures' aspect ratio instead of squaring them.
        roi, ignore: mask pictures: only what is white in ``roi`` and not in ``ignore`` counts.
        bit_depth: bits that 16-bit pictures use; by default the policy's, or inferred once.
        memory_budget: bytes that remembered references may take.
        loading: as ``methods.load_detector`` takes them: ``checkpoint``, ``backbone``, ``weights``,
            ``device``, ``precision``, ``image_size`` and hyper-parameters of the method.

    Raises:
        ValueError: unknown method, option or device, a value of another type, or a file that is
            no policy, vocabulary or picture.
        CheckpointError: a checkpoint that does not fit, or none for a method that must be trained.
        WeightsError: weights that cannot be had or do not fit.
        UnsupportedError: references for a method that takes none.
    """
    known = Policy.load(policy) if isinstance(policy, (str, Path)) else policy
    words = Vocabulary.load(vocabulary) if isinstance(vocabulary, (str, Path)) else vocabulary
    build = partial(_detector, method, memory_budget, loading)
    at_first_use = method is None and not loading
    inspector = Inspector(
        build if at_first_use else build(),
        policy=known,
        vocabulary=words,
        viewing=Viewing(Tiling(tile, overlap) if tile is not None else None, keep_aspect),
        bit_depth=known.bit_depth if bit_depth is None and known else bit_depth,
        roi=None if roi is None else open_source(roi),
        ignore=None if ignore is None else open_source(ignore),
    )
    name = known.object if object is None and known else object
    if name is not None:
        inspector.describe(name)
    if references is not None:
        inspector.remember(references)
    return inspector


def _detector(method: str | None, budget: int | None, loading: Mapping[str, Any]) -> Detector:
    detector = load_detector(method, **loading)
    if budget is not None and detector.memory is not None:
        detector.memory.budget = budget
    return detector
