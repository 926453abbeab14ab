"""Procedural images: pictures of products, good and damaged, that the project draws itself."""

from zerodefect.procedural.captions import NOUNS, SURFACE_NOUNS
from zerodefect.procedural.kinds import DEFECT_KINDS, KIND_STATES
from zerodefect.procedural.pictures import ProceduralBatch, draw_product, generate
from zerodefect.procedural.products import PRODUCTS, asked_for_damage, possible_kinds
from zerodefect.procedural.surfaces import SURFACES

__all__ = [
    "DEFECT_KINDS", "KIND_STATES", "NOUNS", "PRODUCTS", "SURFACES", "SURFACE_NOUNS",
    "ProceduralBatch", "asked_for_damage", "draw_product", "generate", "possible_kinds",
]  # fmt: skip
