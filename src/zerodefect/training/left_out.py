"""What a run could not learn from, and what should be known of its data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from zerodefect.training.batches import Shard
from zerodefect.training.examples import Examples
from zerodefect.training.journal import Journal
from zerodefect.training.processes import Processes
from zerodefect.training.run_state import TrainingError
from zerodefect.types import Failure


class LeftOut:
    """Notes failures and remarks of all processes.

    Args:
        examples: what is learned from.
        processes: that train together.
        journal: of the first process.
    """

    def __init__(self, examples: Examples, processes: Processes, journal: Journal | None) -> None:
        self.examples, self.processes, self.journal = examples, processes, journal
        self._failures: dict[int, Failure] = {}
        labels = [examples.label(number)[2] for number in range(len(examples))]
        self._anomalous = {number for number, bad in enumerate(labels) if bad}

    def begin(self) -> None:
        """Note what is known of the data sets before the first step."""
        if self.journal:
            known = [f"{s.name}: {text}" for s in self.examples.sources for text in s.remarks]
            self.journal.remark({"step": 0, "epoch": 0}, known)

    def note(self, shard: Shard, place: Mapping[str, Any]) -> None:
        """Note what could not be used in a step, in any process, and how masks were read.

        Raises:
            TrainingError: most pictures, or all defective ones, cannot be used.
        """
        failures: dict[int, Failure] = {}
        remarks: list[str] = []
        for failed, read in self.processes.gather((shard.failures, shard.remarks)):
            failures |= failed
            remarks += read
        if self.journal:
            told = [f"left out: {failure}" for failure in failures.values()]
            for text in self.journal.remark(place, [*told, *remarks]):
                logging.getLogger(__name__).warning(text)
        self._failures |= failures
        # those that are only compared with have others in their place
        lost = {number for number in self._failures if number < len(self.examples)}
        if 2 * len(lost) > len(self.examples) or (self._anomalous and self._anomalous <= lost):
            raise TrainingError(
                f"{len(lost)} of {len(self.examples)} pictures to learn from cannot be used, too "
                f"many to go on; the first: {next(iter(self._failures.values()))}"
            )
