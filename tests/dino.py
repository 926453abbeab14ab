"""Small weights in the layout of DINOv2's release files, made on the spot."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_clip import draw, fill


def dino_shapes(
    img_size: int, embed_dim: int, depth: int, registers: int, patch_size: int = 14
) -> dict[str, tuple[int, ...]]:
    """Name -> shape."""
    C = embed_dim
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, C),
        "mask_token": (1, C),
        "pos_embed": (1, (img_size // patch_size) ** 2 + 1, C),
        "patch_embed.proj.weight": (C, 3, patch_size, patch_size),
        "patch_embed.proj.bias": (C,),
        "norm.weight": (C,),
        "norm.bias": (C,),
    }
    if registers:
        shapes["register_tokens"] = (1, registers, C)
    parts = {
        "attn.qkv": (3 * C, C),
        "attn.proj": (C, C),
        "mlp.fc1": (4 * C, C),
        "mlp.fc2": (C, 4 * C),
        "norm1": (C,),
        "norm2": (C,),
    }
    for i in range(depth):
        for part, shape in parts.items():
            shapes[f"blocks.{i}.{part}.weight"] = shape
            shapes[f"blocks.{i}.{part}.bias"] = shape[:1]
        shapes |= {f"blocks.{i}.{scale}.gamma": (C,) for scale in ("ls1", "ls2")}
    return shapes


def dino_value(seed: int, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A plausible parameter that depends on seed, name and shape alone."""
    if name.endswith("gamma"):
        value = 1 + 0.1 * draw(seed, name, shape)
    elif name.endswith("_token") or name == "register_tokens":
        value = 0.1 * draw(seed, name, shape)
    elif name == "pos_embed":
        value = 0.5 * draw(seed, name, shape)
    else:
        value = fill(seed, name, shape)
    return torch.from_numpy(value).float()


def dino_state(
    img_size: int, embed_dim: int, depth: int, registers: int, seed: int = 0, **_: int
) -> dict[str, torch.Tensor]:
    shapes = dino_shapes(img_size, embed_dim, depth, registers)
    return {name: dino_value(seed, name, shape) for name, shape in shapes.items()}


def dino_file(folder: Path, **shape: int) -> Path:
    path = folder / "dino.pth"
    torch.save(dino_state(**shape), path)
    return path
