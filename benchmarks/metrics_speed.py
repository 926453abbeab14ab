"""Pixel metrics: ours against scikit-learn plus a plain run of MVTec's AUPRO procedure.

AUROC, AP, F1-max and exact AUPRO (limit 0.3) of the same maps, each side in a process of its own
that reads the maps from the same files: ours one by one, the others as one array, as they need it.
Prints CPU seconds (all threads), peak resident memory and values; asserts no time.

    python benchmarks/metrics_speed.py [--size full|small]
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

WORKLOADS = {
    "full": {"200 maps of 256 x 256": (200, 256), "83 maps of 1024 x 1024": (83, 1024)},
    "small": {"20 maps of 128 x 128": (20, 128), "8 maps of 256 x 256": (8, 256)},
}
NAMES = ("auroc", "ap", "f1max", "aupro")


def draw(folder: Path, count: int, side: int) -> None:
    """Smooth float32 maps with blob-shaped defects that score higher, one in three without."""
    from scipy import ndimage

    random = np.random.default_rng(side)
    maps = np.lib.format.open_memmap(
        folder / "maps.npy", "w+", dtype=np.float32, shape=(count, side, side)
    )
    masks = np.lib.format.open_memmap(
        folder / "masks.npy", "w+", dtype=np.uint8, shape=(count, side, side)
    )
    rows, columns = np.mgrid[:side, :side]
    for index in range(count):
        noise = random.standard_normal((side // 8, side // 8), dtype=np.float32)
        field = ndimage.zoom(noise, 8, order=1)
        field += 0.2 * random.standard_normal((side, side), dtype=np.float32)
        for _ in range(0 if index % 3 == 0 else random.integers(1, 5)):
            y, x = random.integers(0, side, 2)
            height, width = random.uniform(0.02, 0.12, 2) * side
            blob = ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1
            masks[index][blob] = 1
            field[blob] += random.uniform(0.5, 4)
        maps[index] = 1 / (1 + np.exp(1 - field))


def ours(folder: Path) -> dict[str, float]:
    from zerodefect.evaluation.metrics import PixelMetrics

    maps = np.load(folder / "maps.npy", mmap_mode="r")
    masks = np.load(folder / "masks.npy", mmap_mode="r")
    state = PixelMetrics()
    for index in range(len(maps)):
        # Copies of single images: pages of the files are not to count as our memory.
        state.update(read(maps, index), read(masks, index))
    return {metric.name: metric.value for metric in state.compute(NAMES)}


def read(stack: np.memmap, index: int) -> np.ndarray:
    shape = stack.shape[1:]
    size = int(np.prod(shape))
    offset = stack.offset + index * size * stack.itemsize
    return np.fromfile(stack.filename, stack.dtype, size, offset=offset).reshape(shape)


def peers(folder: Path) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    maps, masks = np.load(folder / "maps.npy"), np.load(folder / "masks.npy")
    scores, labels = maps.ravel(), masks.ravel()
    values = {
        "auroc": roc_auc_score(labels, scores),
        "ap": average_precision_score(labels, scores),
    }
    precision, recall, _ = precision_recall_curve(labels, scores)
    with np.errstate(invalid="ignore"):
        values["f1max"] = np.nanmax(2 * precision * recall / (precision + recall))
    del precision, recall
    values["aupro"] = plain_aupro(maps, masks)
    return {name: float(value) for name, value in values.items()}


def plain_aupro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """MVTec's procedure on one array: sort all pixels, accumulate both rates, integrate."""
    from scipy import ndimage

    changes_fp = np.zeros(maps.shape, np.uint32)
    changes_pro = np.zeros(maps.shape, np.float64)
    regions = 0
    for mask, fp, pro in zip(masks, changes_fp, changes_pro, strict=True):
        labels, found = ndimage.label(mask, np.ones((3, 3), int))
        fp[labels == 0] = 1
        for number in range(1, found + 1):
            inside = labels == number
            pro[inside] = 1 / inside.sum()
        regions += found
    scores = maps.ravel()
    order = np.argsort(scores)[::-1]
    scores = scores[order]
    rate = np.cumsum(changes_fp.ravel()[order], dtype=np.uint64).astype(np.float32)
    rate /= rate[-1]
    overlap = np.cumsum(changes_pro.ravel()[order]) / regions
    last = np.append(np.diff(scores) != 0, True)
    rate = np.concatenate(([0.0], rate[last], [1.0]))
    overlap = np.concatenate(([0.0], overlap[last], [1.0]))
    inside = np.searchsorted(rate, limit, "right")
    end = np.interp(limit, rate[inside - 1 : inside + 1], overlap[inside - 1 : inside + 1])
    rate, overlap = np.append(rate[:inside], limit), np.append(overlap[:inside], end)
    return float(np.sum(np.diff(rate) * (overlap[1:] + overlap[:-1])) / 2 / limit)


def in_fresh_process(*arguments: str) -> str:
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def run(side: str, folder: Path) -> None:
    """One side: values, CPU seconds after the imports, peak memory of the whole process."""
    importlib.import_module({"ours": "zerodefect.evaluation.metrics", "peers": "sklearn"}[side])
    importlib.import_module({"ours": "scipy.ndimage", "peers": "sklearn.metrics"}[side])
    start = time.process_time()
    values = {"ours": ours, "peers": peers}[side](folder)
    values["cpu"] = time.process_time() - start
    values["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(values))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=WORKLOADS, default="full")
    parser.add_argument("--draw", nargs=3, metavar="X", help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=2, metavar="X", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.draw:
        draw(Path(arguments.draw[0]), int(arguments.draw[1]), int(arguments.draw[2]))
        return
    if arguments.run:
        run(arguments.run[0], Path(arguments.run[1]))
        return
    print(f"{'':34s} {'CPU s':>8s} {'peak MiB':>9s}  " + "  ".join(f"{n:>10s}" for n in NAMES))
    for label, (count, side) in WORKLOADS[arguments.size].items():
        with tempfile.TemporaryDirectory() as scratch:
            # A process starts with its parent's peak, so that this one must stay small.
            in_fresh_process("--draw", scratch, str(count), str(side))
            found = {
                name: json.loads(in_fresh_process("--run", name, scratch))
                for name in ("ours", "peers")
            }
        print(label)
        for name, title in (("ours", "ZeroDefect"), ("peers", "scikit-learn + MVTec procedure")):
            row = found[name]
            values = "  ".join(f"{row[metric]:10.7f}" for metric in NAMES)
            print(f"  {title:32s} {row['cpu']:8.2f} {row['peak']:9.0f}  {values}")
        cpu, peak = (found["peers"][key] / found["ours"][key] for key in ("cpu", "peak"))
        worst = max(abs(found["ours"][metric] - found["peers"][metric]) for metric in NAMES)
        print(f"  {'ratio':32s} {cpu:7.1f}x {peak:8.1f}x  largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
