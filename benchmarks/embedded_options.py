"""A small grid over the options of ``dense``, on data that is free for choosing."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Iterable

import torch
from embedded_pictures import SIDE, Item, Source, batches, procedural, small
from embedded_tally import Tally

from zerodefect.cli.options import parse_settings
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.evaluation.metrics import ImageMetrics
from zerodefect.images import Picture
from zerodefect.methods import load_detector
from zerodefect.scoring.joining import Joint
from zerodefect.scoring.scorer import Scorer

NETWORK = (128, 192, 256)  # pixels, side of the network's input
SIZES = ((1.0,), (0.5, 1.0))
WORD_GRID = {"smoothing": (0.0, 0.5, 1.0)}
REFERENCE_GRID = {"reference_weight": (0.25, 0.5, 0.75), "reference_scale": (0.02, 0.1, 0.5)}
IMAGE_SCORES = ("text", "map", "mean")

Group = tuple[list[Picture], list[Item]]  # references, and the pictures judged with them


def choose(arguments: argparse.Namespace, sources: list[Source]) -> None:
    """Print a line per setting of ``dense``; only data that is free for choosing comes here."""
    pairs = few_shot_pairs(procedural(arguments.procedural, 2)) if arguments.procedural else []
    options = parse_settings(arguments.option)
    for side, sizes in itertools.product(NETWORK, SIZES):
        detector = load_detector(
            "dense",
            backbone=arguments.backbone,
            image_size=side,
            device="cpu",
            **options | {"sizes": sizes},
        )
        scorer = Scorer(detector, map_size=(SIDE, SIDE))
        label = f"network {side}  sizes {'+'.join(map(str, sizes)):<7}"
        for source in sources:
            words = detector.describe(detector.empty(), Product(source.object))
            groups = (([], some) for some in batches(make() for make in source.test))
            try_out(f"{source.name}, 0-shot  {label}", scorer, words, groups, WORD_GRID)
        if pairs:
            words = detector.describe(detector.empty(), Product("product"))
            try_out(f"procedural, 1-shot  {label}", scorer, words, pairs, REFERENCE_GRID)


def few_shot_pairs(source: Source) -> list[Group]:
    """A good picture as the reference of another one of the same product, wherever there is one."""
    items = [make() for make in source.test]
    pairs = []
    for one, other in zip(items[::2], items[1::2], strict=False):
        reference, query = (one, other) if one[0] == "good" else (other, one)
        if reference[0] == "good":
            pairs.append(([reference[1]], [query]))
    return pairs


@torch.inference_mode()
def try_out(
    label: str,
    scorer: Scorer,
    words: Knowledge,
    groups: Iterable[Group],
    grid: dict[str, tuple[float, ...]],
) -> None:
    """Judge each group of pictures under every setting of a grid, one line each."""
    detector = scorer.detector
    base = detector.config
    settings = [dict(zip(grid, some, strict=True)) for some in itertools.product(*grid.values())]
    tallies = [Tally() for _ in settings]
    images = [{name: ImageMetrics() for name in IMAGE_SCORES} for _ in settings]
    for references, items in groups:
        known = words
        if references:
            known = scorer.remember(words, references, [None] * len(references))
        shown = [next(scorer.views(picture))["image"] for _, picture, _ in items]
        encoded = detector.encode(torch.stack(shown))
        for setting, tally, by_score in zip(settings, tallies, images, strict=True):
            for name, metrics in by_score.items():
                detector.config = dataclasses.replace(base, **setting, image_score=name)
                seen = detector.predict(encoded, known)
                metrics.update(seen.score, [kind != "good" for kind, _, _ in items])
            for row, (kind, picture, mask) in enumerate(items):
                joint = Joint(picture, scorer.viewing, None, 0.0, scorer.map_size)
                joint.add(0, dataclasses.replace(seen, type_map=None), row)
                tally.add(kind, joint.scored(), small(mask))
    detector.config = base
    for setting, tally, by_score in zip(settings, tallies, images, strict=True):
        found = {(title, column): value for title, column, value in tally.figures(alike=False)}
        cells = [f"{name} {found[name, 'mean']:.3f}" for name in ("pixel AUROC", "pixel AUPRO")]
        if ("image AUROC", "all") in found:
            values = {name: metrics.compute(["auroc"])[0] for name, metrics in by_score.items()}
            cells += [
                f"image AUROC by {name} {metric.value:.3f}" for name, metric in values.items()
            ]
        words = "  ".join(f"{name} {value:<4}" for name, value in setting.items())
        print(f"{label}  {words} | {' | '.join(cells)}", flush=True)
