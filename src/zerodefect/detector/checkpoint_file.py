"""Checkpoints: the learned values of a method (safetensors) and what they mean (JSON side-car)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from zerodefect.detector.contract import Detector, Sizes
from zerodefect.detector.learned_pictures import LEARNED_FROM
from zerodefect.files import atomic_write
from zerodefect.version import __version__

FORMAT = "zerodefect-checkpoint"
VERSION = 2  # from 2 on a file may name the pictures that it was learned from


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says file, reason and remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """What a side-car says.

    Attributes:
        path: the file of learned values.
        sha256: of that file, hexadecimal.
        method: registered name.
        config: hyper-parameters of the method, plain data.
        image_size: ``(height, width)`` of the network's input in pixels, of several by name.
        backbone: name of the weights that the values were learned on; several in a list, or None.
        weights: SHA-256 of those weights, likewise.
        origin: how the values came about: training data with counts and hash, seed, recipe and
            steps; or the published file that they were taken from.
        versions: of the package and of torch.
        activation: of the towers when the values were learned; None in files from before it was
            written down.
    """

    path: Path
    sha256: str
    method: str
    config: dict[str, Any]
    image_size: Sizes
    backbone: str | list[str] | None
    weights: str | list[str] | None
    origin: dict[str, Any]
    versions: dict[str, str]
    activation: str | list[str | None] | None = None


def save_checkpoint(
    detector: Detector,
    path: str | Path,
    origin: Mapping[str, Any],
    learned_from: Tensor | None = None,
) -> Checkpoint:
    """Write the learned values of a detector and the side-car ``path`` with ending ``.json``.

    The same values, settings and origin (plain data for the side-car) give the same bytes. From
    now on the detector knows that its values are those of this file.

    ``learned_from`` are the ``picture_names`` of the pictures that were learned from; None where
    these are unknown.

    Raises:
        StoreError: the files cannot be written.
    """
    path = Path(path)
    values = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in detector.learned_values.items()
    }
    if learned_from is not None:
        values[LEARNED_FROM] = learned_from.contiguous()
    content = save(values, {"format": "pt"})
    made = Checkpoint(
        path=path,
        sha256=hashlib.sha256(content).hexdigest(),
        method=detector.info.name,
        config=json.loads(json.dumps(dataclasses.asdict(detector.config))),
        image_size=detector.sizes,
        backbone=detector.backbone,
        weights=detector.weights,
        origin=dict(origin),
        versions={"zerodefect": __version__, "torch": torch.__version__},
        activation=detector.activation,
    )
    facts = dataclasses.asdict(made)
    del facts["path"]
    with atomic_write(path) as file:
        file.write(content)
    with atomic_write(path.with_suffix(".json")) as file:
        file.write(json.dumps({"format": FORMAT, "version": VERSION, **facts}, indent=1).encode())
        file.write(b"\n")
    detector.checkpoint, detector.learned_from = made.sha256, learned_from
    detector.origin = made.origin
    return made


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read the side-car of a checkpoint and check that it belongs to the file.

    Raises:
        CheckpointError: no such file, no side-car, another format, or a side-car of other values.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such checkpoint. Give the .safetensors file that zerodefect train or "
            "zerodefect import wrote"
        )
    side_car = path.with_suffix(".json")
    if not side_car.is_file():
        raise CheckpointError(
            f"{path}: {side_car.name} is not beside it, so nothing says its method and backbone. "
            "Copy both files that zerodefect train or zerodefect import wrote; a published file "
            "is taken over by zerodefect import"
        )
    try:
        facts = json.loads(side_car.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']!r}")
        if facts["version"] > VERSION:
            raise CheckpointError(
                f"{side_car}: written by a newer ZeroDefect (format {facts['version']}, this one "
                f"reads up to {VERSION}). Update the package"
            )
        made = Checkpoint(
            path,
            sha256=str(facts["sha256"]),
            method=str(facts["method"]),
            config=dict(facts["config"]),
            image_size=_sizes(facts["image_size"]),
            backbone=facts["backbone"],
            weights=facts["weights"],
            origin=dict(facts["origin"]),
            versions=dict(facts["versions"]),
            activation=facts.get("activation"),
        )
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{side_car}: not the side-car of a checkpoint ({reason}). Copy it again, or train or "
            "import anew"
        ) from None
    if hashlib.sha256(path.read_bytes()).hexdigest() != made.sha256:
        raise CheckpointError(
            f"{path}: its content is not what {side_car.name} was written for. Copy both files "
            "again from one run"
        )
    return made


def _sizes(stored: Any) -> Sizes:
    if isinstance(stored, dict):
        return {name: _size(size) for name, size in stored.items()}
    return _size(stored)


def _size(stored: Any) -> tuple[int, int]:
    height, width = stored
    return int(height), int(width)


def load_checkpoint(detector: Detector, source: str | Path | Checkpoint) -> Checkpoint:
    """Give a detector the learned values of a checkpoint.

    Raises:
        CheckpointError: the file cannot be used, or belongs to another method, to other backbone
            weights, to another activation or to another shape of the method; both sides are named.
    """
    found = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    if found.method != detector.info.name:
        raise CheckpointError(
            f"{found.path}: a checkpoint of {found.method}, not of {detector.info.name}. Leave the "
            "method out, or give its own checkpoint"
        )
    check_weights(found, detector.backbone, detector.weights)
    if found.activation not in (None, detector.activation):
        raise CheckpointError(
            f"{found.path}: learned on {found.backbone} run with {found.activation}, and this is "
            f"{detector.backbone} run with {detector.activation}. Name the weights as they "
            "were named for learning (--backbone, --weights), and leave the method's settings "
            "(--set) as they were"
        )
    try:
        values = load(found.path.read_bytes())
    except Exception as error:  # safetensors' errors share no base with each other
        raise CheckpointError(f"{found.path}: cannot be read ({error}). Copy it again") from None
    learned_from = values.pop(LEARNED_FROM, None)
    fill(detector, values, str(found.path))
    detector.checkpoint, detector.learned_from = found.sha256, learned_from
    detector.origin = found.origin
    return found


def check_weights(found: Checkpoint, name: Any, fingerprint: Any) -> None:
    """Refuse networks, of these facts, that the values were not learned on.

    Raises:
        CheckpointError: naming both.
    """
    if found.weights != fingerprint:
        raise CheckpointError(
            f"{found.path}: learned on {found.backbone} (weights {_short(found.weights)}), and "
            f"this backbone is {name} (weights {_short(fingerprint)}). Give the same weights "
            "(--backbone, --weights), or train on these"
        )


def _short(fingerprints: Any) -> Any:
    many = isinstance(fingerprints, list)
    return [f[:12] for f in fingerprints] if many else fingerprints and fingerprints[:12]


@torch.no_grad()
def fill(detector: Detector, values: Mapping[str, Tensor], where: str) -> None:
    """Replace all learned values of a detector, and let it renew what follows from them.

    Raises:
        CheckpointError: names or shapes are not those of the detector; all are listed.
    """
    learned = detector.learned_values
    faults = [f"{name} is missing" for name in learned if name not in values]
    faults += [f"{name} is unknown" for name in values if name not in learned]
    faults += [
        f"{name} has shape {tuple(values[name].shape)} instead of {tuple(value.shape)}"
        for name, value in learned.items()
        if name in values and values[name].shape != value.shape
    ]
    if faults:
        raise CheckpointError(
            f"{where}: not the learned values of this {detector.info.name}: {'; '.join(faults)}. "
            "Give the options and the backbone that they were learned with"
        )
    for name, value in learned.items():
        value.copy_(values[name])
    detector.after_learning()


def untrained_error(method: str) -> CheckpointError:
    """What to say where a method that must be trained has no checkpoint."""
    return CheckpointError(
        f"{method} must learn from other products' labelled defects before it can judge, and no "
        f"checkpoint was given (--checkpoint FILE). Make one: zerodefect train {method} "
        f"--data NAME=PATH, or take the authors' file over: zerodefect import {method} FILE"
    )
