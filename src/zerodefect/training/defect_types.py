"""How well one name of a defect's type fits another, as IAD-R1's reward has it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from functools import cache

_CATEGORIES = {
    "Contamination": "surface contamination, stain, dirt, impurity, color anomaly",
    "Presence of foreign objects": "foreign object, foreign body, debris, contaminant object, "
    "extraneous material, foreign element, foreign matter, unwanted object",
    "Scratch": "surface scratch, scratch mark, linear scratch, score mark, linear anomaly",
    "Missing parts": "missing part, surface notch, notch, gap, chip, surface discontinuity",
    "Deformation": "shape distortion, warping, bending, twisting, shape deviation, "
    "geometric distortion, irregularity, bent component",
    "Hole": "opening, perforation, puncture, cavity, void, aperture, penetration defect, "
    "through-hole",
    "Damage": "structural damage, breakage, fracture, rupture, deterioration, material damage, "
    "surface damage",
    "Abrasion": "wear, grinding damage, surface erosion, wear mark, surface wear",
}
_SURFACE, _STRUCTURE = "surface", "structural"
_GROUPS = {name: _SURFACE if n < 4 else _STRUCTURE for n, name in enumerate(_CATEGORIES)}
_GROUP_WORDS = {
    f"{group} {noun}": group
    for group in (_SURFACE, _STRUCTURE)
    for noun in ("anomalies", "anomaly")
}
_ALIKE = 0.7  # ratio from which on two texts are taken for two spellings of one


def type_score(said: str, true: str) -> float:
    """How well a type that a model named fits the true one, in [0, 1].

    Args:
        said, true: names in plain words, such as ``scratch`` or ``surface anomaly``.
    """
    if not said or not true:
        return 0.0
    one, other = _plain(said), _plain(true)
    groups = [_GROUP_WORDS.get(text) or _GROUPS.get(_match(text)[0] or "") for text in (one, other)]
    if None not in groups and groups[0] != groups[1]:
        return 0.0
    if (one in _GROUP_WORDS) != (other in _GROUP_WORDS) and groups[0] == groups[1]:
        return 0.3
    if one in other or other in one:
        return 1.0 if one == other else 0.85
    return _by_category(one, other)


def _by_category(one: str, other: str) -> float:
    """Of two texts of one group, or of which at least one has none."""
    (category, sure), (true_category, true_sure) = _match(one), _match(other)
    if category is None or true_category is None:
        ratio = SequenceMatcher(None, one, other).ratio()
        return 0.4 * ratio if ratio >= _ALIKE else 0.0
    return 0.6 + 0.25 * min(sure, true_sure) if category == true_category else 0.3


def _plain(text: str) -> str:
    return re.sub(r"[^\w\s-]", "", re.sub(r"\s+", " ", text.lower().strip()))


@cache
def _index() -> dict[str, str]:
    """Category of each word of the vocabulary, in the order in which ties are decided."""
    return {_plain(word): name for name, words in _words() for word in words}


def _words() -> Iterator[tuple[str, list[str]]]:
    for name, words in _CATEGORIES.items():
        yield name, [name, *words.split(", ")]


@cache
def _match(text: str) -> tuple[str | None, float]:
    """Category of a text and how sure that is; None where it is like no word."""
    index = _index()
    if text in index:
        return index[text], 1.0
    best: tuple[str | None, float] = None, 0.0
    for word, name in index.items():
        if word in text or text in word:
            share = min(len(word), len(text)) / max(len(word), len(text))
            if share > best[1]:
                best = name, share
    if best[0] is not None:
        return best
    for word, name in index.items():
        ratio = SequenceMatcher(None, text, word).ratio()
        if ratio >= _ALIKE and ratio > best[1]:
            best = name, ratio
    return best
