"""A product in one file: what a detector knows of it, its limits, and the pictures they rest on.

``write_product`` and ``opened_product`` are the two ways; ``docs/product-file.md`` says what is in
the file. It is a zip without code: JSON, tensors, pictures.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zerodefect.backbones.backbone import whole_patches
from zerodefect.detector.contract import Detector, Input
from zerodefect.detector.knowledge import Knowledge, KnowledgeError
from zerodefect.images import Picture, Preprocess
from zerodefect.images.kept import KeptPicture
from zerodefect.images.point_input import raised
from zerodefect.images.tiling import Tiling
from zerodefect.inspection import product_pictures
from zerodefect.inspection.archive import Archive, ProductError, write_archive
from zerodefect.inspection.card import card
from zerodefect.inspection.carried_weights import weights_members
from zerodefect.inspection.conformal import PolicyError
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.product_detector import (
    checkpoint_members,
    described,
    networks_of,
)
from zerodefect.inspection.product_sections import (
    CARD,
    COMPONENTS,
    KINDS,
    KNOWLEDGE,
    POLICY,
    POWER,
    PRODUCT,
    RULED,
    RULES,
    CheckInput,
    Checks,
    Named,
    Origin,
    Pictures,
    Product,
    Remembered,
    Seen,
    is_known,
    machine,
)
from zerodefect.inspection.region_kinds import KindExamples, KindsError
from zerodefect.inspection.rules.component_sources import ComponentError
from zerodefect.inspection.rules.rule_set import RuleSet
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.scoring.areas import AreaWords
from zerodefect.scoring.joining import Scored
from zerodefect.scoring.scorer import Scorer
from zerodefect.scoring.stream import scored_stream
from zerodefect.scoring.viewing import Viewing
from zerodefect.types import Failure

if TYPE_CHECKING:
    from zerodefect.inspection.keepable import Keepable
    from zerodefect.inspection.shown import Shown

TOLERANCE = {"float32": 1e-3, "bfloat16": 3e-2}
"""How far scores of the check inputs may lie from what they were, as a share of the largest."""

_MOST_TEXT = 2**28  # bytes of a JSON member
_CHECKED = 3  # inputs that are scored when a file is loaded
_LARGE = 192  # pixels of an input's shorter side, from which on check inputs are smaller
_THUMBNAILS = 12

_log = logging.getLogger("zerodefect")


@dataclass(frozen=True)
class ProductFile:
    """A product file that was opened; pictures are read from it when they are needed.

    Attributes:
        archive: its members.
        told: what ``product.json`` says.
    """

    archive: Archive
    told: Product

    @property
    def path(self) -> Path:
        """Where it was opened."""
        return self.archive.path

    @property
    def within(self) -> tuple[int, int]:
        """Network's size within which its pictures were kept."""
        return self.told.pictures.within

    @cached_property
    def policy(self) -> Policy:
        """Its limits.

        Raises:
            ProductError: they cannot be read.
        """
        try:
            return Policy.from_bytes(self.archive.read(POLICY, _MOST_TEXT), POLICY)
        except PolicyError as error:
            reason = f"{POLICY} in it: {str(error).removeprefix(f'{POLICY}: ')}"
            raise ProductError(self.path, reason, "Correct it, or copy the file again") from None

    @property
    def power(self) -> dict[str, Any] | None:
        """Which damage would be found, as ``PowerCurve.as_dict`` gives it; None if not measured."""
        if POWER not in self.archive:
            return None
        try:
            told = json.loads(self.archive.read(POWER, _MOST_TEXT))
        except (ValueError, RecursionError) as error:
            reason = f"{POWER} in it is damaged ({error})"
            raise ProductError(self.path, reason, "Copy it again") from None
        return told if isinstance(told, dict) else None

    def card(self) -> str:
        """What it knows and promises, in words (Markdown)."""
        taught = self.kinds.told() if self.kinds else None
        rules = self.rules.told() if self.rules else None
        return card(self.told, self.policy, self.power, self.path.name, taught, rules)

    @cached_property
    def rules(self) -> RuleSet | None:
        """Rules on the product's components; None if there are none.

        Raises:
            ProductError: they are damaged.
        """
        if RULES not in self.archive:
            return None
        model = self.archive.read(COMPONENTS) if COMPONENTS in self.archive else None
        try:
            return RuleSet.from_bytes(self.archive.read(RULES, _MOST_TEXT), model, RULES)
        except ComponentError as error:
            raise ProductError(self.path, f"{error}", "Copy it again") from None

    @cached_property
    def kinds(self) -> KindExamples | None:
        """Kinds that were taught by examples; None if none were.

        Raises:
            ProductError: they are damaged.
        """
        try:
            there = KINDS in self.archive
            return KindExamples.from_bytes(self.archive.read(KINDS)) if there else None
        except KindsError as error:
            raise ProductError(self.path, f"{KINDS} in it: {error}", "Copy it again") from None

    def references(self) -> tuple[KeptPicture, ...]:
        """The references' pictures.

        Raises:
            ProductError: it was written without pictures, or replaced since.
        """
        return self._pictures("references", len(self.told.memory.references))

    def good(self) -> tuple[KeptPicture, ...]:
        """The good pictures that limits were learned from, apart from references.

        Raises:
            ProductError: as of ``references``.
        """
        apart = self.policy.form == "split"
        return self._pictures("good", len(self.policy.scores) if apart else 0)

    def _pictures(self, which: str, count: int) -> tuple[KeptPicture, ...]:
        about = getattr(self.told.pictures, which)
        if len(about) < count:
            reason = f"it was written without the {count} good pictures that this needs"
            remedy = "Give them again: calibrate anew with the pictures and --output"
            raise ProductError(self.path, reason, remedy)
        return product_pictures.read(self.archive, about)

    def knowledge(self, detector: Detector) -> Knowledge:
        """What the detector knows, where the detector is.

        Raises:
            ProductError: damaged, or another detector's.
        """
        try:
            data, name = self.archive.read(KNOWLEDGE), f"{self.path}: {KNOWLEDGE}"
            known = Knowledge.from_bytes(data, name, detector.device)
            detector.check(known)
        except KnowledgeError as error:
            reason = str(error).removeprefix(f"{self.path}: ")
            raise ProductError(self.path, reason, "Copy the file again") from None
        return known

    def vocabulary(self) -> Vocabulary:
        """Kinds of defects."""
        kinds = self.told.product.kinds
        return Vocabulary(kinds) if kinds else Vocabulary.default()

    def viewing(self) -> Viewing:
        """How pictures are shown to the network."""
        seen = self.told.viewing
        tiling = None if seen.tile is None else Tiling(seen.tile, seen.overlap)
        return Viewing(tiling, seen.keep_aspect, seen.within, seen.view)

    def areas(self) -> tuple[Picture | AreaWords | None, Picture | None]:
        """What counts, as a mask picture or in words, and the mask picture of what does not."""
        return product_pictures.opened_areas(self.archive, *self.told.viewing.areas)

    def check(self, scorer: Scorer, known: Knowledge) -> float:
        """Score the check inputs again; the largest difference, as a share of the largest score.

        Raises:
            ProductError: they score otherwise than when the file was written.
        """
        inputs = self.told.checks.inputs
        pictures = [product_pictures.opened(self.archive, one.file) for one in inputs]
        now = _checked(scorer, known, pictures)
        pairs = [
            (before, after)
            for told, one in zip(inputs, now, strict=True)
            for before, after in ((told.score, one.score), (told.highest, one.highest))
            if before is not None and after is not None
        ]
        largest = max((abs(before) for before, _ in pairs), default=0.0) or 1.0
        off = max((abs(before - after) for before, after in pairs), default=0.0) / largest
        if not off <= _tolerance(scorer.detector):  # nor where it is no number
            scores = ", ".join(f"{before:.6g} then, {after:.6g} now" for before, after in pairs[:2])
            reason = f"its own check pictures score otherwise here ({scores})"
            remedy = (
                "Load it where it was written, or learn anew from the pictures inside: zerodefect "
                f"calibrate --product {self.path} --renew"
            )
            raise ProductError(self.path, reason, remedy)
        if off and self.told.checks.machine == machine(scorer.detector.device):
            _log.info("%s: scores differ by %.1g of the largest on this machine", self.path, off)
        return off


