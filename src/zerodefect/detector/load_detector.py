"""Build a detector from names: method, backbone, device."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from zerodefect.backbones.backbone import Backbone, whole_patches
from zerodefect.backbones.chat_model import ChatModel, load_chat_model
from zerodefect.backbones.clip_weights import EMBEDDED, load_clip, recommended_method
from zerodefect.backbones.efficientnet_weights import EFFICIENTNET
from zerodefect.backbones.grounder import load_grounder
from zerodefect.backbones.layered_features import load_features
from zerodefect.backbones.precision import pick_precision
from zerodefect.backbones.segmenter import load_segmenter
from zerodefect.backbones.vision import DINOV2_SMALL
from zerodefect.backbones.weight_files import WeightsError
from zerodefect.detector.checkpoint_file import (
    Checkpoint,
    CheckpointError,
    check_weights,
    load_checkpoint,
    read_checkpoint,
    untrained_error,
)
from zerodefect.detector.combined import Combined, CombinedConfig
from zerodefect.detector.configs import configured
from zerodefect.detector.contract import Detector, Sizes, told
from zerodefect.detector.facts import JOIN, BackboneKind
from zerodefect.detector.registry import get
from zerodefect.detector.registry import names as method_names

_log = logging.getLogger("zerodefect")

_FOR_ANY_WEIGHTS = "winclip"  # trained on nothing, for any CLIP

_USUAL = {"features": EFFICIENTNET, "vit": DINOV2_SMALL}  # where no network is named
_MUCH_WORK = 30  # times the work of the weights' own input, from which on it is said
_LARGEST_INPUT = 4096  # pixels; attention over all patches grows with the fourth power of it

Names = str | Mapping[str, str] | None
Files = str | Path | Mapping[str, str | Path] | None


def load_detector(
    method: str | None = None,
    *,
    checkpoint: str | Path | None = None,
    backbone: Names = None,
    weights: Files = None,
    device: str = "auto",
    precision: str = "float32",
    image_size: int | None = None,
    thorough: bool = False,
    untrained: bool = False,
    judges: bool = True,
    **options: Any,
) -> Detector:
    """Load weights and put a method on them, in eval mode.

    Args:
        method: a registered name, or several as one: ``"dense+patchcore"``; None for the
            checkpoint's, or else ``default_method``.
        checkpoint: learned values as ``zerodefect train`` and ``zerodefect import`` write them.
            Hyper-parameters, input size and backbone are then those that the values were learned
            with, as far as nothing else is said here.
        backbone: None for the embedded model, ``"MODEL/TAG"`` of open_clip, or a weights file (of
            other features: see ``load_features``); by name where ``info.backbones`` has several.
        weights: local weights file for the architecture that ``backbone`` names, likewise.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        precision: of the networks: ``"float32"``, ``"bfloat16"``, or ``"auto"``, see
            ``pick_precision``.
        image_size: side of the input in pixels, instead of the checkpoint's, or else what the
            weights' side-car recommends for the method, or else the weights' own.
        thorough: the method's slower setting, which judges better, see ``facts.Thorough``; of
            several those of the parts that have one.
        untrained: a trainable method starts with its initial values, for whoever fills them.
        judges: False where it only learns: networks that only judging asks are left out where they
            are not named, and a detector without them learns and is saved, but judges nothing.
        options: hyper-parameters of the method; of a part of several as ``"part.option"``. One
            that is not given is what the weights' side-car recommends for the method, else the
            method's default (the paper's value).

    Raises:
        ValueError: unknown method, option or device, another type of value, no thorough setting.
        CheckpointError: a checkpoint that does not fit, or none for a method that must be trained.
        WeightsError: weights that cannot be had or do not fit.
    """
    loading: dict[str, Any] = {
        "device": device,
        "precision": precision,
        "image_size": image_size,
        "thorough": thorough,
    }
    if checkpoint is None:
        method = method or default_method(backbone, weights)
    if method and JOIN in method:
        return _combined(method, checkpoint, backbone, weights, loading, options)
    return _single(method, checkpoint, backbone, weights, untrained, judges, options, **loading)


def _single(
    method: str | None,
    checkpoint: str | Path | None,
    backbone: Names,
    weights: Files,
    untrained: bool,
    judges: bool,
    options: Mapping[str, Any],
    *,
    device: str,
    precision: str,
    image_size: int | None,
    thorough: bool,
) -> Detector:
    chosen, found = pick_device(device), read_checkpoint(checkpoint) if checkpoint else None
    kind = _method(method, found, backbone, weights, untrained)
    if thorough:
        _check_thorough([kind.info.name])
    slower = kind.thorough if thorough else None
    if found:
        backbone = _backbones_of(found, kind, backbone, weights)
    where = {"device": chosen, "dtype": pick_dtype(precision, chosen)}
    given = load_backbones(kind, backbone, weights, judges=judges, **where)
    networks = [one for one in given if one is not None]
    advised = _advised(kind, networks)
    advised_size = advised.pop("image_size", None)
    if found:
        learned_on = networks[: len(kind.info.networks)]
        check_weights(found, told(learned_on, "name"), told(learned_on, "fingerprint"))
        advised, advised_size = found.config, None
    if slower:
        advised = advised | slower.options(configured(kind.Config, advised, kind.info.name))
    detector = kind.build(*given, **{**advised, **options}).to(chosen).eval()
    side = advised_size if image_size is None else image_size
    if slower and image_size is None:
        needed = detector.inputs["image"]
        usual = side or needed.preprocess.size[0]
        side = whole_patches(usual * slower.larger, needed.multiple)
    if (
        side is None
        and found is None
        and untrained
        and detector.recipe
        and _published(networks[:1])
    ):
        side = detector.recipe.image_size
    if side is not None:
        detector.resize_inputs(_square(side, detector, networks))
    if found:
        if side is None:
            detector.resize_inputs(_stored_sizes(found, detector))
        load_checkpoint(detector, found)
    return detector


def _combined(
    method: str,
    checkpoint: str | Path | None,
    backbone: Names,
    weights: Files,
    loading: Mapping[str, Any],
    options: Mapping[str, Any],
) -> Combined:
    """Load the parts, each as if it were alone; what is said for one is named ``part.what``."""
    names = method.split(JOIN)
    joint = {option: value for option, value in options.items() if "." not in option}
    config = configured(CombinedConfig, joint, method)
    learned = read_checkpoint(checkpoint).method if checkpoint else None
    unknown = sorted(o for o in options if "." in o and o.partition(".")[0] not in names)
    if unknown or len(set(names)) < len(names):
        raise ValueError(
            f"{method}: each part once, options as PART.OPTION; not {unknown or names}"
        )
    parts = {}
    if loading["thorough"]:
        _check_thorough(names)
    for name in names:
        own = {o.partition(".")[2]: v for o, v in options.items() if o.startswith(f"{name}.")}
        networks = {f"{name}.{network}" for network in get(name).info.backbones}
        files = [_of_part(given, networks) for given in (backbone, weights)]
        parts[name] = load_detector(
            name,
            checkpoint=checkpoint if name == learned else None,
            backbone=files[0],
            weights=files[1],
            **{**loading, "thorough": loading["thorough"] and bool(get(name).thorough)},
            **own,
        )
    return Combined(parts, config)


def _of_part(given: Any, networks: set[str]) -> Any:
    """What is said of a part's networks: ``part.network=...``, or a name for the CLIPs of all."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        return given if any(network.endswith(".clip") for network in networks) else None
    own = {n.partition(".")[2]: value for n, value in given.items() if n in networks}
    return own or None


