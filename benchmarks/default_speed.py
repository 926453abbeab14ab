"""Seconds that the default takes for one picture: from words alone, and with references.

Lowest of many calls of `inspect` with an array of 256 x 256 pixels, wall and processor. To compare
two versions, run both by turns on an idle machine. Asserts nothing.

    python benchmarks/default_speed.py FOLDER --object "magnetic tile" [--shots 4] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import zerodefect
from zerodefect.images import find_images

_SIDE = 256


Seconds = list[tuple[float, float]]
"""Of each call, by the wall clock and of the processor."""


def taken(inspector: zerodefect.Inspector, picture: np.ndarray, repeats: int) -> Seconds:
    found = []
    inspector.inspect(picture)  # the first call prepares what later ones have
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        inspector.inspect(picture)
        found.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="good pictures")
    parser.add_argument("--object", required=True)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--thorough", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shown, *references = find_images([arguments.folder])[: 1 + arguments.shots]
    picture = np.asarray(Image.open(shown).convert("RGB").resize((_SIDE, _SIDE)))
    inspector = zerodefect.load(object=arguments.object, thorough=arguments.thorough)
    rows = [("words", taken(inspector, picture, arguments.repeats))]
    if references:
        inspector.remember(references)
        label = f"words and {len(references)} references"
        rows.append((label, taken(inspector, picture, arguments.repeats)))
    print(f"{arguments.threads} threads, one picture of {_SIDE} x {_SIDE}")
    for label, seconds in rows:
        wall, processor = zip(*seconds, strict=True)
        told = f"{min(wall):.3f} s wall, median {statistics.median(wall):.3f}"
        print(f"{label:24s} {told}; {min(processor):.3f} s processor")


if __name__ == "__main__":
    main()
