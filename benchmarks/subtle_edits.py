"""Drawn edits that are harder to see than those of ``part_edits``, for choosing between methods.

A part is exchanged for what another good picture shows in its place (the wrong combination), moved
by 3 to 10 % of the picture, made up to a quarter longer or shorter, or removed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.procedural.part_edits import pasted, removed
from zerodefect.procedural.picture_parts import coloured_parts

WAYS = ("exchange", "exchange", "move", "resize", "remove")  # in turn
_LARGEST = 0.25  # of the picture, of a part
_SEEN, _SHARE = 0.08, 0.002  # change of a pixel that is seen; share of pixels that must be


def subtle_edits(images: Sequence[Tensor], count: int, seed: int = 3) -> list[tuple[Tensor, int]]:
    """Edited pictures, each with the number of the one that it is made of.

    Args:
        images: ``(3, H, W)`` in [0, 1], good ones of one size.
        count: of edited pictures.
        seed: of the draws.
    """
    draws, parts = random.Random(seed), [coloured_parts(image) for image in images]
    made: list[tuple[Tensor, int]] = []
    while len(made) < count:
        way, number = WAYS[len(made) % len(WAYS)], draws.randrange(len(images))
        image = images[number]
        own = [M for M in parts[number] if float(M.float().mean()) < _LARGEST]
        if not own:
            continue
        M = draws.choice(own)
        others = [other for k, other in enumerate(images) if k != number]
        edited = _edited(way, image, M, others, draws)
        if edited is not None:
            change = (edited - image).abs().amax(0) > _SEEN
            if float(change.float().mean()) > _SHARE:
                made.append((edited.clamp(0, 1), number))
    return made


def halved(images: Sequence[Tensor]) -> list[Tensor]:
    """Pictures ``(3, H, W)`` at half the size."""
    return [
        F.interpolate(
            one[None], tuple(side // 2 for side in one.shape[1:]), mode="bilinear", antialias=True
        )[0]
        for one in images
    ]


def _edited(
    way: str, image: Tensor, M: Tensor, others: Sequence[Tensor], draws: random.Random
) -> Tensor | None:
    if way == "remove":
        return removed(image, M)
    if way == "exchange":
        made = pasted(image, draws.choice(others), M)
        return made if float((made - image).abs().amax(0)[M].mean()) > 0.06 else None
    if way == "move":
        by = draws.choice((-1, 1)) * draws.uniform(0.03, 0.1)
        down = draws.random() < 0.6
        step = round(by * M.shape[0 if down else 1])
        shift = (step, 0) if down else (0, step)
        there = torch.roll(M, shift, (0, 1))
        return pasted(removed(image, M), torch.roll(image, shift, (1, 2)), there)
    return _longer(image, M, draws)


def _longer(image: Tensor, M: Tensor, draws: random.Random) -> Tensor | None:
    """Made longer or shorter; mostly the lower end stays."""
    rows, columns = M.any(1).nonzero()[:, 0], M.any(0).nonzero()[:, 0]
    top, left = int(rows[0]), int(columns[0])
    h, w = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
    factor = draws.choice((draws.uniform(0.75, 0.92), draws.uniform(1.08, 1.25)))
    new = max(2, round(h * factor))
    start = top + (h - new if draws.random() < 0.7 else 0)
    if start < 0 or start + new > M.shape[0] or abs(new - h) < 4:
        return None
    box = torch.cat([image, M[None].float()])[None, :, top : top + h, left : left + w]
    cut = F.interpolate(box, (new, w), mode="bilinear")[0]
    source, there = torch.zeros_like(image), torch.zeros_like(M)
    source[:, start : start + new, left : left + w] = cut[:3]
    there[start : start + new, left : left + w] = cut[3] > 0.5
    return pasted(removed(image, M & ~there), source, there)