def default_method(backbone: Names = None, weights: Files = None) -> str:
    """Method for weights where none is named: what their side-car recommends, else WinCLIP."""
    if isinstance(backbone, Mapping) or isinstance(weights, Mapping):
        return _FOR_ANY_WEIGHTS
    return recommended_method(backbone, weights) or _FOR_ANY_WEIGHTS


def _method(
    method: str | None, found: Checkpoint | None, backbone: Names, weights: Files, untrained: bool
) -> type[Detector]:
    if found and method not in (None, found.method):
        raise CheckpointError(
            f"{found.path}: a checkpoint of {found.method}, but the method asked for is {method}. "
            "Leave the method out, or give its own checkpoint"
        )
    method = method or (found.method if found else default_method(backbone, weights))
    kind = get(method)
    if found is None and not untrained and kind.info.trained:
        raise untrained_error(method)
    return kind


def _check_thorough(names: Sequence[str]) -> None:
    """Make sure that one of these methods has a thorough setting.

    Raises:
        ValueError: none has.
    """
    if not any(get(name).thorough for name in names):
        able = " and ".join(name for name in method_names() if get(name).thorough)
        raise ValueError(f"{names[0]} has no thorough setting; {able} have one")


def load_backbones(
    kind: type[Detector], backbone: Names, weights: Files, *, judges: bool = True, **where: Any
) -> list[Any]:
    """Networks of a method, in the order of its ``info.backbones``.

    One that it can do without is None where it is not named; so is one that only judging asks
    where the detector does not judge.

    Raises:
        ValueError: a name of the method's networks that it does not have.
        WeightsError: weights that cannot be had or do not fit.
    """
    wanted = kind.info.backbones
    names, files, title = _by_name(kind, backbone), _by_name(kind, weights), kind.info.title
    spare, unasked = kind.info.spare, () if judges else kind.info.judging
    named = {**names, **files}
    left_out = [part for part in wanted if part in (*spare, *unasked) and part not in named]
    for part in left_out:
        told = "learns without a %s, which it asks only to judge; inspect takes one"
        how = told if part in unasked else "runs without a %s: none is named"
        _log.info(f"%s {how} (--backbone %s=...)", title, part, part)
    found = []
    for part, each in wanted.items():
        missing = part in left_out
        try:
            network = None if missing else _load(each, names.get(part), files.get(part), **where)
        except WeightsError as error:
            raise _without(kind, part, error) from None
        found.append(network)
    return found


