"""The page of the HTML report, filled from the plain files in ``assets/``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from html import escape
from importlib import resources
from typing import Any

from zerodefect.inspection.allowances import Allowances
from zerodefect.inspection.conformal import LEARNED, promise
from zerodefect.inspection.records import Record
from zerodefect.reports.power_section import power_of_run
from zerodefect.reports.report_parts import ReportParts
from zerodefect.types import printable

MAX_FAILURES = 1000
MAX_NOTES = 100
_SCRIPTS = tuple(f"report{own}.js" for own in ("", "_words", "_rules", "_explained", "_cloud"))
_LONG = ("policy", "policies", "power", "rules")  # values of a manifest


def fill_page(
    manifest: Record,
    verdicts: Sequence[str],
    failures: Sequence[Record],
    *,
    calibrated: bool,
    notes: Mapping[str, int],
    data: str,
    groups: ReportParts | None = None,
    repeated: str = "",
    explained: str = "",
) -> str:
    """Fill the page's template; whatever comes from outside is escaped.

    Args:
        manifest: facts about the run, as ``write_report`` takes them.
        verdicts: of every inspected image.
        failures: records of the files that could not be inspected.
        calibrated: whether all verdicts rest on limits learned from good images.
        notes: how many images have each note on their file.
        data: HTML of the scripts that carry the results; put in as it is.
        groups: parts with several pictures, or None.
        repeated: HTML of the marks that several pictures share.
        explained: HTML of what is told of a chat model.
    """
    heading = str(manifest.get("object") or "Inspection")
    state = "" if calibrated else " (uncalibrated)"
    policy = manifest.get("policy") or {}
    if manifest.get("policies"):  # one for each product
        told = list(policy["notes"])
    else:
        told = promises(policy) if calibrated else _provisional(policy)
    parts = {
        "title": escape(f"{heading}: inspection report{state}"),
        "heading": escape(heading),
        "script": "".join(map(_shipped, _SCRIPTS)),
        "body_class": "calibrated" if calibrated else "uncalibrated",
        "banner": "" if calibrated else _banner(manifest),
        "facts": _facts(manifest),
        "counts": _counts(verdicts, failures),
        "part_counts": groups.counts() if groups else "",
        "parts": groups.panel() if groups else "",
        "statement": "".join(f"<p>{escape(s)}</p>" for s in told),
        "repeated": repeated,
        "explained": explained,
        "failures": _failure_table(failures),
        "notes": _note_table(notes),
        "power": power_of_run(manifest),
        "settings": _settings(manifest),
        "data": data,
    }
    return filled("template.html", parts)


def _banner(manifest: Record) -> str:
    remedy = "Show it good parts: <code>--reference</code>, or <code>zerodefect calibrate</code>."
    if manifest.get("transductive"):
        remedy = (
            "Show it good parts in the same set: <code>--batch --reference good/</code>, or take "
            "a method that needs no set: <code>zerodefect setup good/</code>."
        )
    return (
        '<div class="banner" role="alert"><strong>Uncalibrated: verdicts are provisional.</strong> '
        f"{remedy}</div>"
    )


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A shipped page with its parts, as HTML, in their places; the style is there for all."""
    every = {"style": _shipped("report.css"), **parts}
    # One pass: a file name that looks like a placeholder is not filled in again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: every[match[1]], _shipped(template))


def _shipped(name: str) -> str:
    folder = resources.files("zerodefect.reports") / "assets"
    return (folder / name).read_text(encoding="utf-8")


def _facts(manifest: Record) -> str:
    return facts_list(
        {
            "Method": manifest.get("method"),
            "Transductive": _compared(manifest.get("transductive")),
            "Backbone": networks_in_words(manifest.get("backbone")),
            "Date": _date(manifest.get("created")),
            "ZeroDefect": manifest.get("zerodefect"),
        }
    )


def _compared(told: Record | None) -> str | None:
    """What a picture's score depends on besides it, where it does."""
    if not told:
        return None
    sizes = told["sets"]
    sets = f"{sum(sizes):,} pictures" + ("" if len(sizes) == 1 else f" in {len(sizes):,} sets")
    good = f" and {len(told['good']):,} good ones" if told["good"] else ""
    return f"{sets}{good}, compared with each other"


def facts_list(facts: Mapping[str, object]) -> str:
    """Names and values as entries of a list, those that are known."""
    return "".join(
        f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in facts.items()
        if value
    )


def networks_in_words(told: Any) -> str:
    """Names of the networks: one, several, or by the parts of several methods in one."""
    if isinstance(told, dict):
        return ", ".join(f"{networks_in_words(own)} ({part})" for part, own in told.items() if own)
    return ", ".join(told) if isinstance(told, list) else str(told or "")


def _date(created: object) -> str:
    """Date and time as people read them; what is not ISO 8601 stays as it is."""
    text = str(created or "")
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return text
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".rstrip()


def _counts(verdicts: Sequence[str], failures: Sequence[Record]) -> str:
    items = [
        f'<li class="{verdict}" data-count="{verdict}"><b>{verdicts.count(verdict):,}</b>'
        f'<span class="verdict"><svg class="shape" aria-hidden="true">'
        f'<use href="#shape-{verdict}"></use></svg>{verdict}</span></li>'
        for verdict in ("defect", "unsure", "good")
    ]
    if failures:
        items.append(
            f'<li data-count="failed"><b>{len(failures):,}</b><a href="#failed">not read</a></li>'
        )
    return "".join(items)


