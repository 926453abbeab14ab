"""What SAA+ (arXiv 2305.10724) asks for on the classes of public data sets.

Phrases of defects, the word for the object, how many of it a picture shows, how many defects are
kept at most, and how large one may be. The comma behind most objects is in the authors' captions.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DefectPrompts:
    """Hybrid prompts of one product.

    Attributes:
        captions: phrases of defects; each is a caption that is searched for by itself.
        background: text that no answer may hold, since it names the product.
        object: caption of the whole object.
        count: objects in a picture.
        most: defects that are kept.
        area: largest defect, as a share of the largest object.
    """

    captions: tuple[str, ...]
    background: str
    object: str
    count: int = 1
    most: int = 5
    area: float = 0.9


_DEFECT = "defect."
_COOKIE = "broken part. red defect. black defect. crack. hole. scratch."

# captions, and what differs from: background and object as the class, count 1, most 5, area 0.9
_PUBLIC: dict[str, tuple[tuple[str, ...], dict[str, str | int | float]]] = {
    # MVTec AD
    "bottle": (("broken part. contamination. white broken.",), {"area": 0.3}),
    "cable": (("crack. flawed golden wire. black hole.",), {}),
    "capsule": (("white crack. hole.",), {"area": 0.6}),
    "carpet": (("black hole", "thread", _DEFECT), {}),
    "grid": (("irregular pattern", _DEFECT), {}),
    "hazelnut": (("white print. crack. thread.",), {}),
    "leather": ((_DEFECT,), {}),
    "metal nut": (
        ("blue defect. black defect. red defect. scratch.",),
        {"background": "nut", "area": 1.0},
    ),
    "pill": (("red defect. yellow defect. blue defect. crack. scratch.",), {"area": 1.0}),
    "screw": ((_DEFECT,), {"area": 0.1}),
    "tile": ((_DEFECT,), {}),
    "toothbrush": ((_DEFECT,), {"area": 0.5}),
    "transistor": ((_DEFECT,), {"area": 1.0}),
    "wood": ((_DEFECT,), {}),
    "zipper": (("crack. broken leather.",), {"area": 0.5}),
    # VisA
    "candle": (
        ("color defect. hole. black defect. wick hole. spot. ",),
        {"count": 4, "most": 1, "area": 0.3},
    ),
    "capsules": (
        ("black melt. dark liquid.", "bubble"),
        {"object": "capsule", "count": 20, "most": 15, "area": 1.0},
    ),
    "cashew": (
        ("yellow defect. black defect. small holes. scratch. breakage. crack.", "small spot."),
        {"most": 17, "area": 0.05},
    ),
    "chewinggum": (
        ("crack. yellow defect. color defect. black defect. thread.",),
        {"most": 50, "area": 0.2},
    ),
    "fryum": (
        (
            "broken part. purple defect. black defect. red defect. color defect. color crack. "
            "break",
        ),
        {"area": 1.0},
    ),
    "macaroni1": (
        (f"{_COOKIE} color crack.",),
        {"object": "macaroni", "background": "macaroni", "count": 4, "area": 0.3},
    ),
    "macaroni2": (
        (_COOKIE, "edge. spot. chip."),
        {"object": "macaroni", "background": "macaroni", "count": 4, "most": 50, "area": 0.3},
    ),
    "pcb1": (
        (
            "bent wire on pcb", "white scratch on pcb", "white defect on pcb", "white circle.",
        ),
        {"object": "printed_circuit_board", "background": "pcb", "most": 1, "area": 0.3},
    ),
    "pcb2": (("bent wire", "pointed", "wire"), {"object": "pcb", "most": 9, "area": 0.3}),
    "pcb3": (
        ("bent wire on pcb", "scratch on pcb", "defect on pcb"),
        {"object": "printed_circuit_board", "area": 0.3},
    ),
    "pcb4": (
        (
            "yellow paper on pcb", "yellow defect on pcb", "black defect on pcb",
            "color defect on pcb", "scratch on pcb", "defect on pcb",
        ),
        {"object": "pcb", "most": 7, "area": 0.3},
    ),
    "pipe fryum": ((_COOKIE,), {"background": "fryum", "most": 19, "area": 0.3}),
    # KolektorSDD2 and Magnetic Tile Defects
    "ksdd2": (("black hole.", _DEFECT), {}),
    "mtd": (("black hole. blow hole. break. crack. fray. uneven.", _DEFECT), {}),
}  # fmt: skip


def public_prompts(name: str) -> DefectPrompts | None:
    """Prompts of a class of the public data sets, or None; blanks or underscores in its name."""
    found = _PUBLIC.get(name.replace("_", " "))
    if found is None:
        return None
    captions, own = found
    told: dict = {"background": name, "object": name, **own}
    comma = "" if name == "chewinggum" else ","
    return DefectPrompts(captions, **{**told, "object": f"{told['object']}{comma}"})