def _tolerance(detector: Detector) -> float:
    half = "bfloat16" in str(detector.facts()["precision"])
    return TOLERANCE["bfloat16" if half else "float32"]


def opened_product(path: str | Path) -> ProductFile:
    """Open a product file; no network is loaded.

    Raises:
        ProductError: no product file, a damaged one, or one that could do harm.
    """
    archive = Archive(Path(path).absolute())
    if PRODUCT not in archive:
        remedy = "Give a file that zerodefect calibrate --output or Inspector.save wrote"
        raise ProductError(path, "a zip, but no product file of ZeroDefect", remedy)
    return ProductFile(archive, Product.from_bytes(archive.read(PRODUCT, _MOST_TEXT), path))


# --- written -------------------------------------------------------------------------------------


def write_product(inspector: Keepable, path: str | Path, pictures: bool = True) -> None:
    """Write a product file; arguments and errors as of ``Inspector.save``."""
    shown, policy = inspector.snapshot(), inspector.active_policy()
    inspector.detector.check(shown.known)
    kept = _kept(inspector, shown, policy) if pictures else None
    members: dict[str, bytes] = {}
    section = Pictures()
    viewing = inspector.kept_viewing()
    assert viewing.within is not None
    if kept is not None:
        references, good = map(product_pictures.written, ("references", "good"), kept)
        members |= references[0] | good[0]
        members |= product_pictures.thumbnails([*kept[0], *kept[1]][:_THUMBNAILS])
        section = Pictures(kept=True, within=viewing.within, references=references[1], good=good[1])
    checks, inputs = _check_inputs(inspector, shown, [*kept[0], *kept[1]] if kept else [])
    made = described(inspector.detector, inspector.asked)
    told = _told(inspector, shown, made, section, checks)
    if inspector.file:  # what a later version put there
        old = inspector.file
        told = told.model_copy(update=dict(old.told.model_extra or {}))
        unknown = [name for name in old.archive.sizes if not is_known(name)]
        members |= dict(zip(unknown, old.archive.read_all(unknown), strict=True))
    taught = inspector.taught_kinds.told() if inspector.taught_kinds else None
    rules = inspector.rule_set.told() if inspector.rule_set else None
    first = {
        PRODUCT: told.to_bytes(),
        CARD: card(told, policy, inspector.power, Path(path).name, taught, rules).encode(),
        POLICY: policy.to_bytes(),
        KNOWLEDGE: shown.known.to_bytes(),
        **checkpoint_members(inspector.detector),
        **weights_members(
            networks_of(inspector.detector), inspector.file.archive if inspector.file else None
        ),
    }
    if inspector.power is not None:
        first[POWER] = json.dumps(inspector.power, allow_nan=False).encode()
    if inspector.taught_kinds is not None:
        first[KINDS] = inspector.taught_kinds.to_bytes()
    if inspector.rule_set is not None:
        first |= rule_members(inspector.rule_set)
    first |= product_pictures.area_members(shown)
    write_archive(path, {**first, **inputs, **members})
    if inspector.file and inspector.file.path == Path(path).absolute():
        inspector.file = opened_product(path)


