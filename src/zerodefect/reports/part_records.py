"""Records of parts with several pictures, made of the records of their pictures.

They are made anew on every start from what ``results.jsonl`` holds, so that a part is whole or not
there, whatever was killed when.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from zerodefect.files import atomic_write
from zerodefect.inspection.conformal import PolicyError
from zerodefect.inspection.part_pictures import agreed, part_names, together
from zerodefect.inspection.part_verdict import Outcome, PartInspection, judge_part
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.records import Record
from zerodefect.reports.result_files import write_parts_csv


def part_record(part: PartInspection) -> Record:
    """Turn the outcome for a part into a record of ``parts.jsonl``."""
    return {
        "part": part.part,
        "status": "ok",
        "verdict": part.verdict,
        "calibrated": part.calibrated,
        "score": part.score,
        "p_value": part.p_value,
        "count": len(part.outcomes),
        "decisive": part.decisive,
        "pictures": [
            {"image": one.image, "verdict": one.verdict or "failed", "score": one.score}
            for one in part.outcomes
        ],
        "explanation": part.explanation,
        "reason": part.reason,
        "transductive": part.transductive,
    }


class PartsOfRun:
    """Which of a run's files show which part; judges a part when its last picture is there.

    Args:
        files: pictures of the run.
        by: pattern that names their parts.
        policy: limits in force.
    """

    def __init__(self, files: Sequence[Path], by: str, policy: Policy) -> None:
        files = list(dict.fromkeys(files))
        names = part_names(files, by)
        self.by = by
        self._policy = policy
        self._counts = Counter(names)
        self._names = dict(zip(map(str, files), names, strict=True))
        groups = together(files, names)
        self.files = [file for group in groups.values() for file in group]
        self._waiting: dict[str, list[Outcome]] = {}

    def name(self, image: str | Path) -> str:
        """Name of the part that a file shows."""
        return self._names[str(image)]

    def add(self, record: Record) -> Record | None:
        """Take a picture's record; gives its part's if it was the last one missing."""
        name = self.name(record["image"])
        outcomes = self._waiting.setdefault(name, [])
        outcomes.append(Outcome.of(record))
        if len(outcomes) < self._counts[name]:
            return None
        return part_record(judge_part(name, self._waiting.pop(name), self._policy))

    def records(self, pictures: Iterable[Record]) -> Iterator[Record]:
        """Records of all parts, from those of all pictures; ``add`` begins anew."""
        self._waiting = {}
        return (part for record in pictures if (part := self.add(record)) is not None)


def parts_of_run(files: Sequence[Path], by: str | None, policy: Policy) -> PartsOfRun | None:
    """Parts of a run, if the policy or the pattern ``by`` speak of any.

    Raises:
        PolicyError: the two contradict each other, or a file shows no part.
    """
    if by is None and policy.parts is None:
        return None
    pattern = agreed(policy.parts, policy.calibrated, by)
    if pattern is None:
        raise PolicyError(
            "the limits were learned from parts whose pictures were named one by one. Give the "
            "pattern that names the part of a file, --part-by."
        )
    return PartsOfRun(files, pattern, policy)


def write_parts(
    parts: PartsOfRun, pictures: Callable[[], Iterable[Record]], folder: Path
) -> Counter[str]:
    """Write ``parts.jsonl`` and ``parts.csv``; how many parts have each verdict.

    Raises:
        StoreError: the operating system refused.
    """
    verdicts: Counter[str] = Counter()
    with atomic_write(folder / "parts.jsonl") as file:
        for record in parts.records(pictures()):
            verdicts[record["verdict"]] += 1
            line = json.dumps(record, allow_nan=False, separators=(",", ":"))
            file.write(line.encode("ascii") + b"\n")
    write_parts_csv(read_parts(folder), folder / "parts.csv")
    return verdicts


def read_parts(folder: Path) -> Iterator[Record]:
    """Records of ``parts.jsonl``."""
    with (folder / "parts.jsonl").open("rb") as file:
        for line in file:
            yield json.loads(line)
