"""What people call good and defective parts, in names of folders and in tables.

A word that is not listed means nothing here: it may name a kind of defect, but never says good.
"""

from __future__ import annotations

import re

GOOD_WORDS = frozenset(
    {"good", "ok", "okay", "oks", "normal", "normals", "pass", "passed", "io", "inordnung", "gut"}
    | {"nodefect", "nodefects", "nondefect", "nondefective", "notdefective", "undefective"}
    | {"defectfree", "withoutdefect", "withoutdefects", "faultless", "nofault", "faultfree"}
    | {"anomalyfree", "noanomaly", "nonanomalous", "nonanomaly", "notanomalous"}
    | {"negative", "neg", "healthy", "intact", "undamaged", "nondamaged", "notdamaged"}
    | {"accept", "accepted", "conform", "conforming", "flawless", "fehlerfrei", "goodpart"}
)
BAD_WORDS = frozenset(
    {"bad", "ng", "nok", "ko", "nio", "nichtinordnung", "notok", "notgood", "nogood", "nonok"}
    | {"fail", "failed", "failure", "reject", "rejected", "scrap", "faulty", "schlecht"}
    | {"def", "defect", "defects", "defective", "anomaly", "anomalies", "anomalous"}
    | {"abnormal", "abnormals", "notnormal", "positive", "pos", "damaged", "broken"}
    | {"nonconform", "nonconforming", "notpassed", "ungood", "defekt", "fehlerhaft", "ausschuss"}
)
# These say the opposite where they are not meant as the answer of a test for defects.
TEST_WORDS = frozenset({"negative", "neg", "positive", "pos"})

_FILLERS = frozenset(
    {"part", "parts", "piece", "pieces", "item", "items", "product", "products", "sample"}
    | {"samples", "image", "images", "img", "imgs", "picture", "pictures", "photo", "photos"}
    | {"dir", "folder", "class", "data", "dataset", "set", "front", "back", "top", "bottom"}
    | {"side", "left", "right", "train", "test", "teile", "bilder"}
)


def key_of(text: str) -> str:
    """Bring a word to the form of the lists: ``i.O.``, ``0.OK``, ``OK_front``: letters alone.

    Numbers, marks, spaces and words that say nothing of the state (parts, images, front) fall away.
    """
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z]{2})(?=[A-Z][a-z])", " ", text))
    folded = [word.casefold() for word in words]
    return "".join(word for word in folded if word not in _FILLERS) or "".join(folded)


def says_good(text: str) -> bool | None:
    """Whether a word means good (True) or defective (False); None for a word that is not known."""
    key = key_of(text)
    if key in GOOD_WORDS:
        return True
    return False if key in BAD_WORDS else None
