"""Files of weights: read without running any code in them, and named by their content."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor


class WeightsError(RuntimeError):
    """Weights that cannot be had or do not fit; the message says file, reason and remedy."""


def read_state(path: Path, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Read a state dict without running any code in it.

    Wrappers (``{"state_dict": ...}``, ``{"model": ...}``) and ``module.`` prefixes are taken off.
    Tensors of a safetensors file are mapped: they cost memory when they are first used.

    Args:
        path: the file.
        dtype: precision that floating-point values of a safetensors file are brought to, one
            tensor at a time, so that the file's own precision is never in memory as a whole.

    Raises:
        WeightsError: absent, damaged, a TorchScript archive, or not a state dict.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file. Give the path of a weights file")
    try:
        if path.suffix == ".safetensors":
            state: Any = _read_safetensors(path, dtype)
        else:
            _refuse_torchscript(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # torch and safetensors raise a dozen types for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(
            f"{path}: cannot be read as weights ({reason}). Copy the file again from its source; "
            "only safetensors and plain tensors (torch.load with weights_only) are accepted"
        ) from None
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path}: holds no state dict. Give a file of named tensors")
    return {str(k).removeprefix("module."): v for k, v in state.items() if isinstance(v, Tensor)}


def _read_safetensors(path: Path, dtype: torch.dtype | None) -> dict[str, Tensor]:
    state = load_file(path)
    for name, value in state.items():
        if dtype and value.is_floating_point() and value.dtype != dtype:
            # A mapping of its own, which is dropped with the tensor: pages of the one above would
            # stay in memory as long as any of its tensors does.
            with safe_open(path, "pt") as again:
                state[name] = again.get_tensor(name).to(dtype)
    return state


def misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What keeps weights from fitting a network's own, by name and shape; empty where they fit."""
    faults = [f"missing {name}" for name in own if name not in given]
    faults += [f"unknown {name}" for name in given if name not in own]
    faults += [
        f"{name} is {tuple(given[name].shape)}, expected {tuple(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    return listed(faults)


def listed(faults: Sequence[str], most: int = 5) -> str:
    """The first of several faults, and how many more there are."""
    more = f" and {len(faults) - most} more" if len(faults) > most else ""
    return "; ".join(faults[:most]) + more


def is_mapped(path: Path, dtype: torch.dtype) -> bool:
    """Whether towers of this precision are mapped from the file: then a second pair is free."""
    if path.suffix != ".safetensors":
        return False
    return all(v.dtype == dtype for v in load_file(path).values() if v.is_floating_point())


def in_hub_cache(repository: str, files: Sequence[str]) -> Path | None:
    """The first of these files that the Hugging Face cache holds of a repository, or None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for file in files if repository else ():
        with suppress(HFValidationError):
            found = try_to_load_from_cache(repository, file)
            if isinstance(found, str):
                return Path(found)
    return None


def _refuse_torchscript(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("constants.pkl") for name in archive.namelist()):
            raise WeightsError(
                f"{path}: a TorchScript archive, which carries code. Take the safetensors file of "
                "the same weights (open_clip's tag 'openai' names it)"
            )


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()
