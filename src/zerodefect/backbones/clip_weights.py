"""Where CLIP weights come from: the embedded model, open_clip by name, or a local file.

A source is decided in one place (``load_clip``). Nothing is downloaded unless ``fetch`` is called,
and nothing is unpickled: safetensors, or ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zerodefect.backbones import open_clip_names as catalogue
from zerodefect.backbones.clip import CLIP, Activation, CLIPConfig
from zerodefect.backbones.transformer import activation_layer
from zerodefect.images import Preprocess

EMBEDDED = "embedded"
_WEIGHTS_FOLDER = Path(__file__).parent / "weights"


class WeightsError(RuntimeError):
    """Weights that cannot be had or do not fit; the message says file, reason and remedy."""


@dataclass(frozen=True)
class Backbone:
    """A CLIP with what must travel with its weights.

    Attributes:
        name: as the user would name it again.
        clip: the towers, in eval mode.
        preprocess: input size, mean, standard deviation and interpolation of the weights.
        fingerprint: SHA-256 of the weights file, hexadecimal.
        licence: licence of the weights, or "see source".
        source: where the weights came from, in words.
        recommended: hyper-parameters that suit these weights better than a method's defaults,
            per method; measured by whoever made the weights.
        reload: gives the same towers anew, mapped from their file, or None where that would copy.
    """

    name: str
    clip: CLIP
    preprocess: Preprocess
    fingerprint: str
    licence: str
    source: str
    recommended: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reload: Callable[[], CLIP] | None = None

    def with_activation(self, activation: Activation | Literal["weights"]) -> Backbone:
        """The same weights, in memory once, in towers that run with another activation.

        Several official codes run OpenAI's QuickGELU weights with exact GELU, and the layers that
        they learned need it. This backbone stays as it is, for others that use it.

        Args:
            activation: ``weights`` for what the weights were trained with.
        """
        if activation == "weights":
            return self
        if activation == self.clip.config.activation:
            return self
        towers = partial(_with_activation, activation=activation)
        return replace(
            self,
            clip=towers(self.clip),
            reload=self.reload and partial(_reloaded, self.reload, towers),
        )


def _with_activation(clip: CLIP, activation: Activation) -> CLIP:
    shared: dict[int, Any] = {id(value): value for value in clip.parameters()}
    towers = copy.deepcopy(clip, shared)  # copies everything but what it finds in ``shared``
    for tower in (towers.visual, towers.text):
        for block in tower.transformer.blocks:
            block.mlp.activation = activation_layer(activation)
    towers.config = clip.config.with_activation(activation)
    return towers


def _reloaded(reload: Callable[[], CLIP], towers: Callable[[CLIP], CLIP]) -> CLIP:
    return towers(reload())


def load_clip(
    name: str | None = None,
    *,
    weights: str | Path | None = None,
    activation: Activation | None = None,
    foreign_activation: bool = False,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Backbone:
    """Load CLIP towers and their preprocessing.

    Args:
        name: None or ``"embedded"``: the model in the package. ``"MODEL/TAG"``: open_clip's
            pretrained weights, taken from the local cache (see ``fetch``). ``"MODEL/TAG"``
            together with ``weights``: the same, from that file. ``"MODEL"`` together with
            ``weights``: open_clip's architecture, filled from that file. A path: a file with a
            side-car, as ``weights``.
        weights: local ``.safetensors`` / ``.pt`` / ``.bin`` state dict in the OpenAI layout. Its
            shape and preprocessing come from ``name``, or from the side-car ``FILE.json`` (or
            ``open_clip_config.json`` beside it), in the form of open_clip's configuration files.
        activation: what the caller expects; differing from the weights' own is an error ...
        foreign_activation: ... unless this is set (some official codes run OpenAI's QuickGELU
            weights with GELU; their methods ask for it themselves, see
            ``Backbone.with_activation``).
        device: where the towers go.
        dtype: precision of the towers.

    Raises:
        WeightsError: unknown name, file absent, damaged or of another shape, or an activation
            that is not the weights' own.
    """
    if name and weights is None and _looks_like_path(name):
        name, weights = None, name
    recommended: Mapping[str, Mapping[str, Any]] = {}
    if weights is None and (name is None or name == EMBEDDED):
        weights, name = embedded_file(), EMBEDDED
        config, preprocess, licence, recommended = _from_sidecar(weights)
        source = "in the package, trained by this project on procedural images"
    elif weights is None:
        assert name is not None
        weights, config, preprocess, licence, source = _from_open_clip_cache(name)
    elif name is None or name == EMBEDDED:
        weights, name = Path(weights), Path(weights).name
        config, preprocess, licence, recommended = _from_sidecar(weights)
        source = f"local file {weights}"
    else:
        config, preprocess = _open_clip_facts(name)
        licence, source = "see source", f"local file {weights}"
        name = f"{name} ({Path(weights).name})"
    if activation and activation != config.activation:
        if not foreign_activation:
            raise WeightsError(
                f"{name}: these weights were trained with {config.activation}, not {activation}. "
                "Leave the activation out, or ask for the mismatch explicitly "
                "(foreign_activation=True)"
            )
        config = config.with_activation(activation)
    path = Path(weights)
    clip = _filled(path, config, dtype).to(device=device)
    on_cpu = clip.logit_scale.device.type == "cpu"
    return Backbone(
        name,
        clip,
        preprocess,
        file_hash(path),
        licence,
        source,
        recommended,
        partial(_filled, path, config, dtype) if on_cpu and _is_mapped(path, dtype) else None,
    )


def recommended_method(name: str | None = None, weights: str | Path | None = None) -> str | None:
    """Method that whoever made the weights recommends for them, or None.

    Arguments as of ``load_clip``. Only the side-car is read.

    Raises:
        WeightsError: a side-car that cannot be read.
    """
    if name and weights is None and _looks_like_path(name):
        name, weights = None, name
    if name not in (None, EMBEDDED):
        return None
    sidecar = _sidecar(embedded_file() if weights is None else Path(weights))
    if sidecar is None:
        return None  # load_clip says what is missing
    method = _content(sidecar).get("recommended_method")
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
    return _WEIGHTS_FOLDER / "embedded.safetensors"


def read_state(path: Path, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Read a state dict without running any code in it.

    Wrappers (``{"state_dict": ...}``) and ``module.`` prefixes are taken off. Tensors of a
    safetensors file are mapped: they cost memory when they are first used.

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
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path}: holds no state dict. Give a file of named tensors")
    state = {str(k).removeprefix("module."): v for k, v in state.items()}
    if not all(isinstance(v, Tensor) for v in state.values()):
        state = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    return state


def _read_safetensors(path: Path, dtype: torch.dtype | None) -> dict[str, Tensor]:
    state = load_file(path)
    for name, value in state.items():
        if dtype and value.is_floating_point() and value.dtype != dtype:
            # A mapping of its own, which is dropped with the tensor: pages of the one above would
            # stay in memory as long as any of its tensors does.
            with safe_open(path, "pt") as again:
                state[name] = again.get_tensor(name).to(dtype)
    return state


def _is_mapped(path: Path, dtype: torch.dtype) -> bool:
    """Whether towers of this precision are mapped from the file: then a second pair is free."""
    if path.suffix != ".safetensors":
        return False
    return all(v.dtype == dtype for v in load_file(path).values() if v.is_floating_point())


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


# ---------------------------------------------------------------------------------------------
# Side-cars: shape and preprocessing that travel with a file


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


def _from_sidecar(weights: Path) -> tuple[CLIPConfig, Preprocess, str, dict[str, Any]]:
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
        model = content.get("model_cfg", content)
        config = CLIPConfig.from_open_clip(model)
        preprocess = _preprocess(config, content.get("preprocess_cfg", {}))
        recommended = {k: dict(v) for k, v in content.get("recommended", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(sidecar, error) from None
    return config, preprocess, str(content.get("licence", "see source")), recommended


def _preprocess(config: CLIPConfig, facts: Mapping[str, Any]) -> Preprocess:
    size = config.vision.image_size
    mean, std = facts.get("mean"), facts.get("std")
    chosen: dict[str, Any] = {"size": (size, size)}
    if mean and std:
        chosen |= {"mean": tuple(mean), "std": tuple(std)}
    if facts.get("interpolation"):
        chosen["interpolation"] = facts["interpolation"]
    return Preprocess(**chosen)


# ---------------------------------------------------------------------------------------------
# open_clip by name


def _looks_like_path(name: str) -> bool:
    if name.endswith((".safetensors", ".pt", ".pth", ".bin")) or Path(name).exists():
        return True
    return name.startswith(("/", ".", "~")) or "\\" in name or name.count("/") > 1


def _split_name(name: str) -> tuple[str, str | None]:
    model, _, tag = name.partition("/")
    return model, tag or None


def _open_clip_facts(name: str) -> tuple[CLIPConfig, Preprocess]:
    """Shape, activation and preprocessing of open_clip's ``MODEL`` or ``MODEL/TAG``."""
    model, tag = _split_name(name)
    raw = catalogue.model_config(model)
    if raw is None:
        raise WeightsError(
            f"{name}: open_clip knows no architecture {model!r}{_similar(model)}. "
            "zerodefect backbones lists the names"
        )
    try:
        config = CLIPConfig.from_open_clip(raw)
    except ValueError as error:
        raise WeightsError(f"{name}: {error}. Choose a plain ViT CLIP") from None
    pretrained = catalogue.weights_facts(model, tag) if tag else {}
    if tag and not pretrained:
        tags = ", ".join(catalogue.tags(model)) or "none"
        raise WeightsError(f"{name}: open_clip has no weights {tag!r} for {model}; it has: {tags}")
    if pretrained.get("quick_gelu") or tag == "openai":  # older versions of open_clip do not say
        config = config.with_activation("quick_gelu")
    return config, _preprocess(config, pretrained)


