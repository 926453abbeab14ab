"""What the report shows of rules: how many pictures keep each, and those that do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from pathlib import PurePath
from typing import Any

from zerodefect.reports.example_list import STYLE, Address, Example, examples
from zerodefect.types import printable

_EXAMPLES = 8  # pictures of a rule
_TRUTHS = (("kept", "good"), ("broken", "defect"), ("uncertain", "unsure"))


def rules_section(records: Iterable[Mapping[str, Any]], address: Address) -> str:
    """HTML of the rules with pictures that break them; empty where there is none.

    Args:
        records: of the run, read once.
        address: where the page finds a file of the run folder.
    """
    counts: dict[str, dict[str, int]] = {}
    shown: dict[str, list[Example]] = {}
    thumbs: dict[str, str] = {}
    for record in records:
        for one in record.get("rules") or ():
            own = counts.setdefault(one["rule"], dict.fromkeys((t for t, _ in _TRUTHS), 0))
            own[one["truth"]] += 1
            some = shown.setdefault(one["rule"], [])
            if one["truth"] != "kept" and len(some) < _EXAMPLES:
                told = f"{one['truth']}: {one['told'].removeprefix(one['rule'] + ': ')}"
                some.append(Example(record["image"], PurePath(record["image"]).name, told))
                if thumb := (record.get("assets") or {}).get("thumb"):
                    thumbs[record["image"]] = thumb
    if not counts:
        return ""
    heads = "".join(f'<th scope="col" class="number">{truth}</th>' for truth, _ in _TRUTHS)
    rows = "".join(_row(rule, own) for rule, own in counts.items())
    pictures = "".join(
        f"<h3>{escape(printable(rule))}</h3>{examples(some, thumbs, address)}"
        for rule, some in shown.items()
        if some
    )
    return (
        f'{STYLE}<details class="panel" id="rule-list" open><summary>Rules</summary>'
        f'<div class="table"><table><thead><tr><th scope="col">Rule</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{pictures}</details>"
    )


def _row(rule: str, counts: Mapping[str, int]) -> str:
    cells = "".join(
        f'<td class="number">{_badge(verdict, counts[truth])}</td>' for truth, verdict in _TRUTHS
    )
    return f"<tr><td>{escape(printable(rule))}</td>{cells}</tr>"


def _badge(verdict: str, count: int) -> str:
    if not count:
        return "0"
    shape = f'<svg class="shape" aria-hidden="true"><use href="#shape-{verdict}"></use></svg>'
    return f'<span class="verdict {verdict}">{shape}{count:,}</span>'
