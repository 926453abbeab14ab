"""The kinds of damage that are drawn, with the words that state each."""

_WORDS = {  # what a product is "with", or a phrase around its name
    "scratch": "a scratch, scratched {}, scratches",
    "crack": "a crack, cracked {}, cracks, a fracture",
    "hole": "a hole, a blowhole, a pit, holes, pores, a puncture",
    "stain": "a stain, stained {}, stains, a spot, patches",
    "contamination": "contamination, contaminated {}, dirt, dirty {}, a foreign object, "
    "an inclusion, a thread on it",
    "break": "a break, broken {}, a chipped edge, chipped {}, a chip, a broken edge, a cut",
    "discolouration": "discolouration, discoloured {}, discoloration, discolored {}, "
    "a colour defect",
    "dent": "a dent, dented {}, dents, a bump, deformed {}",
    "uneven surface": "an uneven surface, uneven {}, a rough surface, uneven texture",
    "fray": "a fray, frayed {}, frayed edges, loose threads",
    "missing part": "a missing part, a missing component, incomplete {}, a part missing, "
    "{} that lacks a part",
    "extra part": "an extra part, an additional part, a part too many, a surplus component",
    "misplaced part": "a misplaced part, a shifted part, misaligned {}, a part in the wrong place, "
    "a swapped component",
    "bent": "bent {}, a bend, a bent part, warped {}, crooked {}",
    "print error": "a print error, misprinted {}, a faulty imprint, smudged print, "
    "broken lettering",
    "burn": "a burn, burnt {}, burned {}, scorch marks, scorched {}, burn marks",
    "bubble": "a bubble, bubbles, a blister, air bubbles, blistered {}",
}
KIND_STATES = {
    kind: tuple(word if "{}" in word else f"{{}} with {word}" for word in words.split(", "))
    for kind, words in _WORDS.items()
}
"""State phrases of each kind; ``{}`` stands for the product's name."""
DEFECT_KINDS = tuple(KIND_STATES)
"""Canonical names of the kinds that are drawn; ``kind`` is a position in this tuple."""
BUILD_KINDS = ("missing part", "extra part", "misplaced part", "bent", "print error")
"""Kinds of a product built wrongly: the whole product is drawn anew, nothing is laid over it."""