def _similar(model: str) -> str:
    close = difflib.get_close_matches(model, catalogue.model_names(), n=3)
    return f" (did you mean {', '.join(close)}?)" if close else ""


def _from_open_clip_cache(name: str) -> tuple[Path, CLIPConfig, Preprocess, str, str]:
    config, preprocess = _open_clip_facts(name)
    model, tag = _split_name(name)
    if tag is None:
        tags = ", ".join(catalogue.tags(model)) or "none"
        raise WeightsError(
            f"{name}: an architecture without weights. Add a tag ({name}/TAG with one of: {tags}) "
            "or give a local file (--weights FILE)"
        )
    origin = weights_origin(name)
    found = cached_file(name)
    if found is None:
        raise WeightsError(
            f"{name}: the weights are not on this machine, and nothing is downloaded unasked. "
            f"With a network: zerodefect backbones --fetch {name}. Without: bring the file from "
            f"{origin} and pass it (--backbone {name} --weights FILE)"
        )
    return found, config, preprocess, "see source", origin


def weights_origin(name: str) -> str:
    """Public place of open_clip's weights ``MODEL/TAG``.

    Raises:
        WeightsError: no such weights.
    """
    _open_clip_facts(name)
    model, tag = _split_name(name)
    if tag is None:
        raise WeightsError(f"{name}: name the weights as MODEL/TAG, as zerodefect backbones lists")
    facts = catalogue.weights_facts(model, tag)
    if facts.get("hf_hub"):
        return f"https://huggingface.co/{facts['hf_hub'].strip('/')}"
    return str(facts.get("url", "an unknown place"))


