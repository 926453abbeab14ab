"""Options about rules on the components of a product."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerodefect.cli.options import Options, option
from zerodefect.cli.telling import say

if TYPE_CHECKING:
    from zerodefect.inspection.inspector import Inspector


@dataclass(frozen=True)
class ComponentRuleOptions(Options, panel="Rules"):
    """What is asked of a product's components, and what they look like."""

    rule: list[str] | None = option(
        None,
        "'exactly 2 screws', 'label inside bottle', 'fill level as usual', ...; repeatable; none "
        "drops the product's.",
        metavar="RULE",
    )
    rules: str | None = option(
        None,
        "File of rules, one a line, or a preset: breakfast_box, juice_bottle, pushpins, screw_bag, "
        "splicing_connectors.",
        metavar="FILE|NAME",
    )
    component: list[str] | None = option(
        None,
        "What it looks like: 'label=good/01.png:120,40,80,30' (a box), 'liquid=cluster 3' or "
        "'cap=words bottle cap'; repeatable.",
        metavar="NAME=...",
    )
    clusters: Path | None = option(
        None, "File of 'zerodefect components', whose clusters --component names."
    )

    @property
    def given(self) -> bool:
        """Whether anything was."""
        return bool(self.rule or self.rules or self.component)

    def texts(self) -> list[str]:
        """The rules as they are written, those of the file first.

        Raises:
            RuleError, ValueError: one is not understood, or the file cannot be read.
        """
        from zerodefect.inspection.rules.rule_files import read_rules
        from zerodefect.inspection.rules.rule_reader import parse_rule
        from zerodefect.inspection.rules.rule_set import NOTHING

        found = [*(read_rules(self.rules) if self.rules else ()), *(self.rule or ())]
        for one in found:
            if one != NOTHING:
                parse_rule(one)
        return found

    def check(self, product: Path | None = None) -> None:
        """Refuse what is not understood or not known, before anything is loaded.

        Args:
            product: file whose rules and components those given are added to.

        Raises:
            RuleError, ComponentError, ValueError: a rule, a component, or a file.
            ProductError: the product file cannot be used.
        """
        if self.given:
            from zerodefect.inspection.product_file import opened_product
            from zerodefect.inspection.rules.rule_set import asked_rules

            before = opened_product(product).rules if product else None
            asked_rules(before, self.texts(), self.component or ())
        if self.clusters and not self.component:
            raise ValueError("--clusters: name some of them, as in --component 'liquid=cluster 3'")
        if self.clusters:
            from zerodefect.inspection.rules.component_learning import load_clusters

            load_clusters(self.clusters)

    def with_boxes(self) -> list[Path]:
        """Files on which boxes are drawn."""
        from zerodefect.inspection.rules.component_sources import parsed_sources

        return [Path(one.file) for one in parsed_sources(self.component or ()) if one.file]

    def learned(self) -> bool:
        """Whether a rule holds as usual, so that good pictures are needed."""
        from zerodefect.inspection.rules.rule_reader import parse_rule
        from zerodefect.inspection.rules.rule_set import NOTHING

        return any(parse_rule(one).usual for one in self.texts() if one != NOTHING)

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments as ``Inspector.teach_rules`` takes them."""
        told = {"components": self.component or (), "clusters": self.clusters}
        return {"rules": self.texts(), **told}

    def teach(self, inspector: Inspector) -> None:
        """Hold the inspector's pictures to the rules; errors as of ``Inspector.teach_rules``."""
        if not self.given:
            return
        taught = inspector.teach_rules(**self.keywords())
        if taught is not None and not taught.rules:
            say("--component without a rule: nothing is held to it. Add --rule, or --rules FILE")
