"""False regions on good pictures, on the product and on the background, without and with an area.

Each data set is a tree in MVTec's layout. Where its product lies is told by ``hull``, the hull of
what has not the colour of the picture's border, or ``disc:0.43``, a disc of that radius (of the
picture's height) in the middle. Regions are those of the embedded model's words alone (method
``dense``), zero-shot, at its provisional limit. Prints a table, and asserts nothing.

    python benchmarks/areas_by_words.py [--pictures 12] \\
        "fryum, not the background" DATA/fryum hull \\
        "metal part, not the background" DATA/casting disc:0.43
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.spatial import ConvexHull

import zerodefect
from zerodefect import Inspection, Inspector

_NEAR = 40  # of 255: mean distance of a colour from the border's that still is background


def background(pixels: np.ndarray, product: str) -> np.ndarray:
    """What lies outside the product, ``(H, W)`` bool."""
    height, width = pixels.shape[:2]
    if product != "hull":
        y, x = np.mgrid[:height, :width]
        away = np.hypot(y - height / 2, x - width / 2)
        return np.asarray(away > float(product.removeprefix("disc:")) * height)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(float)
    off = np.abs(pixels.astype(float) - np.median(border, axis=0)).mean(-1)
    labels, count = ndimage.label(ndimage.gaussian_filter(off, 2) >= _NEAR)
    sizes = ndimage.sum_labels(labels > 0, labels, range(1, count + 1))
    inside = np.argwhere(labels == 1 + int(np.argmax(sizes)))
    hull = inside[ConvexHull(inside).vertices]
    drawn = Image.new("1", (width, height))
    ImageDraw.Draw(drawn).polygon([(int(x), int(y)) for y, x in hull], fill=1)
    return ~np.asarray(drawn)


def counted(found: list[Inspection], product: str) -> tuple[int, int]:
    """Regions that lie mostly on the product, and mostly on the background."""
    on = [0, 0]
    for one in found:
        assert one.picture is not None
        behind = background(one.picture.to_uint8(), product)
        for region in one.regions:
            x, y, width, height = region.box
            inside = behind[y : y + height, x : x + width][region.mask]
            on[int(inside.mean() > 0.5)] += 1
    return on[0], on[1]


def row(words: str, root: Path, product: str, count: int) -> str:
    """Regions before and after, and how much of the pictures is inspected."""
    good = sorted(p for p in (root / "test" / "good").iterdir() if p.suffix != ".txt")[:count]
    cells, shares, whole = [], [], 0
    for roi in (None, words):
        inspector: Inspector = zerodefect.load("dense", object=root.name, roi=roi)
        found = [one for one in inspector.inspect_many(good) if isinstance(one, Inspection)]
        cells += counted(found, product)
        shares = [one.area.percent for one in found if one.area]
        whole = sum(one.area.white is None for one in found if one.area)
    return (
        f"| {root.name} | {words} | {len(good)} | {cells[0]}, {cells[1]} | {cells[2]}, {cells[3]} "
        f"| {np.mean(shares):.0f} % | {whole} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("given", nargs="+", help="WORDS FOLDER PRODUCT, in turn")
    parser.add_argument("--pictures", type=int, default=12)
    options = parser.parse_args()
    print(
        "| set | words | good pictures | before: on the product, on the background "
        "| after | inspected | of them whole |\n|---|---|---|---|---|---|---|"
    )
    sets = zip(*(options.given[start::3] for start in range(3)), strict=True)
    for words, root, product in sets:
        print(row(words, Path(root), product, options.pictures), flush=True)


if __name__ == "__main__":
    main()
