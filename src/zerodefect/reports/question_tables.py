"""Results of questions about pictures as JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zerodefect.evaluation.question_scores import (
    Answered,
    QuestionScores,
    option_share,
    score_answers,
)
from zerodefect.files import atomic_write
from zerodefect.types import Failure, printable

FORMAT = "zerodefect-questions"
OFFICIAL, EVERY = "official", "every question"
"""The two ways of counting, see ``evaluation.question_scores.score_answers``."""

_SOURCE = "result files of jam-cc/MMAD at bad03b44, 1-shot, average over the kinds"
PUBLISHED = {
    "GPT-4o": 74.3,
    "Qwen2.5-VL-72B-AWQ": 77.0,
    "AnomalyGPT, trained on MVTec AD": 36.2,
}
_WAYS = {
    OFFICIAL: "as the official script counts: an invalid answer and the question behind it are "
    "left out, as in published figures",
    EVERY: "every question counts, and an invalid answer is wrong",
}


@dataclass(frozen=True)
class QuestionResults:
    """What a model answered, counted both ways.

    Attributes:
        facts: model, data, protocol and versions.
        answers: to be scored, in the order of the questions.
        failures: questions that have no answer; they are left out of all figures.
    """

    facts: Mapping[str, Any]
    answers: tuple[Answered, ...]
    failures: tuple[Failure, ...]

    @property
    def counted(self) -> dict[str, QuestionScores]:
        """Scores by the way of counting."""
        return {
            OFFICIAL: score_answers(self.answers),
            EVERY: score_answers(self.answers, official=False),
        }

    def headline(self) -> str:
        """The figures in one line."""
        tables = {name: scores.table() for name, scores in self.counted.items()}
        told = {
            name: _told(table.get("Average", {}).get("Average")) for name, table in tables.items()
        }
        return (
            f"{self.facts['model']['name']}: average {told[OFFICIAL]} % ({OFFICIAL} counting), "
            f"{told[EVERY]} % of {EVERY}, {len(self.answers)} answers"
        )


def write_question_results(results: QuestionResults, folder: Path) -> list[Path]:
    """Write ``results.json``, ``results.csv`` and ``results.md``.

    Returns:
        The files written.

    Raises:
        StoreError: the operating system refused to write.
    """
    contents = {
        "results.json": json.dumps(_content(results), indent=1, allow_nan=False) + "\n",
        "results.csv": _csv(results),
        "results.md": "\n".join(map(printable, markdown(results))) + "\n",
    }
    written = []
    for name, text in contents.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode("utf-8", "backslashreplace"))
        written.append(folder / name)
    return written


def _content(results: QuestionResults) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": 1,
        **results.facts,
        "scores": [
            {
                "counting": name,
                "invalid": scores.invalid,
                "left_out": scores.skipped,
                "table": _plain(scores.table()),
                "defects": _plain(scores.defects_found()),
                "counts": [
                    {"dataset": dataset, "kind": kind, "questions": total, "right": right}
                    for (dataset, kind), (total, right) in scores.counts.items()
                ],
            }
            for name, scores in results.counted.items()
        ],
        "letters": option_share(results.answers),
        "failures": [asdict(failure) for failure in results.failures],
        "published": {"source": _SOURCE, "average": PUBLISHED},
    }


def _plain(table: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    return {
        row: {name: None if math.isnan(value) else value for name, value in values.items()}
        for row, values in table.items()
    }


def _csv(results: QuestionResults) -> str:
    """A row for each data set and way of counting, their means last."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head: list[str] = []
    for name, scores in results.counted.items():
        defects = scores.defects_found()
        for row, values in scores.table().items():
            own = {**values, **defects.get(row, dict.fromkeys(("recall", "precision", "f1")))}
            if not head:
                head = list(own)
                writer.writerow(["counting", "dataset", *head])
            cells = [own.get(column) for column in head]
            writer.writerow([name, row, *("" if _none(cell) else f"{cell:.4f}" for cell in cells)])
    return text.getvalue()


def _none(value: float | None) -> bool:
    return value is None or math.isnan(value)


def markdown(results: QuestionResults) -> Iterator[str]:
    """Lines of the result as Markdown."""
    facts = results.facts
    yield from (f"# Questions about {facts['data']['name']}", "")
    yield f"{facts['model']['name']}, values in percent."
    if facts["model"]["leaves_process"]:
        yield f"Pictures were sent to {facts['model']['where']}."
    for name, scores in results.counted.items():
        yield from ("", f"## {name.capitalize()}", "", f"{_WAYS[name].capitalize()}.", "")
        yield from _table(scores.table())
        yield from ("", "Defects found in answers about anomalies:", "")
        yield from _table(scores.defects_found())
        yield ""
        yield f"{scores.invalid} invalid answers; {scores.skipped} questions left out."
    yield from ("", "## Protocol", "")
    yield from (f"- {name}: {value}" for name, value in facts["protocol"].items())
    yield f"- weights: {facts['model']['fingerprint'] or 'on the server'}"
    yield f"- data: {facts['data']['fingerprint']}"
    versions = facts["versions"]["environment"].items()
    yield f"- versions: {', '.join(f'{name} {version}' for name, version in versions)}"
    if results.answers:
        shares = option_share(results.answers).items()
        yield f"- letters given: {', '.join(f'{one} {100 * share:.0f} %' for one, share in shares)}"
    if results.failures:
        yield f"- questions without an answer, in no figure: {len(results.failures)}"
    yield from ("", "## Published figures (not ours)", "")
    yield from (f"- {name}: {value} ({_SOURCE})" for name, value in PUBLISHED.items())


def _table(rows: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    columns: Sequence[str] = list(next(iter(rows.values()), {}))
    yield "| data set | " + " | ".join(columns) + " |"
    yield "|---|" + "---:|" * len(columns)
    for name, row in rows.items():
        yield f"| {name} | " + " | ".join(_told(row[column]) for column in columns) + " |"


def _told(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.1f}"
