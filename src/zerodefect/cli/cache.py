"""``zerodefect cache``: what is kept to save time, and how to be rid of it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from zerodefect.cli.options import AsJson, option
from zerodefect.cli.telling import tell

if TYPE_CHECKING:
    from zerodefect.evaluation.prediction_cache import Holding


def cache(
    clear: bool = option(False, "Remove all of it.", "--clear"),
    as_json: AsJson = False,
) -> None:
    """Show what is kept to save time, or remove it.

    Predictions of 'evaluate' above all: what, size, age. All of it can be made anew. Predictions
    stay below the --cache-limit of 'evaluate'.
    """
    from zerodefect.evaluation.prediction_cache import PredictionCache
    from zerodefect.paths import cache_folder

    folder = cache_folder()
    predictions = PredictionCache(folder / "predictions")
    found = [*predictions.holdings(), *_texts(folder / "text")]
    if clear:
        predictions.clear()
        for file in (folder / "text").glob("*.safetensors"):
            file.unlink(missing_ok=True)
    if as_json:
        kept = [asdict(one) for one in found]
        tell(json.dumps({"folder": str(folder), "cleared": clear, "kept": kept}))
        return
    for one in found:
        size, age = f"{one.bytes / 1e6:,.1f} MB", told_age(time.time() - one.used)
        tell(f"{size:>12}  {one.files:>7} files  used {age:<14}  {one.what}")
    total = sum(one.bytes for one in found) / 1e6
    tell(f"{'removed' if clear else 'total'}: {total:,.1f} MB in {folder}")


def _texts(folder: Path) -> list[Holding]:
    """Text features, as far as there are any."""
    from zerodefect.evaluation.prediction_cache import Holding

    states = [file.stat() for file in folder.glob("*.safetensors")]
    if not states:
        return []
    used = max(state.st_mtime for state in states)
    return [Holding("text features", len(states), sum(s.st_size for s in states), used)]


def told_age(seconds: float) -> str:
    """How long ago something was, in words."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count = int(seconds // length)
        if count:
            return f"{count} {unit}{'s' * (count > 1)} ago"
    return "just now"
