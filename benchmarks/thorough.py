"""What --thorough (or --keep-aspect) gains and costs, on the same pictures and references.

Pictures of each set as they are, far away (half as large on a canvas of the colour of their edge,
which stands for small parts) or turned by random angles. Image AUROC over all test pictures, at
most so many of a kind, mean over kinds of pixel AUROC at 128 x 128, mean over draws of references;
and CPU seconds of a picture. Folders are in MVTec's layout.

    python benchmarks/thorough.py DATA/fryum:snack [--as far] [--shots 0,4] [--other keep_aspect]
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from turned_parts import background

import zerodefect
from zerodefect.evaluation.metrics import ImageMetrics, PixelMetrics

SIDE = 128
OTHER = ("thorough", "keep_aspect")

Change = Callable[[Image.Image, random.Random], Image.Image]


def far(picture: Image.Image, draws: random.Random) -> Image.Image:
    width, height = picture.size
    canvas = Image.new("RGB", (2 * width, 2 * height), background(picture))
    aside = (width // 2 + draws.randint(-20, 20), height // 2 + draws.randint(-20, 20))
    canvas.paste(picture, aside)
    return canvas


def turned(picture: Image.Image, draws: random.Random) -> Image.Image:
    angle = draws.uniform(0, 360)
    return picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=background(picture))


CHANGES: dict[str, Change] = {"is": lambda picture, _: picture, "far": far, "turned": turned}


def opened(path: Path, change: Change, name: str) -> np.ndarray:
    """The pixels of a picture or mask, changed as its name draws it."""
    with Image.open(path) as picture:
        return np.asarray(change(picture.convert("RGB"), random.Random(name)))


def some(folder: Path, count: int) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    random.Random(0).shuffle(files)
    return files[:count]


def small(values: np.ndarray) -> np.ndarray:
    """``(SIDE, SIDE)`` of a map or mask of any size."""
    picture = Image.fromarray(np.asarray(values, np.float32))
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def damage(root: Path, path: Path, change: Change) -> np.ndarray | None:
    """Where a picture is damaged, or None where no mask says it."""
    found = list((root / "ground_truth" / path.parent.name).glob(f"{path.stem}*.png"))
    mask = small(opened(found[0], change, path.name)[..., 0]) > 127 if found else None
    return mask if mask is not None and mask.any() else None


def tests(root: Path, most: int) -> list[Path]:
    """Test pictures: of many kinds of damage together about as many as good ones."""
    kinds = sorted(path for path in (root / "test").iterdir() if path.is_dir())
    fewer = max(8, -(-most // (len(kinds) - 1)))
    many = {kind: most if kind.name == "good" or len(kinds) == 2 else fewer for kind in kinds}
    return [path for kind in kinds for path in some(kind, many[kind])]


def measured(
    inspector: zerodefect.Inspector, root: Path, paths: Sequence[Path], change: Change
) -> tuple[float, float, float]:
    """Image AUROC, mean over kinds of pixel AUROC, both in percent, and CPU seconds a picture."""
    images, pixels = ImageMetrics(), defaultdict(PixelMetrics)
    seconds = 0.0
    for path in paths:
        picture, kind = opened(path, change, path.name), path.parent.name
        begun = time.process_time()
        seen = inspector.inspect(picture)
        seconds += time.process_time() - begun
        images.update(seen.score, kind != "good")
        if kind != "good" and (mask := damage(root, path, change)) is not None:
            pixels[kind].update(small(seen.map), mask)
    where = [100 * auroc(each) for each in pixels.values()]
    found = statistics.mean(where) if where else math.nan
    return 100 * auroc(images), found, seconds / len(paths)


def auroc(metrics: ImageMetrics | PixelMetrics) -> float:
    value = metrics.compute(["auroc"])[0].value
    assert value is not None
    return value


def row(entry: str, named: str, shots: int, arguments: argparse.Namespace) -> str:
    """A line of the table."""
    folder, _, words = entry.rpartition(":")
    root, change = Path(folder), CHANGES[named]
    good, paths = sorted((root / "train" / "good").iterdir()), tests(root, arguments.most)
    cells = [root.name, f"as {named}" if named == "is" else named, str(shots)]
    for way in ({}, {arguments.other: True}):
        found = []
        for draw in range(arguments.draws if shots else 1):
            inspector = zerodefect.load(object=words, **way)
            if shots:
                shown = random.Random(draw).sample(good, shots)
                inspector.remember([opened(path, change, path.name) for path in shown])
            found.append(measured(inspector, root, paths, change))
        image, pixel, seconds = (statistics.mean(values) for values in zip(*found, strict=True))
        cells += [f"{image:.1f}", "-" if math.isnan(pixel) else f"{pixel:.1f}", f"{seconds:.2f}"]
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="FOLDER:WORDS")
    parser.add_argument("--as", dest="changes", action="append", choices=sorted(CHANGES))
    parser.add_argument("--shots", type=lambda t: [int(n) for n in t.split(",")], default="0,4")
    parser.add_argument("--draws", type=int, default=3, help="of references")
    parser.add_argument("--most", type=int, default=24, help="pictures of a kind")
    parser.add_argument("--other", choices=OTHER, default=OTHER[0], help="beside the default")
    arguments = parser.parse_args(argv)
    head, ways = ["set", "pictures", "references"], ("default", arguments.other)
    head += [f"{way}: {what}" for way in ways for what in ("image", "pixel", "CPU s")]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for entry in arguments.data:
        for named in arguments.changes or ["is"]:
            for shots in arguments.shots:
                print(row(entry, named, shots, arguments), flush=True)


if __name__ == "__main__":
    main()
