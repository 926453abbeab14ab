"""Official checkpoints become ours: read without running code, checked key by key, written anew."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from zerodefect.backbones.weight_files import file_hash
from zerodefect.detector.checkpoint_file import Checkpoint, CheckpointError, fill, save_checkpoint
from zerodefect.detector.contract import Detector
from zerodefect.detector.official_files import LONE_TENSOR
from zerodefect.methods import get, load_detector, names
from zerodefect.training.pickled_modules import StandIn, parameters_of, stand_ins

_LARGE, _BASE = "ViT-L-14-336/openai", "ViT-B-16/openai"
# Widths that tell towers apart, the telling ones first: 768 is both of the large one's texts and of
# the base one's patches.
_TOWERS = {1024: _LARGE, 512: _BASE, 768: _LARGE}


def read_published(path: str | Path, classes: Sequence[str] = ()) -> Mapping[str, Any]:
    """Read an official checkpoint: safetensors, or ``torch.load`` with ``weights_only``.

    A module gives its parameters and buffers, a lone tensor is named ``LONE_TENSOR``.

    Args:
        path: the authors' file.
        classes: ``Detector.official_classes`` that it may name.

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
            with safe_globals(stand_ins(classes)):
                content = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(content, StandIn):
            content = parameters_of(content)
    except Exception as error:  # torch and safetensors raise a dozen types for a damaged file
        reason = _reason(error)
        raise CheckpointError(
            f"{path}: cannot be read as plain values ({reason}). Download it again and compare its "
            "SHA-256 with the source; a file that carries code is not opened"
        ) from None
    if isinstance(content, Tensor):
        content = {LONE_TENSOR: content}
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__} instead of named values. Give the file "
            "that the authors published"
        )
    return {str(key): value for key, value in content.items()}


def read_together(paths: Sequence[str | Path], classes: Sequence[str] = ()) -> Mapping[str, Any]:
    """The named values of one official checkpoint, which may lie in several files.

    Numbers and words, such as the epoch, may stand in each of them. Arguments as of
    ``read_published``.

    Raises:
        CheckpointError: as of ``read_published``, or two files hold a value of the same name.
    """
    together: dict[str, Any] = {}
    for path in paths:
        found = read_published(path, classes)
        both = found.keys() & together.keys()
        if twice := sorted(k for k in both if not isinstance(found[k], (int, float, str))):
            raise CheckpointError(
                f"{path}: {twice[0]} stands in another file, too. Give each part of the "
                "checkpoint once"
            )
        together |= found
    return together


def _reason(error: Exception) -> str:
    """What is wrong with a file, without torch's advice to open it as code."""
    text = str(error)
    if found := re.search(r"(?i)unsupported (?:class: |(?:global: )?GLOBAL )(\S+)", text):
        return f"it carries code or objects: {found[1]}"
    if isinstance(error, pickle.UnpicklingError):
        return "it is no file of PyTorch, or carries code or objects"
    return text.splitlines()[0] if text else f"it is empty or cut off, {type(error).__name__}"


def import_checkpoint(
    method: str, path: str | Path | Sequence[str | Path], output: str | Path, **options: Any
) -> Checkpoint:
    """Take an official checkpoint over.

    Options that the file's shapes tell are taken from them; others are the method's defaults or
    ``options``. The backbone's weights must be there: the result is bound to them.

    Args:
        method: a registered name.
        path: the authors' file, or several that belong together (those of DRAEM, AA-CLIP and
            AF-CLIP).
        output: ``.safetensors`` file to write; its side-car goes beside it.
        options: ``backbone``, ``weights``, ``image_size`` and hyper-parameters of the method, as
            for ``load_detector``.

    Raises:
        UnsupportedError: no official format of the method is known.
        ValueError: keys or shapes do not fit; all are listed.
        WeightsError: the backbone's weights cannot be had; the message says how to get them.
    """
    paths = [path] if isinstance(path, (str, Path)) else list(path)
    where = ", ".join(map(str, paths))
    published = read_together(paths, get(method).official_classes)
    network = {name: options.get(name) for name in ("backbone", "weights", "image_size")}
    try:
        detector, state = _taken_over(method, published, options)
    except _MisfitError as error:
        raise CheckpointError(
            f"{where}: {_whose(method, published, network, str(error))}"
        ) from None
    fill(detector, state, where)
    files = [Path(each) for each in paths]
    facts = {"file": [file.name for file in files], "sha256": [file_hash(file) for file in files]}
    single = {name: values[0] if len(files) == 1 else values for name, values in facts.items()}
    origin = {"how": "imported", **single}
    return save_checkpoint(detector, output, origin)


class _MisfitError(ValueError):
    """Keys or shapes do not fit; all are listed."""


def _taken_over(
    method: str, published: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[Detector, dict[str, Tensor]]:
    told = get(method).official_options(published)
    options = {**told, **given}
    detector = load_detector(method, device="cpu", untrained=True, judges=False, **options)
    try:
        return detector, detector.official_state(published)
    except ValueError as error:
        raise _MisfitError(str(error)) from None


def _whose(method: str, published: Mapping[str, Any], network: Any, faults: str) -> str:
    """What is wrong with a file as a whole, if that can be told: the method, or the backbone."""
    tower = _tower(published)
    if _is_its_format(faults):
        return f"made for another backbone{f', {tower} (--backbone)' if tower else ''}. {faults}"
    if " is unknown" not in faults:  # all names are this method's: a part of its file
        return faults
    fitting = []
    for other in names():
        if other == method or not get(other).info.trained:
            continue
        try:
            _taken_over(other, published, network)
        except _MisfitError as error:
            if not _is_its_format(str(error)):
                continue
        except Exception:  # whatever another method makes of it, it is not its file
            continue
        fitting.append(other)
    if not fitting:
        return faults
    on = f" --backbone {tower}" if tower else ""
    command = f"zerodefect import {fitting[0]}{on}"
    return f"not a file of {method}, but of {' or '.join(fitting)}: {command}"


def _is_its_format(faults: str) -> bool:
    """Whether names fit and shapes do not; another depth costs or adds a few names."""
    strange = len(re.findall(r" is (?:missing|unknown|a \w+, not a dictionary)", faults))
    return len(re.findall(r" has shape ", faults)) > strange


def _tower(published: Mapping[str, Any]) -> str | None:
    """Name of the CLIP whose widths the tensors have; official files are for a few of them."""
    sides = set(_sides(published))
    return next((name for width, name in _TOWERS.items() if width in sides), None)


def _sides(values: Any) -> Iterator[int]:
    if isinstance(values, Mapping):
        for value in values.values():
            yield from _sides(value)
    elif isinstance(values, Tensor):
        yield from values.shape
