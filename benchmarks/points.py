"""Parts seen as picture and point grid: either alone, both, and both where one may be missing.

A data set in the layout of MVTec 3D-AD is read: ``train/good`` are the references, ``test`` is what
is judged. Every part is scored three times, with both, without its points and without its colours;
rows with missing inputs are drawn from these, ``--draws`` times each, and averaged. With
``--drawn`` the good parts of ``validation`` stand for the test, as they are and with damage drawn
on picture and points alike: what options are chosen on. A method that was trained on good parts
(``missingclip``) is told the product's name instead and takes no references. Times are seconds of
the processor in this process, opening left out; with one thread they do not depend on what else
the machine does, but for its caches.

    python benchmarks/points.py DATA [--drawn] [--methods pyramid,bt_points,pyramid+bt_points]
    python benchmarks/points.py DATA --methods missingclip --checkpoint FILE --object "cable gland"
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zerodefect.detector.knowledge import Product
from zerodefect.evaluation.metrics import ImageMetrics, PixelMetrics
from zerodefect.images import Picture, open_image
from zerodefect.images.clouds import open_cloud
from zerodefect.images.point_input import part_alone
from zerodefect.methods import load_detector
from zerodefect.procedural.draws import Draws
from zerodefect.procedural.on_clouds import damage_parts
from zerodefect.scoring.joining import Scored
from zerodefect.scoring.scorer import Scorer

SHARE = 0.3  # of the parts that lack an input
WHOLE, NO_POINTS, NO_COLOURS = {}, {"cloud": None}, {"colourless": True}
EACH = 4  # damages drawn on every good part


@dataclass(frozen=True)
class Part:
    """A part with the truth about it."""

    picture: Picture
    mask: np.ndarray  # (H, W) bool

    @property
    def defective(self) -> bool:
        return bool(self.mask.any())


def read(folder: Path) -> Iterator[Part]:
    """Parts of ``folder/{rgb,xyz,gt}``."""
    for file in sorted((folder / "rgb").glob("*.png")):
        picture = replace(open_image(file), cloud=open_cloud(folder / "xyz" / f"{file.stem}.tiff"))
        truth = folder / "gt" / file.name
        mask = np.zeros(picture.pixels.shape[:2], bool)
        if truth.is_file():
            mask = open_image(truth).pixels[..., 0] > 0
        yield Part(picture, mask)


def drawn_on(parts: Sequence[Part]) -> Iterator[Part]:
    """The parts with damage, ``EACH`` times."""
    for number, part in enumerate(parts):
        alone = part_alone(part.picture.cloud)
        points = np.where(alone.valid[..., None], alone.points, np.nan).transpose(2, 0, 1)
        for time_ in range(EACH):
            draws = Draws(0, np.array([number * EACH + time_], np.uint64), torch.device("cpu"))
            images, given = part.picture.to_tensor()[None], torch.from_numpy(points)[None].float()
            made = damage_parts(images, given, draws)
            pixels = (made.images[0] * 255).round().byte().permute(1, 2, 0).numpy()
            changed = made.points[0].permute(1, 2, 0).nan_to_num().numpy()
            cloud = replace(alone, points=changed)
            yield Part(replace(part.picture, pixels=pixels, cloud=cloud), made.masks[0].numpy())


def measured(parts: Sequence[Part], found: Sequence[Scored]) -> tuple[float, float]:
    """Image AUROC and AUPRO at 30 %, in percent."""
    images, pixels = ImageMetrics(), PixelMetrics()
    for part, one in zip(parts, found, strict=True):
        images.update(one.score, part.defective)
        pixels.update(one.map, part.mask)
    (auroc,), (aupro,) = images.compute(["auroc"]), pixels.compute(["aupro"])
    return 100 * auroc.value, 100 * aupro.value


def row(name: str, values: Sequence[tuple[float, float]], more: str = "") -> None:
    auroc, aupro = np.mean(values, 0)
    print(f"{name:46s}{auroc:10.1f}{aupro:10.1f}   {more}", flush=True)


def drawn_rows(
    whole: Sequence[Scored], some: Sequence[Sequence[Scored]], draws: int
) -> Iterator[list[Scored]]:
    """What is found where ``SHARE`` of the parts, drawn, are those of ``some``."""
    count = round(SHARE * len(whole))
    for seed in range(draws):
        lots = np.random.default_rng(seed)
        mixed = list(whole)
        for place in lots.permutation(len(whole))[:count]:
            mixed[place] = some[int(lots.integers(len(some)))][place]
        yield mixed


def judge(
    name: str, good: Sequence[Part], parts: Sequence[Part], draws: int, product: str, **load: Any
) -> None:
    detector = load_detector(name, **load)
    modalities = {needed.preprocess.modality for needed in detector.inputs.values()}
    scorer, knowledge = Scorer(detector), detector.empty()
    start = time.process_time()
    if "words" in detector.info.knows_from:
        knowledge = detector.describe(knowledge, Product(product))
    if "references" in detector.info.knows_from:
        pictures = [part.picture for part in good]
        knowledge = scorer.remember(knowledge, pictures, [None] * len(pictures))
    learned = time.process_time() - start

    def scored(lacking: dict[str, Any]) -> list[Scored]:
        shown = (replace(part.picture, **lacking) for part in parts)
        return [scorer.score([picture], None, knowledge)[0] for picture in shown]

    start = time.process_time()
    whole = scored(WHOLE)
    spent = (time.process_time() - start) / len(parts)
    more = f"{spent:.2f} s a part, {learned:.1f} s to learn"
    row(name, [measured(parts, whole)], more)
    if len(modalities) < 2:
        return
    bare, plain = scored(NO_COLOURS), scored(NO_POINTS)
    kinds: dict[str, Callable[[], Iterator[list[Scored]]]] = {
        "30 % without points": lambda: drawn_rows(whole, [plain], draws),
        "30 % without colours": lambda: drawn_rows(whole, [bare], draws),
        "30 % without one of the two": lambda: drawn_rows(whole, [plain, bare], draws),
        "all without points": lambda: iter([plain]),
        "all without colours": lambda: iter([bare]),
    }
    for kind, made in kinds.items():
        row(f"  {kind}", [measured(parts, found) for found in made()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--methods", default="pyramid,bt_points,pyramid+bt_points")
    parser.add_argument("--drawn", action="store_true", help="on drawn damage, not on the test")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--checkpoint", type=Path, help="of a trained method")
    parser.add_argument("--object", default="object", help="the product, for methods with words")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    good = list(read(arguments.data / "train" / "good"))
    if arguments.drawn:
        held = list(read(arguments.data / "validation" / "good"))
        parts = [*held, *drawn_on(held)]
    else:
        folders = sorted((arguments.data / "test").iterdir())
        parts = [part for folder in folders for part in read(folder)]
    defective = sum(part.defective for part in parts)
    print(f"{len(good)} references; {len(parts) - defective} good and {defective} defective parts")
    print(f"{'':46s}{'image AUROC':>10s}{'AUPRO':>9s}")
    for name in arguments.methods.split(","):
        judge(name, good, parts, arguments.draws, arguments.object, checkpoint=arguments.checkpoint)


if __name__ == "__main__":
    main()
