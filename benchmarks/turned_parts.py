"""Whether references that lie in any direction are found out, and such that lie alike are not.

Pictures of each set as they lie, all at half the size on their own background, and drawn thin bars;
each also turned by up to 10 degrees, by quarters of the circle and by any angle. Of twelve pictures
several draws are shown to ``Pyramid.lie_anyhow``. Prints Markdown: the share told to lie anyhow.

    python benchmarks/turned_parts.py snacks=FOLDER cookies=FOLDER [--references 4] [--draws 10]
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from zerodefect.images import Picture
from zerodefect.inspection.load_inspector import load
from zerodefect.methods.pyramid import Pyramid

TURNS = ("as they lie", "up to 10 degrees", "quarters", "any angle")
PICTURES = 12
_SIDE, _GREY = 448, (200, 198, 192)  # of drawn pictures: pixels, background


def background(picture: Image.Image) -> tuple[int, ...]:
    """The middle colour of the outermost pixels."""
    a = np.asarray(picture)
    edge = np.concatenate([a[0], a[-1], a[:, 0], a[:, -1]])
    return tuple(int(value) for value in np.median(edge, axis=0))


def halved(picture: Image.Image, draws: np.random.Generator) -> Image.Image:
    """The picture at half the size in the middle of its own background."""
    (width, height), small = picture.size, picture.resize([side // 2 for side in picture.size])
    wide = Image.new("RGB", picture.size, background(picture))
    wide.paste(small, (width // 4, height // 4))
    return noisy(wide, draws)


def noisy(picture: Image.Image, draws: np.random.Generator) -> Image.Image:
    """With a camera's noise."""
    a = np.asarray(picture) + draws.normal(0, 3, np.asarray(picture).shape)
    return Image.fromarray(a.clip(0, 255).astype(np.uint8))


def bar(width: int, draws: np.random.Generator) -> Image.Image:
    """A bar with a thread and a head on a wide background, each a little different."""
    picture, middle = Image.new("RGB", (_SIDE, _SIDE), _GREY), _SIDE / 2
    half, w = 120 * draws.normal(1, 0.01), width * draws.normal(1, 0.03) / 2
    left, right, shade = middle - half, middle + half, int(draws.normal(90, 6))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((left, middle - w, right, middle + w), fill=(shade,) * 3)
    for x in np.arange(left + half / 2, right, 7):
        pen.line((x, middle - w, x + 4, middle + w), fill=(shade - 35,) * 3, width=2)
    pen.rectangle((left - w, middle - 3 * w, left + w, middle + 3 * w), fill=(shade + 20,) * 3)
    return picture


def degrees(turns: str, draws: np.random.Generator) -> Sequence[float]:
    """One for each picture; any angles are spread over the circle, in random order."""
    if turns == "up to 10 degrees":
        return list(draws.uniform(-10, 10, PICTURES))
    if turns == "quarters":
        return list(90.0 * draws.permutation(PICTURES))
    if turns == "any angle":
        return list((draws.permutation(PICTURES) + draws.uniform(0, 1, PICTURES)) * 360 / PICTURES)
    return [0.0] * PICTURES


def turned(picture: Image.Image, by: float) -> Image.Image:
    """Of the same size; its background comes in."""
    return picture.rotate(by, Image.Resampling.BICUBIC, fillcolor=background(picture))


@cache
def detector() -> Pyramid:
    """The one that is asked."""
    made = load("pyramid", device="cpu").detector
    assert isinstance(made, Pyramid)
    return made


def prepared(pictures: Sequence[Image.Image]) -> Tensor:
    """As the network sees them, ``(B, 3, H, W)``."""
    seen = [Picture("<shown>", np.asarray(each)) for each in pictures]
    return torch.stack([detector().preprocess(each) for each in seen])


def share(pictures: Sequence[Image.Image], references: int, count: int) -> float:
    """Of so many draws, those told to lie anyhow."""
    images, draws, told = prepared(pictures), random.Random(references), 0
    for _ in range(count):
        some = images[draws.sample(range(len(images)), references)]
        with torch.inference_mode():
            told += bool(detector().lie_anyhow([(some, torch.arange(references))]))
    return told / count


def shown(folder: Path) -> list[Image.Image]:
    """Some pictures of a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [Image.open(path).convert("RGB") for path in random.Random(0).sample(files, PICTURES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("sets", nargs="*", metavar="NAME=FOLDER", help="of good pictures")
    parser.add_argument("--references", type=int, default=4)
    parser.add_argument("--draws", type=int, default=10)
    given, draws = parser.parse_args(), np.random.default_rng(0)
    sets = {f"bars {w} px thick": [bar(w, draws) for _ in range(PICTURES)] for w in (6, 14)}
    for name, _, folder in (each.partition("=") for each in given.sets):
        sets[name] = shown(Path(folder))
        sets[f"{name}, half size"] = [halved(each, draws) for each in sets[name]]
    print("| pictures |", " | ".join(TURNS), "|")
    print("|---" * (1 + len(TURNS)) + "|")
    for name, pictures in sets.items():
        shares = []
        for turns in TURNS:
            by = degrees(turns, np.random.default_rng(TURNS.index(turns)))
            some = [turned(each, angle) for each, angle in zip(pictures, by, strict=True)]
            some = [noisy(each, draws) for each in some] if name.startswith("bars") else some
            shares.append(f"{share(some, given.references, given.draws):.0%}")
        print(f"| {name} |", " | ".join(shares), "|", flush=True)


if __name__ == "__main__":
    main()
