"""``zerodefect.load``: from names and files to an inspector."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from zerodefect.detector.contract import Detector
from zerodefect.images.cloud_views import checked_view
from zerodefect.images.tiling import Tiling
from zerodefect.inspection.archive import ProductError
from zerodefect.inspection.carried_weights import asked_here
from zerodefect.inspection.contradictions import contradictions
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.keepable import asked_again
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.product_detector import check_detector, laid_checkpoint, rebuilt
from zerodefect.inspection.product_file import ProductFile, opened_product
from zerodefect.inspection.product_sections import SUFFIX
from zerodefect.inspection.refinement import Refiner
from zerodefect.inspection.rules.rule_renewal import renew_rules
from zerodefect.inspection.rules.rule_set import asked_rules, several
from zerodefect.inspection.sources import Source, open_source
from zerodefect.inspection.word_sight import opened_roi
from zerodefect.methods import load_detector
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.scoring.areas import AreaWords
from zerodefect.scoring.viewing import Viewing

_USUAL: dict[str, tuple[Any, ...]] = {
    "overlap": (0.25,),
    "keep_aspect": (False,),
    "precision": ("float32", "auto"),
    "thorough": (False,),
}
_WHERE = ("device", "backbone", "weights")  # of a product: where its weights are


def load(
    method: str | Path | None = None,
    *,
    object: str | None = None,
    references: Source | Iterable[Source] | None = None,
    vocabulary: Vocabulary | str | Path | None = None,
    policy: Policy | str | Path | None = None,
    tile: int | None = None,
    overlap: float = 0.25,
    keep_aspect: bool = False,
    view: str | None = None,
    roi: Source | AreaWords | None = None,
    ignore: Source | None = None,
    bit_depth: int | None = None,
    memory_budget: int | None = None,
    refine: str | Path | None = None,
    rules: str | Iterable[str] = (),
    components: str | Iterable[str] = (),
    clusters: str | Path | None = None,
    **loading: Any,
) -> Inspector:
    """Load an inspector as ``zerodefect inspect`` has it, but for ``self_comparison``.

    Args:
        method: a name from ``zerodefect methods``, several as ``"dense+patchcore"``, or the path of
            a product file; a file of that name wins. By default the checkpoint's, or chosen at
            first use: what the weights' side-car recommends, or WinCLIP. Of a product file
            only ``device``, ``backbone`` and ``weights`` may be said to be other ones.
        object: what the product is called; by default the policy's name for it.
        references: good parts, as files, folders or arrays.
        vocabulary, policy: defect kinds to tell apart, and a calibration, or the files of them.
        tile, overlap: side of tiles in pixels, and the least share that a tile's neighbour shows.
        keep_aspect: keep the pictures' aspect ratio instead of squaring them.
        view: of the parts' point clouds, judged instead of their pictures: ``cloud_views.seen_as``.
        roi, ignore: mask pictures: only what is white in ``roi`` and not in ``ignore`` counts.
            ``roi`` may be words, looked for in every picture: see ``scoring.areas.AreaWords``.
        bit_depth: bits that 16-bit pictures use; by default the policy's, or inferred once.
        memory_budget: bytes that remembered references may take.
        rules, components, clusters: of the product's components, see ``Inspector.teach_rules``.
        refine: segmenter that draws regions sharply, see ``Refiner.load``; verdicts stay.
        loading: as ``methods.load_detector`` takes them: ``checkpoint``, ``backbone``, ``weights``,
            ``device``, ``precision``, ``image_size``, ``thorough``, the method's hyper-parameters.

    Raises:
        ValueError: unknown method, option or device, or a value or file of another type.
        ProductError: a product file that cannot be used, or is contradicted.
        CheckpointError, WeightsError: they cannot be had or do not fit.
        UnsupportedError: references for a method that takes none.
    """
    words = Vocabulary.load(vocabulary) if isinstance(vocabulary, (str, Path)) else vocabulary
    told: dict[str, Any] = {"object": object, "references": references, "policy": policy}
    told |= {"vocabulary": words, "tile": tile, "overlap": overlap, "keep_aspect": keep_aspect}
    told |= {"roi": roi, "ignore": ignore, "bit_depth": bit_depth, "view": checked_view(view)}
    told |= {"memory_budget": memory_budget}
    rules, components = _checked_rules(method, rules, components)  # before the long work
    inspector = _inspector(method, told, loading)
    inspector.refiner = _refiner(refine, loading)
    if rules or components:
        inspector.teach_rules(rules, components, clusters)
    return inspector


def _checked_rules(
    method: str | Path | None, rules: str | Iterable[str], components: str | Iterable[str]
) -> tuple[list[str], list[str]]:
    """Rules and components, all of which are known.

    Raises:
        RuleError, ComponentError: as of ``Inspector.teach_rules``.
    """
    asked, told = list(several(rules)), list(several(components))
    if asked or told:
        before = opened_product(str(method)).rules if is_product(method) else None
        asked_rules(before, asked, told)
    return asked, told


def _refiner(name: str | Path | None, loading: Mapping[str, Any]) -> Refiner | None:
    return None if name is None else Refiner.load(name, loading.get("device") or "auto")


def _inspector(
    method: str | Path | None, told: Mapping[str, Any], loading: Mapping[str, Any]
) -> Inspector:
    if is_product(method):
        return load_product(str(method), **told, **loading)
    return _of_method(None if method is None else str(method), told, loading)


def _of_method(
    method: str | None, told: Mapping[str, Any], loading: Mapping[str, Any]
) -> Inspector:
    """An inspector by keyword arguments of ``load``: its own, and those for the detector."""
    policy, roi, ignore, tile = (told[name] for name in ("policy", "roi", "ignore", "tile"))
    known: Policy | None = Policy.load(policy) if isinstance(policy, (str, Path)) else policy
    build = partial(_detector, method, told["memory_budget"], loading)
    at_first_use = method is None and not loading
    tiling = Tiling(tile, told["overlap"]) if tile is not None else None
    depth = told["bit_depth"]
    inspector = Inspector(
        build if at_first_use else build(),
        policy=known,
        asked={"method": method, **loading},
        vocabulary=told["vocabulary"],
        viewing=Viewing(tiling, told["keep_aspect"], view=told["view"]),
        bit_depth=known.bit_depth if depth is None and known else depth,
        roi=opened_roi(roi),
        ignore=None if ignore is None else open_source(ignore),
    )
    name = known.object if told["object"] is None and known else told["object"]
    if name is not None:
        inspector.describe(name)
    if told["references"] is not None:
        inspector.remember(told["references"])
    return inspector


def _detector(method: str | None, budget: int | None, loading: Mapping[str, Any]) -> Detector:
    detector = load_detector(method, **loading)
    if budget is not None and detector.memory is not None:
        detector.memory.budget = budget
    return detector


# --- product files -------------------------------------------------------------------------------


def is_product(name: str | Path | None) -> bool:
    """Whether a method's place names a product file: a file that is there, or one that is not."""
    if name is None:
        return False
    path = Path(name)
    written = isinstance(name, Path) or path.suffix == SUFFIX or path.name != name
    return written or path.is_file()