def _without(kind: type[Detector], part: str, error: WeightsError) -> WeightsError:
    """Where a method has several networks: which of them is missing, and how it is named."""
    if len(kind.info.backbones) == 1:
        return error
    asked = " to judge pictures, though not to learn" if part in kind.info.judging else ""
    return WeightsError(
        f"{kind.info.title} needs its {part}{asked} (--backbone {part}=NAME_OR_FOLDER). {error}"
    )


def _by_name(kind: type[Detector], given: Any) -> Mapping[str, Any]:
    parts = kind.info.backbones
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        if len(kind.info.networks) != 1:
            has = " and ".join(parts) or "no network"
            raise ValueError(f"{kind.info.name} is built on {has}: name each as NAME=WEIGHTS")
        return dict.fromkeys(kind.info.networks, given)
    unknown = sorted(given.keys() - parts.keys())
    if unknown:
        has = ", ".join(parts) or "none"
        raise ValueError(f"{kind.info.name} has no network {unknown[0]!r}; it has: {has}")
    return given


def _load(kind: BackboneKind, name: str | None, weights: str | Path | None, **where: Any) -> Any:
    if kind == "clip":
        return load_clip(name, weights=weights, **where)
    if kind == "segmenter":
        return load_segmenter(name, weights=weights, **where)
    if kind == "grounder":
        return load_grounder(name, weights=weights, **where)
    if kind == "chat":
        return _load_chat(weights or name, **where)
    return load_features(name or _USUAL[kind], weights=weights, **where)


def _load_chat(name: str | Path | None, **where: Any) -> ChatModel:
    if name is None:
        raise WeightsError(
            "no chat model is named, and none is usual. Name one with --backbone (a folder as "
            "save_pretrained writes it, a repository in the hub's cache, or "
            "http://HOST:PORT/v1#MODEL); those in this process need the extra: "
            "pip install 'zerodefect[vlm]'"
        )
    chat = load_chat_model(str(name), **where)
    if chat.leaves_process:
        _log.warning("pictures leave this process: they are sent to %s", chat.where)
    return chat


