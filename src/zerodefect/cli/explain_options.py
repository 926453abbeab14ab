"""Options about chat models that explain, and what of their answers is told on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from zerodefect.cli.options import Options, option
from zerodefect.cli.telling import say

if TYPE_CHECKING:
    from zerodefect.inspection.explainer import Explainer
    from zerodefect.inspection.inspector import Inspector

MODEL = "FOLDER|NAME|URL#MODEL"
_SHOWN = 5  # explanations that are printed


@dataclass(frozen=True)
class ExplainOptions(Options, panel="Output"):
    """Whether a chat model explains what was found."""

    explain: str | None = option(
        None,
        "Chat model that explains pictures that are not good: a folder, a name of 'zerodefect "
        "backbones', or a server, which pictures are then sent to: http://HOST:8000/v1#MODEL.",
        metavar=MODEL,
    )
    explain_good: bool = option(False, "Explain good pictures, too.", "--explain-good")
    explain_timeout: float | None = option(
        None, "Seconds that an answer may take; default 300, of a server 60.", min=0.1
    )

    def explainer(self, device: str) -> Explainer | None:
        """The chat model, loaded; where pictures go is said before any goes there.

        Raises:
            ValueError: an address that names no server and model; options of no model.
            WeightsError: a model in this process that cannot be had.
        """
        if self.explain is None:
            if self.explain_good or self.explain_timeout is not None:
                raise ValueError("--explain-good and --explain-timeout are for --explain MODEL")
            return None
        return opened_explainer(self.explain, self.explain_timeout, device)

    def told(self, explainer: Explainer | None, inspector: Inspector) -> Told:
        """What is told of the explanations of a run, whose good parts the model is shown."""
        if explainer is None:
            return Told(None)
        from zerodefect.inspection.explainer import good_parts

        explainer.references = good_parts(inspector)
        return Told(explainer.facts())


def opened_explainer(name: str, timeout: float | None, device: str) -> Explainer:
    """Load a chat model, and say where pictures go."""
    from zerodefect.inspection.explainer import Explainer

    explainer = Explainer.load(name, timeout=timeout, device=device)
    say(explainer.notice())
    return explainer


class Told:
    """Explanations of a run, for its summary on the terminal.

    The first of those that contradict the evidence are shown, and then of the others.

    Args:
        facts: of the explainer; None where nothing is explained.
    """

    def __init__(self, facts: Mapping[str, Any] | None) -> None:
        self.facts = facts
        self.count = self.contradicted = self.missed = 0
        self._first: list[tuple[int, list[str]]] = []

    def add(self, record: Mapping[str, Any]) -> None:
        """Note those of a picture's record."""
        for one in record.get("conversation") or ():
            self.count += 1
            self.contradicted += bool(one.get("contradictions"))
            self.missed += "fault" in one
            rank = 0 if one.get("contradictions") else 2 if "fault" in one else 1
            head, *rest = told_entry(one)
            lines = [f"{record['image']}: {head}", *(f"  {line}" for line in rest)]
            self._first = sorted([*self._first, (rank, lines)], key=lambda each: each[0])[:_SHOWN]

    def lines(self) -> Iterator[str]:
        """What the summary says."""
        if self.facts is None:
            return
        for _, lines in self._first:
            yield from lines
        pictures = f"{self.count} picture{'s' * (self.count != 1)}"
        told = f"explained by {self.facts['name']}: {pictures}"
        told += f", {self.contradicted} of them against the evidence" if self.contradicted else ""
        yield told + (f", {self.missed} without an answer" if self.missed else "")
        if self.facts["sent_to"]:
            yield f"pictures left this process: they were sent to {self.facts['sent_to']}"


def told_entry(entry: Mapping[str, Any]) -> list[str]:
    """One entry of a conversation in lines: what was said, what is to know, what contradicts it."""
    from zerodefect.inspection.explanation import Explanation

    one = Explanation.model_validate(entry)
    lines = [f"{one.source}: {one.sentence()}"]
    lines += [f"it said: {one.said}"] if one.said else []
    lines += [f"note: {remark}" for remark in one.remarks]
    return lines + [f"CONTRADICTION: {sentence}" for sentence in one.contradictions]
