"""Products: how they look, and which damage they can have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zerodefect.procedural.draws import Draws, PerPicture
from zerodefect.procedural.kinds import BUILD_KINDS, DEFECT_KINDS
from zerodefect.procedural.shapes import BENDABLE, COUNTABLE, LARGE, SHAPES
from zerodefect.procedural.structures import COUNTED, PRINTED, STRUCTURES
from zerodefect.procedural.surfaces import SURFACE_WEIGHTS, SURFACES

Kinds = list[list[str]]
"""The damages that are wanted of each picture, the chief one first."""
_OFTEN = {"scratch": 1.6, "contamination": 1.3, "break": 1.3, "uneven surface": 1.3}
_AROUND = {"": 0.45, "surface": 0.25, "things": 0.15, "light": 0.15}
_STRUCTURED = 0.4  # share of large products that have parts or print on them


@dataclass(frozen=True)
class Look(PerPicture):
    """What product each picture of a batch shows.

    Attributes: names of surface, shape and structure (empty: none); ``(B,)`` brightness, texture
    contrast and background brightness; ``(B, 3)`` tints that multiply dark and bright parts
    (ones: grey); harshness of light and camera; how far the product wanders; what lies around the
    product (``scene.SURROUNDINGS``, empty: an even table).
    """

    surfaces: list[str]
    shapes: list[str]
    structures: list[str]
    level: Tensor
    contrast: Tensor
    behind: Tensor
    tint_dark: Tensor
    tint_bright: Tensor
    harshness: float
    wander: float
    around: list[str]

    @property
    def things(self) -> list[str]:
        """What each picture shows: the name of a structure or else of a shape."""
        return [s or shape for s, shape in zip(self.structures, self.shapes, strict=True)]


def random_look(identity: Draws, surroundings: bool = False) -> Look:
    """Any product at all; with ``surroundings`` half of them lie on what is no even table."""
    grey = identity.chance("look.grey", 0.55)[:, None]
    bright = 1 + identity.uniforms("look.tint_bright", 3, -0.35, 0.25)
    shapes = identity.weighted("look.shape", SHAPES)
    built = identity.chance("look.built", _STRUCTURED).tolist()
    picks = identity.integers("look.structure", len(STRUCTURES)).tolist()
    often = {name: SURFACE_WEIGHTS.get(name, 1.0) for name in SURFACES}
    # Half of the backgrounds are black as under a ring light, some white as on a light table.
    behind = identity.uniform("look.behind", 0.0, 1.0)
    behind = torch.where(identity.chance("look.black", 0.4), 0.08 * behind, behind)
    behind = torch.where(identity.chance("look.white", 0.12), 0.85 + 0.15 * behind, behind)
    return Look(
        surfaces=identity.weighted("look.surface", often),
        shapes=shapes,
        structures=[
            list(STRUCTURES)[pick] if there and shape in LARGE else ""
            for there, pick, shape in zip(built, picks, shapes, strict=True)
        ],
        level=identity.uniform("look.level", 0.08, 0.88),
        contrast=identity.log_uniform("look.contrast", 0.008, 0.17),
        behind=behind,
        tint_dark=torch.where(grey, 1.0, 1 + identity.uniforms("look.tint_dark", 3, -0.4, 0.4)),
        tint_bright=torch.where(grey, 1.0, bright),
        harshness=1.0,
        wander=1.0,
        around=identity.weighted("look.around", _AROUND) if surroundings else [""] * len(shapes),
    )


def _known(
    surface: str, shape: str, tones: list[float], tint: list[float], structure: str = ""
) -> Look:
    """A product that always looks the same: under good light, lying almost where it should.

    ``tones`` are its brightness, the contrast of its texture and the background's brightness.
    """
    level, contrast, behind = torch.tensor(tones).split(1)
    tints = torch.tensor([tint])
    return Look(
        [surface], [shape], [structure], level, contrast, behind, tints, tints,
        harshness=0.3, wander=0.25, around=[""],
    )  # fmt: skip


KNOWN = {
    "metal plate": (1, _known("brushed", "plate", [0.55, 0.035, 0.06], [1.0, 1.0, 1.0])),
    "woven fabric": (2, _known("weave", "filled", [0.5, 0.09, 0.5], [0.85, 0.95, 1.1])),
    "ceramic tile": (3, _known("stone", "plate", [0.75, 0.02, 0.25], [1.05, 1.0, 0.9])),
    "wooden board": (4, _known("wood", "filled", [0.5, 0.06, 0.5], [1.2, 0.9, 0.6])),
    "seal ring": (5, _known("paper", "ring", [0.22, 0.02, 0.8], [1.0, 1.0, 1.0])),
    "drilled plate": (6, _known("ground", "plate", [0.6, 0.03, 0.05], [1.0, 1.0, 1.0], "grid")),
    "name plate": (13, _known("paper", "plate", [0.8, 0.02, 0.3], [1.0, 0.98, 0.9], "text")),
    "cable bundle": (15, _known("plain", "cables", [0.3, 0.02, 0.75], [0.8, 0.9, 1.2])),
}
"""Identity, which picks proportions, pitch and grain, and look of each product."""
PRODUCTS = tuple(KNOWN)
"""Names that ``draw_product`` knows."""


def possible_kinds(name: str) -> tuple[str, ...]:
    """Kinds of damage that the product ``name`` of ``PRODUCTS`` can have."""
    look = KNOWN[name][1]
    shares = _kind_shares(look.shapes[0], look.structures[0])
    return tuple(kind for kind, share in zip(DEFECT_KINDS, shares, strict=True) if share)


def _kind_shares(shape: str, structure: str) -> np.ndarray:
    """``(K,)`` share of each kind on such a product; build kinds only where they fit."""
    build = {
        "missing part": structure in COUNTED or shape in COUNTABLE,
        "extra part": structure in COUNTED or shape == "many",
        "misplaced part": structure in COUNTED or shape in COUNTABLE,
        "bent": shape in BENDABLE,
        "print error": structure in PRINTED,
    }
    often = 8.0 if build["bent"] and sum(build.values()) == 1 else 3.0
    weights = np.array(
        [often * build[kind] if kind in build else _OFTEN.get(kind, 1.0) for kind in DEFECT_KINDS]
    )
    return weights / weights.sum()


def random_kinds(picture: Draws, look: Look) -> Kinds:
    """No damage in half of the pictures, one in most others, two in some."""
    damaged = _damaged(picture)
    second = picture.chance("kind.second", 0.12).tolist()
    draws = picture.uniforms("kind.which", 2).double().cpu().numpy()
    plain = [kind for kind in DEFECT_KINDS if kind not in BUILD_KINDS]
    found: Kinds = []
    for row, (chief, further) in enumerate(draws):
        shares = _kind_shares(look.shapes[row], look.structures[row])
        first = DEFECT_KINDS[int(np.searchsorted(np.cumsum(shares), chief, "right"))]
        other = plain[int(further * len(plain))]
        both = [first, other] if second[row] and other != first else [first]
        found.append(both if damaged[row] else [])
    return found


def asked_for_damage(seed: int, start: int, count: int) -> list[bool]:
    """Whether each of these pictures of a series is to be damaged; nothing is drawn.

    Of those that are, some stay good because their damage falls outside the product.
    """
    numbers = np.arange(start, start + count, dtype=np.uint64)
    return _damaged(Draws(seed, numbers, torch.device("cpu")))


def _damaged(picture: Draws) -> list[bool]:
    return picture.chance("kind.damaged", 0.52).tolist()
