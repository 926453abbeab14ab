"""Several processes that train together, through Hugging Face accelerate; or one, without it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

NO_ACCELERATE = "several processes need accelerate: pip install 'zerodefect[train]'"

_PATIENCE = timedelta(hours=24)  # the others wait while the first one validates


@dataclass(frozen=True)
class Processes:
    """This process among those of the run.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        device: where it computes, as ``load_detector`` takes it.
    """

    rank: int = 0
    count: int = 1
    device: str = "auto"

    @classmethod
    def join(cls, device: str = "auto") -> Processes:
        """Find the others, if a launcher (``accelerate launch``, ``torchrun``) started several.

        Args:
            device: ``auto`` (each process its own GPU, or the processor), ``cpu`` or ``cuda``.

        Raises:
            ValueError: several processes on one named GPU, or accelerate is not installed.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls(device=device)
        if ":" in device:
            raise ValueError(f"device {device}: with several processes each takes its own GPU")
        try:
            from accelerate import PartialState
        except ImportError:
            raise ValueError(NO_ACCELERATE) from None
        # The defaults of its functions are the group that there is when it is imported, which is
        # done by whatever needs it first. They would keep the group alive beyond ``leave``, and its
        # threads would abort the process when Python ends under them.
        import_module("torch.distributed.nn.functional")
        state = PartialState(cpu=device == "cpu", timeout=_PATIENCE)
        return cls(state.process_index, state.num_processes, str(state.device))

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all have come here."""
        if self.count > 1:
            from accelerate.utils import wait_for_everyone

            wait_for_everyone()

    def gather(self, item: Any) -> list[Any]:
        """Plain data of all processes, in their order."""
        if self.count == 1:
            return [item]
        from accelerate.utils import gather_object

        return list(gather_object([item]))

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by the sum over the processes; none stays where none has one."""
        if self.count == 1:
            return
        from accelerate.utils import reduce

        present = torch.tensor([float(p.grad is not None) for p in parameters])
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        device = parts[0].device
        flat = torch.cat([present.to(device), *(part.flatten().float() for part in parts)])
        total: Tensor = reduce(flat, "sum")
        anywhere, rest = total[: len(parameters)].tolist(), total[len(parameters) :]
        for p, some, value in zip(
            parameters, anywhere, rest.split([p.numel() for p in parameters]), strict=True
        ):
            p.grad = value.view_as(p).to(p.dtype) if some else None

    def leave(self) -> None:
        """End the connection to the others; what served it has ended, too."""
        if self.count > 1:
            from accelerate import PartialState

            PartialState().destroy_process_group()
