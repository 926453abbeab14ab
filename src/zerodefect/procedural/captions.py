"""Captions: the product's name and its state, in the wordings of zero-shot inspection."""

from __future__ import annotations

import torch

from zerodefect.procedural.draws import Draws
from zerodefect.procedural.kinds import DEFECT_KINDS, KIND_STATES
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, PHOTO_TEMPLATES


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(entry.split()) for entry in text.split(","))


MORE_NORMAL_STATES = _listed(
    "good {}, intact {}, clean {}, undamaged {}, normal {}, {} in perfect condition, "
    "{} without any defect"
)
MORE_ANOMALOUS_STATES = _listed(
    "defective {}, faulty {}, flawed {}, abnormal {}, {} with a defect, {} with an anomaly"
)

_WHERE = (
    ("in the upper left", "at the top", "in the upper right"),
    ("on the left", "in the middle", "on the right"),
    ("in the lower left", "at the bottom", "in the lower right"),
)
_SPREAD = 0.35  # share of the picture from which damage has no place any more

# The order is the one that the embedded model was trained in.
TEMPLATES = (
    *PHOTO_TEMPLATES[:8], *PHOTO_TEMPLATES[9:7:-1], *PHOTO_TEMPLATES[10:],
    "{}", "{}.", "a {}", "this is a photo of a {}.", "an image of a {}", "a macro photo of the {}",
)  # fmt: skip

_SURFACE_NOUNS = {
    "fractal": "material, surface, concrete, plaster, rubber, foam, clay, asphalt, ice",
    "brushed": "brushed metal, metal plate, steel plate, aluminium sheet, magnetic tile, strip",
    "ground": "ground metal, steel surface, machined part, rail, hot-rolled steel, bearing surface",
    "cast": "casting, cast iron, cast part, forging, engine block, pump housing",
    "weave": "fabric, textile, carpet, canvas, cloth, woven fabric, denim, filter cloth",
    "leather": "leather, artificial leather, seat cover, skin, dashboard, vinyl",
    "wood": "wood, plank, veneer, parquet, plywood, furniture board, pencil",
    "stone": "stone, granite, marble, terrazzo, countertop, ceramic",
    "granules": "granulate, sandpaper, rice, pellets, grains, gravel, felt",
    "tiles": "tile, ceramic tile, mosaic, brick wall, wafer, solar cell, solar panel",
    "stripes": "corrugated sheet, thread, screw thread, zipper, cable, heat sink, spring",
    "mesh": "mesh, grid, grating, sieve, wire mesh, perforated plate, net, grille",
    "paper": "paper, cardboard, label, packaging, nonwoven, wallpaper, plasterboard, tablet",
    "rolled": "hot-rolled steel, steel strip, steel sheet, metal surface, slab, sheet metal",
    "glass": "glass, film, foil, display, screen, lens, window, mirror, touch panel, coated film",
    "plain": "plastic part, glass, film, foil, painted panel, car body panel, bottle, lens, screen",
}
_SURFACE_WORDS = {  # where it is not the surface's name
    "fractal": "rough", "weave": "woven", "wood": "wooden", "granules": "granular",
    "tiles": "tiled", "stripes": "striped", "mesh": "meshed", "rolled": "hot-rolled",
    "glass": "glossy", "plain": "smooth",
}  # fmt: skip
_OBJECT_NOUNS = {
    thing: _listed(nouns) for thing, nouns in {
        "disc": "disc, lid, coin", "ring": "ring, seal, washer, gasket", "bar": "bar, rod, strip",
        "polygon": "polygonal part", "plate": "plate, panel, tile", "margin": "plate, sheet, panel",
        "gear": "gear, cogwheel", "bottle": "bottle, vial", "capsule": "capsule",
        "screw": "screw, bolt", "hex bolt": "hexagon bolt, nut, metal nut",
        "many": "set of parts, tray of parts, group of parts", "comb": "connector, plug",
        "cables": "cable, cable bundle, wires", "grid": "perforated plate, panel with parts",
        "row": "row of parts, strip with parts", "circle": "flange, cover with screws",
        "text": "label, printed label, nameplate", "board": "pcb, printed circuit board",
        "dots": "printed film, patterned sheet, wallpaper",
    }.items()
}  # fmt: skip
_PRODUCT_NOUNS = """
object, product, part, component, item, workpiece, sample, piece, surface, material, texture, screw,
bolt, nut, metal nut, washer, gear, bearing, shaft, pipe, tube, pipe fryum, valve, flange, nail,
rivet, bracket, hinge, hook, chain, ring, disc, brake disc, wheel, rim, tyre, gasket, seal, o-ring,
hazelnut, cashew, candle, capsule, capsules, pill, chewing gum, macaroni, fryum, biscuit, chocolate,
bread, apple, orange, potato, egg, toothbrush, toothpaste, transistor, resistor, capacitor, diode,
chip, integrated circuit, pcb, printed circuit board, connector, plug, socket, switch, relay,
battery, battery cell, electrode, coil, motor, commutator, magnet, magnetic tile, usb adaptor, phone
battery, terminal block, toy brick, plastic nut, plastic plug, sim card set, zipper, button, buckle,
rope, strap, belt, glove, shoe, sock, shirt, curtain, bottle cap, bottle, can, jar, cup, mug, plate,
bowl, pot, pan, knife, spoon, vial, ampoule, syringe, blister pack, box, bag, lid, crate, pallet,
door, window, mirror, glass, lens, screen, display, touch panel, keyboard, mouse, camera, cover
glass, optical fibre, fibre, carbon fibre, composite, laminate, sheet, plate, strip, rod, bar, wire,
wire rope, weld, weld seam, solder joint, rail, road, wall, bridge deck, roof, floor, pavement,
blade, turbine blade, propeller, wing, hull, windscreen, bumper, headlight, fender, piston,
cylinder, crankshaft, injector, spark plug, die, mould, steel, steel sheet, aluminium, copper plate,
brass part, iron ring, silicon wafer, photovoltaic module, ceramic part, porcelain, enamel, tile,
brick, stone, plank, board, veneer, cork, paper, cardboard, label, banknote, card, book, film, foil,
membrane, filter, sponge, brush, broom, lamp
"""
SURFACE_NOUNS = {surface: _listed(nouns) for surface, nouns in _SURFACE_NOUNS.items()}
NOUNS = tuple(dict.fromkeys(sum(SURFACE_NOUNS.values(), _listed(_PRODUCT_NOUNS))))
"""Product and material names; captions take them mostly regardless of what is drawn, so that a
name the network never met says nothing about good or bad."""


