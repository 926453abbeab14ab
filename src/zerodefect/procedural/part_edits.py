"""Logical anomalies drawn onto good photographs: parts that are gone, moved, doubled or wrong.

The edits are LogicAL's (Zhao, CVPR workshops 2024, arXiv 2405.06875) and some of ours. Where a
generator that was trained to draw pictures from their edges is at hand, edges are edited and the
picture is drawn anew (``redrawn``); without one, which is the usual case, pixels are edited.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.layers.components import dilated
from zerodefect.layers.edge_edits import edge_map, merge_edges, remove_edges, replace_edges
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.layers.structural_similarity import ssim_map
from zerodefect.procedural.draws import Draws
from zerodefect.procedural.picture_parts import coloured_parts, random_regions

Edit = Literal["remove", "move", "duplicate", "resize", "replace", "merge"]
AnomalyKind = Literal["logical", "structural", "mixed"]

EDIT_KINDS: dict[Edit, AnomalyKind] = {
    "remove": "logical",
    "move": "logical",
    "duplicate": "logical",
    "resize": "logical",
    "replace": "structural",
    "merge": "mixed",
}
"""What each edit makes; those of LogicAL as the paper says, the others are ours and logical."""
ALONE: tuple[Edit, ...] = ("remove", "move", "duplicate", "resize")
"""Edits that need no other picture."""

_SIDE = 256  # pixels of the picture's longer side that the lengths below are meant for
_RING, _BLUR, _FEATHER = 8, 3.0, 4
_FAR = (0.06, 0.35)  # of the picture's sides, how far a part is moved
_INSIDE = 0.85  # of a moved part that must stay in the picture
_SEEN = 0.02  # mean change inside the mask, of values in [0, 1], from which an edit is one
_TRIES = 24
_ALIKE = 0.9  # SSIM below which a redrawn place differs


@dataclass(frozen=True)
class EditedPicture:
    """A picture with a part that is not as it should be.

    Attributes:
        image: ``(3, H, W)`` in [0, 1].
        mask: ``(H, W)`` bool: where something is missing, too much, or of another kind.
        edit: which edit.
        kind: of the anomaly.
        backend: ``pixels``, or ``edges`` where a generator drew the picture.
    """

    image: Tensor
    mask: Tensor
    edit: Edit
    kind: AnomalyKind
    backend: Literal["pixels", "edges"]


# --- pixels --------------------------------------------------------------------------------------


def _length(image: Tensor, pixels: float) -> int:
    return max(1, round(pixels * max(image.shape[-2:]) / _SIDE))


def feathered(M: Tensor, width: int) -> Tensor:
    """Weight ``(H, W)`` in [0, 1]: a mask whose border falls off over so many pixels, inside."""
    kernel = 2 * width + 1
    return F.avg_pool2d(M[None, None].float(), kernel, 1, width, count_include_pad=False)[0, 0] * M


def removed(image: Tensor, M: Tensor) -> Tensor:
    """The region filled with the median of a ring around it, its border blurred."""
    ring = dilated(M, 2 * _length(image, _RING) + 1) & ~M
    if not ring.any():
        return image.clone()
    fill = image[:, ring].median(dim=1).values
    filled = torch.where(M, fill[:, None, None], image)
    soft = gaussian_smooth(filled, _length(image, _BLUR))
    return torch.where(M, soft, image)


def pasted(image: Tensor, source: Tensor, M: Tensor) -> Tensor:
    """The region as the source shows it, with a soft border."""
    weight = feathered(M, _length(image, _FEATHER) // 2 or 1)
    return image + weight * (source - image)


def _shifted(values: Tensor, dy: int, dx: int) -> Tensor:
    """``(..., H, W)`` moved by pixels; what comes in is zero."""
    height, width = values.shape[-2:]
    moved = torch.zeros_like(values)
    to_y, to_x = slice(max(0, dy), height + min(0, dy)), slice(max(0, dx), width + min(0, dx))
    of_y, of_x = slice(max(0, -dy), height - max(0, dy)), slice(max(0, -dx), width - max(0, dx))
    moved[..., to_y, to_x] = values[..., of_y, of_x]
    return moved


def _shift(draws: Draws, M: Tensor) -> tuple[int, int] | None:
    """By how many pixels a part is moved; None where too much of it would leave the picture."""
    reach, sign = draws.uniforms("far", 2, *_FAR)[0], draws.uniforms("sign", 2)[0] < 0.5
    steps = [
        round(float(r) * side) * (-1 if minus else 1)
        for r, side, minus in zip(reach, M.shape, sign.tolist(), strict=True)
    ]
    along = draws.weighted("along", {"y": 1.0, "x": 1.0, "both": 1.0})[0]
    dy, dx = steps[0] * (along != "x"), steps[1] * (along != "y")
    kept = float(_shifted(M, dy, dx).sum()) / float(M.sum())
    return (dy, dx) if kept >= _INSIDE and (dy or dx) else None


def _moved(image: Tensor, M: Tensor, draws: Draws, twice: bool) -> tuple[Tensor, Tensor] | None:
    by = _shift(draws, M)
    if by is None:
        return None
    there = _shifted(M, *by)
    if twice and float((there & M).sum()) > 0.3 * float(M.sum()):
        return None
    base = image if twice else removed(image, M)
    made = pasted(base, _shifted(image, *by), there)
    return made, there if twice else there | M


def _resized(image: Tensor, M: Tensor, draws: Draws) -> tuple[Tensor, Tensor] | None:
    """A part stretched or shrunk along one or both sides, one of its ends kept in place."""
    rows, columns = M.any(1).nonzero()[:, 0], M.any(0).nonzero()[:, 0]
    top, left = int(rows[0]), int(columns[0])
    h, w = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    shrunk = bool(draws.chance("shrunk", 0.5))
    factor = float(draws.uniform("factor", 0.4, 0.8) if shrunk else draws.uniform("f", 1.2, 1.7))
    along = draws.weighted("stretch", {"y": 2.0, "x": 1.0, "both": 1.0})[0]
    new = (round(h * factor) if along != "x" else h, round(w * factor) if along != "y" else w)
    if min(new) < 2:
        return None
    cut = torch.cat([image, M[None].float()])[:, top : top + h, left : left + w]
    cut = F.interpolate(cut[None], new, mode="bilinear")[0]
    low, right = (bool(draws.chance(name, 0.5)) for name in ("low", "right"))
    y, x = top + (h - new[0] if low else 0), left + (w - new[1] if right else 0)
    height, width = M.shape
    if y < 0 or x < 0 or y + new[0] > height or x + new[1] > width:
        return None
    source, there = torch.zeros_like(image), torch.zeros_like(M)
    source[:, y : y + new[0], x : x + new[1]] = cut[:3]
    there[y : y + new[0], x : x + new[1]] = cut[3] > 0.5
    if not there.any():
        return None
    return pasted(removed(image, M & ~there), source, there), there ^ M


# --- edges ---------------------------------------------------------------------------------------


def redrawn(
    image: Tensor, other: Tensor, M: Tensor, edit: Edit, draw: Callable[[Tensor], Tensor]
) -> EditedPicture:
    """Edit the edges and draw the picture anew.

    Args:
        image, other: ``(3, H, W)`` in [0, 1], two normal pictures.
        M: ``(H, W)`` bool, the region.
        edit: ``remove``, ``replace`` or ``merge``.
        draw: the trained generator, from edges ``(B, H, W)`` (1 is none) to pictures.

    Returns:
        Its mask is where the picture differs, by SSIM, from the one drawn of the edges as they
        were: a region may hold what the edit did not change.

    Raises:
        ValueError: an edit that edges do not know.
    """
    E_j, E_i = edge_map(torch.stack([image, other])).unbind()
    region = M.float()
    edits = {
        "remove": lambda: remove_edges(E_j, region),
        "replace": lambda: replace_edges(E_j, E_i, region),
        "merge": lambda: merge_edges(E_j, E_i, region),
    }
    if edit not in edits:
        raise ValueError(f"edges know {', '.join(edits)}, not {edit!r}")
    before, after = draw(torch.stack([E_j, edits[edit]()])).clamp(0, 1).unbind()
    return EditedPicture(after, M & _differs(before, after), edit, EDIT_KINDS[edit], "edges")


def _differs(before: Tensor, after: Tensor) -> Tensor:
    """Where two pictures are not alike by SSIM, ``(H, W)`` bool: the paper's relaxed mask."""
    return ssim_map(before[None], after[None])[0].mean(0) < _ALIKE


