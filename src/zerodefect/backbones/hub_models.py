"""Networks through the package transformers: folders of weights, and what is missing.

transformers is imported where a network is built (extras ``sam`` and ``vlm``). A folder is one that
``save_pretrained`` wrote or that the hub's cache holds; nothing is downloaded, and nothing is
unpickled: weights are ``model.safetensors``, or several such files and their index.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from zerodefect.backbones.weight_files import WeightsError, file_hash, in_hub_cache

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"  # of weights in several files
_ANY_WEIGHTS = (WEIGHTS_FILE, INDEX_FILE)
SHAPE = ("config.json",)  # of a network whose weights come from elsewhere


@dataclass(frozen=True)
class HubModel:
    """Weights that are known by name.

    Attributes:
        name: of the repository on the hub.
        part: what they are for: ``segmenter``, ``grounder`` or ``chat model``.
        megabytes: size of the weights, rounded.
        licence: of the weights, as their repository states it.
    """

    name: str
    part: str
    megabytes: int
    licence: str

    @property
    def file(self) -> Path | None:
        """Where it lies on this machine, or None."""
        return in_hub_cache(self.name, _ANY_WEIGHTS)

    @property
    def extra(self) -> str:
        """Extra of this package that it needs."""
        return EXTRAS[self.part]


EXTRAS = {"segmenter": "sam", "grounder": "sam", "chat model": "vlm"}
"""Extra that transformers comes with, by what the weights are for."""

SAM = "facebook/sam-vit-base"
GROUNDING_DINO = "IDEA-Research/grounding-dino-tiny"

HUB_MODELS = (
    HubModel(SAM, "segmenter", 375, "Apache-2.0"),
    HubModel("facebook/sam-vit-large", "segmenter", 1250, "Apache-2.0"),
    HubModel("facebook/sam-vit-huge", "segmenter", 2564, "Apache-2.0"),
    HubModel("facebook/sam2.1-hiera-tiny", "segmenter", 156, "Apache-2.0"),
    HubModel("facebook/sam2.1-hiera-small", "segmenter", 184, "Apache-2.0"),
    HubModel("facebook/sam2.1-hiera-base-plus", "segmenter", 324, "Apache-2.0"),
    HubModel("facebook/sam2.1-hiera-large", "segmenter", 898, "Apache-2.0"),
    HubModel(GROUNDING_DINO, "grounder", 690, "Apache-2.0"),
    HubModel("IDEA-Research/grounding-dino-base", "grounder", 933, "Apache-2.0"),
    HubModel("HuggingFaceTB/SmolVLM-500M-Instruct", "chat model", 1015, "Apache-2.0"),
    HubModel("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "chat model", 1787, "Apache-2.0"),
    HubModel("Qwen/Qwen2-VL-2B-Instruct", "chat model", 4418, "Apache-2.0"),
    HubModel("Qwen/Qwen2.5-VL-7B-Instruct", "chat model", 16584, "Apache-2.0"),
)


def bringing(name: str) -> str:
    """Command that brings a network's files into the hub's cache, where there is a network."""
    return f"hf download {name} --include '*.safetensors' '*.json' '*.txt' '*.jinja'"


def transformers_package(extra: str = "sam") -> Any:
    """The package, imported now.

    Raises:
        WeightsError: it is not installed; the message names the extra.
    """
    try:
        import transformers
    except ImportError:
        these = " and ".join(f"{part}s" for part, its in EXTRAS.items() if its == extra)
        raise WeightsError(
            f"{these} need transformers: pip install 'zerodefect[{extra}]'"
        ) from None
    return transformers


def weights_folder(name: str | Path, needed: Sequence[str] = _ANY_WEIGHTS) -> Path:
    """Folder of a network: a local one, or that of a repository in the hub's cache.

    Args:
        name: of the folder or the repository.
        needed: files of which one is there; besides ``config.json`` in a local one.

    Raises:
        WeightsError: neither is there; the message says how to bring it.
    """
    folder = Path(name)
    if folder.is_file():
        folder = folder.parent
    if folder.is_dir():
        for files in (needed, ("config.json",)):
            if not any((folder / file).is_file() for file in files):
                raise WeightsError(
                    f"{folder}: no {files[0]} in it. Give a folder as save_pretrained writes it"
                )
        return folder
    found = in_hub_cache(str(name), needed)
    if found is None and needed == SHAPE:
        raise WeightsError(
            f"{name}: its configuration and tokeniser are not on this machine. With a network: hf "
            f"download {name} --include '*.json' '*.txt' (weights are not needed). Without: bring "
            f"these files of https://huggingface.co/{name} and give their folder"
        )
    if found is None:
        raise WeightsError(
            f"{name}: the weights are not on this machine, and nothing is downloaded unasked. "
            f"With a network: {bringing(str(name))}. Without: bring the files of "
            f"https://huggingface.co/{name} and give their folder"
        )
    return found.parent


def hub_network(folder: Path, kinds: dict[str, str], dtype: torch.dtype, extra: str = "sam") -> Any:
    """Build a network from its folder, in eval mode and frozen.

    Args:
        folder: with ``config.json`` and weights.
        kinds: names of transformers' classes by the ``model_type`` of the configuration; under
            ``""`` that of any other type.
        dtype: its precision.
        extra: of this package, that brings transformers.

    Raises:
        WeightsError: transformers is missing or too old, another kind of network, or damaged.
    """
    package, made, _ = _class_of(folder, kinds, extra)
    try:
        with _without_bars(package):
            network = made.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=dtype
            )
    except (OSError, ValueError, RuntimeError, TypeError, LookupError, SafetensorError) as error:
        raise WeightsError(
            f"{folder}: the weights cannot be used ({_line(error)}). Copy the folder again"
        ) from None
    return network.to(dtype).eval().requires_grad_(False)


def filled_network(
    folder: Path, kinds: dict[str, str], state: Mapping[str, Tensor], extra: str = "sam"
) -> tuple[Any, list[str]]:
    """Build a network as a folder's ``config.json`` says, with weights from elsewhere.

    Args:
        folder, kinds, extra: as of ``hub_network``; the folder needs no weights.
        state: float32 tensors by the names that the folder's own weights would have.

    Returns:
        The network in eval mode and frozen, and what is missing, unknown or of another shape.

    Raises:
        WeightsError: transformers is missing or too old, or another kind of network.
    """
    package, made, config = _class_of(folder, kinds, extra)
    with _without_bars(package):
        network, told = made.from_pretrained(
            None, config=config, state_dict=dict(state), dtype=torch.float32,
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    faults = [f"missing {name}" for name in sorted(told["missing_keys"])]
    faults += [f"unknown {name}" for name in sorted(told["unexpected_keys"])]
    faults += [
        f"{name} is {tuple(given)}, expected {tuple(expected)}"
        for name, given, expected in sorted(told["mismatched_keys"])
    ]
    return network.eval().requires_grad_(False), faults


def _class_of(folder: Path, kinds: dict[str, str], extra: str) -> tuple[Any, Any, Any]:
    """transformers, the class of a folder's network in it, and its configuration."""
    package = transformers_package(extra)
    try:
        config = package.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{folder}: its config.json cannot be used ({_line(error)}). Copy the folder again, or "
            "update transformers"
        ) from None
    kind = kinds.get(config.model_type, kinds.get(""))
    if kind is None:
        raise WeightsError(
            f"{folder}: a network of type {config.model_type}; this takes {', '.join(kinds)}"
        )
    made = getattr(package, kind, None)
    if made is None:
        raise WeightsError(
            f"{folder}: transformers {package.__version__} has no {kind}. Update it: "
            f"pip install -U 'zerodefect[{extra}]'"
        )
    return package, made, config


@contextmanager
def _without_bars(package: Any) -> Iterator[None]:
    """transformers shows no bars of its own meanwhile."""
    bars = package.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()


def hub_facts(name: str | Path, folder: Path) -> dict[str, Any]:
    """``name``, ``fingerprint``, ``file`` and ``licence`` of weights in a folder."""
    licence = next((each.licence for each in HUB_MODELS if each.name == str(name)), None)
    told = str(name) if not Path(name).exists() else f"{folder.name} (local)"
    file = next(folder / each for each in _ANY_WEIGHTS if (folder / each).is_file())
    return {
        "name": told,
        "fingerprint": _fingerprint(file),
        "file": file.absolute(),
        "licence": licence,
    }


def _fingerprint(file: Path) -> str:
    """SHA-256 of a weights file; of several, of the names and hashes that their index names."""
    if file.name != INDEX_FILE:
        return file_hash(file)
    try:
        names = sorted(set(json.loads(file.read_text("utf-8"))["weight_map"].values()))
        told = [f"{name} {file_hash(file.parent / Path(name).name)}" for name in names]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(
            f"{file}: cannot be used ({_line(error)}). Copy the folder again"
        ) from None
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
