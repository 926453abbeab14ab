"""An inspector that can be kept: saved as a product file, loaded from one, and taught more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerodefect.detector.contract import Detector, UnsupportedError
from zerodefect.images.kept import KeptPicture
from zerodefect.inspection.calibration import calibrate
from zerodefect.inspection.conformal import REMEDY, SET_REMEDY
from zerodefect.inspection.explain import TRANSDUCTIVE
from zerodefect.inspection.kind_examples import Examples, learn_kinds
from zerodefect.inspection.made_with import made_with
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.product_pictures import Keeping
from zerodefect.inspection.product_sections import Asked
from zerodefect.inspection.region_kinds import USUAL_UNKNOWN, KindExamples
from zerodefect.inspection.rules.rule_set import RuleSet
from zerodefect.inspection.shown import Shown
from zerodefect.inspection.sources import Source, expand
from zerodefect.inspection.teachable import Teachable
from zerodefect.scoring.joining import Scored
from zerodefect.scoring.scorer import Scorer

if TYPE_CHECKING:
    from zerodefect.inspection.product_file import ProductFile

_log = logging.getLogger("zerodefect")


def asked_again(asked: Asked, policy: Policy | None) -> dict[str, Any]:
    """Rates and rules of a calibration, as ``Inspector.calibrate`` takes them to learn it again.

    Raises:
        ValueError: limits of parts, whose pictures are not kept by part.
    """
    if policy is not None and policy.parts:
        raise ValueError(
            "its limits are those of parts with several pictures, which are not kept by part: "
            "calibrate anew, with the pattern that names the parts"
        )
    allowed = policy.allowances if policy else None
    return {**asked.rates(), "allow": allowed.rules if allowed else ()}


class Keepable(Teachable):
    """A teachable with limits; arguments as of ``Teachable``.

    Attributes:
        policy: the user's calibration, or None.
        asked: how the detector was asked for, as plain data; None if unknown.
        taught_kinds: kinds of defects from examples, see ``teach_kinds``; None: the vocabulary's.
            They travel in the product file.
        rule_set: rules on the product's components, see ``Ruled.teach_rules``; None: none. They
            travel in the product file.
        power: which damage would be found, where that was measured: ``PowerCurve.as_dict``. It
            travels in the product file, and is dropped by whatever changes the limits.
    """

    def __init__(self, detector: Detector | Callable[[], Detector], **taught: Any) -> None:
        super().__init__(detector, **taught)
        self.policy: Policy | None = None
        self.asked: Mapping[str, Any] | None = None
        self.power: dict[str, Any] | None = None
        self.taught_kinds: KindExamples | None = None
        self.rule_set: RuleSet | None = None
        self._calibration = Asked(automatic=True)
        self._learned_from: Keeping | None = None  # pictures of the policy, where it was learned
        self._automatic: dict[str, Policy] = {}  # by the fingerprint that each was made for

    calibrate: Callable[..., Policy]
    """See ``Inspector.calibrate``."""

    def active_policy(self, object: str | None = None) -> Policy:
        """The policy that verdicts follow; see ``Inspector.active_policy``."""
        raise NotImplementedError

    # --- kinds ----------------------------------------------------------------------------------

    def teach_kinds(
        self, examples: Mapping[str, Examples], *, unknown: float = USUAL_UNKNOWN
    ) -> KindExamples:
        """Tell kinds of defects apart by examples from now on, instead of by words.

        Kinds that were taught before stay; one that is taught again forgets its earlier examples.
        Scores and verdicts stay what they are, but for rules on kinds.

        Args:
            examples: by the name of the kind: files and folders, whose masks count where there are
                any, or pairs of a picture and its mask. Without a mask, the region that stands out
                most is the example. Ten pictures of each kind do well.
            unknown: share of regions of these kinds that may be called unknown. It holds nearly,
                since it rests on the examples themselves, left out in turn.

        Raises:
            KindsError: the method gives no features of patches, or none of a picture alone and
                there is no mask; a kind without examples; a name that cannot be one.
            ImageError, FileNotFoundError: an example cannot be used.
        """
        learned = learn_kinds(self, examples, unknown)
        before = self.taught_kinds
        self.taught_kinds = learned if before is None else before.joined(learned)
        return self.taught_kinds

    def kinds(self) -> tuple[str, ...]:
        """Kinds that regions are told apart by: those taught, else as ``Teachable.kinds``."""
        return super().kinds() if self.taught_kinds is None else self.taught_kinds.names

    @property
    def judging(self) -> Scorer:
        """Shows pictures that are judged; features that kinds or rules look at are kept."""
        rules = self.rule_set is not None and self.rule_set.model is not None
        features = rules or self.taught_kinds is not None
        return Scorer(self.detector, self.viewing, features=features)

    def _kinds_of(self, shown: Shown) -> tuple[str, ...]:
        taught = self.taught_kinds
        return self.detector.kinds(shown.known) if taught is None else taught.names

    # --- limits ---------------------------------------------------------------------------------

    def infer_bit_depth(self, sources: Sequence[Source]) -> None:
        """As ``Teachable`` does, but a calibration knows it first."""
        if self.bit_depth is None and self.policy is not None:
            self.bit_depth = self.policy.bit_depth
        super().infer_bit_depth(sources)

    @property
    def transductive(self) -> bool:
        """Whether scores depend on the other pictures that are inspected with one."""
        return "set" in self.detector.info.needs

    @property
    def remedy(self) -> str:
        """What makes real verdicts of provisional ones."""
        return SET_REMEDY if self.transductive else REMEDY

    def told_transductive(self) -> str:
        """What is to be added to an explanation."""
        return f" {TRANSDUCTIVE}" if self.transductive else ""

    def check_judges_alone(self) -> None:
        """Make sure that limits learned now say something of other pictures.

        Raises:
            UnsupportedError: scores depend on the other pictures of a set.
        """
        if self.transductive:
            raise UnsupportedError(
                f"{self.detector.info.name} scores the images of a set against each other, so that "
                f"limits learned from one set say nothing of the next. {SET_REMEDY}"
            )

    def _policy_of(
        self,
        shown: Shown,
        scored: Sequence[Scored],
        form: Any,
        rates: Mapping[str, Any],
        notes: Sequence[str],
    ) -> Policy:
        detector, known = self.detector, shown.known
        made = calibrate(
            [one.score for one in scored],
            [one.highest for one in scored if one.highest is not None],
            form=form,
            map_range=detector.map_range(known) or (0.0, 1.0),
            monotone=detector.monotone_memory and detector.leaves_out(known),
            notes=notes,
            **rates,
            **self._identity(shown),
        )
        return made.model_copy(update={"bit_depth": self.bit_depth})

    def _identity(self, shown: Shown) -> dict[str, Any]:
        return {**self._whose(shown), "made_with": made_with(self._facts(shown))}

    def _whose(self, shown: Shown) -> dict[str, Any]:
        fingerprint = self._facts(shown)["fingerprint"]
        return {
            "method": self.detector.info.name,
            "fingerprint": fingerprint,
            "object": shown.name,
        }

    def calibrated(self, policy: Policy, asked: Asked, keeping: Keeping) -> None:
        """Go by these limits from now on, and know what they rest on."""
        self.policy, self.power, self._learned_from = policy, None, keeping
        self._calibration = asked

    def restore(self, shown: Shown, file: ProductFile, renewed: bool = False) -> None:
        """Know what a product file holds, and go by its limits unless they were ``renewed``."""
        super().restore(shown, file)
        if renewed:
            if file.kinds:
                _log.warning("kinds must be taught anew: their examples tell of the former weights")
            return
        self.taught_kinds, self.rule_set = file.kinds, file.rules
        told, policy = file.told.calibration, file.policy
        self.power, self._calibration, self._learned_from = file.power, told, None
        if told.automatic:
            self._automatic = {policy.fingerprint: policy}
        else:
            self.policy = policy

    def relearn(
        self,
        references: Source | Iterable[Source] | None = None,
        good: Source | Iterable[Source] | None = None,
        **calibrating: Any,
    ) -> Policy:
        """Add good pictures, and compute again what was proven, from all of them.

        Rates are those that were asked for before, unless others are given. Where that fails, all
        is as it was.

        Args:
            references: to be remembered besides the present ones.
            good: to learn the limits from, besides those that they were learned from.
            calibrating: as of ``calibrate``; ``leave_one_out`` stays what it was.

        Raises:
            ProductError: the pictures are needed, and the product file keeps none.
            ValueError: there is nothing to learn from; and as of ``remember`` and ``calibrate``.
        """
        before = dict(vars(self))
        try:
            return self._relearned(references, good, calibrating)
        except BaseException:
            vars(self).update(before)
            raise

    def _relearned(
        self,
        references: Source | Iterable[Source] | None,
        good: Source | Iterable[Source] | None,
        calibrating: Mapping[str, Any],
    ) -> Policy:
        asked = self.calibration
        new = {name: value for name, value in calibrating.items() if value is not None}
        rates = {**asked_again(asked, self.policy), **new}
        more = [] if good is None else list(expand(good))
        if asked.automatic and not more:
            if references is None:
                raise ValueError("nothing was given to learn from: name good pictures")
            self.remember(references)
            self.power = None
            return self.active_policy()
        if asked.leave_one_out:
            added = [] if references is None else list(expand(references))
            everything = [*self.recalled(self.snapshot()).references, *added, *more]
            return self.calibrate(everything, **rates)
        before = [] if asked.automatic else self.good_pictures()
        if before is None:
            raise ValueError(
                "the good pictures that the limits were learned from are not at hand: give them "
                "again, and calibrate anew"
            )
        if self.see_as(before):
            with self._lock:
                self._shown = replace(self._shown, knowledge=None)
        if references is not None:
            self.remember(references)
        return self.calibrate([*before, *more], **rates)

    @property
    def calibration(self) -> Asked:
        """What the limits in force were asked to keep; automatic where nobody calibrated."""
        if self.policy is None:
            return Asked(automatic=True)
        told = self._calibration
        if told.automatic:  # the limits came from a file
            return Asked(leave_one_out=self.policy.form == "leave-one-out")
        return told

    def good_pictures(self) -> list[KeptPicture] | None:
        """Those that the limits were learned from, as a file keeps them, apart from references.

        None where they are not at hand: too many, or the limits came from elsewhere.

        Raises:
            ProductError: the product file that the limits came from keeps none.
        """
        if self.policy is None or self.policy.form != "split":
            return []
        if self._learned_from:
            found = self._learned_from.pictures
        else:
            found = list(self.file.good()) if self.file else None
        return found if found and len(found) == len(self.policy.scores) else None

    def known_digests(self) -> set[str]:
        """Digests of all pictures that knowledge and limits were learned from, as far as known."""
        found = set(self.snapshot().digests)
        if self._learned_from:
            found |= {one.digest for one in self._learned_from.pictures or ()}
        elif self.file:
            found |= {one.digest for one in self.file.told.pictures.good}
        return found

    def save(self, path: str | Path, pictures: bool = True) -> None:
        """Write all of it to one product file, which ``zerodefect.load`` reads.

        Args:
            path: usually ``NAME.zd``; a file of that name is replaced in one step.
            pictures: keep the good pictures in it, at the network's size and lossless, so that more
                can be added later; without, no picture is in it, not even a thumbnail.

        Raises:
            RuntimeError: the method was not told or shown what it needs.
            PolicyMismatch: the policy was made for something else.
            CheckpointError: a method that must be trained and was not.
            StoreError: the operating system refused to write.
        """
        from zerodefect.inspection.product_file import write_product

        write_product(self, path, pictures)
