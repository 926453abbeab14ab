"""Small deterministic models, made on the spot."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import tiny_clip
import torch
from safetensors.torch import save_file

from zerodefect.backbones.clip import CLIP, Activation, CLIPConfig, TextConfig, VisionConfig
from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.images import Preprocess

SHAPE = {
    "embed_dim": 64,
    "image_size": 64,
    "patch_size": 8,
    "vision_width": 64,
    "vision_layers": 3,
    "text_width": 64,
    "text_layers": 2,
}


@dataclass(frozen=True)
class NoConfig:
    """Hyper-parameters of a stand-in detector: none."""


def as_it_is(preprocess: Preprocess) -> Preprocess:
    """The same without normalisation: a detector sees pixels in [0, 1]."""
    return replace(preprocess, mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear")


def tiny_state(seed: int = 0, **shape: int) -> dict[str, torch.Tensor]:
    """State dict in the OpenAI layout, which the caller may change."""
    whole = {**SHAPE, **shape}
    # Drawing takes most of a small model's time, and large ones would fill the memory.
    drawn = _drawn_once if whole["text_width"] <= SHAPE["text_width"] else _drawn
    return {name: value.clone() for name, value in drawn(seed, **whole).items()}


def _drawn(seed: int, **shape: int) -> dict[str, torch.Tensor]:
    state = tiny_clip.clip_state(seed, **shape)
    return {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}


_drawn_once = lru_cache(8)(_drawn)


@lru_cache(8)
def _unfilled(config: CLIPConfig) -> CLIP:
    """Towers without values, to be copied: none of the random ones they begin with is kept."""
    return CLIP(config).to("meta")


def tiny_backbone(seed: int = 0, **shape: int) -> CLIPBackbone:
    """A small CLIP of random weights, ready for a method."""
    return backbone_of(tiny_state(seed, **shape), f"tiny-{seed}-{sorted(shape.items())}")


def config_of(state: dict[str, torch.Tensor], activation: Activation = "gelu") -> CLIPConfig:
    """Shape of weights in the OpenAI layout, whose heads are 64 wide."""

    def blocks(prefix: str) -> int:
        start = f"{prefix}.resblocks."
        return len({name[len(start) :].split(".")[0] for name in state if name.startswith(start)})

    conv, table = state["visual.conv1.weight"], state["token_embedding.weight"]
    width, patch, text_width = conv.shape[0], conv.shape[2], table.shape[1]
    grid = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    first = "transformer.resblocks.0.mlp.c_fc.weight"
    return CLIPConfig(
        embed_dim=state["text_projection"].shape[1],
        vision=VisionConfig(
            image_size=grid * patch,
            patch_size=patch,
            width=width,
            layers=blocks("visual.transformer"),
            heads=width // 64,
            mlp_ratio=len(state[f"visual.{first}"]) / width,
        ),
        text=TextConfig(
            context_length=len(state["positional_embedding"]),
            vocab_size=len(table),
            width=text_width,
            heads=text_width // 64,
            layers=blocks("transformer"),
            mlp_ratio=len(state[first]) / text_width,
        ),
        activation=activation,
    )


def backbone_of(
    state: dict[str, torch.Tensor], fingerprint: str, activation: Activation = "gelu"
) -> CLIPBackbone:
    """Weights in the OpenAI layout as a backbone."""
    config = config_of(state, activation)
    clip = copy.deepcopy(_unfilled(config))
    clip.load_openai_state(state)
    side = config.vision.image_size
    return CLIPBackbone(
        name="tiny",
        clip=clip.eval().requires_grad_(False),
        preprocess=Preprocess(size=(side, side)),
        fingerprint=fingerprint,
        licence="none",
        source="made for a test",
    )


def write_tiny_weights(folder: Path, seed: int = 0) -> Path:
    """The same as a file with its side-car, as a user would have it."""
    state = tiny_state(seed)
    path = folder / "tiny.safetensors"
    save_file(state, path)
    config = config_of(state)
    path.with_suffix(".json").write_text(json.dumps({"model_cfg": config.to_open_clip()}))
    return path


def picture(seed: int = 0, height: int = 80, width: int = 96) -> np.ndarray:
    """A smooth uint8 picture with a few marks."""
    return tiny_clip.image(seed, height, width)
