"""Errors that are the user's to solve, as against faults of the program."""

from __future__ import annotations

from zerodefect.types import printable


def expected(error: Exception) -> bool:
    """Whether an exception tells the user what to do, so that no traceback is needed."""
    from pydantic import ValidationError

    from zerodefect.backbones.weight_files import WeightsError
    from zerodefect.detector.contract import UnsupportedError
    from zerodefect.evaluation.metrics import SpillError
    from zerodefect.files import StoreError
    from zerodefect.training.run_state import TrainingError

    ours = (WeightsError, StoreError, SpillError, UnsupportedError, TrainingError)
    return isinstance(error, (ValueError, OSError, *ours)) and not isinstance(
        error, ValidationError
    )


def told(error: Exception) -> str:
    """What an error says: one line, and more only where it draws what would be right."""
    from zerodefect.images.decode import InputError

    return str(error) if isinstance(error, InputError) else printable(error)
