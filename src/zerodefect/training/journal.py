"""The journal of a run: JSON lines, the same as a TensorBoard event file, and a picture of it."""

from __future__ import annotations

import json
import logging
import time
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerodefect.files import atomic_write, store_error
from zerodefect.types import printable

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG = "log.jsonl"
EVENTS = "events.out.tfevents.*.zerodefect"  # time, machine and process stand between
CURVES = "curves.png"
_NO_VALUES = ("step", "epoch", "time")


class Journal:
    """Writes what happens as it happens; a run that goes on continues the journal of its state.

    Args:
        folder: of the run.
        step: steps done; lines behind it will be written again and are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        kept = [line for line in read_log(folder / LOG) if line["step"] <= step]
        with atomic_write(folder / LOG) as file:
            file.write("".join(json.dumps(line) + "\n" for line in kept).encode())
        with _named(folder / LOG):
            self._events = _new_events(folder)
            self._add_events(kept)
        if self._events:
            weakref.finalize(self, self._events.close)  # it has a thread and an open file
        self._told = False
        self.validated = {line["step"] for line in kept if "validation" in line}
        self._remarked = {text for line in kept for text in line.get("remarks", ())}

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line; it has ``step`` and ``epoch``, and numbers, also under one more name.

        Raises:
            StoreError: the disk is full or the like.
        """
        line = {**line, "time": round(time.time(), 3)}
        with _named(self.folder / LOG):
            with (self.folder / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            self._add_events([line])

    def remark(self, place: Mapping[str, Any], texts: Iterable[str]) -> list[str]:
        """Add a line of what should be known, as ``remarks``; give the texts that are new."""
        new = [text for text in dict.fromkeys(texts) if text not in self._remarked]
        if new:
            self._remarked.update(new)
            self.write({**place, "remarks": new})
        return new

    def _add_events(self, lines: Iterable[Mapping[str, Any]]) -> None:
        if self._events is None:
            return
        for line in lines:
            for name, value in _numbers(line).items():
                self._events.add_scalar(name, value, line["step"], line.get("time"))
        self._events.flush()

    def draw(self) -> bool:
        """Draw losses and validation as ``curves.png``; False without matplotlib."""
        try:
            from matplotlib.figure import Figure as Canvas
        except ImportError:
            if not self._told:
                logging.getLogger(__name__).warning(
                    "matplotlib is not installed: curves.png is not drawn; log.jsonl holds the "
                    "numbers. For the picture: pip install 'zerodefect[train]'"
                )
            self._told = True
            return False
        lines = list(read_log(self.folder / LOG))
        losses = _series(line for line in lines if "validation" not in line)
        measured = _series(line for line in lines if "validation" in line)
        panels = [("Training loss, by term", {n: s for n, s in losses.items() if "loss" in n})]
        panels += [("Validation", measured)] if measured else []
        canvas = Canvas(figsize=(5.5 * len(panels), 4.5), layout="constrained")
        for (title, series), axes in zip(
            panels, canvas.subplots(1, len(panels), squeeze=False)[0], strict=True
        ):
            for name, (steps, values) in series.items():
                few = len(steps) < 30
                width = 2 if name == "loss" else 1
                label = printable(name.removeprefix("validation/")).replace("$", r"\$")
                axes.plot(steps, values, label=label, linewidth=width, marker="." if few else "")
            axes.set(xlabel="step", title=title)
            axes.legend(fontsize="small")
        with atomic_write(self.folder / CURVES) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters that its font lacks
            canvas.savefig(file, format="png", dpi=110)
        return True


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say where it was that the operating system refused to write."""
    try:
        yield
    except OSError as error:
        raise store_error(path, error) from error


def _new_events(folder: Path) -> SummaryWriter | None:
    """Begin the event file anew, for TensorBoard to show the run; None without tensorboard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logging.getLogger(__name__).warning(
            "tensorboard is not installed: the run goes on, but writes no TensorBoard events. "
            "For these: pip install 'zerodefect[train]'"
        )
        return None
    for old in folder.glob(EVENTS):
        old.unlink()
    return SummaryWriter(str(folder), filename_suffix=".zerodefect")


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a journal; a last one that a kill tore is left out."""
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line:
            yield line


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a line by name; those of an inner dictionary as ``outer/inner``."""
    found: dict[str, float] = {}
    for name, value in line.items():
        if isinstance(value, Mapping):
            found |= {f"{name}/{inner}": number for inner, number in _numbers(value).items()}
        elif isinstance(value, (int, float)) and name not in _NO_VALUES:
            found[name] = float(value)
    return found


def _series(lines: Iterator[dict[str, Any]]) -> dict[str, tuple[list[int], list[float]]]:
    found: dict[str, tuple[list[int], list[float]]] = {}
    for line in lines:
        for name, value in _numbers(line).items():
            steps, values = found.setdefault(name, ([], []))
            steps.append(line["step"])
            values.append(value)
    return found