def _failure_table(failures: Sequence[Record]) -> str:
    if not failures:
        return ""
    keys = ("image", "reason", "remedy")
    rows = "".join(
        "<tr>"
        + "".join(f'<td class="path">{escape(printable(record.get(key, "")))}</td>' for key in keys)
        + "</tr>"
        for record in failures[:MAX_FAILURES]
    )
    more = len(failures) - MAX_FAILURES
    rest = f'<p class="quiet">{more:,} more are in results.jsonl.</p>' if more > 0 else ""
    noun = "file" if len(failures) == 1 else "files"
    state = " open" if len(failures) <= 10 else ""
    return (
        f'<details class="panel" id="failed"{state}>'
        f"<summary>{len(failures):,} {noun} could not be inspected</summary>"
        '<div class="table"><table><thead><tr><th scope="col">File</th><th scope="col">Reason</th>'
        f'<th scope="col">What to do</th></tr></thead><tbody>{rows}</tbody></table></div>{rest}'
        "</details>"
    )


def _note_table(notes: Mapping[str, int]) -> str:
    if not notes:
        return ""
    common = sorted(notes.items(), key=lambda note: (-note[1], note[0]))
    rows = "".join(
        f'<tr><td>{escape(printable(note))}</td><td class="number">{count:,}</td></tr>'
        for note, count in common[:MAX_NOTES]
    )
    more = len(common) - MAX_NOTES
    rest = f'<p class="quiet">{more:,} more are in results.csv.</p>' if more > 0 else ""
    return (
        '<details class="panel" id="notes" open><summary>Notes on the files</summary>'
        '<div class="table"><table><thead><tr><th scope="col">Note</th>'
        f'<th scope="col" class="number">Images</th></tr></thead><tbody>{rows}</tbody></table>'
        f"</div>{rest}</details>"
    )


def _settings(manifest: Record) -> str:
    """The run's settings and policy for the record, without the long lists of scores."""
    policy = manifest.get("policy") or {}
    shown = {
        **{key: value for key, value in manifest.items() if key not in _LONG},
        "policy": {key: v for key, v in policy.items() if key not in ("scores", "map_maxima")},
    }
    text = escape(json.dumps(shown, indent=2, ensure_ascii=False, default=str))
    return (
        '<details class="panel settings"><summary>Settings of this run</summary>'
        f"<pre>{text}</pre></details>"
    )


# ---- the calibration in words ----


def _provisional(policy: Record) -> list[str]:
    limit = (policy.get("limits") or {}).get("defect")
    if limit is None:
        told = "Without calibration no image is called good or defective: all are unsure."
    else:
        told = f"Without calibration an image is called defective above the score {limit:.4g}."
    return [told, *(policy.get("notes") or ()), *_allowed(policy)]


def promises(policy: Record) -> list[str]:
    """Sentences that say what the verdicts rest on; nothing is claimed that the limits break."""
    how = ", each scored against the others" if policy["form"] == "leave-one-out" else ""
    return [
        f"Limits learned from {_images(policy)}{how}.",
        _promise(policy, "defect", policy["false_alarms"], "defective"),
        _promise(policy, "unsure", policy["review_rate"], "unsure or worse"),
        # The policy's own sentence is left out: it cannot know of limits edited later.
        *(note for note in policy["notes"] if not note.startswith(LEARNED)),
        *_allowed(policy),
    ]


def _allowed(policy: Record) -> list[str]:
    allowances = policy.get("allowances")
    return [Allowances.model_validate(allowances).sentence()] if allowances else []


def _images(policy: Record) -> str:
    """How many good images, or parts, limits were learned from."""
    count, unit = len(policy["scores"]), "part" if policy.get("parts") else "image"
    return f"{count:,} good {unit}" + ("" if count == 1 else "s")


def _promise(policy: Record, name: str, rate: float | None, called: str) -> str:
    """What holds for good parts at a limit.

    A limit with m of n calibration scores above it has a false-alarm rate of at most
    (m + 1) / (n + 1) for exchangeable images (split conformal prediction). Where a limit was
    replaced by hand below that, the promised rate no longer holds and the count is given instead.
    """
    limit = policy["limits"][name]
    if limit is None:
        return f"No limit for the verdict “{name}” can be proved from so few images."
    scores = policy["scores"]
    above = sum(score > limit for score in scores)
    if rate is None or (above + 1) / (len(scores) + 1) > rate * (1 + 1e-9):
        counted = f"{above} of the {_images(policy)} lie above it"
        return f"The limit for “{name}” was set by hand: {counted}."
    if not policy["guaranteed"]:
        share = f"{100 * rate:.3g} %"
        return f"About {share} of good parts should be called {called}; this is not guaranteed."
    form = policy["form"] if name == "defect" else None  # of a review rate no confidence is known
    images = "good parts like those"
    return promise(rate, len(scores), form, policy.get("confidence"), images, called)
