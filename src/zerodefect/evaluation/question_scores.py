"""Scores of answers to multiple-choice questions, as MMAD has them (arXiv 2410.09453)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from zerodefect.prompts.chosen_options import LETTERS

DETECTION = "Anomaly Detection"
KINDS = (
    DETECTION,
    "Defect Classification",
    "Defect Localization",
    "Defect Description",
    "Defect Analysis",
    "Object Classification",
    "Object Analysis",
)
"""The seven kinds of questions."""

AVERAGE, OVERKILL, MISS = "Average", "Overkill", "Miss"

_MERGED = {"Object Structure": "Object Analysis", "Object Details": "Object Analysis"}


@dataclass(frozen=True)
class Answered:
    """One question and what was answered.

    Attributes:
        image: path ``<data set>/<class>/.../<file>``; of a good part with ``good`` in it.
        kind: of the question, as the question file has it.
        true: letter of the right option.
        given: letter of the chosen one; anything else is no valid answer.
    """

    image: str
    kind: str
    true: str
    given: str

    @property
    def dataset(self) -> str:
        """First part of the path."""
        return self.image.split("/", 1)[0]

    @property
    def good(self) -> bool:
        """Whether the picture shows a good part."""
        return "good" in self.image

    @property
    def valid(self) -> bool:
        """Whether both letters are ones that can be compared."""
        return all(len(one) == 1 and one in LETTERS for one in (self.true, self.given))


@dataclass
class QuestionScores:
    """Counts of questions and right answers.

    Attributes:
        counts: ``[all, right]`` by data set and kind.
        detection: ``[all, right]`` of ``DETECTION`` by data set and whether the part is good.
        official: whether they were counted as the official script does, see ``score_answers``.
        invalid: answers that name no option.
        skipped: questions that do not count, invalid ones among them.
    """

    official: bool
    counts: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    detection: dict[tuple[str, bool], list[int]] = field(default_factory=dict)
    invalid: int = 0
    skipped: int = 0

    def take(self, answer: Answered) -> None:
        """Count one answer."""
        kind, right = _MERGED.get(answer.kind, answer.kind), answer.given == answer.true
        pairs = [self.counts.setdefault((answer.dataset, kind), [0, 0])]
        if kind == DETECTION:
            pairs.append(self.detection.setdefault((answer.dataset, answer.good), [0, 0]))
        for pair in pairs:
            pair[0] += 1
            pair[1] += right

    @property
    def datasets(self) -> list[str]:
        """In the order in which they came."""
        return list(dict.fromkeys(dataset for dataset, _ in self.counts))

    @property
    def kinds(self) -> list[str]:
        """Kinds that were asked, the seven in their order first."""
        asked = dict.fromkeys(kind for _, kind in self.counts)
        return [*(k for k in KINDS if k in asked), *(k for k in asked if k not in KINDS)]

    def table(self) -> dict[str, dict[str, float]]:
        """Percentages: a row for each data set and one of their means; NaN where nothing was asked.

        Columns are ``kinds``, then ``AVERAGE`` over them, ``OVERKILL`` (good parts called
        defective) and ``MISS`` (defects called good). Of ``DETECTION`` it is the mean of the
        accuracies on good parts and on defects.
        """
        rows = {dataset: self._row(dataset) for dataset in self.datasets}
        columns = [*self.kinds, AVERAGE, OVERKILL, MISS]
        if rows:
            means = {name: _mean(row[name] for row in rows.values()) for name in columns}
            rows[AVERAGE] = means
        return rows

    def _row(self, dataset: str) -> dict[str, float]:
        row = {kind: _percent(self.counts.get((dataset, kind))) for kind in self.kinds}
        good, bad = (self._of_parts(dataset, good) for good in (True, False))
        if not math.isnan(row.get(DETECTION, math.nan)):
            row[DETECTION] = _mean([good, bad])
        return {**row, AVERAGE: _mean(row.values()), OVERKILL: 100 - good, MISS: 100 - bad}

    def _of_parts(self, dataset: str, good: bool) -> float:
        """Accuracy on good or defective parts; the official script takes 0 where there are none."""
        found = _percent(self.detection.get((dataset, good)))
        asked = (dataset, DETECTION) in self.counts
        return 0.0 if self.official and asked and math.isnan(found) else found

    def defects_found(self) -> dict[str, dict[str, float]]:
        """``recall``, ``precision`` and ``f1`` of each data set in percent; a defect is positive.

        NaN where they are undefined.
        """
        found = {}
        for dataset in self.datasets:
            good, bad = (self.detection.get((dataset, one), [0, 0]) for one in (True, False))
            hits, false = bad[1], good[0] - good[1]
            found[dataset] = {
                "recall": _percent([bad[0], hits]),
                "precision": _percent([hits + false, hits]),
                "f1": _percent([bad[0] + hits + false, 2 * hits]),
            }
        return found


def score_answers(answers: Sequence[Answered], *, official: bool = True) -> QuestionScores:
    """Count answers.

    Args:
        answers: in the order in which they were asked.
        official: as the official script counts, on which published figures rest: an invalid answer
            is not counted, and neither is the question behind it, since entries are removed from a
            list that is being walked. Else every question counts, and an invalid answer is wrong; a
            question whose true letter is none is left out.
    """
    scores = QuestionScores(official)
    scores.invalid = sum(not answer.valid for answer in answers)
    kept = list(_walked(answers)) if official else [a for a in answers if a.true in LETTERS]
    for answer in kept:
        scores.take(answer)
    scores.skipped = len(answers) - len(kept)
    return scores


def option_share(answers: Sequence[Answered]) -> dict[str, float]:
    """Share of each letter among the given ones, to see a model that always says the same."""
    given = Counter(answer.given if answer.valid else "none" for answer in answers)
    return {letter: count / len(answers) for letter, count in sorted(given.items())}


def _walked(answers: Sequence[Answered]) -> Iterator[Answered]:
    """Those that the official walk reaches and keeps."""
    rest = iter(answers)
    for answer in rest:
        if answer.valid:
            yield answer
        else:
            next(rest, None)


def _percent(pair: Sequence[int] | None) -> float:
    return 100 * pair[1] / pair[0] if pair and pair[0] else math.nan


def _mean(values: Iterable[float]) -> float:
    found = [value for value in values if not math.isnan(value)]
    return sum(found) / len(found) if found else math.nan
