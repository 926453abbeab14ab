"""What adapting the embedded model to a plant's own good pictures brings on pictures it never saw.

Good training pictures, spread evenly over all of them, are what it is adapted to, as
``zerodefect pretrain --good`` does; test pictures, so many of each kind, are judged before and
after, zero-shot and with references drawn from the training pictures. AUROC are means over kinds;
pixel AUROC are those of the damaged pictures at 128 x 128. Prints Markdown.

    python benchmarks/adapted.py NAME=PATH:OBJECT ... [--onto FILE] [--good 20] [--steps 0,80]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from embedded_pictures import SIDE, batches, folder, small, spread_out
from embedded_tally import Tally

from zerodefect.data import Dataset, Sample, read_mask
from zerodefect.detector.knowledge import Product
from zerodefect.images import open_image
from zerodefect.methods import load_detector
from zerodefect.pretraining.adapt_to_pictures import STEPS, adapt_config
from zerodefect.pretraining.pretrain_clip import pretrain
from zerodefect.scoring.scorer import Scorer

COLUMNS = ("image AUROC", "pixel AUROC")


def adapted(dataset: Dataset, product: str, arguments: argparse.Namespace, run: Path) -> Path:
    """Weights after a run on some good training pictures of a product."""
    good = run / "good"
    good.mkdir(parents=True)
    for number, sample in enumerate(spread_out(dataset.good_train(product), arguments.good)):
        shutil.copy(sample.image, good / f"{number}{Path(sample.image).suffix}")
    given = {"steps": arguments.steps, "threads": arguments.threads, "workers": 0}
    given |= {name: getattr(arguments, name) for name in ("learning_rate", "procedural")}
    given = {name: value for name, value in given.items() if value is not None}
    return pretrain(adapt_config(good, arguments.onto, **given), run)


def figures(
    weights: str, dataset: Dataset, words: str, arguments: argparse.Namespace
) -> dict[int, dict[str, float]]:
    """Image and pixel AUROC by the number of references."""
    (product,) = dataset.products
    detector = load_detector(backbone=weights, device="cpu")
    scorer = Scorer(detector, map_size=(SIDE, SIDE))
    known = [detector.describe(detector.empty(), Product(words))]
    for shots in arguments.shots:
        drawn = [open_image(s.image) for s in dataset.k_shot(product, shots, 0)]
        known.append(scorer.remember(known[0], drawn, [None] * shots))
    tallies = [Tally() for _ in known]
    for some in batches(chosen(dataset, arguments.most)):
        scored = scorer.score_under([open_image(s.image) for s in some], None, known)
        for tally, found in zip(tallies, scored, strict=True):
            for sample, one in zip(some, found, strict=True):
                tally.add(sample.kind, one, mask_of(sample))
    return {
        shots: {title: value for title, kind, value in tally.figures(False) if kind == "mean"}
        for shots, tally in zip((0, *arguments.shots), tallies, strict=True)
    }


def chosen(dataset: Dataset, most: int) -> Iterator[Sample]:
    """Test pictures, at most so many of each kind, evenly over all of it."""
    test = [s for s in dataset if s.split != "train" and s.anomalous is not None]
    for kind in dict.fromkeys(s.kind for s in test):
        yield from spread_out([s for s in test if s.kind == kind], most)


def mask_of(sample: Sample) -> np.ndarray:
    """At the common size; all black where a damaged picture has none."""
    if sample.anomalous and not sample.masks:
        return np.zeros((SIDE, SIDE), bool)
    return small(read_mask(sample))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="NAME=PATH:OBJECT")
    parser.add_argument("--onto", default="embedded", help="weights to begin with")
    parser.add_argument("--good", type=int, default=20, help="pictures to adapt to")
    parser.add_argument("--most", type=int, default=16, help="test pictures a kind")
    parser.add_argument("--shots", type=int, nargs="*", default=[4])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--procedural", type=float)
    parser.add_argument("--after", help="adapted weights of a product, instead of adapting")
    parser.add_argument("--no-before", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"| | references | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}")
    for entry in arguments.folders:
        source = folder(entry, arguments.most)
        assert source.dataset is not None
        with tempfile.TemporaryDirectory() as run:
            contenders = {} if arguments.no_before else {"before": arguments.onto}
            since = time.perf_counter()
            after = arguments.after or adapted(source.dataset, source.product, arguments, Path(run))
            print(f"{source.name}: adapted in {time.perf_counter() - since:.0f} s", file=sys.stderr)
            for name, weights in {**contenders, "after": str(after)}.items():
                for shots, told in figures(
                    weights, source.dataset, source.object, arguments
                ).items():
                    values = " | ".join(f"{100 * told.get(c, np.nan):.1f}" for c in COLUMNS)
                    print(f"| {source.name}, {name} | {shots} | {values} |", flush=True)


if __name__ == "__main__":
    main()