def load_product(path: str | Path, detector: Detector | None = None, **said: Any) -> Inspector:
    """The inspector of a product file, whose check pictures were scored again.

    Args:
        path: of the file.
        detector: one that is loaded already, for many products of one detector.
        said: as of ``load``, ``method`` among them.

    Raises:
        ProductError, CheckpointError, WeightsError: as of ``load``.
    """
    file = opened_product(path)
    given = _given(said)
    where = {name: given.pop(name) for name in _WHERE if name in given}
    _refuse_contradictions(path, file, given)
    made = file.told.detector
    if detector is None:
        detector = rebuilt(file.archive, made, where)
    else:
        check_detector(file.path, made, detector)
    roi, ignore = file.areas()
    inspector = Inspector(
        detector,
        asked=made.asked,
        vocabulary=file.vocabulary(),
        viewing=file.viewing(),
        bit_depth=file.told.viewing.bit_depth,
        roi=roi,
        ignore=ignore,
    )
    known = file.knowledge(detector)
    if file.told.product.name is not None:
        inspector.describe(file.told.product.name)
    shown = replace(
        inspector.words(),
        digests=file.told.memory.references,
        hashed=file.told.viewing.areas,
        knowledge=known,
    )
    inspector.restore(shown, file)
    file.check(inspector.scorer, known)
    return inspector


