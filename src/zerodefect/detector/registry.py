"""Names of the methods."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, TypeVar

from zerodefect.backbones.backbone import Backbone
from zerodefect.detector.contract import Detector
from zerodefect.detector.facts import JOIN, MethodInfo, joint_info

_METHODS: dict[str, type[Detector]] = {}
_D = TypeVar("_D", bound=type[Detector])


def register(info: MethodInfo) -> Callable[[_D], _D]:
    """Class decorator: make a detector known under ``info.name``.

    Raises:
        ValueError: another class has that name already.
    """

    def decorate(method: _D) -> _D:
        known = _METHODS.get(info.name)
        if known and known.__qualname__ != method.__qualname__:
            raise ValueError(f"two methods are named {info.name!r}")
        method.info = info
        _METHODS[info.name] = method
        return method

    return decorate


def names() -> list[str]:
    """All registered names, sorted. Importing ``zerodefect.methods`` registers those there are."""
    return sorted(_METHODS)


def get(name: str) -> type[Detector]:
    """Look a method up.

    Raises:
        ValueError: no method has that name; similar names are suggested.
    """
    if name not in _METHODS:
        close = difflib.get_close_matches(name.lower(), _METHODS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown method {name!r}.{hint} Known: {', '.join(names())}")
    return _METHODS[name]


def facts_of(name: str) -> MethodInfo:
    """Facts of a method, or of several combined, such as ``"dense+patchcore"``.

    Raises:
        ValueError: no method has that name.
    """
    parts = [get(part).info for part in name.split(JOIN)]
    return parts[0] if len(parts) == 1 else joint_info(parts)


def create(name: str, *backbones: Backbone, **options: Any) -> Detector:
    """Build a method on the backbones that its facts name; options are fields of its ``Config``.

    Raises:
        ValueError: unknown method or option, or a value the method refuses.
    """
    return get(name).build(*backbones, **options)
