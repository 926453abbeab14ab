"""Build a detector from names: method, backbone, device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError

from zerodefect.backbones.clip_weights import EMBEDDED, Backbone, load_clip, recommended_method
from zerodefect.detector.checkpoint_file import (
    Checkpoint,
    CheckpointError,
    check_backbone,
    load_checkpoint,
    read_checkpoint,
    untrained_error,
)
from zerodefect.detector.contract import Detector
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import create, get

_FOR_ANY_WEIGHTS = "winclip"  # trained on nothing, for any CLIP

_LARGEST_INPUT = 4096  # pixels; attention over all patches grows with the fourth power of it


def load_detector(
    method: str | None = None,
    *,
    checkpoint: str | Path | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    image_size: int | None = None,
    untrained: bool = False,
    **options: Any,
) -> Detector:
    """Load weights and put a method on them, in eval mode.

    Args:
        method: a registered name; None for the checkpoint's, or else ``default_method``.
        checkpoint: learned values of a trained method, as ``zerodefect train`` and ``zerodefect
            import`` write them. Hyper-parameters, input size and backbone are then those that the
            values were learned with, as far as nothing else is said here.
        backbone: None for the embedded model, ``"MODEL/TAG"`` of open_clip, or a weights file.
        weights: local weights file for the architecture that ``backbone`` names.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        precision: of the towers: float32 or bfloat16.
        image_size: side of the network's input in pixels, instead of the checkpoint's, or else what
            the weights' side-car recommends for the method, or else the weights' own.
        untrained: a trainable method starts with its initial values, for whoever fills them.
        options: hyper-parameters of the method. One that is not given is what the weights'
            side-car recommends for the method, else the method's default (the paper's value).

    Raises:
        ValueError: unknown method, option, precision or device, or a value of another type.
        CheckpointError: a checkpoint that does not fit, or none for a method that must be trained.
        WeightsError: weights that cannot be had or do not fit.
    """
    chosen = pick_device(device)
    found = read_checkpoint(checkpoint) if checkpoint is not None else None
    if found and method not in (None, found.method):
        raise CheckpointError(
            f"{found.path}: a checkpoint of {found.method}, but the method asked for is {method}. "
            "Leave the method out, or give its own checkpoint"
        )
    method = method or (found.method if found else default_method(backbone, weights))
    kind = get(method).detector
    if found is None and not untrained and "training" in kind.info.knows_from:
        raise untrained_error(method)
    options = _typed(kind.Config, options)
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision is float32 or bfloat16, not {precision!r}")
    if found and backbone is None and weights is None:
        backbone = _backbone_of(found)
    loaded = load_clip(backbone, weights=weights, device=chosen, dtype=getattr(torch, precision))
    recommended = dict(loaded.recommended.get(method, {}))
    advised = recommended.pop("image_size", None)
    size = _input_size(
        loaded,
        image_size or (None if found else advised),
        found,
        kind.recipe if untrained else None,
    )
    loaded = dataclasses.replace(
        loaded, preprocess=dataclasses.replace(loaded.preprocess, size=size)
    )
    if found is None:
        options = {**_typed(kind.Config, recommended), **options}
        return create(method, loaded, **options).to(chosen).eval()
    check_backbone(found, loaded.name, loaded.fingerprint)
    options = {**_typed(kind.Config, found.config), **options}
    detector = create(method, loaded, **options).to(chosen).eval()
    load_checkpoint(detector, found.path)
    return detector


def default_method(backbone: str | None = None, weights: str | Path | None = None) -> str:
    """Method for weights where none is named: what their side-car recommends, else WinCLIP."""
    return recommended_method(backbone, weights) or _FOR_ANY_WEIGHTS


def _backbone_of(found: Checkpoint) -> str:
    """Name by which the weights of a checkpoint can be loaded again."""
    local = found.backbone.endswith(")") or "/" not in found.backbone
    if found.backbone != EMBEDDED and local:
        raise CheckpointError(
            f"{found.path}: learned on the local weights {found.backbone}, whose place is not "
            "known. Name them (--backbone, --weights)"
        )
    return found.backbone


def _input_size(
    loaded: Backbone, asked: int | None, found: Checkpoint | None, recipe: Recipe | None
) -> tuple[int, int]:
    """``(height, width)``: what is asked for, the checkpoint's, the paper's, or the weights' own.

    The papers' size is for the papers' weights, ViT-L/14@336px.
    """
    patch = loaded.clip.config.vision.patch_size
    if asked is not None:
        _check_size(asked, patch)
        return asked, asked
    if found is not None:
        try:
            for side in found.image_size:
                _check_size(side, patch)
        except ValueError as error:
            raise CheckpointError(
                f"{found.path.with_suffix('.json')}: {error}. Copy both files again, or name the "
                "size (--image-size)"
            ) from None
        return found.image_size
    if recipe and recipe.image_size and (patch, loaded.preprocess.size) == (14, (336, 336)):
        return recipe.image_size, recipe.image_size
    return loaded.preprocess.size


def _check_size(side: int, patch: int) -> None:
    if not patch <= side <= _LARGEST_INPUT:
        raise ValueError(
            f"image size {side}: it must lie between the backbone's patch size {patch} "
            f"and {_LARGEST_INPUT} pixels; larger pictures are cut into tiles (--tile)"
        )
    if side % patch:
        raise ValueError(
            f"image size {side} is no multiple of the backbone's patch size {patch}; "
            f"the nearest is {max(1, round(side / patch)) * patch}"
        )


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
