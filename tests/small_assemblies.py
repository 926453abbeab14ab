"""A segmenter and a grounder that need no weights, and answer by what is in the picture."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.backbones.grounder import Grounder
from zerodefect.backbones.segmenter import Masks, Prompts, Segmenter

_SIDE = 32  # of the masks


class ShadeSegmenter(Segmenter):
    """Marks what is as bright as the middle of a box, or as its first point, within the box.

    The second and third of several masks take in more and more other shades.
    """

    stride = 8

    def __init__(self, side: int = 64) -> None:
        super().__init__("shades", "5" * 64, side, width=1)
        self.register_parameter("scale", torch.nn.Parameter(torch.ones(()), requires_grad=False))

    def embed(self, pixels: Tensor) -> list[Tensor]:
        shade = pixels.float().mean(dim=1, keepdim=True) * self.scale.float()
        return [F.interpolate(shade, (_SIDE, _SIDE), mode="bilinear", antialias=True)]

    def answer(self, embedded: Sequence[Tensor], prompts: Prompts, several: bool) -> Masks:
        (shade,) = embedded
        n, m = len(prompts), self.choices if several else 1
        at = torch.arange(_SIDE, device=shade.device).add(0.5) / _SIDE
        inside = torch.ones(n, _SIDE, _SIDE, dtype=torch.bool, device=shade.device)
        if prompts.points is not None:
            middle = prompts.points[:, 0]
        if prompts.boxes is not None:
            left, top, right, bottom = (side[:, None] for side in prompts.boxes.T)
            rows, columns = (at >= top) & (at <= bottom), (at >= left) & (at <= right)
            inside = rows[:, :, None] & columns[:, None]
            if prompts.points is None:
                middle = prompts.boxes.unflatten(1, (2, 2)).mean(dim=1)
        x, y = (middle * _SIDE).long().clamp(0, _SIDE - 1).T
        off = (shade[0, 0] - shade[0, 0, y, x][:, None, None]).abs()  # (n, h, w)
        width = torch.tensor([0.5, 1.0, 2.0], device=shade.device)[:m, None, None]
        logits = torch.where(inside[:, None], width - off[:, None], -width)
        share = (logits > 0).float().mean(dim=(2, 3))
        return Masks(logits, 1 - share / 2)


class ShadeGrounder(Grounder):
    """Sixteen queries on a grid; each answers to a word by the shade of its place."""

    def __init__(self, side: int = 64) -> None:
        super().__init__("words", "6" * 64, side, width=1)
        self.stride = 8
        self.known: list[str] = ["[CLS]", "[SEP]"]

    def tokens(self, caption: str) -> tuple[int, ...]:
        words = caption.replace(".", " . ").replace(",", " , ").split()
        self.known += [word for word in dict.fromkeys(words) if word not in self.known]
        return (0, *(self.known.index(word) for word in words), 1)

    def words(self, ids: Sequence[int]) -> str:
        return " ".join(self.known[one] for one in ids)

    def run(self, pixels: Tensor, ids: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        shade = F.adaptive_avg_pool2d(pixels.float().mean(dim=1, keepdim=True), 4).flatten(1)
        of_word = [(sum(map(ord, self.known[one])) % 7 - 3) / 2 for one in ids]
        logits = 2 * shade[:, :, None] + torch.tensor(of_word, device=pixels.device)
        at = torch.arange(4, device=pixels.device).add(0.5) / 4
        y, x = torch.meshgrid(at, at, indexing="ij")
        boxes = torch.stack([x, y, torch.full_like(x, 0.25), torch.full_like(x, 0.25)], dim=-1)
        return logits, boxes.flatten(0, 1).expand(len(pixels), -1, -1)
