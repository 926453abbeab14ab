"""Where CLIP weights come from: the embedded model, open_clip by name, or a local file.

A source is decided in one place (``load_clip``). Nothing is downloaded unless
``open_clip_weights.fetch`` is called, and nothing is unpickled: safetensors, or
``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch.overrides import TorchFunctionMode

from zerodefect.backbones.clip import CLIP, Activation, CLIPConfig
from zerodefect.backbones.open_clip_weights import cached_weights, named_facts, preprocess_of
from zerodefect.backbones.transformer import activation_layer
from zerodefect.backbones.weight_files import WeightsError, file_hash, is_mapped, read_state
from zerodefect.images import Preprocess

EMBEDDED = "embedded"


@dataclass(frozen=True)
class CLIPBackbone:
    """A CLIP with what must travel with its weights; a ``Backbone`` with two towers.

    Attributes:
        name: as the user would name it again.
        clip: the towers, in eval mode.
        preprocess: input size, mean, standard deviation and interpolation of the weights.
        fingerprint: SHA-256 of the weights file, hexadecimal.
        licence: licence of the weights, or "see source".
        source: where the weights came from, in words.
        recommended: hyper-parameters that suit these weights better than a method's defaults,
            per method; measured by whoever made the weights.
        patches_match_texts: whether the last block's patches were trained to match texts in place.
            OpenAI's were not, and methods then read them through a second stream.
        reload: gives the same towers anew, mapped from their file, or None where that would copy.
        file: that the weights were read from; None for what came from no file.
    """

    name: str
    clip: CLIP
    preprocess: Preprocess
    fingerprint: str
    licence: str
    source: str
    recommended: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    patches_match_texts: bool = False
    reload: Callable[[], CLIP] | None = None
    file: Path | None = None

    @property
    def stride(self) -> int:
        """Side of a patch in pixels."""
        return self.clip.config.vision.patch_size

    @property
    def width(self) -> int:
        """Channels of the image tower's tokens."""
        return self.clip.config.vision.width

    @property
    def precision(self) -> str:
        """Of the towers' weights."""
        return str(self.clip.logit_scale.dtype).removeprefix("torch.")

    @property
    def activation(self) -> str:
        """That the towers run with."""
        return self.clip.config.activation

    def with_activation(self, activation: Activation | Literal["weights"]) -> CLIPBackbone:
        """The same weights, in memory once, in towers that run with another activation.

        Several official codes run OpenAI's QuickGELU weights with exact GELU, and the layers that
        they learned need it. This backbone stays as it is, for others that use it. ``weights``
        stands for what they were trained with.
        """
        if activation in ("weights", self.activation):
            return self
        wanted = cast(Activation, activation)
        reload = self.reload and partial(_with_activation, self.reload, wanted)
        return replace(self, clip=_with_activation(lambda: self.clip, wanted), reload=reload)


def _with_activation(load: Callable[[], CLIP], activation: Activation) -> CLIP:
    clip = load()
    shared: dict[int, Any] = {id(value): value for value in clip.parameters()}
    towers = copy.deepcopy(clip, shared)  # copies everything but what it finds in ``shared``
    for tower in (towers.visual, towers.fine, towers.text):
        for block in tower.transformer.blocks if tower else ():
            block.mlp.activation = activation_layer(activation)
    towers.config = replace(clip.config, activation=activation)
    return towers


