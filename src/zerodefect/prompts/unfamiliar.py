"""Names that a text tower hardly knows: it was trained on English, and CLIP's vocabulary is."""

from __future__ import annotations

import unicodedata

from zerodefect.backbones import open_clip_names

_PIECES = 3  # English words for products take one or two


def unfamiliar(name: str) -> str | None:
    """A remark on a product's name that texts can hardly be built with; None where they can."""
    why = why_unfamiliar(name)
    return why and (
        f"the name {name!r} {why}: the texts were trained on English, and tell less of it. "
        "Name the product in a few English words"
    )


def why_unfamiliar(words: str) -> str | None:
    """Why texts can hardly be built with words, to go on after them; None where they can.

    Those are words without a letter, in another script than Latin, or that CLIP's tokenizer knows
    only in pieces of less than three letters or so.
    """
    letters = [sign for sign in words if sign.isalpha() and sign != "µ"]
    if not letters:
        return "holds no word"
    if any("LATIN" not in unicodedata.name(sign, "") for sign in letters):
        return "is not written in Latin letters"
    tokenizer = open_clip_names.tokenizer()
    for word in words.replace("-", " ").split():
        pieces = len(tokenizer.encode(word))
        if len(word) > 3 and word.isalpha() and pieces >= _PIECES and len(word) < 4 * pieces:
            return f"holds {word!r}, which the texts' vocabulary has not"
    return None
