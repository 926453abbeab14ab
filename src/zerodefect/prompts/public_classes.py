"""Words for the classes of public data sets, as AA-CLIP (arXiv 2503.06661) has them."""

from __future__ import annotations

_PHRASES = {
    # MVTec AD
    "bottle": "dark bottle",
    "cable": "top view of three cables",
    "capsule": "black and orange capsule",
    "carpet": "gray carpet",
    "grid": "metal or plastic mesh",
    "hazelnut": "single brown hazelnut",
    "leather": "brown leather",
    "metal nut": "metal nut which has four notched edges",
    "pill": "oval white pill with small red speckles and the letters 'FF' engraved",
    "tile": "speckled tile surface",
    "transistor": "a three-legged transistor placed vertically",
    "toothbrush": "toothbrush head",
    "wood": "wood surface",
    "zipper": "a black zipper",
    # VisA
    "pcb1": "dual ultrasonic distance sensor pcb module",
    "pcb2": "integrated circuits board",
    "pcb3": "infrared sensor pcb module",
    "pcb4": "battery charging pcb module",
    "pipe fryum": "pipe-shaped fryum",
    "macaroni1": "orange macaroni",
    "macaroni2": "scattered yellow macaroni",
    "chewinggum": "chewing gum",
    "cashew": "cashew nut",
    "fryum": "wheel-shaped fryum snack",
    # MPDD
    "connector": "metal clamps with black adjustment knobs",
    "tubes": "scattered metal objects",
    "metal plate": "blue rectangular metal plate with a notch on one side",
    "bracket white": "white, elongated triangular metal bracket with a smooth, matte finish",
    "bracket brown": "brown L-shaped metal bracket with smooth, glossy finish and multiple "
    "mounting holes along its arms",
    "bracket black": "black ornamental metal bracket with spiral design attached to a rectangular "
    "frame",
    # BTAD
    "01": "Bright concentric rings in neon yellow and blue tones against a dark blue background, "
    "resembling a stylized wave or energy field radiating outward.",
    "02": "vertical fabric lines in warm, dusty pink and beige tones",
    "03": "oval concentric circular rings in gradient shades of blue and white",
    # medical
    "brain": "scan",
    "liver": "scan",
    "retina": "scan",
    "colon": "colon endoscopy image",
}


def described(name: str) -> str:
    """What such a class shows, such as "metal nut which has four notched edges" for "metal_nut".

    Any other name is returned as it is.
    """
    plain = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    return _PHRASES.get(plain, name)
