"""Speed of the methods on a CLIP, trained ones above all, against a plain loop.

Both run the same detector. Methods are those of the registry that judge a picture alone, with their
initial values: speed does not hang on what was learned.

The plain loop takes one picture at a time and embeds the texts for each anew, in sequences of the
full 77 tokens. Official codes cut no sequence; those whose sentences depend on the picture
(AdaCLIP, VCP-CLIP, CoPS, Crane) embed them for every picture, the others once per product or run.
For these the column "texts kept" counts: the same loop, with the texts kept where they can be.
Weights, pictures and image tower are the same everywhere, and so are the results: the table prints
by how much they differ, and a difference that is more than rounding ends the run. No time is
asserted.

    python benchmarks/trained_speed.py [--methods anomalyclip,vcp_clip] [--images 8] [--plain 2]

Weights are random, of ViT-B/16's size; ``--backbone embedded`` takes the model in the package.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.backbones import open_clip_names as catalogue
from zerodefect.backbones.clip import CLIP, CLIPConfig, TextTower
from zerodefect.backbones.clip_weights import CLIPBackbone, load_clip
from zerodefect.detector.contract import Detector
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.images import Preprocess
from zerodefect.methods import create, get, names
from zerodefect.procedural import generate
from zerodefect.prompts.features import TextFeatures
from zerodefect.types import Prediction

PRODUCT = "metal plate"
RANDOM = "ViT-B-16"
ROUNDING = 1e-3  # of the range of the map; clusters and adapted steps enlarge float32's own


def backbone_of(name: str, device: str) -> CLIPBackbone:
    if name != RANDOM:
        return load_clip(name, device=device)
    torch.manual_seed(0)
    config = CLIPConfig.from_open_clip(catalogue.model_config(RANDOM) or {})
    clip = CLIP(config).eval().requires_grad_(False).to(device)
    side = config.vision.image_size
    facts = ("random values", "none", "made for this run")
    return CLIPBackbone(RANDOM, clip, Preprocess(size=(side, side)), *facts)


def pictures(count: int, preprocess: Preprocess) -> Tensor:
    side = preprocess.size[0]
    mean, std = (torch.tensor(v)[:, None, None] for v in (preprocess.mean, preprocess.std))
    return (generate(7, 0, count, side).images - mean) / std


@contextmanager
def uncut(text: TextTower) -> Iterator[None]:
    """Run every text at the full context length; what is added stands behind its end."""
    transformer, length = text.transformer, text.config.context_length
    cut = transformer.forward

    def padded(x: Tensor, **options):
        states = cut(F.pad(x, (0, 0, 0, length - x.shape[1])), **options)
        states.tokens = states.tokens[:, : x.shape[1]]
        return states

    transformer.forward = padded
    try:
        yield
    finally:
        del transformer.forward


def renewed_texts(detector: Detector) -> Knowledge:
    """Embed again whatever texts a detector keeps, with its own text tower."""
    if isinstance(getattr(detector, "text_features", None), TextFeatures):
        detector.text_features = TextFeatures(detector.clip)
    detector.after_learning()
    return detector.describe(detector.empty(), Product(PRODUCT))


@dataclass
class Timed:
    """Seconds per picture, and what was found."""

    seconds: float
    found: Prediction


def timed(images: Tensor, batch: int, run: Callable[[Tensor], Prediction]) -> Timed:
    run(images[:batch])  # threads, kernels and caches are ready
    # processor time, since other work on the machine then hardly shows
    clock = time.process_time if images.device.type == "cpu" else time.perf_counter
    start = clock()
    found = [run(part) for part in images.split(batch)]
    scores, maps = (torch.cat([getattr(p, part).cpu() for p in found]) for part in ("score", "map"))
    return Timed((clock() - start) / len(images), Prediction(scores, maps))


def difference(one: Prediction, other: Prediction) -> float:
    """Largest difference of scores and maps, of the range of the maps."""
    count = len(one.score)
    span = max(float(one.map.max() - one.map.min()), 1e-6)
    score = (one.score - other.score[:count]).abs().max()
    return max(float(score), float((one.map - other.map[:count]).abs().max())) / span


@torch.no_grad()
def measure(name: str, backbone: CLIPBackbone, images: Tensor, plain: int) -> None:
    try:
        detector = create(name, backbone).to(images.device).eval()
    except ValueError as error:
        print(f"{name:12s} left out: {error}")
        return
    words = renewed_texts(detector)

    def shared(part: Tensor) -> Prediction:
        return detector(part, words)

    ours = {batch: timed(images, batch, shared) for batch in (1, 8)}
    few = images[:plain]

    def anew(part: Tensor) -> Prediction:
        return detector(part, renewed_texts(detector))

    with uncut(detector.clip.text):
        loop = timed(few, 1, anew)
        kept = timed(few, 1, shared)
    off = max(difference(loop.found, each.found) for each in ours.values())
    print(
        f"{name:12s}{1 / loop.seconds:9.2f}{1 / kept.seconds:12.2f}"
        f"{1 / ours[1].seconds:9.2f}{loop.seconds / ours[1].seconds:7.1f}"
        f"{1 / ours[8].seconds:9.2f}{loop.seconds / ours[8].seconds:7.1f}{off:12.1e}",
        flush=True,
    )
    if off > ROUNDING:
        raise SystemExit(f"{name}: the plain loop finds something else, by {off:.1e} of the range")


def measurable(name: str) -> bool:
    """Whether a method needs a CLIP and a name alone."""
    info = get(name).info
    return info.backbones == {"clip": "clip"} and set(info.needs) <= {"training", "words"}


def main() -> None:
    known = [name for name in names() if measurable(name)]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=",".join(known))
    parser.add_argument("--backbone", default=RANDOM, help=f"{RANDOM} has random values")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--plain", type=int, default=2, help="pictures of the plain loop")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    backbone = backbone_of(arguments.backbone, arguments.device)
    images = pictures(arguments.images, backbone.preprocess).to(arguments.device)
    size = f"{images.shape[-1]} x {images.shape[-2]}"
    print(f"{backbone.name}, {len(images)} pictures of {size}, {arguments.threads} threads")
    unit = "second of processor time" if arguments.device == "cpu" else "second"
    print(f"pictures per {unit}; ratios are those to the plain loop")
    print(
        f"{'':12s}{'plain':>9s}{'texts kept':>12s}{'batch 1':>9s}{'ratio':>7s}{'batch 8':>9s}"
        f"{'ratio':>7s}{'difference':>12s}"
    )
    for name in arguments.methods.split(","):
        measure(name, backbone, images, arguments.plain)


if __name__ == "__main__":
    main()
