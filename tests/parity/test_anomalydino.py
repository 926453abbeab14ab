"""AnomalyDINO against the numbers of the official code (see the case's meta)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import Case, find
from PIL import Image
from tiny_clip import draw, fill
from tiny_cnn import MEAN, STD

from zerodefect.backbones.layered_features import load_features
from zerodefect.methods.anomalydino import (
    AnomalyDINO,
    AnomalyDINOBatch,
    AnomalyDINOConfig,
    Tokens,
    top_mean,
)


def value(seed: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A parameter as the case's recipe says."""
    drawn = draw(seed, name, shape)
    if name.endswith("gamma"):
        made = 1 + 0.1 * drawn
    elif name in ("pos_embed", "cls_token", "mask_token"):
        made = 0.1 * drawn
    else:
        made = fill(seed, name, shape) * (3.0 if name == "norm.weight" else 1.0)
    return torch.from_numpy(np.array(made, dtype=np.float32))


class DINOCase(Case):
    """A case with its network, whose tolerances are told by kind."""

    def __init__(self, path: Path, folder: Path) -> None:
        super().__init__(path)
        vit = self.meta["vit"]
        shapes = self.meta["parameter_shapes"].items()
        file = folder / "dinov2.pth"
        torch.save({n: value(self.meta["seed"], n, tuple(shape)) for n, shape in shapes}, file)
        shape = {name: vit[name] for name in ("img_size", "embed_dim", "depth", "num_heads")}
        self.network = load_features("vit_small_patch14_dinov2", weights=file, **shape)

    def config(self) -> AnomalyDINOConfig:
        return AnomalyDINOConfig(
            masking="flat" if self.meta["masking"] else "none",
            threshold=self.meta["mask_threshold"],
            mask_references=self.meta["mask_reference"],
            neighbours=self.meta["k_neighbors"],
            quantile=self.meta["batched_quantile"],
        )

    def pixels(self, which: str) -> torch.Tensor:
        """The shorter edge resized, normalised, cut at the bottom and right to whole patches."""
        edge, made = self.meta["smaller_edge"], []
        for picture in self.arrays[f"image_{which}"]:
            height, width = picture.shape[:2]
            short = min(height, width)
            size = tuple(edge if s == short else int(edge * s / short) for s in (width, height))
            resized = Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)
            made.append(torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255)
        images = (torch.stack(made) - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[
            :, None, None
        ]
        height, width = (side // 14 * 14 for side in images.shape[-2:])
        return images[..., :height, :width]

    def tokens(self, detector: AnomalyDINO | AnomalyDINOBatch, which: str) -> Tokens:
        """Encoded, with maps at the pictures' own size."""
        encoded = detector.encode(self.pixels(which))
        own = self.arrays["image_test"].shape[1:3]
        return dataclasses.replace(encoded, grid=dataclasses.replace(encoded.grid, size=own))

    def close(self, name: str, got: torch.Tensor, kind: str) -> None:
        expected = self.tensor(name)
        atol = self.meta["tolerances"].get(kind, 1e-5)
        got = got.detach().reshape(expected.shape).to(expected.dtype)
        torch.testing.assert_close(got, expected, atol=atol, rtol=0)


@pytest.fixture(scope="module", params=find("anomalydino"))
def case(request, tmp_path_factory) -> DINOCase:
    return DINOCase(request.param, tmp_path_factory.mktemp("dino"))


def test_preprocessing(case):
    case.close("input_reference", case.pixels("reference")[:1], "input")
    case.close("input", case.pixels("test")[:1], "input")


def test_tokens_and_foreground(case):
    detector = AnomalyDINO(case.network, case.config())
    for which in ("reference", "test"):
        encoded, name = case.tokens(detector, which), f"out/features_{which}"
        case.close(name, encoded.values[: len(case.tensor(name))], "features")
    assert torch.equal(encoded.grid.fold(encoded.foreground), case.tensor("out/foreground").bool())


def test_few_shot(case):
    detector = AnomalyDINO(case.network, case.config())
    known = detector.remember(detector.empty(), [case.tokens(detector, "reference")])
    encoded = case.tokens(detector, "test")
    d = detector.distance(encoded, known) * encoded.foreground
    case.close("out/distance", d, "distance")
    got = detector.predict(encoded, detector.settle(known))
    case.close("out/image_score", got.score, "image_score")
    case.close("out/anomaly_map", got.map, "anomaly_map")


def test_batched_zero_shot(case):
    detector = AnomalyDINOBatch(case.network, case.config())
    encoded = case.tokens(detector, "test")
    everywhere = dataclasses.replace(encoded, foreground=torch.ones_like(encoded.foreground))
    total = encoded.values.shape[:2].numel()
    near = detector._nearest(0, everywhere, [everywhere], total)
    case.close("out/batched/distance_unmasked", near, "distance")
    (got,) = detector.score_set([encoded], detector.empty())
    case.close("out/batched/image_score", got.score, "image_score")
    torch.testing.assert_close(got.score, top_mean(near * encoded.foreground))
