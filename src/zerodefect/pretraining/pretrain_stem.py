"""The second stage of pretraining: an image tower whose eyes began with ImageNet.

The text tower and the tower that learned from pixels stand still; a tower on a frozen stem
(``backbones/stem.py``) learns beside them, into the same joint space. There is little to learn,
and it is learned in a few hundred steps: after that the tower begins to fit the drawn world. That
is held off by noise and dropped channels behind the stem, by pictures made grey, darker, brighter,
blurred and noisy, by parts of pictures in place of whole ones, and by averaging a short run and
a longer one.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.backbones.clip import CLIP, CLIPConfig, VisionConfig
from zerodefect.backbones.clip_weights import load_clip
from zerodefect.backbones.stem import pretrained_eyes
from zerodefect.images import normalised
from zerodefect.layers.losses import dice_loss
from zerodefect.pretraining.objectives import (
    TEMPERATURE,
    Places,
    coverage,
    draw_prompts,
    embed_states,
    judged_patches,
    judged_windows,
    state_losses,
)
from zerodefect.pretraining.pretrain_clip import FIRST, PretrainConfig
from zerodefect.procedural import ProceduralBatch, generate

EMBEDDED = replace(
    FIRST,
    vision=VisionConfig(
        image_size=256,
        patch_size=8,
        width=128,
        layers=2,
        heads=2,
        mlp_ratio=2.0,
        stem="efficientnet_lite0",
    ),
    fine=FIRST.vision,
)
"""Shape of the embedded model: the tower on the stem, and beside it the one that sees pixels."""

LENGTHS = (200, 600)
"""Steps of the runs whose mean is packaged. A short run and a long one rank different products
well, and the mean of their weights ranks better than either."""

WEIGHTS = {
    "map": 1.0, "patch_kind": 0.3, "image": 0.3, "image_kind": 0.1, "window": 0.3,
    "window_kind": 0.1,
}  # fmt: skip
_FOCAL = 4.0  # weight of the focal loss beside Dice: both are then about as large
USUAL_FROM = 64
"""Pictures that mean and deviation of the stem's channels are taken from."""


@dataclass(frozen=True)
class StemConfig(PretrainConfig):
    """What a run of the second stage does.

    Attributes:
        onto: weights of the first stage, a file or ``embedded``: their text tower, and their tower
            that sees pixels.
        noise: deviation of what is added to the standardised features of the stem.
        dropped: share of their channels that a picture loses.
        sides: of the square parts of a picture that steps look at in turn, in patches.
    """

    steps: int = 600
    text_steps: int = 0
    learning_rate: float = 1e-3
    warm_up: int = 50
    ema: float = 0.99
    early_sizes: tuple[int, ...] = (256,)
    late_sizes: tuple[int, ...] = (256,)
    batch: int = 16
    model: CLIPConfig = EMBEDDED
    onto: str = "embedded"
    noise: float = 0.3
    dropped: float = 0.2
    sides: tuple[int, ...] = (16, 16, 12, 16, 24, 16)

    def begin(self) -> CLIP:
        """The towers of the first stage, standing still, and an untrained one on its stem."""
        given = load_clip(self.onto)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            clip = CLIP(self.model)
        clip.text.load_state_dict(given.clip.text.state_dict())
        clip.logit_scale.data.copy_(given.clip.logit_scale)
        if clip.fine is not None:
            fine = given.clip.fine or given.clip.visual
            clip.fine.load_state_dict(fine.state_dict())
        assert self.model.vision.stem is not None
        clip.visual.stem.eyes.load_state_dict(pretrained_eyes(self.model.vision.stem))
        first = generate(self.seed, 0, USUAL_FROM, self.late_sizes[0])
        clip.visual.stem.learn_usual(normalised(first.images))
        clip.visual.positional_embedding.data.zero_()
        clip.requires_grad_(False)
        clip.visual.requires_grad_(True)
        clip.visual.stem.eyes.requires_grad_(False)
        return clip

    def optimizers(self, clip: CLIP) -> list[torch.optim.Optimizer]:
        """AdamW for what learns."""
        groups: list[dict[str, Any]] = [
            {"params": [], "tower": "visual", "weight_decay": decay}
            for decay in (self.weight_decay, 0.0)
        ]
        for parameter in clip.parameters():
            if parameter.requires_grad:
                groups[parameter.ndim < 2]["params"].append(parameter)
        return [torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))]

    def losses(self, clip: CLIP, batch: ProceduralBatch | None, step: int) -> dict[str, Tensor]:
        """Those of ``stem_losses``, of jittered pictures."""
        assert batch is not None
        seed = self.seed * 1_000_003 + step
        draws = torch.Generator().manual_seed(seed)
        batch = replace(batch, images=jittered(batch.images, draws))
        return stem_losses(clip, batch, self, draws, seed)

    def total(self, losses: dict[str, Tensor], step: int) -> Tensor:
        """Weighted sum of the losses."""
        return torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum()