def load_clip(
    name: str | None = None,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> CLIPBackbone:
    """Load CLIP towers and their preprocessing.

    Args:
        name: None or ``"embedded"``: the model in the package. ``"MODEL/TAG"``: open_clip's
            pretrained weights, taken from the local cache (see ``open_clip_weights.fetch``).
            ``"MODEL/TAG"`` together with ``weights``: the same, from that file. ``"MODEL"``
            together with ``weights``: open_clip's architecture, filled from that file. A path: a
            file with a side-car, as ``weights``.
        weights: local ``.safetensors`` / ``.pt`` / ``.bin`` state dict in the OpenAI layout. Its
            shape and preprocessing come from ``name``, or from the side-car ``FILE.json`` (or
            ``open_clip_config.json`` beside it), in the form of open_clip's configuration files.
        device: where the towers go.
        dtype: precision of the towers.

    Raises:
        WeightsError: unknown name, or a file that is absent, damaged or of another shape.
    """
    name, path = _place(name, weights)
    facts: dict[str, Any] = {"licence": "see source", "source": f"local file {path}"}
    facts["file"] = path and path.absolute()
    if path is None:
        assert name is not None
        path, config, preprocess, facts["source"] = cached_weights(name)
    elif name in (None, EMBEDDED):
        config, preprocess, told = _from_sidecar(path)
        facts |= told
        if name == EMBEDDED:
            facts["source"] = "in the package, trained by this project on procedural images"
        name = name or path.name
    else:
        assert name is not None
        config, preprocess = named_facts(name)
        name = f"{name} ({path.name})"
    clip = _filled(path, config, dtype).to(device=device)
    if clip.logit_scale.device.type == "cpu" and is_mapped(path, dtype):
        facts["reload"] = partial(_filled, path, config, dtype)
    return CLIPBackbone(name, clip, preprocess, file_hash(path), **facts)


def _place(name: str | None, weights: str | Path | None) -> tuple[str | None, Path | None]:
    """What ``load_clip`` was given: a name and a file, or one of them."""
    if weights is not None:
        return (None if name == EMBEDDED else name), Path(weights)
    if name in (None, EMBEDDED):
        return EMBEDDED, embedded_file()
    return (None, Path(name)) if _is_path(name) else (name, None)


def recommended_method(name: str | None = None, weights: str | Path | None = None) -> str | None:
    """Method that whoever made the weights recommends for them, or None.

    Arguments as of ``load_clip``. Only the side-car is read.

    Raises:
        WeightsError: a side-car that cannot be read.
    """
    name, path = _place(name, weights)
    sidecar = _sidecar(path) if path and name in (None, EMBEDDED) else None
    # Without a side-car load_clip says what is missing.
    method = _content(sidecar).get("recommended_method") if sidecar else None
    return None if method is None else str(method)


class _NoRandomNumbers(TorchFunctionMode):
    """Leaves out random initial values.

    On the meta device they cost no memory themselves, but PyTorch goes through its compiler for
    them, whose import takes 150 MiB and two seconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in {"normal_", "uniform_", "kaiming_uniform_"}:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _filled(path: Path, config: CLIPConfig, dtype: torch.dtype) -> CLIP:
    with torch.device("meta"), _NoRandomNumbers():  # all values are replaced
        clip = CLIP(config)
    try:
        clip.load_openai_state(read_state(path, dtype), dtype)
    except ValueError as error:
        raise WeightsError(
            f"{path}: {error}. Name the architecture that the file was made for "
            "(zerodefect backbones lists them)"
        ) from None
    return clip.eval().requires_grad_(False)


def embedded_file() -> Path:
    """Weights file of the embedded model; its configuration and card lie beside it."""
    return Path(__file__).parent / "weights" / "embedded.safetensors"


# --- side-cars: shape and preprocessing that travel with a file ----------------------------------


def _sidecar(weights: Path) -> Path | None:
    return next((path for path in _sidecar_names(weights) if path.is_file()), None)


def _sidecar_names(weights: Path) -> list[Path]:
    return [
        weights.with_suffix(".json"),
        weights.with_name(weights.name + ".json"),
        weights.with_name("open_clip_config.json"),
    ]


def _content(sidecar: Path) -> dict[str, Any]:
    try:
        content = json.loads(sidecar.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(sidecar, error) from None
    if not isinstance(content, dict):
        raise _unreadable(sidecar, "no object at its top")
    return content


def _unreadable(sidecar: Path, error: object) -> WeightsError:
    return WeightsError(
        f"{sidecar}: not a configuration of a ViT CLIP ({error}). Use the form of "
        "open_clip_config.json: model_cfg and preprocess_cfg"
    )


def _from_sidecar(weights: Path) -> tuple[CLIPConfig, Preprocess, dict[str, Any]]:
    """Shape, preprocessing, and the facts of a ``CLIPBackbone`` that a side-car states."""
    sidecar = _sidecar(weights)
    if sidecar is None:
        if not weights.is_file():
            raise WeightsError(f"{weights}: no such file. Give the path of a weights file")
        raise WeightsError(
            f"{weights}: nothing says its activation and preprocessing. Name the architecture "
            "(--backbone ViT-B-16, or ViT-B-16/openai for OpenAI's weights), or put "
            f"{_sidecar_names(weights)[0].name} beside it, in the form of open_clip_config.json"
        )
    content = _content(sidecar)
    try:
        config = CLIPConfig.from_open_clip(content.get("model_cfg", content))
        preprocess = preprocess_of(config, content.get("preprocess_cfg", {}))
        recommended = {k: dict(v) for k, v in content.get("recommended", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(sidecar, error) from None
    facts = {"licence": str(content["licence"])} if "licence" in content else {}
    match = bool(content.get("patches_match_texts", False))
    return config, preprocess, {**facts, "recommended": recommended, "patches_match_texts": match}


def _is_path(name: str) -> bool:
    written = name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1
    return written or name.endswith((".safetensors", ".pt", ".pth", ".bin")) or Path(name).exists()
