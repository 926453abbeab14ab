"""Rules of a product that is learned anew: carried over, or refused with what to give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from zerodefect.inspection.rules.component_sources import FORMS, ComponentError, ComponentSource
from zerodefect.inspection.rules.rule_set import RuleSet, asked_rules
from zerodefect.inspection.rules.ruled import Ruled
from zerodefect.inspection.sources import digest

_OTHERWISE = (
    f"Tell the components anew beside --renew (--component {FORMS}), or drop the rules (--rule "
    "none)"
)


def renew_rules(
    inspector: Ruled,
    kept: RuleSet | None,
    same: bool,
    rules: Sequence[str] = (),
    components: Sequence[str] = (),
    clusters: str | Path | None = None,
) -> None:
    """Hold pictures to the rules of before, and to those that are given besides.

    What is usual is learned by the next ``calibrate``.

    Args:
        inspector: with its references.
        kept: rules of before; None if there were none.
        same: whether the detector sees patches as it did, so that components look as they did.
            Otherwise they are learned anew from the pictures on which boxes were drawn.
        rules, components, clusters: as of ``Ruled.teach_rules``.

    Raises:
        ComponentError: what a component looks like is not at hand any more.
        RuleError, ImageError: as of ``Ruled.teach_rules``.
    """
    if asked_rules(kept, rules, components) is None or (kept is None and not rules):
        return
    told: Sequence[str | ComponentSource] = components
    if kept is not None:
        bare = replace(kept, learned={}, rate=None, guaranteed=False)
        inspector.rule_set = bare if same else replace(bare, model=None)
        if not same and not components:
            _check_at_hand(inspector, kept)
            told = kept.sources
    inspector.teach_rules(rules, told, clusters)


def _check_at_hand(inspector: Ruled, kept: RuleSet) -> None:
    """Make sure that components can be learned from the pictures that they were told on.

    Raises:
        ComponentError: by clusters, or of a picture that is not there.
    """
    for one in kept.sources:
        if one.clusters:
            raise ComponentError(
                f"component {one.name!r} of the product's rules was told by clusters of what the "
                f"former detector saw. {_OTHERWISE}"
            )
        if one.file is not None and not Path(one.file).is_file():
            raise ComponentError(
                f"component {one.name!r} of the product's rules was told by a box on {one.file}, "
                f"which is not there. {_OTHERWISE}"
            )
        digests = kept.model.digests if kept.model else ()
        if one.file is not None and digest(inspector.open_good(one.file)) not in digests:
            raise ComponentError(
                f"component {one.name!r} of the product's rules was told by a box on {one.file}, "
                f"which is another picture now. {_OTHERWISE}"
            )
