"""What a pretraining run leaves: the model file with its side-car, and contact sheets.

The sheets show what it learns from, and what it says of pictures so far.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from zerodefect.backbones.clip import CLIP
from zerodefect.files import atomic_write
from zerodefect.images import CLIP_MEAN, CLIP_STD, encode_png, normalised
from zerodefect.layers.grid import Grid
from zerodefect.layers.similarity import anomaly_probability
from zerodefect.pretraining.objectives import TEMPERATURE, draw_prompts, embed_states
from zerodefect.procedural import ProceduralBatch, generate

RECOMMENDED_METHOD = "dense+pyramid"

RECOMMENDED: dict[str, dict[str, Any]] = {
    "dense": {
        "image_size": 256,
        "sizes": [1.0],
        "fine_sizes": [0.5, 1.0],
        "fine_share": 0.33,
        "image_score": "peaks",
        "reference_weight": 0.8,
        "reference_scale": 0.4,
    },
    "winclip": {"image_score": "map"},
    "clip_surgery": {"image_size": 256},  # words are shown on the picture at this size
}
"""Hyper-parameters that suit the embedded model, chosen on held-out procedural pictures and
real ones that are for choosing (``docs/embedded-model.md``)."""


ADVICE = {
    "licence": "Apache-2.0",
    "recommended_method": RECOMMENDED_METHOD,
    "recommended": RECOMMENDED,
}


def export(
    clip: CLIP, folder: Path, facts: dict[str, str], advice: Mapping[str, Any] = ADVICE
) -> Path:
    """Write ``embedded.safetensors`` (float16, open_clip's native names) and ``embedded.json``.

    The latter is open_clip's configuration with ``preprocess_cfg`` and ``advice``; ``facts`` stand
    in the head of the former. Returns its path.
    """
    path = folder / "embedded.safetensors"
    half = {n: v.detach().half().contiguous() for n, v in clip.openai_state().items()}
    with atomic_write(path) as file:
        file.write(save(half, {"format": "pt", **facts}))
    side_car = {
        **clip.config.to_open_clip(),
        # CLIP's own statistics: a loader that knows nothing of this side-car still gets them right.
        "preprocess_cfg": {
            "size": clip.config.vision.image_size,
            "mean": list(CLIP_MEAN),
            "std": list(CLIP_STD),
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
        "patches_match_texts": True,  # they were trained to; a second stream would only blur them
        **{name: value for name, value in advice.items() if value is not None},
    }
    path.with_suffix(".json").write_text(json.dumps(side_car, indent=2) + "\n", encoding="utf-8")
    return path


def mean_of(files: Sequence[Path], folder: Path) -> Path:
    """Write the mean of models of one shape that ``export`` wrote, with their side-car.

    Args:
        files: weights of runs that began alike.
        folder: where ``embedded.safetensors`` and ``embedded.json`` go.

    Returns:
        Path of the weights.
    """
    path, models = folder / files[0].name, [load_file(file) for file in files]
    mean = {n: torch.stack([m[n].float() for m in models]).mean(0).half() for n in models[0]}
    with atomic_write(path) as file:
        file.write(save(mean, {"format": "pt", "mean_of": str(len(files))}))
    path.with_suffix(".json").write_bytes(files[0].with_suffix(".json").read_bytes())
    return path


HELD_OUT = 1_000_003
"""A series of procedural pictures that no training draws from."""


def preview(path: str | Path, seed: int = 0, count: int = 64, size: int = 128) -> Path:
    """Write a contact sheet of training pictures, each beside its mask, as PNG.

    Arguments as of ``generate``.
    """
    batch = generate(seed, 0, count, size)
    return _write(path, [batch.images, _grey(batch.masks)])


@torch.no_grad()
def samples(path: str | Path, clip: CLIP, batch: ProceduralBatch) -> Path:
    """Write a contact sheet of pictures, each beside its mask and its anomaly map, as PNG.

    Black is a probability of 0, white of 1, the same for all. The pictures are where the model is.
    """
    texts = embed_states(clip, draw_prompts(random.Random(0), 1), [])
    pixels = normalised(batch.images)
    tokens = clip.visual.encode(clip.visual.embed(pixels)).tokens[:, 1:]
    words = torch.cat([texts.normal, texts.anomalous])
    share = anomaly_probability(clip.visual.project(tokens), words, TEMPERATURE)
    height, width = batch.images.shape[-2:]
    grid = Grid(*clip.visual.grid(pixels), (height, width))
    return _write(path, [batch.images, _grey(batch.masks), _grey(grid.map(share))])


def _grey(planes: Tensor) -> Tensor:
    return planes[:, None].expand(-1, 3, -1, -1).float()


def _write(path: str | Path, parts: list[Tensor]) -> Path:
    """Cells of ``(B, 3, S, S)`` pictures side by side, eight cells a row."""
    cells = torch.cat([part.cpu() for part in parts], 3)
    B, _, height, width = cells.shape
    columns = min(8, B)
    rows = -(-B // columns)
    filled = torch.cat([cells, cells.new_zeros(rows * columns - B, 3, height, width)])
    sheet = filled.unflatten(0, (rows, columns)).permute(0, 3, 1, 4, 2)
    pixels = (sheet * 255).round().byte().reshape(rows * height, columns * width, 3).numpy()
    with atomic_write(Path(path)) as file:
        file.write(encode_png(pixels))
    return Path(path)
