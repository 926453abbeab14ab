"""What was said of a product and its file says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zerodefect.detector.contract import plain
from zerodefect.inspection.product_detector import first_of, options_of
from zerodefect.inspection.product_file import ProductFile
from zerodefect.prompts.vocabulary import Vocabulary


def contradictions(file: ProductFile, given: Mapping[str, Any]) -> list[str]:
    """What was said that a product file says otherwise, in words.

    Args:
        file: that was opened.
        given: keyword arguments of ``load`` that are not left at their defaults.
    """
    told, seen = file.told, file.told.viewing
    facts, sizes = told.detector.facts, told.detector.sizes
    own: dict[str, Any] = {
        **dict(options_of(facts)),
        "method": told.detector.method,
        "object": told.product.name,
        "vocabulary": Vocabulary(told.product.kinds) if told.product.kinds else None,
        "tile": seen.tile,
        "overlap": seen.overlap,
        "keep_aspect": seen.keep_aspect,
        "view": seen.view,
        "bit_depth": seen.bit_depth,
        "precision": first_of(facts.get("precision")),
        "image_size": sizes[0] if isinstance(sizes, tuple) else first_of(sizes),
        "memory_budget": told.detector.memory_budget,
    }
    found = []
    for name, value in given.items():
        if name not in own:
            found.append(f"{name} was given, and the file has its own or none")
        elif not _same(value, own[name]):
            found.append(f"{name} {_short(value)} was given, it is {_short(own[name])} in the file")
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return bool(plain(one) == plain(other))
    return bool(one == other)


def _short(value: Any) -> str:
    text = ", ".join(value.names) if isinstance(value, Vocabulary) else repr(value)
    return text if len(text) < 60 else text[:57] + "..."
