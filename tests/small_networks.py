"""A small convolutional network of random weights, in a file as users have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_clip import fill

SMALL_RESNET: dict[str, Any] = {"layers": (1, 1, 1, 1), "channels": (8, 12, 16, 24)}


def small_resnet(folder: Path, seed: int) -> Path:
    """State dict of a ResNet with ``SMALL_RESNET``, with a classifier, as their files are."""
    import timm

    model = timm.create_model("resnet18", pretrained=False, **SMALL_RESNET)
    state = {}
    for name, value in model.state_dict().items():
        if not value.is_floating_point():
            state[name] = value
        elif name.endswith("running_var"):
            state[name] = torch.ones_like(value)
        else:
            state[name] = torch.from_numpy(fill(seed, name, tuple(value.shape)).copy())
            if value.dim() == 4:  # keeps the variance behind a ReLU
                state[name] *= 2**0.5
    path = folder / f"resnet-{seed}.pth"
    torch.save(state, path)
    return path