def _advised(kind: type[Detector], networks: Sequence[Backbone]) -> dict[str, Any]:
    """What the side-cars of the weights recommend for a method, checked.

    Raises:
        WeightsError: naming the weights whose side-car says what the method does not take.
    """
    advised: dict[str, Any] = {}
    for network in networks:
        own = dict(getattr(network, "recommended", {}).get(kind.info.name, {}))
        size = {"image_size": own.pop("image_size")} if "image_size" in own else {}
        try:
            configured(kind.Config, own, kind.info.name)
        except ValueError as error:
            raise WeightsError(f"the side-car of {network.name}: {error}. Correct it") from None
        advised |= own | size
    return advised


def _backbones_of(found: Checkpoint, kind: type[Detector], backbone: Names, weights: Files) -> Any:
    """What is said of the networks, and for those of which nothing is: those of the checkpoint.

    Raises:
        CheckpointError: a network whose place is not known has to be named.
    """
    if isinstance(backbone, str) or isinstance(weights, (str, Path)):
        return backbone  # of the only network that values are learned on
    said = {**(backbone or {})}
    stored = found.backbone if isinstance(found.backbone, list) else [found.backbone]
    for part, name in zip(kind.info.networks, stored, strict=False):
        if name is None or part in {**said, **(weights or {})}:
            continue
        if name != EMBEDDED and (name.endswith(")") or "/" not in name):
            which = f" {part}=FILE" if len(kind.info.backbones) > 1 else ""
            raise CheckpointError(
                f"{found.path}: learned on the local weights {name}, whose place is not "
                f"known. Name them (--backbone{which}, --weights{which})"
            )
        said[part] = name
    return said or None


def _published(networks: Sequence[Backbone]) -> bool:
    """Whether they are the papers' weights, ViT-L/14@336px; the papers' size is for them."""
    return [(n.stride, n.preprocess.size) for n in networks] == [(14, (336, 336))]


def _stored_sizes(found: Checkpoint, detector: Detector) -> Sizes:
    sizes = found.image_size
    try:
        for size in sizes.values() if isinstance(sizes, Mapping) else [sizes]:
            for side in size:
                check_size(side, detector)
    except ValueError as error:
        raise CheckpointError(
            f"{found.path.with_suffix('.json')}: {error}. Copy both files again, or name the "
            "size (--image-size)"
        ) from None
    return sizes


def check_size(side: int, detector: Detector) -> None:
    """Make sure that the detector can take inputs of this side.

    Raises:
        ValueError: too small, too large, or no multiple of a patch.
    """
    for needed in detector.inputs.values():
        if needed.fixed:
            continue
        patch = needed.multiple
        if not patch <= side <= _LARGEST_INPUT:
            raise ValueError(
                f"image size {side}: it must lie between the backbone's patch size {patch} "
                f"and {_LARGEST_INPUT} pixels; larger pictures are cut into tiles (--tile)"
            )
        if side % patch:
            raise ValueError(
                f"image size {side} is no multiple of the backbone's patch size {patch}; "
                f"the nearest is {whole_patches(side, patch)}"
            )


def _square(side: int, detector: Detector, networks: Sequence[Backbone]) -> tuple[int, int]:
    """Size of an input that was asked for; what a large one costs is said before the work."""
    check_size(side, detector)
    for network in networks:
        if isinstance(network, ChatModel):  # which prepares pictures itself
            continue
        own, width = network.preprocess.size, network.width
        # a block of a transformer: its matrices for each patch, and attention between all of them
        few, many = (h // network.stride * (w // network.stride) for h, w in (own, (side, side)))
        times = many * (6 * width + many) / (few * (6 * width + few))
        if times >= _MUCH_WORK:
            _log.warning(
                "image size %d: %d patches a picture, about %.2g times the work that the %d pixels "
                "of %s take; on a processor that may be minutes a picture. Large pictures are "
                "usually cut into tiles (--tile)",
                *(side, many, times, own[0], network.name),
            )
    return side, side


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


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What networks run in on a device; see ``pick_precision``, and errors as of it."""
    dtype: torch.dtype = getattr(torch, pick_precision(precision, device))
    return dtype
