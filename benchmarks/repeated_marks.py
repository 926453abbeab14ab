"""A real defect pasted into part of a batch of good pictures: MuSc with and without the filter.

Each data set is a tree in MVTec's layout with good pictures and masked defects. One real defect is
cut out by its mask and pasted, a few pixels aside each time, into a share of the good pictures. The
network runs once for each picture; both ways score the same features.

    python benchmarks/repeated_marks.py fabric=DATA/fabric cookies=DATA/cookies [--pictures 30]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from zerodefect.backbones.layered_features import load_features
from zerodefect.images import open_image
from zerodefect.layers.consistency import consistency_filter
from zerodefect.methods.musc import MuSc, MuScConfig


def defect_of(root: Path, kind: str | None, at: float) -> tuple[np.ndarray, np.ndarray, str]:
    """Picture, mask ``(H, W)`` bool and name of the defect at this quantile of area."""
    found = []
    for path in sorted((root / "ground_truth").glob(f"{kind or '*'}/*_mask.png")):
        mask = np.asarray(Image.open(path).convert("L")) > 127
        labels, count = ndimage.label(mask)
        if not count:
            continue
        largest = 1 + np.argmax(ndimage.sum_labels(mask, labels, range(1, count + 1)))
        stem = path.name.removesuffix("_mask.png")
        (picture,) = (root / "test" / path.parent.name).glob(f"{stem}.*")
        found.append((int((labels == largest).sum()), picture, labels == largest))
    _, picture, mask = sorted(found, key=lambda one: one[:2])[round(at * (len(found) - 1))]
    return np.asarray(open_image(picture).to_uint8()), mask, f"{picture.parent.name}/{picture.stem}"


def pasted(
    good: np.ndarray, source: np.ndarray, mask: np.ndarray, shift: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The mark on a good picture, with a soft border, brought to its light; and where it lies."""
    rows, columns = np.nonzero(mask)
    top, left = max(rows.min() - 3, 0), max(columns.min() - 3, 0)
    cut = np.s_[top : rows.max() + 4, left : columns.max() + 4]
    patch, soft = source[cut].astype(float), ndimage.gaussian_filter(mask[cut].astype(float), 1)
    height, width = soft.shape
    y = int(np.clip(top + random.integers(-shift, shift + 1), 0, good.shape[0] - height))
    x = int(np.clip(left + random.integers(-shift, shift + 1), 0, good.shape[1] - width))
    place = np.s_[y : y + height, x : x + width]
    patch += np.median(good, (0, 1)) - np.median(source, (0, 1))
    made, truth = good.astype(float), np.zeros(good.shape[:2], bool)
    made[place] += soft[..., None] * (patch - made[place])
    truth[place] = mask[cut]
    return made.clip(0, 255).round().astype(np.uint8), truth


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    return 100 * float(roc_auc_score(labels.ravel(), scores.ravel()))


def batch(root: Path, share: float, kind: str | None, asked: argparse.Namespace) -> tuple[Any, ...]:
    count = asked.pictures
    files = sorted((root / "test" / "good").iterdir())
    random = np.random.default_rng(asked.seed)
    chosen = sorted(random.permutation(len(files))[:count])
    source, mask, name = defect_of(root, kind, asked.at)
    marked = set(random.permutation(len(chosen))[: round(share * len(chosen))].tolist())
    pictures, truths = [], []
    for number, index in enumerate(chosen):
        good = np.asarray(open_image(files[index]).to_uint8())
        truth = np.zeros(good.shape[:2], bool)
        if number in marked:
            good, truth = pasted(good, source, mask, asked.shift, random)
        pictures.append(good)
        truths.append(truth)
    return pictures, truths, marked, name


@torch.inference_mode()
def measure(detector: MuSc, pictures: list, truths: list, marked: set[int]) -> dict[str, Any]:
    inputs = [detector.preprocess(open_image(one)) for one in pictures]
    encoded = [detector.encode(torch.stack(inputs[n : n + 8])) for n in range(0, len(inputs), 8)]
    plain, mean = detector.averaged(encoded, None)
    found = consistency_filter(mean)
    ways = {"without": plain, "with": plain}
    if found.repeated:
        keep = [torch.from_numpy(one) for one in found.keep]
        ways["with"], _ = detector.averaged(encoded, keep)
    grid, size = encoded[0].grid, truths[0].shape
    truth = np.stack([np.asarray(Image.fromarray(t).resize(size[::-1])) for t in truths])
    told: dict[str, Any] = {"groups": [sorted(one) for one in found.repeated]}
    told["communities"] = [
        int((found.community == n).sum()) for n in range(found.community.max() + 1)
    ]
    labels = np.array([number in marked for number in range(len(pictures))])
    for name, A in ways.items():
        maps = grid.map(torch.stack(A), align_corners=True)
        full = torch.nn.functional.interpolate(maps[:, None], size, mode="bilinear")[:, 0].numpy()
        told[name] = (auroc(labels, maps.amax((1, 2)).numpy()), auroc(truth, full))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="NAME=FOLDER[:KIND]")
    parser.add_argument("--pictures", type=int, default=30)
    parser.add_argument("--share", type=float, nargs="+", default=[0.1, 0.3, 0.6])
    parser.add_argument("--backbone", default=None)
    parser.add_argument("--layers", nargs="+", default=None)
    parser.add_argument("--at", type=float, default=0.5, help="quantile of the defect's area")
    parser.add_argument("--shift", type=int, default=6, help="pixels that a mark lies aside")
    parser.add_argument("--image-size", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    config = MuScConfig(layers=tuple(arguments.layers) if arguments.layers else None)
    detector = MuSc(load_features(arguments.backbone), config).eval()
    if arguments.image_size:
        detector.resize_inputs((arguments.image_size, arguments.image_size))
    print("| data, defect | marked | without: image, pixel | with: image, pixel | groups found |")
    print("|---|---|---|---|---|")
    for entry in arguments.data:
        name, _, where = entry.partition("=")
        root, _, kind = where.partition(":")
        for share in arguments.share:
            told = batch(Path(root), share, kind or None, arguments)
            pictures, truths, marked, defect = told
            got = measure(detector, pictures, truths, marked)
            groups = [
                f"{len(marked & set(g))} marked + {len(set(g) - marked)} other"
                for g in got["groups"]
            ]
            shown = " | ".join("{:.1f}, {:.1f}".format(*got[way]) for way in ("without", "with"))
            ways = "; ".join(groups) or f"none (communities {got['communities']})"
            print(
                f"| {name}, {defect} | {len(marked)} of {len(pictures)} | {shown} | {ways} |",
                flush=True,
            )


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    main()
