"""open_clip's weights by name: their shape, where they lie on this machine, and how to get them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from zerodefect.backbones import open_clip_names
from zerodefect.backbones.clip import CLIPConfig
from zerodefect.backbones.weight_files import WeightsError, file_hash, in_hub_cache
from zerodefect.images import Preprocess


def preprocess_of(config: CLIPConfig, facts: Mapping[str, Any]) -> Preprocess:
    """What a configuration says of preprocessing; CLIP's where it says nothing."""
    chosen: dict[str, Any] = {"size": (config.vision.image_size,) * 2}
    if facts.get("mean") and facts.get("std"):
        chosen |= {"mean": tuple(facts["mean"]), "std": tuple(facts["std"])}
    if facts.get("interpolation"):
        chosen["interpolation"] = facts["interpolation"]
    return Preprocess(**chosen)


def named_facts(name: str) -> tuple[CLIPConfig, Preprocess]:
    """Shape, activation and preprocessing of open_clip's ``MODEL`` or ``MODEL/TAG``."""
    model, _, tag = name.partition("/")
    raw = open_clip_names.model_config(model)
    if raw is None:
        close = difflib.get_close_matches(model, open_clip_names.model_names(), n=3)
        similar = f" (did you mean {', '.join(close)}?)" if close else ""
        raise WeightsError(
            f"{name}: open_clip knows no architecture {model!r}{similar}. "
            "zerodefect backbones lists the names"
        )
    try:
        config = CLIPConfig.from_open_clip(raw)
    except ValueError as error:
        raise WeightsError(f"{name}: {error}. Choose a plain ViT CLIP") from None
    pretrained = open_clip_names.weights_facts(model, tag) if tag else {}
    if tag and not pretrained:
        tags = ", ".join(open_clip_names.tags(model)) or "none"
        raise WeightsError(f"{name}: open_clip has no weights {tag!r} for {model}; it has: {tags}")
    if pretrained.get("quick_gelu") or tag == "openai":  # older versions of open_clip do not say
        config = replace(config, activation="quick_gelu")
    return config, preprocess_of(config, pretrained)


def cached_weights(name: str) -> tuple[Path, CLIPConfig, Preprocess, str]:
    """File, shape, preprocessing and origin of weights that are on this machine.

    Raises:
        WeightsError: unknown, or not here; the message says how to bring them.
    """
    config, preprocess = named_facts(name)
    model, _, tag = name.partition("/")
    if not tag:
        tags = ", ".join(open_clip_names.tags(model)) or "none"
        raise WeightsError(
            f"{name}: an architecture without weights. Add a tag ({name}/TAG with one of: {tags}) "
            "or give a local file (--weights FILE)"
        )
    origin, found = weights_origin(name), cached_file(name)
    if found is None:
        raise WeightsError(
            f"{name}: the weights are not on this machine, and nothing is downloaded unasked. "
            f"With a network: zerodefect backbones --fetch {name}. Without: bring the file from "
            f"{origin} and pass it (--backbone {name} --weights FILE)"
        )
    return found, config, preprocess, origin


def weights_origin(name: str) -> str:
    """Public place of open_clip's weights ``MODEL/TAG``.

    Raises:
        WeightsError: no such weights.
    """
    named_facts(name)
    model, _, tag = name.partition("/")
    if not tag:
        raise WeightsError(f"{name}: name the weights as MODEL/TAG, as zerodefect backbones lists")
    facts = open_clip_names.weights_facts(model, tag)
    if facts.get("hf_hub"):
        return f"https://huggingface.co/{facts['hf_hub'].strip('/')}"
    return str(facts.get("url", "an unknown place"))


def cached_file(name: str) -> Path | None:
    """File of open_clip's weights ``MODEL/TAG`` in the local caches, or None."""
    model, _, tag = name.partition("/")
    facts = open_clip_names.weights_facts(model, tag)
    repository, _, filename = (facts.get("hf_hub") or "").rpartition("/")
    usual = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]
    found = in_hub_cache(repository, [filename, *usual] if filename else usual)
    local = Path("~/.cache/clip").expanduser() / Path(facts.get("url") or "").name
    return found or (local if facts.get("url") and local.is_file() else None)


def fetch(name: str) -> tuple[Path, str]:
    """Download open_clip's weights ``MODEL/TAG`` into its cache: the file and its SHA-256.

    Raises:
        WeightsError: unknown name, the network is switched off, or the download failed.
    """
    from huggingface_hub import constants

    origin = weights_origin(name)
    model, _, tag = name.partition("/")
    facts = open_clip_names.weights_facts(model, tag)
    remedy = f"Bring the file from {origin} and pass it (--backbone {name} --weights FILE)"
    if constants.HF_HUB_OFFLINE:
        raise WeightsError(f"{name}: HF_HUB_OFFLINE switches the network off. {remedy}")
    try:
        path = open_clip_names.download(facts)
    except Exception as error:  # the hub's and urllib's errors share no base
        raise WeightsError(f"{name}: the download failed ({error}). {remedy}") from None
    return path, file_hash(path)


def runnable_models() -> list[tuple[str, str]]:
    """Every ``(MODEL, TAG)`` of open_clip that the towers here can run."""
    return [(model, tag) for model, tag in open_clip_names.pretrained() if _runs(model)]


@cache
def _runs(model: str) -> bool:
    try:
        CLIPConfig.from_open_clip(open_clip_names.model_config(model) or {})
    except (ValueError, KeyError, TypeError):
        return False
    return True
