"""What the power curve foretells, against real damage of that kind and size at the same limits.

Damage is drawn onto good pictures (``inspection/power.py``); then real damaged pictures are judged
by the same inspector, and each is compared with the cells nearest to its own size and contrast, as
its mask tells them. Sets are folders in MVTec's layout; one without good pictures (NEU's steel) is
cut into windows without and with damage. Prints a table, and asserts nothing.

    python benchmarks/power_against_truth.py /data/fabric:fabric /data/cookies:cookie \
        /data/neu_steel:"rolled steel" [--method NAME] [--seconds 240] [--most 30]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial.distance import pdist

import zerodefect
from zerodefect.images import Picture, open_image
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.power import is_found, measure_power
from zerodefect.inspection.power_curve import PowerCurve, Share
from zerodefect.procedural.sized_damage import LINES

REFERENCES = 8
WINDOW = 96  # pixels of a cut-out, where a set has no good pictures
LONG = 8  # squared length by area from which damage counts as a line; a disc has 1.3
Damaged = tuple[Picture, np.ndarray]


@dataclass(frozen=True)
class Truth:
    """A real damage: line or not, pixels, percent, and what was said of it."""

    line: bool
    size: float
    contrast: float
    found: bool
    foretold: float


def spread(items: list, most: int) -> list:
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[place] for place in dict.fromkeys(places.tolist())]


def damaged_pictures(root: Path) -> Iterator[Damaged]:
    """In turns of the kinds."""
    kinds = sorted(p for p in (root / "ground_truth").iterdir() if p.is_dir())
    files = [(n / len(list(kind.iterdir())), mask) for kind in kinds
             for n, mask in enumerate(sorted(kind.iterdir()))]  # fmt: skip
    for _, mask in sorted(files):
        stem = mask.stem.removesuffix("_mask")
        (picture,) = (root / "test" / mask.parent.name).glob(f"{stem}.*")
        yield open_image(picture), open_image(mask).pixels[..., 0] > 127


def windows(root: Path, most: int) -> tuple[list[Picture], list[Damaged]]:
    """Cut-outs without damage, and around damage, of different pictures."""
    clean, damaged = [], []
    for picture, mask in damaged_pictures(root):
        height, width = (n - WINDOW for n in mask.shape)
        corners = [(y, x) for y in range(0, height + 1, 26) for x in range(0, width + 1, 26)]
        cuts = {(y, x): np.s_[y : y + WINDOW, x : x + WINDOW] for y, x in corners}
        shares = {at: mask[cut].mean() for at, cut in cuts.items()}
        free = [at for at, share in shares.items() if not share]
        if free and len(clean) < most:
            clean.append(replace(picture, pixels=picture.pixels[cuts[free[0]]].copy()))
        elif 0 < max(shares.values()) < 0.5 and len(damaged) < most:
            cut = cuts[max(shares, key=lambda at: shares[at])]
            damaged.append((replace(picture, pixels=picture.pixels[cut].copy()), mask[cut]))
    return clean, damaged


def measured(picture: Picture, mask: np.ndarray) -> tuple[bool, float, float]:
    """Of the largest damage: line or not, width or diameter in pixels, contrast in percent."""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    area = float(largest.sum())
    points = np.argwhere(largest & ~ndimage.binary_erosion(largest))
    length = 1 + (float(pdist(points).max()) if len(points) > 1 else 0.0)
    line = length**2 / area > LONG
    size = area / length if line else math.sqrt(4 * area / math.pi)
    around = ndimage.binary_dilation(largest, iterations=round(4 + size / 2)) & ~mask
    grey = picture.pixels.mean(2) / np.iinfo(picture.pixels.dtype).max
    step = abs(grey[largest].mean() - grey[around].mean()) if around.any() else 0.0
    return line, size, 100 * float(step)


def foretold(curve: PowerCurve, line: bool, size: float, contrast: float) -> float:
    """Mean share of the measured cells of each such kind that are nearest in size and contrast."""
    shares = []
    for kind in dict.fromkeys(cell.kind for cell in curve.cells):
        own = [cell for cell in curve.cells if cell.kind == kind and cell.share is not None]
        if (kind in LINES) == line and own:
            nearest = min(own, key=lambda cell: abs(math.log(cell.size / size))
                          + abs(math.log(cell.contrast / max(contrast, 1))))  # fmt: skip
            shares.append(nearest.share or 0.0)
    return float(np.mean(shares)) if shares else math.nan


def one_set(root: Path, name: str, options: argparse.Namespace) -> tuple[PowerCurve, list[Truth]]:
    most = options.most
    if (root / "train" / "good").is_dir():
        references = spread(sorted((root / "train" / "good").iterdir()), REFERENCES)
        good = spread(sorted((root / "test" / "good").iterdir()), most)
        damaged = list(damaged_pictures(root))[:most]
    else:
        clean, damaged = windows(root, most + REFERENCES)
        references, good, damaged = clean[:REFERENCES], clean[REFERENCES:], damaged[:most]
    inspector = zerodefect.load(options.method, object=name, references=references)
    inspector.calibrate(good)
    curve = measure_power(inspector, good, options.seconds)
    truth = []
    for (picture, mask), outcome in zip(
        damaged, inspector.judge([picture for picture, _ in damaged]), strict=True
    ):
        if isinstance(outcome, Inspection):
            told = measured(picture, mask)
            truth.append(Truth(*told, is_found(outcome, mask), foretold(curve, *told)))
    return curve, truth


def rows(name: str, truth: list[Truth]) -> Iterator[str]:
    for line, word in ((True, "lines"), (False, "round")):
        own = sorted((t for t in truth if t.line == line), key=lambda t: t.size)
        for part in (own[: len(own) // 2], own[len(own) // 2 :]) if len(own) >= 12 else (own,):
            if not part:
                continue
            real = Share(drawn=len(part), found=sum(t.found for t in part))
            low, high = real.interval
            sizes = f"{part[0].size:.0f}-{part[-1].size:.0f}"
            contrast = np.median([t.contrast for t in part])
            told = 100 * np.nanmean([t.foretold for t in part])
            share = f"{100 * real.found / real.drawn:.0f} % ({100 * low:.0f}-{100 * high:.0f})"
            yield (f"| {name} | {word} | {len(part)} | {sizes} px | {contrast:.0f} % "
                   f"| {told:.0f} % | {share} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", metavar="PATH:object name")
    parser.add_argument("--method")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--most", type=int, default=30, help="pictures of a set, good and damaged")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(
        "| set | damage | real ones | size | contrast, median | foretold | found, 90 % interval |"
    )
    print("|---|---|---|---|---|---|---|", flush=True)
    notes = []
    for text in options.sets:
        path, name = text.rsplit(":", 1)
        curve, truth = one_set(Path(path), name, options)
        print("\n".join(rows(Path(path).name, truth)), flush=True)
        notes += [f"\n{Path(path).name}:", *curve.sentences()]
        notes += [" | ".join(row) for row in curve.table()]
    print("\n".join(notes))


if __name__ == "__main__":
    main()
