"""Build a detector from names: method, backbone, device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from zerodefect.backbones.loading import load_clip
from zerodefect.methods.detector import Detector
from zerodefect.methods.registry import create, get

_LARGEST_INPUT = 4096  # pixels; attention over all patches grows with the fourth power of it


def load_detector(
    method: str,
    *,
    backbone: str | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    image_size: int | None = None,
    **options: Any,
) -> Detector:
    """Load weights and put a method on them, in eval mode.

    Args:
        method: a registered name.
        backbone: None for the embedded model, ``"MODEL/TAG"`` of open_clip, or a weights file.
        weights: local weights file for the architecture that ``backbone`` names.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        precision: of the towers: float32 or bfloat16.
        image_size: side of the network's input in pixels, instead of the weights' own.
        options: hyper-parameters of the method. One that is not given is what the weights'
            side-car recommends for the method, else the method's default (the paper's value).

    Raises:
        ValueError: unknown method, option, precision or device, or a value of another type.
        WeightsError: weights that cannot be had or do not fit.
    """
    chosen = pick_device(device)
    options = _typed(get(method).detector.Config, options)
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision is float32 or bfloat16, not {precision!r}")
    loaded = load_clip(backbone, weights=weights, device=chosen, dtype=getattr(torch, precision))
    if image_size is not None:
        patch = loaded.clip.config.vision.patch_size
        if not patch <= image_size <= _LARGEST_INPUT:
            raise ValueError(
                f"image size {image_size}: it must lie between the backbone's patch size {patch} "
                f"and {_LARGEST_INPUT} pixels; larger pictures are cut into tiles (--tile)"
            )
        if image_size % patch:
            raise ValueError(
                f"image size {image_size} is no multiple of the backbone's patch size {patch}; "
                f"the nearest is {max(1, round(image_size / patch)) * patch}"
            )
        preprocess = dataclasses.replace(loaded.preprocess, size=(image_size, image_size))
        loaded = dataclasses.replace(loaded, preprocess=preprocess)
    options = {**loaded.recommended.get(method, {}), **options}
    return create(method, loaded, **options).to(chosen).eval()


def pick_device(name: str) -> torch.device:
    """Resolve ``"auto"`` and check that the device is there.

    Raises:
        ValueError: no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device {name!r} cannot be used ({reason}). zerodefect doctor shows what is there"
        ) from None
    return device


def _typed(config: type, options: dict[str, Any]) -> dict[str, Any]:
    """Give values the types of the fields of ``config``; unknown names are left to the method."""
    hints = get_type_hints(config)
    typed = dict(options)
    for name in options.keys() & hints.keys():
        field = TypeAdapter(hints[name], config=ConfigDict(arbitrary_types_allowed=True))
        try:
            typed[name] = field.validate_python(options[name])
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ValueError(f"option {name}={options[name]!r}: {reason}") from None
    return typed
