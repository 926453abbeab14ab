"""Whether outlines of regions come nearer to the truth where the picture's own edges lead them.

Regions of the default method, at its own limit and at the limit of the best F1 over all pictures,
before and after a guided filter (He et al., PAMI 2013) over their mask, which the grey picture
leads; a region that vanishes stays as it was. Prints a table of mean F1 over the damaged pictures
and mean distance between outlines in pixels, and asserts nothing.

    python benchmarks/refined_edges.py /data/neu_steel:"hot-rolled steel" /data/fabric:fabric \
        [--shots 16] [--most 40]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

import zerodefect
from zerodefect.images import open_image

RADIUS, EDGE = 8, 1e-4  # pixels; variance of grey in [0, 1] that counts as an edge


def guided(guide: np.ndarray, mask: np.ndarray) -> np.ndarray:
    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(values, 2 * RADIUS + 1)

    about, inside = mean(guide), mean(mask)
    slope = (mean(guide * mask) - about * inside) / (mean(guide**2) - about**2 + EDGE)
    return mean(slope) * guide + mean(inside - slope * about)


def refined(guide: np.ndarray, mask: np.ndarray) -> np.ndarray:
    near = ndimage.binary_dilation(mask, iterations=RADIUS)
    found = (guided(guide, mask.astype(np.float64)) > 0.5) & near
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    kept = ndimage.maximum(found, labels, np.arange(1, count + 1)) if count else []
    lost = 1 + np.flatnonzero(~np.asarray(kept, bool))
    return found | np.isin(labels, lost)


def f1(said: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (said & truth).sum() / max(1, said.sum() + truth.sum()))


def between_outlines(said: np.ndarray, truth: np.ndarray) -> float:
    if not said.any():
        return float("nan")
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (said, truth)]
    far = [ndimage.distance_transform_edt(~edge) for edge in edges]
    return float((far[1][edges[0]].mean() + far[0][edges[1]].mean()) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", metavar="FOLDER:NAME")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--most", type=int, default=40)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| set | limit | F1 before | F1 after | outlines before | outlines after |")
    print("|---|---|---|---|---|---|")
    for entry in given.sets:
        folder, _, name = entry.partition(":")
        root = Path(folder)
        good = sorted((root / "train" / "good").glob("*"))[: given.shots]
        inspector = zerodefect.load(object=name or root.name, references=good or None)
        masks = sorted((root / "ground_truth").glob("*/*_mask.png"))
        masks = masks[:: max(1, len(masks) // given.most)]
        shown = []
        for path in masks:
            stem = path.stem.removesuffix("_mask")
            (image,) = (root / "test" / path.parent.name).glob(f"{stem}.*")
            picture, truth = open_image(image), open_image(path).to_uint8().max(-1) > 127
            if truth.any():
                grey = picture.to_uint8().mean(-1) / 255
                shown.append((inspector.inspect(picture).map, truth, grey))
        own = inspector.active_policy().region_limit
        values = np.concatenate([map[::3, ::3].ravel() for map, _, _ in shown])
        truths = np.concatenate([truth[::3, ::3].ravel() for _, truth, _ in shown])
        limits = np.quantile(values, np.linspace(0.5, 0.9995, 60))
        best = max(limits, key=lambda limit: f1(values > limit, truths))
        for what, limit in (("its own", own), ("best F1", best)):
            before = [map > limit for map, _, _ in shown]
            after = [refined(grey, mask) for (_, _, grey), mask in zip(shown, before, strict=True)]
            told = [[f1(m, t), between_outlines(m, t), f1(a, t), between_outlines(a, t)]
                    for m, a, (_, t, _) in zip(before, after, shown, strict=True)]  # fmt: skip
            f, d, g, e = np.nanmean(told, axis=0) if any(m.any() for m in before) else [np.nan] * 4
            print(f"| {root.name} | {what} | {100 * f:.1f} | {100 * g:.1f} | {d:.1f} | {e:.1f} |")


if __name__ == "__main__":
    main()
