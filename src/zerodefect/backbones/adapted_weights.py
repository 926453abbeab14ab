"""Weights that were adapted from the embedded model, kept as what differs from it.

Adapting changes a twentieth of the model. Where that has to travel with a product, the frozen rest
is taken from the package again, and the file that comes out is the same to the last byte.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from zerodefect.backbones.clip_weights import embedded_file
from zerodefect.backbones.weight_files import WeightsError, file_hash

BASE = "base"
"""In the head of adapted weights: SHA-256 of the file that they were adapted from."""

_HEAD, _WHOLE = "head", "sha256"  # in that of a difference: the whole file's head and SHA-256


def base_of(weights: Path) -> str:
    """SHA-256 of the file that weights were adapted from, at first; their own if they were not.

    Raises:
        OSError, SafetensorError: it cannot be read.
    """
    return _facts(weights).get(BASE) or file_hash(weights)


def is_adapted(weights: Path) -> bool:
    """Whether a file says of itself that it was adapted; what cannot be read does not."""
    try:
        return BASE in _facts(weights)
    except (OSError, SafetensorError):
        return False


def difference(weights: Path) -> bytes | None:
    """What an adapted file holds that the embedded model does not, as safetensors.

    None where the file was not adapted from the embedded model of this package.

    Raises:
        OSError, SafetensorError: it cannot be read.
    """
    came_from = _facts(weights).get(BASE)
    if came_from != file_hash(embedded_file()):
        return None
    own, base = load_file(weights), load_file(embedded_file())
    changed = {n: v for n, v in own.items() if n not in base or _bytes(v) != _bytes(base[n])}
    told = {BASE: came_from, _WHOLE: file_hash(weights), _HEAD: _head(weights).decode()}
    content: bytes = save(changed, told)
    return content


def restore(changed: Path, weights: Path) -> None:
    """Write the file again that a difference was made of.

    Args:
        changed: file with what ``difference`` gave.
        weights: where to write.

    Raises:
        WeightsError: a damaged difference, or one from another embedded model than the package's.
    """
    try:
        facts, base = _facts(changed), file_hash(embedded_file())
        if facts.get(BASE) != base:
            raise WeightsError(
                f"its weights were adapted from the embedded model with SHA-256 "
                f"{str(facts.get(BASE))[:16]}..., and the one of this version is {base[:16]}.... "
                "Name their own file (--backbone FILE), or adapt the present model anew "
                "(zerodefect pretrain --good) and learn on that: calibrate --product --renew "
                "--backbone FILE"
            )
        values = {**load_file(embedded_file()), **load_file(changed)}
        head = facts[_HEAD].encode()
        places = {n: told for n, told in json.loads(head).items() if n != "__metadata__"}
        in_order = sorted(places, key=lambda name: places[name]["data_offsets"])
        body = b"".join(_bytes(values[name]) for name in in_order)
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"its adapted weights are damaged ({error})") from None
    content = len(head).to_bytes(8, "little") + head + body
    if hashlib.sha256(content).hexdigest() != facts.get(_WHOLE):
        raise WeightsError("its adapted weights are damaged (another SHA-256)")
    weights.write_bytes(content)


def _facts(weights: Path) -> dict[str, str]:
    with safe_open(weights, "pt") as stored:
        return stored.metadata() or {}


def _head(weights: Path) -> bytes:
    """The head of a safetensors file: JSON, with its padding."""
    with weights.open("rb") as stream:
        return stream.read(int.from_bytes(stream.read(8), "little"))


def _bytes(value: torch.Tensor) -> bytes:
    return value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