# --- a picture -----------------------------------------------------------------------------------


@torch.no_grad()
def edit_picture(
    image: Tensor,
    draws: Draws,
    other: Tensor | None = None,
    edits: tuple[Edit, ...] | None = None,
    parts: Tensor | None = None,
    draw: Callable[[Tensor], Tensor] | None = None,
) -> EditedPicture:
    """Make a logical anomaly of a good picture; the same draws make the same.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        draws: of one picture.
        other: another good picture of the product, resized where its size differs; without it
            nothing is replaced or merged.
        edits: one of these is drawn; by default all that are possible.
        parts: ``(n, H, W)`` bool that are edited; by default those that colour tells apart.
            ``replace`` and ``merge`` also take random regions.
        draw: a generator of pictures from edges, see ``redrawn``.

    Raises:
        ValueError: no edit of it can be seen, as on a picture of one colour.
    """
    possible = edits or (tuple(EDIT_KINDS) if other is not None else ALONE)
    if other is None:
        possible = tuple(edit for edit in possible if edit in ALONE)
    size = (image.shape[-2], image.shape[-1])
    if other is not None and other.shape[-2:] != size:
        other = F.interpolate(other[None], size, mode="bilinear", antialias=True)[0]
    found = coloured_parts(image) if parts is None else parts
    for attempt in range(_TRIES if possible else 0):
        own = draws.under(f"edit{attempt}")
        edit: Edit = own.weighted("edit", dict.fromkeys(possible, 1.0))[0]  # type: ignore[assignment]
        M = _region(own, found, size, edit)
        if M is None:
            continue
        made = _edited(image, other, M, edit, own, draw)
        if made is not None and _seen(image, made):
            return made
    raise ValueError("no logical anomaly that can be seen can be made of it")