def cached_file(name: str) -> Path | None:
    """File of open_clip's weights ``MODEL/TAG`` in the local caches, or None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    model, tag = _split_name(name)
    facts = catalogue.weights_facts(model, tag or "")
    repository, _, filename = (facts.get("hf_hub") or "").rpartition("/")
    if repository:
        files = [filename] if filename else []
        files += ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
        for file in files:
            try:
                found = try_to_load_from_cache(repository, file)
            except HFValidationError:
                continue
            if isinstance(found, str):
                return Path(found)
    if facts.get("url"):
        local = Path("~/.cache/clip").expanduser() / Path(facts["url"]).name
        if local.is_file():
            return local
    return None


def fetch(name: str) -> tuple[Path, str]:
    """Download open_clip's weights ``MODEL/TAG`` into its cache: the file and its SHA-256.

    Raises:
        WeightsError: unknown name, the network is switched off, or the download failed.
    """
    from huggingface_hub import constants

    origin = weights_origin(name)
    model, tag = _split_name(name)
    facts = catalogue.weights_facts(model, tag or "")
    remedy = (
        f"Bring the file from {origin} on a medium and pass it (--backbone {name} --weights FILE)"
    )
    if constants.HF_HUB_OFFLINE:
        raise WeightsError(f"{name}: HF_HUB_OFFLINE switches the network off. {remedy}")
    try:
        path = catalogue.download(facts)
    except Exception as error:  # the hub's and urllib's errors share no base
        raise WeightsError(f"{name}: the download failed ({error}). {remedy}") from None
    return path, file_hash(path)


def runnable_models() -> list[tuple[str, str]]:
    """Every ``(MODEL, TAG)`` of open_clip that the towers here can run."""
    published = catalogue.pretrained()
    return [(model, tag) for model, tag in published if _runs(model)]


@cache
def _runs(model: str) -> bool:
    try:
        CLIPConfig.from_open_clip(catalogue.model_config(model) or {})
    except (ValueError, KeyError, TypeError):
        return False
    return True
