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


class LeftOut:
    """Notes failures and remarks of all processes.

    Args:
        examples: what is learned from.
        processes: that train together.
        journal: of the first process.
    """

    def __init__(self, examples: Examples, processes: Processes, journal: Journal | None) -> None:
        self.examples, self.processes, self.journal = examples, processes, journal
        self._unusable: dict[str, str] = {}

    def begin(self) -> None:
        """Note what is known of the data sets before the first step."""
        if self.journal:
            known = [f"{s.name}: {text}" for s in self.examples.sources for text in s.remarks]
            self.journal.remark({"step": 0, "epoch": 0}, known)

    def note(self, shard: Shard, place: Mapping[str, Any]) -> None:
        """Note what could not be used in a step, in any process, and how masks were read.

        Raises:
            TrainingError: most pictures cannot be used.
        """
        failures: dict[str, str] = {}
        remarks: list[str] = []
        for failed, read in self.processes.gather((shard.failures, shard.remarks)):
            failures |= {one.image: f"left out: {one}" for one in failed}
            remarks += read
        if self.journal:
            for path in failures.keys() - self._unusable.keys():
                logging.getLogger(__name__).warning(failures[path])
            self.journal.remark(place, [*failures.values(), *remarks])
        self._unusable |= failures
        count = len(self._unusable)
        if 2 * count > len(self.examples):
            raise TrainingError(
                f"{count} of {len(self.examples)} pictures to learn from cannot be used, such as: "
                f"{next(iter(self._unusable.values()))}. See 'zerodefect data check --deep'"
            )
