"""The kinds of damage that are drawn, by name."""

DEFECT_KINDS = (
    "scratch",
    "crack",
    "hole",
    "stain",
    "contamination",
    "break",
    "discolouration",
    "dent",
    "uneven surface",
    "fray",
    "missing part",
    "extra part",
    "misplaced part",
    "bent",
    "print error",
    "burn",
    "bubble",
)
"""Canonical names of the kinds that are drawn; ``kind`` is a position in this tuple."""
BUILD_KINDS = ("missing part", "extra part", "misplaced part", "bent", "print error")
"""Kinds of a product built wrongly: the whole product is drawn anew, nothing is laid over it."""
