"""The words of rules: numbers, one thing and many, and words with a meaning of their own."""

from __future__ import annotations

import re
from typing import Final

ARTICLES: Final = frozenset({"the", "each", "every", "all", "any"})
"""Words before a component's name that say nothing."""

KEYWORDS: Final = ARTICLES | frozenset(
    re.findall(
        r"\w+",
        "a an exactly at least most more than fewer less no between and to of in inside outside "
        "left right above below over under touching touches touch not is are must be as usual else "
        "otherwise within percent number count area level position horizontal vertical fill",
    )
)
"""Words that cannot be part of a component's name."""

WORD: Final = re.compile(r"[^\W\d_][\w'-]*")

_ONES = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBERS: Final = {
    **{word: number for number, word in enumerate(_ONES)},
    **{word: 20 + 10 * number for number, word in enumerate(_TENS)},
    **{
        f"{ten}-{one}": 20 + 10 * number + unit
        for number, ten in enumerate(_TENS)
        for unit, one in enumerate(_ONES[:10])
        if unit
    },
    **{"a": 1, "an": 1, "hundred": 100},
}
_SINGULAR_IN_S = frozenset({"lens", "gas", "canvas", "series", "chassis", "bus", "iris", "bias"})
_IRREGULAR = {
    **{"leaves": "leaf", "knives": "knife", "halves": "half", "shelves": "shelf"},
    **{"teeth": "tooth", "feet": "foot", "axes": "axis", "matrices": "matrix"},
    **{"lenses": "lens", "buses": "bus", "gases": "gas", "canvases": "canvas"},
}
_MANY = {one: many for many, one in _IRREGULAR.items()}


def number_in_words(word: str) -> int | None:
    """The number that a word says, such as twelve, a or twenty-one; None for any other word."""
    return _NUMBERS.get(word)


def singular(word: str) -> str:
    """The word for one of what a word says many of; a word for one thing stays as it is.

    Only what English writes regularly, and a few others; what matters is that a thing is called
    the same wherever it is named.
    """
    seen = word
    while (shorter := _once(seen)) != seen:
        seen = shorter
    return seen


def _once(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word in _SINGULAR_IN_S or len(word) < 3 or word.endswith(("ss", "us", "is", "'s")):
        return word
    if len(word) > 4 and re.search("[^aeiou]ies$", word):
        return f"{word[:-3]}y"
    if re.search("(s|x|z|ch|sh)es$", word) and len(word) > 4:
        return word[:-2]
    return word[:-1] if word.endswith("s") else word


def plural(word: str) -> str:
    """The word for many of a thing; the word itself where the way back would not lead to it."""
    if word in _MANY:
        return _MANY[word]
    many = f"{word}s"
    if word.endswith(("s", "x", "z", "ch", "sh")):
        many = f"{word}es"
    elif re.search("[^aeiou]y$", word):
        many = f"{word[:-1]}ies"
    return many if singular(many) == word and many not in KEYWORDS else word
