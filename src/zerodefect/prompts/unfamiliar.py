"""Names that a text tower hardly knows: it was trained on English, and CLIP's vocabulary is."""

from __future__ import annotations

import unicodedata

from zerodefect.backbones import open_clip_names

_PIECES = 3  # English words for products take one or two


def unfamiliar(name: str) -> str | None:
    """A remark on a product's name that texts can hardly be built with; None where they can.

    That is a name without a word, in another script than Latin, or with a word that CLIP's
    tokenizer knows only in pieces of less than three letters or so.
    """
    letters = [sign for sign in name if sign.isalpha() and sign != "µ"]
    if not letters:
        return _remark(name, "holds no word")
    if any("LATIN" not in unicodedata.name(sign, "") for sign in letters):
        return _remark(name, "is not written in Latin letters")
    tokenizer = open_clip_names.tokenizer()
    for word in name.replace("-", " ").split():
        pieces = len(tokenizer.encode(word))
        if len(word) > 3 and word.isalpha() and pieces >= _PIECES and len(word) < 4 * pieces:
            return _remark(name, f"holds {word!r}, which the texts' vocabulary has not")
    return None


def _remark(name: str, why: str) -> str:
    return (
        f"the name {name!r} {why}: the texts were trained on English, and tell less of it. "
        "Name the product in a few English words"
    )