def _region(draws: Draws, parts: Tensor, size: tuple[int, int], edit: Edit) -> Tensor | None:
    if edit not in ALONE and (not len(parts) or bool(draws.chance("anywhere", 0.5))):
        return random_regions(draws, size)[0]
    return parts[int(draws.integers("part", len(parts)))] if len(parts) else None


def _edited(
    image: Tensor,
    other: Tensor | None,
    M: Tensor,
    edit: Edit,
    draws: Draws,
    draw: Callable[[Tensor], Tensor] | None,
) -> EditedPicture | None:
    if draw is not None and edit in ("remove", "replace", "merge"):
        return redrawn(image, image if other is None else other, M, edit, draw)
    if edit == "remove":
        made: tuple[Tensor, Tensor] | None = removed(image, M), M
    elif edit == "resize":
        made = _resized(image, M, draws)
    elif edit in ("move", "duplicate"):
        made = _moved(image, M, draws, edit == "duplicate")
    else:
        assert other is not None
        new = pasted(image, other, M)
        made = new, M & _differs(image, new)
    if made is None:
        return None
    return EditedPicture(made[0].clamp(0, 1), made[1], edit, EDIT_KINDS[edit], "pixels")


def _seen(image: Tensor, made: EditedPicture) -> bool:
    if not made.mask.any():
        return False
    return float((made.image - image).abs().amax(0)[made.mask].mean()) >= _SEEN
