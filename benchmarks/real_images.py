"""The embedded model on folders of real pictures, beside a floor that learned nothing.

Contenders, all through the same protocol (`zerodefect evaluate`): WinCLIP with the embedded model;
the same with the network untrained; and local contrast, max |G(k/3) - G(k)| over k = 4 and 12 px of
the grey 128-pixel picture, G a Gaussian. Pixel values of a kind look at its own pictures alone.

    python benchmarks/real_images.py FOLDER=OBJECT ... [--shots 0,1,2,4] [--seeds 5] [--alike]
"""

from __future__ import annotations

import argparse
import dataclasses

import torch

from zerodefect.backbones.clip import CLIP
from zerodefect.backbones.loading import Backbone, load_clip
from zerodefect.data import load_dataset
from zerodefect.evaluation.predictions import PredictionCache
from zerodefect.evaluation.protocol import Evaluator, Protocol
from zerodefect.evaluation.results import summarise, table
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.methods import create
from zerodefect.methods.detector import Detector
from zerodefect.methods.loading import load_detector
from zerodefect.methods.registry import MethodInfo
from zerodefect.paths import cache_folder
from zerodefect.types import Prediction

IMAGE = ("auroc", "ap")
PIXEL = ("auroc", "ap", "f1max", "aupro@0.3")


@dataclasses.dataclass(frozen=True)
class NoConfig:
    pass


class LocalContrast(Detector):
    """How much a place differs from its surroundings; knows nothing and needs nothing."""

    info = MethodInfo("local-contrast", "", "floor", (), "", "", "")
    Config = NoConfig

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone, NoConfig())
        self.preprocess = dataclasses.replace(
            backbone.preprocess, size=(128, 128), mean=(0.0,) * 3, std=(1.0,) * 3
        )

    @property
    def map_range(self) -> tuple[float, float]:
        return 0.0, 1.0

    def forward(self, images: torch.Tensor) -> Prediction:
        grey = images.mean(1)
        contrast = torch.stack(
            [(gaussian_smooth(grey, k / 3) - gaussian_smooth(grey, k)).abs() for k in (4.0, 12.0)]
        ).amax(0)
        return Prediction(score=contrast.amax((1, 2)), map=contrast)


def untrained(trained: Backbone) -> Backbone:
    """The same shape with random weights of a fixed seed."""
    torch.manual_seed(0)
    clip = CLIP(trained.clip.config).eval().requires_grad_(False)
    return dataclasses.replace(trained, clip=clip, fingerprint="untrained, seed 0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER=OBJECT")
    parser.add_argument("--shots", default="0")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--alike", action="store_true")
    parser.add_argument("--backbone")
    arguments = parser.parse_args()
    trained = load_clip(arguments.backbone)
    shots = tuple(int(part) for part in arguments.shots.split(","))
    advice = trained.recommended.get("winclip", {})
    contenders = {
        "local contrast": (LocalContrast(trained), (0,)),
        "untrained": (create("winclip", untrained(trained), **advice), (0,)),
        "embedded": (load_detector("winclip", backbone=arguments.backbone), shots),
    }
    cache = PredictionCache(cache_folder() / "predictions")
    for entry in arguments.folders:
        path, _, name = entry.partition("=")
        dataset = load_dataset(path)
        print(f"\n## {dataset.name}{', all pictures cropped alike' if arguments.alike else ''}\n")
        cells = []
        for label, (detector, numbers) in contenders.items():
            possible = all(dataset.good_train(product) for product in dataset.products)
            protocol = Protocol(
                shots=numbers if possible else (0,),
                seeds=arguments.seeds,
                resolution="network",
                image_queries=IMAGE,
                pixel_queries=PIXEL,
                alike=arguments.alike,
            )
            names = {product: name or product for product in dataset.products}
            evaluator = Evaluator(detector, dataset, protocol, names=names, cache=cache)
            for cell in summarise(evaluator.run().rows):
                title = f"{label}, {cell.shots}-shot" if label == "embedded" else label
                cells.append(dataclasses.replace(cell, product=title))
        lines = list(table(cells))
        print(lines[0].replace("| product |", "| contender |"), *lines[1:], sep="\n", flush=True)


if __name__ == "__main__":
    main()
