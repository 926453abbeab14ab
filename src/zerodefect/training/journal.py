"""The journal of a run: JSON lines, the same as a TensorBoard event file, and a picture of it."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zerodefect.files import atomic_write

LOG = "log.jsonl"
EVENTS = "events.out.tfevents.0000000000.zerodefect"
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
        with atomic_write(folder / EVENTS) as file:
            file.write(_record(_event(0.0, 0, {})))
            for line in kept:
                file.write(_as_record(line))
        self.validated = {line["step"] for line in kept if "validation" in line}

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line; it has ``step`` and ``epoch``, and numbers, also under one more name."""
        line = {**line, "time": round(time.time(), 3)}
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        with (self.folder / EVENTS).open("ab") as events:
            events.write(_as_record(line))

    def draw(self) -> bool:
        """Draw losses and validation as ``curves.png``; False without matplotlib."""
        try:
            from matplotlib.figure import Figure as Canvas
        except ImportError:
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
                label = name.removeprefix("validation/")
                axes.plot(steps, values, label=label, linewidth=width, marker="." if few else "")
            axes.set(xlabel="step", title=title)
            axes.legend(fontsize="small")
        with atomic_write(self.folder / CURVES) as file:
            canvas.savefig(file, format="png", dpi=110)
        return True


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


# --- TensorBoard's file: TFRecords of Event messages (event.proto, summary.proto) -----------------


def _as_record(line: Mapping[str, Any]) -> bytes:
    return _record(_event(line.get("time", 0.0), line["step"], _numbers(line)))


def _event(when: float, step: int, scalars: Mapping[str, float]) -> bytes:
    """``Event``: wall_time = 1, step = 2, file_version = 3 (the first record), summary = 5."""
    head = _field(1, 1) + struct.pack("<d", when) + _field(2, 0) + _varint(step)
    if not scalars:
        return head + _bytes(3, b"brain.Event:2")
    values = b"".join(  # Summary.Value: tag = 1, simple_value = 2
        _bytes(1, _bytes(1, name.encode()) + _field(2, 5) + struct.pack("<f", value))
        for name, value in scalars.items()
    )
    return head + _bytes(5, values)


def _field(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _bytes(number: int, content: bytes) -> bytes:
    return _field(number, 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + _masked_crc(length) + content + _masked_crc(content)


def _masked_crc(content: bytes) -> bytes:
    """CRC-32C (Castagnoli), rotated and shifted as TFRecords want it."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return table


_CRC = _crc_table()