def _refuse_contradictions(path: str | Path, file: ProductFile, given: Mapping[str, Any]) -> None:
    if wrong := contradictions(file, given):
        remedy = "Leave out what a product file says itself, or calibrate anew with --output"
        raise ProductError(path, f"it is contradicted: {'; '.join(wrong)}", remedy)


def _given(said: Mapping[str, Any]) -> dict[str, Any]:
    """What was said: neither absent nor what it would be anyway."""
    return {
        name: value
        for name, value in said.items()
        if value is not None and not (name in _USUAL and value in _USUAL[name])
    }


def renewed(
    path: str | Path,
    rules: Sequence[str] = (),
    components: Sequence[str] = (),
    clusters: str | Path | None = None,
    **said: Any,
) -> Inspector:
    """A product learned anew from the pictures in its file, with present or other weights.

    Its rules hold on; see ``rule_renewal.renew_rules``.

    Args:
        path: of the file.
        rules, components, clusters: besides those of the file, as of ``Inspector.teach_rules``.
        said: ``method``, weights and hyper-parameters that are to be others than it was asked for.

    Raises:
        ProductError: it keeps no pictures; and as of ``load``.
        ComponentError: what a component of its rules looks like is not at hand any more.
    """
    file, given = opened_product(path), _given(said)
    told, seen = file.told, file.told.viewing
    free = {*_WHERE, "checkpoint", "method", "precision", "image_size", *_options_said(given)}
    _refuse_contradictions(path, file, {n: v for n, v in given.items() if n not in free})
    again = asked_again(told.calibration, file.policy)
    references, good = file.references(), file.good()
    asked = dict(told.detector.asked or {"method": told.detector.method})
    if given.get("method", asked.get("method")) != asked.get("method"):
        asked = {}  # another method has other options
    roi, ignore = file.areas()
    wanted = {**asked, **{n: v for n, v in given.items() if n in free}}
    with tempfile.TemporaryDirectory(prefix="zerodefect-") as folder:
        own = () if not asked else {"backbone", "checkpoint"} - given.keys()
        inspector = load(
            **_carried(file, wanted, own, Path(folder)),
            object=told.product.name,
            vocabulary=file.vocabulary(),
            tile=seen.tile,
            overlap=seen.overlap,
            keep_aspect=seen.keep_aspect,
            view=seen.view,
            bit_depth=seen.bit_depth,
            roi=roi,
            ignore=ignore,
            memory_budget=told.detector.memory_budget,
        )
    inspector.asked = wanted  # the folder is gone
    shrunk = any(picture.shrunk for picture in (*references, *good))
    within = file.within if shrunk else seen.within
    inspector.viewing = replace(inspector.viewing, within=within)
    if references:
        inspector.remember(references)
    same = inspector.detector.facts() == told.detector.facts
    renew_rules(inspector, file.rules, same, rules, components, clusters)
    if not told.calibration.automatic:
        inspector.calibrate(references if told.calibration.leave_one_out else good, **again)
    inspector.restore(inspector.snapshot(), file, renewed=True)
    return inspector


def _carried(
    file: ProductFile, wanted: Mapping[str, Any], own: Collection[str], folder: Path
) -> dict[str, Any]:
    """What a detector is asked for by, with what the file carries of its ``own`` from a folder."""
    made, loading = file.told.detector, dict(wanted)
    if "backbone" in own:
        loading = asked_here(file.archive, made.networks, loading, folder)
    if "checkpoint" in own and made.checkpoint:
        loading["checkpoint"] = laid_checkpoint(file.archive, folder)
    return loading


def _options_said(given: Mapping[str, Any]) -> set[str]:
    """Hyper-parameters among keyword arguments: all that are none of ``load``'s own."""
    own = {"object", "references", "vocabulary", "policy", "tile", "overlap", "keep_aspect", "roi"}
    return given.keys() - own - {"ignore", "bit_depth", "memory_budget", "view"}
