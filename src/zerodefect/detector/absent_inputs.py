"""Scores of pictures that lack an input on the scale of those that lack none.

Where one part of a combination is silent, the sum of the others varies otherwise than the sum of
all. What the good pictures with every input say with and without a part tells by how much: mean and
deviation of map and score are brought to those of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from zerodefect.detector.contract import Detector

_FEWEST = 4  # good pictures, to tell a deviation from
LEVEL = "level/"


def subsets(parts: Mapping[str, Detector]) -> list[tuple[str, ...]]:
    """Parts that are heard where a picture lacks a modality, for each that it can lack."""
    takes = {
        name: {needed.preprocess.modality for needed in part.inputs.values()}
        for name, part in parts.items()
    }
    found = []
    for lacking in sorted(set().union(*takes.values())):
        left = [
            name
            for name, own in takes.items()
            if lacking not in own or (len(own) > 1 and parts[name].may_lack)
        ]
        if 0 < len(left) < len(parts):
            found.append(tuple(left))
    return found


def place(names: Iterable[str]) -> str:
    """Where the level of these parts lies in a knowledge."""
    return LEVEL + "+".join(names)


def level(
    whole: Sequence[tuple[Tensor, Tensor]], some: Sequence[tuple[Tensor, Tensor]]
) -> Tensor | None:
    """What brings maps and scores of some parts to those of all.

    Args:
        whole: maps ``(B, H, W)`` and scores ``(B,)`` of good pictures, batch by batch.
        some: the same of some of the parts.

    Returns:
        ``(4,)``: factor and offset of the map, then of the score; None for too few pictures.
    """
    if sum(len(score) for _, score in whole) < _FEWEST:
        return None
    told = []
    for which in (0, 1):
        (mean, deviation), (own_mean, own) = (
            _statistics([each[which] for each in said]) for said in (whole, some)
        )
        factor = deviation / own
        told += [factor, mean - factor * own_mean]
    return torch.stack(told)


def _statistics(values: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    flat = torch.cat([each.flatten() for each in values])
    return flat.mean(), flat.std().clamp(min=1e-6)
