"""Networks for words and boxes that need no weights, and answer by what is in the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.backbones.chat_model import LONGEST, ChatModel, Turn
from zerodefect.backbones.grounder import Grounder
from zerodefect.backbones.segmenter import Masks, Prompts, Segmenter

_SIDE = 32  # of the masks


class ShadeSegmenter(Segmenter):
    """Marks what is as bright as the middle of a box, or as its first point, within the box.

    The second and third of several masks take in more and more other shades.
    """

    stride = 8

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__("shades", "5" * 64, 64, width=1)
        self.precision = str(dtype).removeprefix("torch.")
        scale = torch.ones((), dtype=dtype)
        self.register_parameter("scale", torch.nn.Parameter(scale, requires_grad=False))

    def embed(self, pixels: Tensor) -> list[Tensor]:
        shade = (pixels.to(self.scale.dtype) * self.scale).float().mean(dim=1, keepdim=True)
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
    """Sixteen queries on a grid, the later ones larger, that answer to any word but products.

    Products are what stands behind "on". How sure the answers are hangs on all words together and
    on the shade of the place.
    """

    stride = 8

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__("words", "6" * 64, 64, width=1)
        self.precision = str(dtype).removeprefix("torch.")

    def tokens(self, caption: str) -> tuple[int, ...]:
        words = caption.replace(".", " . ").replace(",", " , ").split()
        if len(words) > 75:
            raise ValueError(f"a caption of {len(words)} words; this grounder reads 77 tokens")
        return (0, *(int.from_bytes(word.encode()[:7], "big") for word in words), 1)

    def words(self, ids: Sequence[int]) -> str:
        return " ".join(one.to_bytes(7, "big").lstrip(b"\0").decode() for one in ids)

    def run(self, pixels: Tensor, ids: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        shade = F.adaptive_avg_pool2d(pixels.float().mean(dim=1, keepdim=True), 4).flatten(1)
        behind, heard = False, []
        for one in ids:
            heard.append(-6.0 if behind or one < 2 else one % 7 / 7)
            behind = behind or self.words([one]) == "on"
        together = sum(ids) % 997 / 997 - 0.5
        logits = 2 * shade.clamp(-2, 2)[:, :, None] + torch.tensor(heard).to(shade) + together
        at = torch.arange(4).add(0.5) / 4
        y, x = (each.flatten() for each in torch.meshgrid(at, at, indexing="ij"))
        side = torch.linspace(0.1, 0.6, 16)
        boxes = torch.stack([x, y, side, side], dim=-1).to(shade)
        return logits, boxes.expand(len(pixels), -1, -1)


class ShadeChat(ChatModel):
    """Finds a defect where the picture is brighter than those it is shown, or than the middle."""

    leaves_process = False
    gives_chances = True

    def __init__(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        self.name, self.fingerprint = "talk", f"{7 + seed}" * 64
        self.precision = str(dtype).removeprefix("torch.")

    def answer(self, turns: Sequence[Turn], max_tokens: int = LONGEST) -> str:
        said = self._chance(turns)
        if said < 0.5:
            return "<think>As dark as it should be.</think><answer>No</answer>"[:max_tokens]
        return (
            f"<think>{said:.3f} bright.</think><location>top left</location><type>stain</type>"
            "<answer>Yes</answer>"
        )[:max_tokens]

    def chances(self, turns: Sequence[Turn], begun: str, options: Sequence[str]) -> list[float]:
        yes = self._chance(turns)
        return [yes if option == "Yes" else 1 - yes for option in options]

    def _chance(self, turns: Sequence[Turn]) -> float:
        *shown, asked = (float(np.asarray(p).mean()) / 255 for p in turns[-1].pictures)
        usual = sum(shown) / len(shown) if shown else 0.5
        return min(max(0.5 + asked - usual, 0.0), 1.0)
