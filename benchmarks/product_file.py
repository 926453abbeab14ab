"""Time to write and to load a product file of a detector with 100 references.

    python benchmarks/product_file.py [METHOD] [--side 640] [--threads 2]

Pictures are drawn surfaces with noise, which pack worse than photographs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import zerodefect
from zerodefect.inspection.load_inspector import load_product


def surface(seed: int, side: int) -> np.ndarray:
    draws = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side]
    base = 120 + 30 * np.sin(columns / 17) + 20 * np.cos(rows / 11)
    return (base[..., None] + draws.normal(0, 5, (side, side, 3))).clip(0, 255).astype(np.uint8)


def timed(label: str, act, best_of: int = 3) -> None:
    taken = []
    for _ in range(best_of):
        start = time.perf_counter()
        act()
        taken.append(time.perf_counter() - start)
    print(f"{label:44} {min(taken):6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method", nargs="?")
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--references", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    inspector = zerodefect.load(given.method, object="screw", device="cpu")
    inspector.remember([surface(seed, given.side) for seed in range(given.references)])
    inspector.calibrate([surface(seed, given.side) for seed in range(1000, 1020)])
    with tempfile.TemporaryDirectory() as folder:
        whole, bare = Path(folder) / "whole.zd", Path(folder) / "bare.zd"
        print(f"{inspector.detector.info.name}, {inspector.shots} references, {given.side} pixels")
        timed("written, its pictures encoded", lambda: inspector.save(whole))
        timed("written without pictures", lambda: inspector.save(bare, pictures=False))
        timed("loaded, networks built, check inputs scored", lambda: zerodefect.load(whole))
        timed("loaded, detector at hand", lambda: load_product(whole, inspector.detector))
        print(
            f"{whole.stat().st_size / 1e6:.1f} MB, without pictures {bare.stat().st_size / 1e6:.1f}"
        )


if __name__ == "__main__":
    main()
