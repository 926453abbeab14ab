"""Official checkpoints become ours: read without running code, checked key by key, written anew."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from zerodefect.backbones.weight_files import file_hash
from zerodefect.detector.checkpoint_file import Checkpoint, CheckpointError, fill, save_checkpoint
from zerodefect.methods import get, load_detector


def read_published(path: str | Path) -> Mapping[str, Any]:
    """Read an official checkpoint: safetensors, or ``torch.load`` with ``weights_only``.

    Raises:
        CheckpointError: no such file, damaged, holding more than plain values, or no dictionary.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Give the file that the authors published")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise a dozen types for a damaged file
        reason = _reason(error)
        raise CheckpointError(
            f"{path}: cannot be read as plain values ({reason}). Download it again and compare its "
            "SHA-256 with the source; a file that carries code is not opened"
        ) from None
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__} instead of named values. Give the file "
            "that the authors published"
        )
    return {str(key): value for key, value in content.items()}


def _reason(error: Exception) -> str:
    """What is wrong with a file, without torch's advice to open it as code."""
    text = str(error)
    if found := re.search(r"Unsupported (?:global|class): (?:GLOBAL )?(\S+)", text):
        return f"it carries code or objects: {found[1]}"
    if isinstance(error, pickle.UnpicklingError):
        return "it is no file of PyTorch, or carries code or objects"
    return text.splitlines()[0] if text else f"it is empty or cut off, {type(error).__name__}"


def import_checkpoint(
    method: str, path: str | Path, output: str | Path, **options: Any
) -> Checkpoint:
    """Take an official checkpoint over.

    Options that the file's shapes tell are taken from them; others are the method's defaults or
    ``options``. The backbone's weights must be there: the result is bound to them.

    Args:
        method: a registered name.
        path: the authors' file.
        output: ``.safetensors`` file to write; its side-car goes beside it.
        options: ``backbone``, ``weights``, ``image_size`` and hyper-parameters of the method, as
            for ``load_detector``.

    Raises:
        UnsupportedError: no official format of the method is known.
        ValueError: keys or shapes do not fit; all are listed.
        WeightsError: the backbone's weights cannot be had; the message says how to get them.
    """
    published = read_published(path)
    chosen = {**get(method).official_options(published), **options}
    detector = load_detector(method, device="cpu", untrained=True, **chosen)
    try:
        state = detector.official_state(published)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None
    fill(detector, state, str(path))
    origin = {"how": "imported", "file": Path(path).name, "sha256": file_hash(Path(path))}
    return save_checkpoint(detector, output, origin)
