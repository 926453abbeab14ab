"""``--power``: which drawn damage would be found, within a stated time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerodefect.cli.options import option
from zerodefect.cli.telling import say

if TYPE_CHECKING:
    from zerodefect.inspection.inspector import Inspector
    from zerodefect.inspection.power_curve import PowerCurve


def power_option(default: str) -> Any:
    """The option of a verb."""
    told = "Draw damage onto the good parts and tell which would be found, within this time."
    return option(default, told, metavar="60s|off", rich_help_panel="Limits")


def power_seconds(text: str) -> float | None:
    """Seconds of ``60s``, ``60``, ``2m``; None for ``off``.

    Raises:
        ValueError: anything else.
    """
    if text.strip().lower() == "off":
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|)", text.strip().lower())
    if not found or not float(found[1]):
        raise ValueError(f"--power {text!r} is no time. Write 60s, 2m, or off")
    return float(found[1]) * (60 if found[2] == "m" else 1)


def measured_power(
    inspector: Inspector, good: Sequence[Path], seconds: float, quiet: bool = False
) -> PowerCurve:
    """Measure, and say so before."""
    from zerodefect.inspection.power import measure_power

    if not quiet:
        say(f"drawing damage onto good parts, for {seconds:g} s")
    return measure_power(inspector, good, seconds)
