"""What the HTML report shows of parts with several pictures: the worst first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import Any
from urllib.parse import quote

from zerodefect.inspection.records import Record
from zerodefect.types import printable, told_score

MAX_PARTS = 1000  # with all that is said of them; the others have their pictures in the list
_WORST = ("defect", "unsure", "good")


class ReportParts:
    """Parts of a run.

    Args:
        records: of parts, see ``part_records``.

    Attributes:
        rows: name, verdict, score and p-value of each part, the worst first.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        worst: list[tuple[tuple[Any, ...], Record]] = []
        rows: list[tuple[tuple[Any, ...], list[Any]]] = []
        for record in records:
            place = _WORST.index(record["verdict"]), -(record["score"] or 0.0), len(rows)
            rows.append((place, [record[n] for n in ("part", "verdict", "score", "p_value")]))
            worst.append((place, record))
            if len(worst) >= 2 * MAX_PARTS:
                worst = sorted(worst, key=lambda one: one[0])[:MAX_PARTS]
        self.rows = [row for _, row in sorted(rows, key=lambda one: one[0])]
        self._worst = [r for _, r in sorted(worst, key=lambda one: one[0])[:MAX_PARTS]]
        self._numbers = {row[0]: number for number, row in enumerate(self.rows)}

    def number(self, part: str | None) -> int | None:
        """Place of a part among ``rows``; None for a picture that stands for itself."""
        return self._numbers.get(part) if part is not None else None

    def counts(self) -> str:
        """HTML: how many parts have each verdict."""
        if not self.rows:
            return ""
        verdicts = [row[1] for row in self.rows]
        told = ", ".join(f"{verdicts.count(v):,} {v}" for v in _WORST if v in verdicts)
        noun = "part" if len(verdicts) == 1 else "parts"
        return (
            f'<p class="parts" data-parts="{len(verdicts)}"><b>{len(verdicts):,} {noun}</b>: {told}'
            '. <span class="quiet">Pictures:</span></p>'
        )

    def panel(self) -> str:
        """HTML: the worst parts with their pictures and why they have their verdict."""
        if not self.rows:
            return ""
        more = len(self.rows) - len(self._worst)
        rest = f'<p class="quiet">{more:,} more are in parts.csv.</p>' if more else ""
        heads = "".join(
            f'<th scope="col"{kind}>{name}</th>'
            for name, kind in (
                *(("Part", ""), ("Verdict", ""), ("Score", ' class="number"')),
                *(("p", ' class="number"'), ("Pictures", ""), ("Why", "")),
            )
        )
        return (
            '<details class="panel" id="parts" open><summary>Parts, the worst first</summary>'
            f'<div class="table"><table><thead><tr>{heads}</tr></thead>'
            f"<tbody>{''.join(map(_row, self._worst))}</tbody></table></div>{rest}</details>"
        )


def _row(record: Record) -> str:
    verdict, score, p = record["verdict"], record["score"], record["p_value"]
    word = verdict if record["calibrated"] else f"{verdict} (provisional)"
    shape = f'<svg class="shape" aria-hidden="true"><use href="#shape-{verdict}"></use></svg>'
    pictures = "<br>".join(map(_picture, record["pictures"]))
    return (
        f'<tr><td class="path">{_text(record["part"])}</td>'
        f'<td><span class="verdict {verdict}">{shape}{word}</span></td>'
        f'<td class="number">{"" if score is None else told_score(score)}</td>'
        f'<td class="number">{"" if p is None else f"{p:.3g}"}</td>'
        f'<td class="path">{pictures}</td><td>{_text(record["explanation"])}</td></tr>'
    )


def _picture(picture: Record) -> str:
    """A link to a picture's page in the report, as the script names it."""
    name = _text(picture["image"])
    if picture["verdict"] == "failed":
        return f"{name}: not read"
    whole = re.sub("[\ud800-\udfff]", "\ufffd", picture["image"])
    address = escape("#image=" + quote(whole, safe="!'()*-._~"))
    return f'<a href="{address}">{name}</a>: {picture["verdict"]}'


def _text(text: object) -> str:
    return escape(printable(text))