def place_words(cover: torch.Tensor) -> str:
    """Where in the picture a ``(S, S)`` bool mask lies; empty if nowhere or nearly everywhere."""
    size = cover.shape[0]
    rows, columns = cover.nonzero(as_tuple=True)
    if not len(rows) or len(rows) > _SPREAD * size * size:
        return ""
    row = min(2, int(3 * float(rows.float().mean() + 0.5) / size))
    column = min(2, int(3 * float(columns.float().mean() + 0.5) / size))
    return _WHERE[row][column]


def write_captions(
    draws: Draws, surfaces: list[str], objects: list[str], kinds: list[int], kind_map: torch.Tensor
) -> list[str]:
    """One caption per picture, of its surface, its structure or shape and its damage.

    ``kinds`` are positions in ``DEFECT_KINDS``, or -1 for good pictures; ``kind_map (B, S, S)``
    says where the damage lies.
    """
    which = draws.uniform("caption.own").tolist()
    named = draws.chance("caption.named", 0.7).tolist()
    worded = draws.chance("caption.surface", 0.25).tolist()
    placed = draws.chance("caption.place", 0.35).tolist()
    noun = draws.integers("caption.noun", 1 << 20).tolist()
    state = draws.integers("caption.state", 1 << 20).tolist()
    template = draws.integers("caption.template", len(TEMPLATES)).tolist()
    captions = []
    for i, (surface, thing, kind) in enumerate(zip(surfaces, objects, kinds, strict=True)):
        names = SURFACE_NOUNS[surface] if which[i] < 0.45 else NOUNS
        if which[i] < 0.2:
            names = _OBJECT_NOUNS.get(thing, names)
        states = ANOMALOUS_STATES + MORE_ANOMALOUS_STATES
        if kind < 0:
            states = NORMAL_STATES + MORE_NORMAL_STATES
        elif named[i]:
            states = KIND_STATES[DEFECT_KINDS[kind]]
        name, word = names[noun[i] % len(names)], _SURFACE_WORDS.get(surface, surface)
        if worded[i] and word not in name:
            name = f"{word} {name}"
        product = states[state[i] % len(states)].format(name)
        if placed[i] and kind >= 0:
            product = f"{product} {place_words(kind_map[i] == kind + 1)}".rstrip()
        captions.append(TEMPLATES[template[i]].format(product))
    return captions
