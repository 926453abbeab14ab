"""open_clip's names, shapes, addresses and tokenizer, without its networks.

``import open_clip`` brings torchvision and timm: 240 MiB of memory and a second that nothing here
needs, because the towers are ours. Its own modules are run all the same, so that nothing is copied
and every version behaves as itself: they are imported under a private package that has open_clip's
folder but not its ``__init__``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

_PRIVATE = "_open_clip_without_networks"


@cache
def _folder() -> Path:
    spec = importlib.util.find_spec("open_clip")  # looks for the package and does not run it
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("open_clip is not installed. Install it: pip install open_clip_torch")
    return Path(spec.submodule_search_locations[0])


@cache
def _module(name: str) -> Any:
    package = ModuleType(_PRIVATE)
    package.__path__ = [str(_folder())]
    sys.modules.setdefault(_PRIVATE, package)
    return importlib.import_module(f"{_PRIVATE}.{name}")


@cache
def tokenizer() -> Any:
    """open_clip's ``SimpleTokenizer``: CLIP's byte-pair encoding."""
    return _module("tokenizer").SimpleTokenizer()


def encode(text: str) -> list[int]:
    """CLIP's byte-pair ids of a text, equal to those of ``tokenizer()``.

    Repairing a text takes most of its time, and in plain letters there is nothing to repair. No id
    spans a space, so the words of such a text are encoded once each: prompts share most of them.
    """
    if text.isascii() and text.isprintable() and "&" not in text:
        return [number for word in text.split() for number in _word(word)]
    return list(tokenizer().encode(text))


@lru_cache(4096)
def _word(word: str) -> tuple[int, ...]:
    return tuple(tokenizer().encode(word))


def model_names() -> list[str]:
    """Every architecture of open_clip, sorted."""
    return sorted(path.stem for path in (_folder() / "model_configs").glob("*.json"))


def model_config(model: str) -> dict[str, Any] | None:
    """Configuration of an architecture, as in ``model_configs/*.json``; None if unknown."""
    if model not in model_names():
        return None
    path = _folder() / "model_configs" / f"{model}.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def pretrained() -> list[tuple[str, str]]:
    """Every published ``(MODEL, TAG)``."""
    return list(_module("pretrained").list_pretrained())


def tags(model: str) -> list[str]:
    """Tags of the weights published for an architecture."""
    return [tag for name, tag in pretrained() if name == model]


def weights_facts(model: str, tag: str) -> dict[str, Any]:
    """Address and preprocessing of published weights; empty if there are none of that name."""
    return dict(_module("pretrained").get_pretrained_cfg(model, tag))


def download(facts: dict[str, Any]) -> Path:
    """Download what ``weights_facts`` describes into open_clip's cache."""
    return Path(_module("pretrained").download_pretrained(facts))
