"""Procedural images: pictures of products, good and damaged, that the project draws itself."""

from zerodefect.procedural.captions import (
    ANOMALOUS_STATES,
    KIND_STATES,
    MORE_ANOMALOUS_STATES,
    MORE_NORMAL_STATES,
    NORMAL_STATES,
    NOUNS,
    SURFACE_NOUNS,
    TEMPLATES,
)
from zerodefect.procedural.kinds import DEFECT_KINDS
from zerodefect.procedural.pictures import ProceduralBatch, draw_product, generate
from zerodefect.procedural.products import PRODUCTS, asked_for_damage, possible_kinds
from zerodefect.procedural.surfaces import SURFACES

__all__ = [
    "ANOMALOUS_STATES",
    "DEFECT_KINDS",
    "KIND_STATES",
    "MORE_ANOMALOUS_STATES",
    "MORE_NORMAL_STATES",
    "NORMAL_STATES",
    "NOUNS",
    "PRODUCTS",
    "SURFACES",
    "SURFACE_NOUNS",
    "TEMPLATES",
    "ProceduralBatch",
    "asked_for_damage",
    "draw_product",
    "generate",
    "possible_kinds",
]
