"""How much damage is found at a guaranteed false-alarm rate, kind by kind.

Limits are learned from the good test pictures, which no detector here has seen: those of the image
score and of the map's highest value, each at the rate on average (see docs/calibration.md). A
damaged picture counts as called where its score is above the limit, and as found where a region
above the map's limit covers any damaged pixel. Predictions are kept and shared with `zerodefect
evaluate`: after it, with the same references, no picture goes through the network again.

    python benchmarks/damage_at_a_rate.py NAME=FOLDER --object "magnetic tile" [--shots 0,4]
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
from collections import defaultdict
from collections.abc import Iterator

import torch
from embedded_tally import meets

from zerodefect.data import Sample, open_dataset, opened_mask
from zerodefect.evaluation.prediction_cache import PredictionCache
from zerodefect.evaluation.predictions import Predictions, Setting
from zerodefect.evaluation.protocol import Protocol
from zerodefect.images import ImageError
from zerodefect.inspection.conformal import conformal_limit
from zerodefect.inspection.regions import find_regions
from zerodefect.methods import load_detector
from zerodefect.paths import cache_folder


def shares(
    predictions: Predictions, samples: list[Sample], setting: Setting, rate: float
) -> Iterator[tuple[str, str, float]]:
    """Kind, what was counted, and the share of its pictures."""
    pictures = []
    for sample, kept in predictions.of(samples, setting):
        map = predictions.map(kept, setting)
        assert map is not None
        pictures.append((sample, kept.score, map))
    good = [(score, float(map.max())) for sample, score, map in pictures if not sample.anomalous]
    limits = [conformal_limit(values, rate) for values in zip(*good, strict=True)]
    if None in limits:
        raise SystemExit(f"{len(good)} good test pictures cannot prove a rate of {rate:g}")
    counted: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for sample, score, map in pictures:
        if not sample.anomalous:
            continue
        with contextlib.suppress(ImageError):  # an empty mask says nothing of where
            mask, _ = opened_mask(sample)
            found = any(meets(region, mask) for region in find_regions(map, limits[1]))
            for kind in (sample.kind, "all"):
                counted[kind, "called"].append(score > limits[0])
                counted[kind, "found"].append(found)
    for (kind, what), hits in counted.items():
        yield kind, what, statistics.mean(hits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="NAME=FOLDER")
    parser.add_argument("--object", required=True)
    parser.add_argument("--method")
    parser.add_argument("--shots", default="0,4")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dataset = open_dataset(options.data)
    (product,) = dataset.products
    shots = tuple(map(int, options.shots.split(",")))
    protocol = Protocol(shots=shots, seeds=options.seeds)
    cache = PredictionCache(cache_folder() / "predictions")
    words = {product: options.object}
    predictions = Predictions(
        load_detector(options.method), dataset, protocol, None, words, (None, None), None, cache
    )
    samples = [s for s in dataset if s.split == "test" and (not s.anomalous or s.mask)]
    samples.sort(key=lambda sample: sample.kind)
    settings = [predictions.setting(product, *pair) for pair in protocol.settings()]
    predictions.fill(samples, settings)
    found: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for setting in settings:
        for kind, what, share in shares(predictions, samples, setting, options.rate):
            found[what, setting.shots, kind].append(share)
    kinds = list(dict.fromkeys(kind for _, _, kind in found))
    kinds.sort(key=lambda kind: kind != "all")
    print(f"| | references | {' | '.join(kinds)} |\n|---|---|{'---|' * len(kinds)}")
    for what in ("called", "found"):
        for number in shots:
            cells = (f"{100 * statistics.mean(found[what, number, kind]):.0f} %" for kind in kinds)
            print(f"| {what} | {number} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
