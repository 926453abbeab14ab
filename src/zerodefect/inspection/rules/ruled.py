"""An inspector with rules: what they say of every picture, and the limits of what is usual."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from zerodefect.detector.contract import PatchFeatures
from zerodefect.images import Picture
from zerodefect.inspection.conformal import PolicyError
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.keepable import Keepable
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.product_pictures import Keeping
from zerodefect.inspection.rules.component_learning import learn_components, load_clusters
from zerodefect.inspection.rules.component_model import Clusters, PatchRows, patch_rows
from zerodefect.inspection.rules.component_parts import Seen
from zerodefect.inspection.rules.component_sources import ComponentSource
from zerodefect.inspection.rules.rule_language import ComponentRule
from zerodefect.inspection.rules.rule_limits import SharedRates, limits_of
from zerodefect.inspection.rules.rule_measures import Truth, Value
from zerodefect.inspection.rules.rule_set import (
    NOTHING,
    RuleSet,
    asked_rules,
    broken_in_words,
    learned_rules,
    on_good_in_words,
    promise_of_rules,
    several,
    without_rules,
)
from zerodefect.inspection.shown import Shown
from zerodefect.inspection.sources import GoodPictures, digest
from zerodefect.scoring.areas import BACKGROUND, paint_over
from zerodefect.scoring.joining import Scored
from zerodefect.types import Verdict

_WORST: Final[tuple[Verdict, ...]] = ("good", "unsure", "defect")


@dataclass(frozen=True)
class OnGood:
    """What a good picture shows of the rules.

    Attributes:
        digest: of the picture.
        values: of the rules that hold as usual; None where the component was not found.
        truths: of the others.
    """

    digest: str
    values: Sequence[Value | None]
    truths: Sequence[Truth]


@dataclass(frozen=True)
class Going:
    """How a calibration goes through good pictures; see ``Inspector.calibrate``."""

    good_ones: GoodPictures
    batch_size: int
    on_scored: Callable[[int], None]
    keeping: Keeping
    on_good: list[OnGood] = field(default_factory=list)

    @property
    def tolerant(self) -> bool:
        """Whether what cannot be used is left out."""
        return self.good_ones.on_failure is not None


class Ruled(Keepable):
    """A keepable whose pictures are held to rules; arguments as of ``Teachable``."""

    def teach_rules(
        self,
        rules: str | Iterable[str | ComponentRule],
        components: str | Iterable[str | ComponentSource] = (),
        clusters: str | Path | Clusters | None = None,
    ) -> RuleSet | None:
        """Hold every picture to rules on the product's components from now on.

        They are added to the present ones. Scores and p-values stay what they are; a picture that
        breaks a rule is at least what the rule says (a defect, unless it ends in ``, else
        unsure``), and one whose component is not found with confidence is at least unsure. Limits
        of rules that hold as usual are learned by the next ``calibrate``.

        Args:
            rules: such as ``"exactly 2 screws"``; ``docs/rules.md`` has them all. ``"none"`` drops
                the present ones first, and alone the components, too.
            components: what each component looks like, ``"label=good/01.png:120,40,80,30"``; in
                place of the present ones. Boxes are compared with the references, so give those
                first.
            clusters: those of ``zerodefect components``, or their file.

        Returns:
            The rules in force; None where there are none.

        Raises:
            RuleError: a rule is not understood.
            ComponentError: a component is not told, or cannot be found.
            ImageError: a picture of a box cannot be read.
        """
        rules = list(several(rules))
        made = asked_rules(self.rule_set, rules, components)  # refused before the long work
        if made is not None and made.model is None:
            made = replace(made, model=self._model_of(made.sources, clusters))
        if NOTHING in rules and self.policy is not None:
            notes = without_rules(self.policy.notes)
            self.policy = self.policy.model_copy(update={"notes": notes})
        nothing = made is None or (NOTHING in rules and not made.rules)
        self.rule_set = None if nothing else made
        return self.rule_set

    def _model_of(
        self, sources: Sequence[ComponentSource], clusters: str | Path | Clusters | None
    ) -> Any:
        known = clusters
        if known is not None and not isinstance(known, Clusters):
            known = load_clusters(known)
        references = self.pictures(self.words()) if any(one.box for one in sources) else ()
        return learn_components(sources, known, references, self.rows_of, self.open_good)

    def rows_of(self, picture: Picture) -> PatchRows:
        """Patches of a picture as components are found by them; the network runs.

        Raises:
            ComponentError: the method gives no features of patches.
        """
        area = self.words().area(picture)
        features = self.scorer.patch_features(picture, area)
        return patch_rows(features, paint_over(self.viewing.shown(picture), area))

    def check_rules(self) -> None:
        """Make sure that every rule can be judged.

        Raises:
            PolicyError: nobody knows yet what is usual.
        """
        unlearned = self.rule_set.unlearned if self.rule_set else ()
        if unlearned:
            raise PolicyError(
                f"rule '{unlearned[0]}': what is usual is learned from good pictures. "
                f"{self._learns(unlearned[0])}"
            )

    def _learns(self, rule: ComponentRule) -> str:
        """How limits of a rule that holds as usual are learned, for people."""
        if self.file is None:
            return "Calibrate with it: zerodefect calibrate good/ --rule ... --output NAME.zd"
        learning = f'--product {self.file.path} --rule "{rule}"'
        if not self.file.told.pictures.kept:
            return (
                f"{self.file.path} keeps no pictures to learn it from: calibrate anew, with the "
                "good pictures, components and rules, and --output NAME.zd"
            )
        if self.calibration.automatic:
            return f"Learn it from some, and keep it: zerodefect calibrate good/ {learning}"
        return f"Learn it from those in the file, and keep it: zerodefect calibrate {learning}"

    # --- pictures -------------------------------------------------------------------------------

    def see_components(
        self,
        picture: Picture,
        area: np.ndarray | None,
        features: tuple[PatchFeatures, ...] | None = None,
    ) -> Seen:
        """Where the components of the rules lie in a picture; see ``RuleSet.see``.

        Args:
            picture: any.
            area: ``(H, W)`` bool, what counts; None for all of it.
            features: of its patches, if they are at hand: the network need not run.
        """
        rules = self.rule_set
        if rules is None:
            return {}
        if features is None:
            features = self.scorer.patch_features(picture, area) if rules.model else ()
        shown = paint_over(self.viewing.shown(picture), area)
        words = list(rules.words.items())
        maps: dict[str, np.ndarray] = {}
        if words:
            evidence = self._evidence(picture, [*(said for _, said in words), BACKGROUND])
            for place, (name, _) in enumerate(words):
                others = [k for k in range(len(words) + 1) if k != place]
                own = evidence[place] - evidence[others].amax(0)
                maps[name] = own.sigmoid().cpu().numpy()
        return rules.see(shown, features, area, maps)

    def ruled(
        self, found: Inspection, scored: Scored, picture: Picture, area: np.ndarray | None
    ) -> Inspection:
        """An inspection with what the rules say; a picture that cannot be judged stays unsure."""
        if self.rule_set is None or not self.rule_set.rules:
            return found
        seen = self.see_components(picture, area, scored.features)
        rules, components = self.rule_set.judge(seen)
        found = replace(found, rules=rules, components=components)
        if found.reason is not None:
            return found
        worst = max((found.verdict, *(one.verdict for one in rules)), key=_WORST.index)
        told = broken_in_words(rules)
        said = found.explanation if told is None else f"{told} {found.explanation}"
        record = found.explained and found.explained.model_copy(
            update={"why": said, "verdict": worst}
        )
        return replace(found, verdict=worst, explanation=said, explained=record)

    # --- limits ---------------------------------------------------------------------------------

    def shared_rates(self, rates: dict[str, Any]) -> SharedRates:
        """What of the asked rates each limit of score and rules gets."""
        count = limits_of(self.rule_set.rules) if self.rule_set else 0
        return SharedRates(count, rates["false_alarms"], rates["confidence"])

    def check_learns_rules(self, part_by: bool) -> None:
        """Make sure that what is usual can be learned.

        Raises:
            PolicyError: of parts with several pictures.
        """
        if part_by and self.rule_set and limits_of(self.rule_set.rules):
            raise PolicyError(
                "rules as usual are learned from single pictures, not from parts of several. State "
                "their limits, or calibrate without --part-by"
            )

    def on_good(self, picture: Picture, area: np.ndarray | None, scored: Scored) -> OnGood | None:
        """What a good picture shows of the rules; None where there are none."""
        rules = self.rule_set
        if rules is None or not rules.rules:
            return None
        seen = self.see_components(picture, area, scored.features)
        return OnGood(digest(picture), rules.usual_values(seen), rules.stated_truths(seen))

    def with_rules(
        self, policy: Policy, shown: Shown, rates: dict[str, Any], on_good: Sequence[OnGood]
    ) -> Policy:
        """Learn the limits of rules; the policy with what is promised then.

        Args:
            policy: learned from the same pictures.
            shown: what is known.
            rates: that were asked for, of score and rules together.
            on_good: of each picture; none of references that were left out in turn, which are
                looked at now.

        Raises:
            CalibrationError: too few pictures, or too few that show a component.
        """
        if self.rule_set is None or not self.rule_set.rules:
            return policy
        if policy.form == "leave-one-out":
            some = ((one, shown.area(one)) for one in shown.references)
            seen = [self.on_good(one, area, Scored(0.0, None, None)) for one, area in some]
            on_good = [one for one in seen if one is not None]
        shared, n = self.shared_rates(rates), len(on_good)
        learned = learned_rules(self.rule_set, [one.values for one in on_good], shared)
        known = self.rule_set.model.digests if self.rule_set.model else ()
        proven = policy.form == "split" and not set(known) & {one.digest for one in on_good}
        rate = shared.together(n) if learned else None
        self.rule_set = replace(self.rule_set, learned=learned, rate=rate, guaranteed=proven)
        notes = list(on_good_in_words(self.rule_set, [one.truths for one in on_good]))
        if learned:
            notes.append(promise_of_rules(self.rule_set, n, policy.false_alarms, proven))
        return policy.model_copy(update={"notes": (*policy.notes, *notes)})