def jittered(images: Tensor, draws: torch.Generator) -> Tensor:
    """Pictures as other cameras and light would have them.

    A third is made grey, all are made darker or brighter in the middle tones, half are blurred,
    half get noise.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        draws: decides what happens to which.

    Returns:
        Of the same shape, in [0, 1].
    """

    def chance(least: float = 0.0, most: float = 1.0) -> Tensor:
        drawn = torch.rand(len(images), 1, 1, 1, generator=draws)
        return (least + (most - least) * drawn).to(images.device)

    x = torch.where(chance() < 0.35, images.mean(1, keepdim=True), images)
    x = x.clamp(min=1e-4) ** chance(-0.4, 0.4).exp()
    sigma = torch.where(chance() < 0.5, chance(0.0, 1.2), 0.0).clamp(min=1e-3)
    x = _blurred(x, sigma.flatten())
    sigma = torch.where(chance() < 0.5, chance(0.0, 0.03), 0.0)
    noise = torch.randn(x.shape, generator=draws).to(x.device)
    return (x + sigma * noise).clamp(0, 1)


def _blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Each picture of ``(B, C, H, W)`` under a Gaussian of its own ``sigma (B,)``, 7 px wide."""
    B, C, H, W = x.shape
    place = torch.arange(-3.0, 4.0, device=x.device)
    weight = torch.exp(-(place**2) / (2 * sigma[:, None] ** 2))
    weight = (weight / weight.sum(1, keepdim=True)).repeat_interleave(C, 0)[:, None, None]
    flat = x.reshape(1, B * C, H, W)
    flat = F.conv2d(F.pad(flat, (3, 3, 0, 0), mode="reflect"), weight, groups=B * C)
    flat = F.conv2d(F.pad(flat, (0, 0, 3, 3), mode="reflect"), weight.mT, groups=B * C)
    return flat.view(B, C, H, W)


def stem_losses(
    clip: CLIP, batch: ProceduralBatch, config: StemConfig, draws: torch.Generator, seed: int
) -> dict[str, Tensor]:
    """Losses of the tower on the stem, of one square part of every picture, under ``WEIGHTS``.

    Focal loss (Lin et al., ICCV 2017) and Dice of the patches' anomaly probability; every decision
    besides is trained as in the first stage.
    """
    visual, device = clip.visual, batch.images.device
    with torch.no_grad():
        texts = embed_states(clip, draw_prompts(random.Random(seed), config.groups), [])
    pixels = normalised(batch.images)
    rows, columns = visual.grid(pixels)
    group = torch.arange(len(pixels), device=device) % config.groups
    truth = [
        plane.unflatten(1, (rows, columns)) for plane in coverage(batch, visual.config.patch_size)
    ]

    def changed(x: Tensor) -> Tensor:
        x = x + config.noise * torch.randn(x.shape, generator=draws).to(device)
        kept = torch.rand(len(x), 1, x.shape[2], generator=draws).to(device) > config.dropped
        return x * kept / (1 - config.dropped)

    patches = visual.stem.tokens(visual.stem.maps(pixels), changed)
    tokens = visual.with_class(patches, (rows, columns))
    side = min(config.sides[seed % len(config.sides)], rows, columns)
    row, column = (int(torch.randint(n - side + 1, (), generator=draws)) for n in (rows, columns))

    def part(plane: Tensor) -> Tensor:
        return plane[:, row : row + side, column : column + side].flatten(1, 2)

    share, kind = map(part, truth)
    inner = part(tokens[:, 1:].unflatten(1, (rows, columns)))
    out = visual.project(visual.encode(torch.cat([tokens[:, :1], inner], 1)).tokens)

    places = judged_patches(share, kind, group)
    losses = {"map": _map_loss(out[:, 1:], texts.normal[group], texts.anomalous[group], places)}
    losses["patch_kind"] = state_losses(out[:, 1:].flatten(0, 1), texts, places)[1]
    chief = kind.gather(1, share.argmax(1, keepdim=True))[:, 0]
    chief = torch.where(places.kind.view_as(share).amax(1) >= 0, chief, -1)
    seen = (share > 0).any(1) == (chief >= 0)  # else too little to be told
    losses["image"], losses["image_kind"] = state_losses(
        out[:, 0], texts, Places(group, chief, seen.float())
    )
    whole = [plane.flatten(1)[::4] for plane in truth]
    embedded, judged = judged_windows(
        clip, tokens[::4], (rows, columns), (whole[0], whole[1], group[::4]), config.windows, draws
    )
    losses["window"], losses["window_kind"] = state_losses(embedded, texts, judged)
    return losses


def _map_loss(z: Tensor, normal: Tensor, anomalous: Tensor, places: Places) -> Tensor:
    """Focal loss and Dice of patches ``(B, N, D)`` against words ``(B, D)`` of their pictures."""
    way = F.normalize(anomalous, dim=-1) - F.normalize(normal, dim=-1)
    logits = torch.einsum("bnd,bd->bn", F.normalize(z.float(), dim=-1), way) / TEMPERATURE
    damaged = (places.kind >= 0).float().view_as(logits)
    known = (places.weight > 0).float().view_as(logits)
    crossed = F.binary_cross_entropy_with_logits(logits, damaged, reduction="none")
    focal = ((1 - torch.exp(-crossed)) ** 2 * crossed * known).mean()
    return _FOCAL * focal + dice_loss(logits.sigmoid() * known, damaged)