def rule_members(rules: RuleSet) -> dict[str, bytes]:
    """The members of a product file that hold rules."""
    found = {RULES: json.dumps(rules.section().model_dump(mode="json"), allow_nan=False).encode()}
    return found if rules.model is None else {**found, COMPONENTS: rules.model.to_bytes()}


def _told(
    inspector: Keepable, shown: Shown, made: Any, pictures: Pictures, checks: Checks
) -> Product:
    viewing = inspector.viewing
    tiling = viewing.tiling
    roi, ignore = shown.hashed
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Product(
        version=1 if inspector.rule_set is None else RULED,
        product=Named(name=shown.name, kinds=inspector.vocabulary.kinds),
        detector=made,
        viewing=Seen(
            tile=tiling.size if tiling else None,
            overlap=tiling.overlap if tiling else Tiling(1).overlap,
            keep_aspect=viewing.keep_aspect,
            view=viewing.view,
            within=viewing.within,
            bit_depth=inspector.bit_depth,
            areas=(roi, ignore),
        ),
        memory=Remembered(references=shown.digests),
        calibration=inspector.calibration,
        pictures=pictures,
        checks=checks,
        provenance=Origin(created=created),
    )


def _kept(
    inspector: Keepable, shown: Shown, policy: Policy
) -> tuple[list[KeptPicture], list[KeptPicture]] | None:
    """References and further good pictures as the file keeps them; None where they are not had."""
    try:
        references = inspector.pictures(shown)
        good = inspector.good_pictures()
    except ProductError as error:
        _log.warning("written without pictures: %s", error)
        return None
    if good is None:
        _log.warning(
            "written without pictures: the %d good ones that the limits are learned from are not "
            "at hand, or take too much memory; nothing can be added to the file later",
            len(policy.scores),
        )
        return None
    how = inspector.kept_viewing(), inspector.judges_points
    kept = product_pictures.kept(references, shown.area, *how)
    return kept, list(good)


