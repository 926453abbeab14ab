"""A short third stage: the tower on the stem sees a plant's own good pictures.

What is learned is the tower of the second stage, from where it stands: its frozen network, the
text tower and the tower that sees pixels stay as they are. Steps show pairs of an own picture, as
it is and with drawn damage (``data/synthesis.py``), and procedural pictures beside them, so that
the tower does not forget the rest. Steps are few and small, for a handful of pictures is soon known
by heart.
"""

from __future__ import annotations

import copy
import hashlib
import random
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zerodefect.backbones.adapted_weights import BASE, base_of
from zerodefect.backbones.clip import CLIP
from zerodefect.backbones.clip_weights import load_clip, recommended_method
from zerodefect.backbones.weight_files import WeightsError, file_hash
from zerodefect.data.synthesis import damaged_picture
from zerodefect.images import ImageError, Preprocess, bit_depth_of, find_images, open_image
from zerodefect.pretraining.model_and_sheets import export
from zerodefect.pretraining.pretrain_stem import StemConfig
from zerodefect.procedural import DEFECT_KINDS, ProceduralBatch, generate

STEPS = 80
_KEPT = 1024  # pictures that stay in memory at the network's size, 0.2 MB each
_SHOWN = 16  # pairs on the contact sheet


@dataclass(frozen=True)
class AdaptConfig(StemConfig):
    """What an adaptation does; ``adapt_config`` makes one that fits its weights.

    Attributes:
        onto: weights that it begins with, a file or ``embedded``.
        base: SHA-256 of their file.
        good: files of good pictures.
        bit_depth: bits that 16-bit ones use.
        procedural: share of the pictures of a step that are drawn as a whole.
    """

    steps: int = STEPS
    learning_rate: float = 2e-4
    warm_up: int = 10
    base: str = ""
    good: tuple[str, ...] = ()
    bit_depth: int | None = None
    procedural: float = 0.25

    def identity(self) -> dict[str, Any]:
        """All that the result depends on: of the pictures what they hold, not where they lie."""
        digest = hashlib.sha256("".join(file_hash(Path(file)) for file in self.good).encode())
        return super().identity() | {"good": f"{len(self.good)} pictures {digest.hexdigest()[:16]}"}

    def begin(self) -> CLIP:
        """The model that there is; of its first tower all but the frozen network learns."""
        clip = copy.deepcopy(load_clip(self.onto).clip).train()
        clip.visual.requires_grad_(True)
        clip.visual.stem.eyes.requires_grad_(False)
        return clip

    def draw(self, step: int) -> ProceduralBatch:
        """Pictures of a step in random order: procedural ones, own good ones, the same damaged."""
        start, count, size = self.pictures(step)
        pairs = max(1, round((1 - self.procedural) * count / 2))
        drawn = count - 2 * pairs
        parts = [self._pairs(self.seed, step * pairs, pairs, size)]
        if drawn > 0:
            parts.append(generate(self.seed, start, drawn, size, self.device, 2).to("cpu"))
        together = _joined(parts)
        order = torch.randperm(
            len(together.images), generator=torch.Generator().manual_seed(self.seed + step)
        )
        names = ("images", "kind_map", "kinds")
        mixed = {name: getattr(together, name)[order] for name in names}
        return replace(together, **mixed).to(self.device)

    def shown(self) -> ProceduralBatch:
        """Own pictures as they are, and with damage that no step shows."""
        count = min(_SHOWN, len(self.good))
        return self._pairs(self.seed + 1, 0, count, self.late_sizes[0]).to(self.device)

    def export(self, clip: CLIP, folder: Path, step: int) -> Path:
        """Write the weights, with what they came from and what was recommended for that."""
        base = load_clip(self.onto)
        assert base.file is not None  # adapt_config has made sure
        advice = {
            "licence": base.licence,
            "recommended_method": recommended_method(self.onto),
            "recommended": base.recommended,
        }
        facts = {"steps": str(step), "seed": str(self.seed), BASE: base_of(base.file)}
        return export(clip, folder, facts, advice)

    def _pairs(self, seed: int, first: int, count: int, size: int) -> ProceduralBatch:
        """Pictures ``first`` to ``first + count - 1`` of a series, each good and then damaged."""
        images, maps, kinds = [], [], []
        for number in range(first, first + count):
            file = self.good[_turn(seed, number, len(self.good))]
            pixels = _opened(file, size, self.bit_depth)
            try:
                damaged, mask, kind = damaged_picture(pixels, seed, number, "procedural")
            except ValueError as error:
                raise ImageError(file, str(error), "Leave it out") from None
            kinds += [-1, DEFECT_KINDS.index(kind)]
            images += [pixels, damaged]
            maps += [np.zeros_like(mask, np.uint8), mask * np.uint8(kinds[-1] + 1)]
        pictures = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255
        none = [""] * len(images)
        return ProceduralBatch(
            pictures, torch.from_numpy(np.stack(maps)), torch.tensor(kinds), none, none
        )


def adapt_config(good: Path, onto: str = "embedded", **given: Any) -> AdaptConfig:
    """What to do to adapt a model to pictures.

    Args:
        good: folder of good pictures, or one picture.
        onto: weights to begin with, a file or ``embedded``.
        given: other fields of ``AdaptConfig``.

    Raises:
        WeightsError: weights that cannot be read, or without a tower on a stem.
        ImageError, FileNotFoundError: no pictures there, or one that cannot be read.
    """
    base = load_clip(onto)
    shape = base.clip.config
    if shape.vision.stem is None or base.file is None or base.file.suffix != ".safetensors":
        raise WeightsError(
            f"{base.file or onto}: its image tower sees pixels, and only one on a pretrained "
            "network (stem) is adapted. Name weights of zerodefect pretrain (--onto FILE)"
        )
    files = find_images([good])
    depth = bit_depth_of(files)
    sizes = (shape.vision.image_size,)
    config = AdaptConfig(
        model=shape,
        onto=onto,
        base=base.fingerprint,
        early_sizes=sizes,
        late_sizes=sizes,
        good=tuple(map(str, files)),
        bit_depth=depth.bits if depth else None,
        **given,
    )
    for file in files:  # one that cannot be read is told of before the work
        _opened(str(file), sizes[0], config.bit_depth)
    return config


@lru_cache(_KEPT)
def _opened(file: str, size: int, bit_depth: int | None) -> np.ndarray:
    """A picture as the network would see it, ``(S, S, 3)`` uint8."""
    fit = Preprocess((size, size), mean=(0.0,) * 3, std=(1.0,) * 3)
    pixels: Tensor = fit(open_image(file, bit_depth=bit_depth)).clamp(0, 1)
    return (pixels * 255).round().byte().permute(1, 2, 0).contiguous().numpy()


def _turn(seed: int, number: int, count: int) -> int:
    """Whose turn it is: all once in random order, then all again in another."""
    lap, place = divmod(number, count)
    order = list(range(count))
    random.Random(seed * 1_000_003 + lap).shuffle(order)
    return order[place]


def _joined(parts: list[ProceduralBatch]) -> ProceduralBatch:
    tensors = ("images", "kind_map", "kinds")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in tensors}
    none = [""] * len(joined["kinds"])
    return ProceduralBatch(**joined, captions=none, surfaces=none)
