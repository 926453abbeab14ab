"""Networks through the package transformers: folders of weights, and what is missing.

transformers is imported where a network is built (extra ``sam``). A folder is one that
``save_pretrained`` wrote or that the hub's cache holds; nothing is downloaded, and nothing is
unpickled: weights are ``model.safetensors``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zerodefect.backbones.weight_files import WeightsError, file_hash, in_hub_cache

WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class HubModel:
    """Weights that are known by name.

    Attributes:
        name: of the repository on the hub.
        part: what they are for: ``segmenter`` or ``grounder``.
        megabytes: size of the weights file, rounded.
        licence: of the weights, as their repository states it.
    """

    name: str
    part: str
    megabytes: int
    licence: str

    @property
    def file(self) -> Path | None:
        """Where it lies on this machine, or None."""
        return in_hub_cache(self.name, [WEIGHTS_FILE])


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
)


def bringing(name: str) -> str:
    """Command that brings a network's files into the hub's cache, where there is a network."""
    return f"hf download {name} --include '*.safetensors' '*.json' '*.txt'"


def transformers_package() -> Any:
    """The package, imported now.

    Raises:
        WeightsError: it is not installed; the message names the extra.
    """
    try:
        import transformers
    except ImportError:
        raise WeightsError(
            "segmenters and grounders need transformers: pip install 'zerodefect[sam]'"
        ) from None
    return transformers


def weights_folder(name: str | Path) -> Path:
    """Folder of a network: a local one, or that of a repository in the hub's cache.

    Raises:
        WeightsError: neither is there; the message says how to bring it.
    """
    folder = Path(name)
    if folder.is_file():
        folder = folder.parent
    if folder.is_dir():
        for file in (WEIGHTS_FILE, "config.json"):
            if not (folder / file).is_file():
                raise WeightsError(
                    f"{folder}: no {file} in it. Give a folder as save_pretrained writes it"
                )
        return folder
    found = in_hub_cache(str(name), [WEIGHTS_FILE])
    if found is None:
        raise WeightsError(
            f"{name}: the weights are not on this machine, and nothing is downloaded unasked. "
            f"With a network: {bringing(str(name))}. Without: bring the files of "
            f"https://huggingface.co/{name} and give their folder"
        )
    return found.parent


def hub_network(folder: Path, kinds: dict[str, str], dtype: torch.dtype) -> Any:
    """Build a network from its folder, in eval mode and frozen.

    Args:
        folder: with ``config.json`` and ``model.safetensors``.
        kinds: names of transformers' classes by the ``model_type`` of the configuration.
        dtype: its precision.

    Raises:
        WeightsError: transformers is missing or too old, another kind of network, or damaged.
    """
    package = transformers_package()
    try:
        config = package.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{folder}: its config.json cannot be used ({_line(error)}). Copy the folder again, or "
            "update transformers"
        ) from None
    kind = kinds.get(config.model_type)
    if kind is None:
        raise WeightsError(
            f"{folder}: a network of type {config.model_type}; this takes {', '.join(kinds)}"
        )
    made = getattr(package, kind, None)
    if made is None:
        raise WeightsError(
            f"{folder}: transformers {package.__version__} has no {kind}. Update it: "
            "pip install -U 'zerodefect[sam]'"
        )
    try:
        network = made.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(
            f"{folder}: the weights cannot be used ({_line(error)}). Copy the folder again"
        ) from None
    return network.to(dtype).eval().requires_grad_(False)


def hub_facts(name: str | Path, folder: Path) -> dict[str, Any]:
    """``name``, ``fingerprint``, ``file`` and ``licence`` of weights in a folder."""
    licence = next((each.licence for each in HUB_MODELS if each.name == str(name)), None)
    told = str(name) if not Path(name).exists() else f"{folder.name} (local)"
    file = folder / WEIGHTS_FILE
    return {
        "name": told,
        "fingerprint": file_hash(file),
        "file": file.absolute(),
        "licence": licence,
    }


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