def _check_inputs(
    inspector: Keepable, shown: Shown, kept: Sequence[KeptPicture]
) -> tuple[Checks, dict[str, bytes]]:
    """Three inputs with their scores, and the members that hold them."""
    scorer = inspector.scorer
    pictures = _inputs(kept, scorer)
    inputs, members = [], {}
    for number, picture in enumerate(pictures):
        data, ending = product_pictures.lossless(picture.pixels)
        members[f"checks/{number}.{ending}"] = data
    found = _checked(scorer, shown.known, pictures)
    for name, one in zip(members, found, strict=True):
        if not math.isfinite(one.score):
            raise ValueError("a check picture's score is no number. Check the weights")
        highest = one.highest if one.highest is not None and math.isfinite(one.highest) else None
        inputs.append(CheckInput(file=name, score=one.score, highest=highest))
    return Checks(inputs=tuple(inputs), machine=machine(inspector.detector.device)), members


def _inputs(kept: Sequence[KeptPicture], scorer: Scorer) -> list[Picture]:
    """Good pictures with a mark, which a memory that holds them does not know; else drawn ones."""
    high, wide = scorer.network_size
    if kept:
        chosen = [kept[-1 - number % len(kept)].pixels for number in range(_CHECKED)]
    else:
        draws = np.random.default_rng(0)
        small = draws.integers(0, 256, (_CHECKED, 12, 12, 3), np.uint8)
        chosen = [one.repeat(-(-high // 12), 0).repeat(-(-wide // 12), 1) for one in small]
    tiling = scorer.viewing.tiling
    side = 3 * tiling.size // 2 if tiling else max(*chosen[0].shape[:2], high, wide)
    pictures = []
    for number, pixels in enumerate(chosen):
        marked = pixels[:side, :side].copy()
        rows, columns = (
            slice((2 + number) * n // 6, (3 + number) * n // 6) for n in marked.shape[:2]
        )
        marked[rows, columns] = np.iinfo(marked.dtype).max - marked[rows, columns]
        pictures.append(Picture(f"checks/{number}", marked))
    return pictures


@dataclass(frozen=True)
class _Glance(Viewing):
    """A quarter of the pixels of large inputs: all weights count, and loading takes no time."""

    def preprocess(self, needed: Input, picture: Picture) -> Preprocess:
        usual = super().preprocess(needed, picture)
        if min(usual.size) < _LARGE:
            return usual
        high, wide = (whole_patches(side / 2, needed.multiple) for side in usual.size)
        return replace(usual, size=(high, wide))


def _checked(scorer: Scorer, known: Knowledge, pictures: Sequence[Picture]) -> list[Scored]:
    if "points" in {needed.preprocess.modality for needed in scorer.detector.inputs.values()}:
        pictures = [raised(picture) for picture in pictures]
    if not scorer.detector.fixed_grid:
        scorer = Scorer(scorer.detector, _Glance(**vars(scorer.viewing)))
    seen = scored_stream(scorer, known, list(pictures), lambda picture: picture)
    found = []
    for one in seen:
        if isinstance(one.result, Failure):
            raise ValueError(f"a check picture cannot be scored: {one.result.reason}")
        found.append(replace(one.result, map=None))
    return found
