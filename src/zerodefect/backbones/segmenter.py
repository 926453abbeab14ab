"""Promptable segmenters: points, boxes and masks to sharp masks with a quality.

SAM (Kirillov et al., ICCV 2023, arXiv 2304.02643) and SAM 2 (Ravi et al., arXiv 2408.00714),
through transformers (extra ``sam``). A picture is encoded once; prompts on it cost little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerodefect.backbones.hub_models import (
    SAM,
    hub_facts,
    hub_network,
    transformers_package,
    weights_folder,
)
from zerodefect.images import Preprocess

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KINDS = {"sam": "SamModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}
_AT_ONCE = 16  # prompts that the decoder takes at a time


@dataclass(frozen=True)
class Prompts:
    """n prompts on one picture; each has a box, points, or both, and may have a rough mask.

    Coordinates are shares of the picture's width and height, so that they hold at any size.

    Attributes:
        boxes: ``(n, 4)``: left, top, right, bottom in [0, 1]; or None.
        points: ``(n, P, 2)``: x, y in [0, 1]; or None.
        labels: ``(n, P)`` int64: 1 on what is meant, 0 beside it, -1 where a prompt has fewer than
            P points. None: all are on it.
        masks: ``(n, h, w)`` logits of rough masks; or None.

    Raises:
        ValueError: neither boxes nor points, or shapes that do not fit.
    """

    boxes: Tensor | None = None
    points: Tensor | None = None
    labels: Tensor | None = None
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        given = [each for each in (self.boxes, self.points) if each is not None]
        if not given:
            raise ValueError("a prompt needs a box or points")
        n = len(given[0])
        fits = self.boxes is None or self.boxes.shape == (n, 4)
        if self.points is not None:
            fits &= self.points.dim() == 3 and self.points.shape[::2] == (n, 2)
            fits &= self.labels is None or self.labels.shape == self.points.shape[:2]
        fits &= self.labels is None or self.points is not None
        fits &= self.masks is None or (self.masks.dim() == 3 and len(self.masks) == n)
        if not fits:
            raise ValueError("boxes (n, 4), points (n, P, 2), labels (n, P), masks (n, h, w)")

    def __len__(self) -> int:
        given = self.boxes if self.boxes is not None else self.points
        assert given is not None
        return len(given)

    def rows(self, some: slice) -> Prompts:
        """Some of them."""
        parts = {k: None if v is None else v[some] for k, v in vars(self).items()}
        return Prompts(**parts)


@dataclass(frozen=True)
class Masks:
    """What a segmenter answers to n prompts.

    Attributes:
        logits: ``(n, m, h, w)`` float32, positive inside; they cover the picture, at a size of the
            segmenter's own.
        quality: ``(n, m)`` float32: the overlap that the network expects of each, about [0, 1].
    """

    logits: Tensor
    quality: Tensor

    def at(self, size: tuple[int, int]) -> Tensor:
        """The masks ``(n, m, H, W)`` bool at a size in pixels."""
        n, m = self.quality.shape
        if not n:
            return torch.zeros(n, m, *size, dtype=torch.bool, device=self.logits.device)
        return F.interpolate(self.logits, size, mode="bilinear", align_corners=False) > 0


class Segmenter(nn.Module):
    """What methods ask of a segmenter; a ``Backbone``.

    Further ones define ``embed`` and ``answer``.

    Args:
        name: as the user would name it again.
        fingerprint: SHA-256 of the weights file, hexadecimal.
        side: of its square input, in pixels.
    """

    activation: ClassVar[None] = None  # no file of learned values hangs on it
    stride = 16
    choices: ClassVar[int] = 3  # masks that it gives where several are asked for
    licence: str | None = None
    file: Path | None = None
    precision: str = "float32"

    def __init__(self, name: str, fingerprint: str, side: int, width: int = 256) -> None:
        super().__init__()
        self.name, self.fingerprint, self.width = name, fingerprint, width
        self.preprocess = Preprocess((side, side), _MEAN, _STD, interpolation="bilinear")

    def embed(self, pixels: Tensor) -> Any:
        """What is computed once for pictures.

        Args:
            pixels: ``(B, 3, H, W)``, prepared as ``preprocess`` says; other sizes are brought to
                its size.

        Returns:
            A sequence of tensors, each with B rows.
        """
        raise NotImplementedError

    def answer(self, embedded: Sequence[Tensor], prompts: Prompts, several: bool) -> Masks:
        """Masks of some prompts on one picture, see ``masks``."""
        raise NotImplementedError

    def masks(
        self, embedded: Sequence[Tensor], row: int, prompts: Prompts, *, several: bool = False
    ) -> Masks:
        """Masks for prompts on one of the pictures.

        Args:
            embedded: what ``embed`` gave.
            row: number of the picture in it.
            prompts: n of them, any number.
            several: give ``choices`` masks for each prompt, from part to whole, instead of one.

        Returns:
            Masks on the device of ``embedded``.
        """
        m = self.choices if several else 1
        if not len(prompts):
            nothing = embedded[0].new_zeros(0, m, 1, 1, dtype=torch.float32)
            return Masks(nothing, nothing[:, :, 0, 0])
        own = [each[row : row + 1] for each in embedded]
        parts = [
            self.answer(own, prompts.rows(slice(first, first + _AT_ONCE)), several)
            for first in range(0, len(prompts), _AT_ONCE)
        ]
        return Masks(
            torch.cat([part.logits for part in parts]), torch.cat([part.quality for part in parts])
        )


class SAMSegmenter(Segmenter):
    """SAM or SAM 2.

    Args:
        network: transformers' ``SamModel`` or ``Sam2Model``.
        facts: ``name``, ``fingerprint``, ``file``, ``licence``.
    """

    def __init__(self, network: Any, facts: dict[str, Any]) -> None:
        prompted = network.config.prompt_encoder_config
        side = int(prompted.image_size)
        super().__init__(facts["name"], facts["fingerprint"], side, int(prompted.hidden_size))
        self.network: Any = network
        self.stride = int(prompted.patch_size)
        self.file, self.licence = facts.get("file"), facts.get("licence")
        self.precision = str(network.dtype).removeprefix("torch.")

    def embed(self, pixels: Tensor) -> list[Tensor]:
        """Features of the image tower; of SAM 2 those at finer scales, too."""
        size = self.preprocess.size
        if tuple(pixels.shape[-2:]) != size:
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        features = self.network.get_image_embeddings(pixels.to(self.network.dtype))
        return [features] if isinstance(features, Tensor) else list(features)

    def answer(self, embedded: Sequence[Tensor], prompts: Prompts, several: bool) -> Masks:
        """Every prompt is a picture of the decoder's batch, so that each can have a mask."""
        n, (side, _) = len(prompts), self.preprocess.size
        features = [each.expand(n, *each.shape[1:]) for each in embedded]
        asked: dict[str, Any] = {}
        if prompts.boxes is not None:
            asked["input_boxes"] = (prompts.boxes.float() * side)[:, None]
        if prompts.points is not None:
            labels = prompts.labels
            if labels is None:
                labels = torch.ones(prompts.points.shape[:2], dtype=torch.long)
            asked["input_points"] = (prompts.points.float() * side)[:, None]
            asked["input_labels"] = labels[:, None]
        if prompts.masks is not None:
            rough = prompts.masks[:, None].float()
            size = 4 * (side // self.stride)
            rough = F.interpolate(rough, (size, size), mode="bilinear", antialias=True)
            asked["input_masks"] = rough.to(self.network.dtype)
        asked = {name: value.to(features[0].device) for name, value in asked.items()}
        alone = len(features) == 1
        told = self.network(
            image_embeddings=features[0] if alone else features, multimask_output=several, **asked
        )
        return Masks(told.pred_masks[:, 0].float(), told.iou_scores[:, 0].float())


def load_segmenter(
    name: str | None = None,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SAMSegmenter:
    """Load SAM or SAM 2, frozen and in eval mode; nothing is downloaded.

    Args:
        name: repository on the hub whose files are in its cache, or a local folder; None for
            ``facebook/sam-vit-base``.
        weights: local folder for it, as ``save_pretrained`` writes it.
        device: where it goes.
        dtype: its precision.

    Raises:
        WeightsError: transformers is not installed, or weights that are absent, damaged, or of
            another kind.
    """
    transformers_package()
    chosen = weights or name or SAM
    folder = weights_folder(chosen)
    network = hub_network(folder, _KINDS, dtype)
    return SAMSegmenter(network.to(device), hub_facts(chosen, folder)).eval()
