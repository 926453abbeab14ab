"""The record of an explanation, whoever gives it: the evidence alone, or a chat model."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from zerodefect.types import Verdict

EVIDENCE = "evidence"
"""Source of explanations that rest on scores and maps alone."""

Box = tuple[int, int, int, int]

_ALWAYS = ("location", "kind", "why", "verdict", "source")


class Explanation(BaseModel):
    """Where, what, why, and what follows; in words for people.

    Its version rule is that of ``product_sections``: later fields are added, and those that are not
    known are let be.

    Attributes:
        location: where it lies ("in the upper left"); None where no place is named.
        kind: what it is ("scratch"); None where that is not told.
        why: one or two sentences; the answer where there was a ``question``.
        verdict: what follows for the picture; None where the source gives none. What holds is the
            policy's, whatever a chat model says.
        source: ``evidence``, or the name of a chat model.
        boxes: that a chat model names: ``(x, y, width, height)`` in pixels of the picture.
        question: what a chat model was asked; None: to explain the picture.
        sent_to: host that pictures were sent to for it; None: none left this process.
        contradictions: what of it does not agree with the evidence, in sentences.
        remarks: what else is to know of it: what could not be checked, what was cut off.
        fault: why there is no explanation (no answer in time, none that can be read); ``why`` is
            empty then.
        said: the model's own words, shortened, where they could not be read.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    location: str | None = None
    kind: str | None = None
    why: str = ""
    verdict: Verdict | None = None
    source: str = EVIDENCE
    boxes: tuple[Box, ...] = ()
    question: str | None = None
    sent_to: str | None = None
    contradictions: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    fault: str | None = None
    said: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data: the first five fields, and of the others those that say something."""
        told = self.model_dump(mode="json")
        usual = type(self).model_fields
        return {k: v for k, v in told.items() if k in _ALWAYS or (v and v != usual[k].default)}

    def sentence(self) -> str:
        """What it says, in a line; of one that is missing, why."""
        if self.fault is not None:
            return f"no answer: {self.fault}"
        rest = ", ".join(filter(None, (self.kind, self.location, self.verdict)))
        return f"{self.why} ({rest})" if self.why and rest else self.why or rest
