"""AnoVL, also called AnoCLIP (Deng et al. 2023, arXiv 2308.15939).

Nothing is trained. Patch tokens come from a second stream of value-value attention beside every
block and are compared with texts that name the domain of the picture; the image score is a mean
over 22 views. Test-time adaptation: a small adapter is started anew for every picture and
optimised for a few steps on that picture alone.

Symbols: F the two texts, X the patch tokens, B the bank of all prompts, L the number of patches,
D the joint dimension, M the number of prompts, V the number of views, T that of defect kinds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.transformer import SecondStream
from zerodefect.detector import clip_detector
from zerodefect.detector.clip_detector import CLIPDetector
from zerodefect.detector.configs import Count, NotNegative, Positive, Share, hyper_parameters
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import linear
from zerodefect.layers.similarity import anomaly_probability, text_probabilities
from zerodefect.layers.smoothing import neighbourhood_mean
from zerodefect.prompts import ensemble
from zerodefect.prompts.ensemble import PromptEnsemble, domain_templates
from zerodefect.types import Prediction

NORMAL_STATES = ("normal {}", *ensemble.NORMAL_STATES[1:])
ANOMALOUS_STATES = (
    *("damaged {}", "abnormal {}", "imperfect {}", "blemished {}"), *ensemble.ANOMALOUS_STATES[1:]
)  # fmt: skip
TEXTURES = ("carpet", "leather", "grid", "tile", "wood")
TEXTURE_DOMAINS = ("industrial photo", "textural photo", "surface picture")
OBJECT_DOMAINS = ("industrial photo", "industrial image", "manufacturing image")
NAMES = {"macaroni1": "macaroni", "macaroni2": "macaroni"}  # of VisA, as the texts say them


@hyper_parameters
class AnoVLConfig:
    """Hyper-parameters; the defaults are those of the authors' code.

    Attributes:
        views: image score over 22 views instead of the plain picture: ten times the work.
        adapt: test-time adaptation of the map; the image score does not change.
        steps, learning_rate, weight_decay: of AdamW, which starts anew with every picture (in the
            authors' code its moments pass from one picture to the next).
        noise: standard deviation of what is added to the tokens that are to look anomalous.
        residual: share of the adapted part in a token.
        seed: of the adapter's initial values and of the noise, the same for every picture.
        textures: product names that are told to be textures; all others are objects.
        kind_temperature: of the softmax over defect kinds, which is ours.
    """

    views: bool = True
    adapt: bool = True
    steps: Count = 5
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 0.01
    noise: NotNegative = 0.055
    residual: Share = 0.5
    seed: int = 0
    textures: tuple[str, ...] = TEXTURES
    kind_temperature: Positive = 0.07


class Adapter(nn.Module):
    """``(1 - r) x + r tanh(W x/|x| + b) B``: a token moves towards the prompts it resembles.

    The bank B is ``(M, D)``, rows of unit length; r is ``residual``.
    """

    bank: Tensor

    def __init__(self, bank: Tensor, residual: float, generator: torch.Generator) -> None:
        super().__init__()
        prompts, dimension = bank.shape
        self.residual = residual
        self.register_buffer("bank", bank)
        self.ad = linear(dimension, prompts, generator).to(bank.device)

    def forward(self, x: Tensor) -> Tensor:
        """``(L, D) -> (L, D)``."""
        a = self.ad(F.normalize(x, dim=-1)).tanh() @ self.bank
        return (1 - self.residual) * x + self.residual * a


def adapt(
    adapter: Adapter, X: Tensor, texts: Tensor, noise: Sequence[Tensor], config: AnoVLConfig
) -> Tensor:
    """Optimise the adapter on the tokens ``(L, D)`` of one picture.

    Each step: the picture's tokens are to look normal and its noisy tokens anomalous, and what the
    adapted tokens say is to be certain. The adapter is changed in place, and the last gradients
    stay on it; ``noise`` has one ``(L, D)`` per step.

    Returns:
        Loss before each step, ``(steps,)``.
    """
    optimizer = torch.optim.AdamW(
        adapter.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    losses = []
    for n in noise:
        P = text_probabilities(adapter(X), texts, 1.0)  # (L, 2)
        P_noisy = text_probabilities(adapter(X + n), texts, 1.0)
        entropy = -(P * P.log()).sum(-1).mean()
        pseudo_labels = -(P_noisy[:, 1].log() + P[:, 0].log()).mean()
        loss = entropy + 0.5 * pseudo_labels
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


@dataclass(frozen=True)
class Features(clip_detector.Features):
    """Image side of one batch; ``patches`` is X ``(B, L, D)``, from the value stream."""

    views: Tensor  # (B, V, D) class tokens; V is 1 without views


ANGLES = tuple(math.pi * n / 16 for n in (-4, -3, -2, -1, 1, 2, 3, 4))
SHIFTS = tuple((a * s, b * s) for s in (0.2, 0.1) for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1)))
GREY = (0.299, 0.587, 0.114)


def anovl_views(images: Tensor) -> list[Tensor]:
    """The 22 views of AnoVL (arXiv 2308.15939, code) of normalised pictures.

    The pictures themselves, turned by the eight ``ANGLES``, moved by the eight ``SHIFTS`` (in half
    pictures), mirrored left to right, in grey, and turned by one, two and three quarters counter-
    clockwise. What comes in at the border is the mirrored picture. All are ``(B, 3, H, W)`` but two
    of the quarter turns, ``(B, 3, W, H)``.
    """
    turned = [
        _warp(images, [[math.cos(t), -math.sin(t), 0.0], [math.sin(t), math.cos(t), 0.0]])
        for t in ANGLES
    ]
    moved = [_warp(images, [[1.0, 0.0, a], [0.0, 1.0, b]]) for a, b in SHIFTS]
    weights = torch.tensor(GREY, dtype=images.dtype, device=images.device).view(3, 1, 1)
    grey = (images * weights).sum(1, keepdim=True).expand_as(images)
    quarters = [images.rot90(n, (2, 3)) for n in (1, 2, 3)]
    return [images, *turned, *moved, images.flip(3), grey, *quarters]


def _warp(images: Tensor, matrix: list[list[float]]) -> Tensor:
    theta = torch.tensor([matrix], dtype=images.dtype, device=images.device)
    grid = F.affine_grid(theta, [1, *images.shape[1:]], align_corners=True)
    grid = grid.expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)


@register(
    MethodInfo(
        name="anovl",
        title="AnoVL / AnoCLIP",
        school="prompt",
        knows_from=("words", "references"),
        optional=("references",),
        paper="Deng et al. 2023, arXiv 2308.15939",
        code_licence="MIT",
        parity="the authors' MVTec program, with and without test-time adaptation",
    )
)
class AnoVL(CLIPDetector):
    """Value-value attention, domain-aware texts and test-time adaptation.

    Scores and maps are probabilities without temperature: they stay near 0.5, the undecided point,
    and only their order matters.
    """

    Config = AnoVLConfig
    tells_kinds = True
    undecided = 0.5
    prepared: ClassVar[dict] = {"interpolation": "bilinear", "antialias": True, "resize_on": "pil"}
    positions = "bicubic_antialias"
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: AnoVLConfig

    def __init__(self, clip: CLIPBackbone, config: AnoVLConfig | None = None) -> None:
        super().__init__(clip, config or AnoVLConfig())

    def words(self, product: Product) -> dict[str, Tensor]:
        """F ``(2, D)``, B ``(M, D)`` with the normal prompts first, one feature per kind."""
        prompts = self.prompts(product.name)
        name = NAMES.get(product.name, product.name)
        kinds = product.vocabulary.kinds if product.vocabulary else ()
        normal = _template_by_template(prompts, prompts.normal, name)
        anomalous = _template_by_template(prompts, prompts.anomalous, name)
        first = replace(prompts, templates=prompts.templates[:22])  # one domain is enough here
        bank = self.text_features.rows(normal + anomalous)  # (M, D), not normalised
        kind_prompts = [first.fill(phrases, name) for _, phrases in kinds]
        return {
            "texts": F.normalize(bank.unflatten(0, (2, -1)).mean(1), dim=-1),
            "bank": F.normalize(bank, dim=-1),
            "kind_texts": self.text_features.means(kind_prompts) if kinds else bank[:0],
        }

    def prompts(self, name: str) -> PromptEnsemble:
        """States and templates for a product: textures have domains of their own."""
        domains = TEXTURE_DOMAINS if name in self.config.textures else OBJECT_DOMAINS
        templates = tuple(t for domain in domains for t in domain_templates(domain))
        return PromptEnsemble(NORMAL_STATES, ANOMALOUS_STATES, templates)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Softmax of two cosines without temperature: logistic function of [-2, 2]."""
        low, high = torch.tensor([-2.0, 2.0], dtype=torch.float64).sigmoid().tolist()
        return low, high

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """Class tokens of the views, and patch tokens of the plain picture."""
        states = self.run(images, second=SecondStream("vv"), class_only=True)
        tokens = self.clip.visual.project(states.class_and_second()).float()  # (B, 1+L, D)
        others = self._class_tokens(anovl_views(images.float())[1:]) if self.config.views else []
        return Features(
            grid=self.grid(images),
            image=tokens[:, 0],
            patches=(tokens[:, 1:],),
            views=torch.stack([tokens[:, 0], *others], dim=1),
        )

    def _class_tokens(self, views: Sequence[Tensor]) -> list[Tensor]:
        """``(B, D)`` of each view; the value stream never reaches the class token."""
        found: list[Tensor] = []
        for _, alike in groupby(views, key=lambda view: view.shape):  # two may lie on their side
            some = list(alike)
            parts = []
            for pixels in torch.cat(some).split(_VIEWS):
                tokens = self.run(pixels, class_only=True).tokens[:, 0]
                parts.append(self.clip.visual.project(tokens).float())
            found += torch.cat(parts).chunk(len(some))
        return found

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Adapt to each picture, and compare with the words."""
        texts, (X,) = knowledge["texts"], encoded.patches
        score = anomaly_probability(encoded.views, texts, 1.0).mean(1)  # (B,)
        if self.config.adapt:
            X = torch.stack([self.adapted(x, texts, knowledge["bank"]) for x in X])
        p = encoded.grid.fold(anomaly_probability(X, texts, 1.0))  # (B, g, g)
        smooth = neighbourhood_mean(p[:, None], 3, "replicate")[:, 0]
        map = encoded.grid.upsample(smooth, align_corners=True)
        return Prediction(score, map, self._type_map(encoded, knowledge["kind_texts"]))

    def adapted(self, x: Tensor, texts: Tensor, bank: Tensor) -> Tensor:
        """Tokens ``(L, D)`` of one picture through an adapter optimised on them alone."""
        generator = torch.Generator().manual_seed(self.config.seed)
        with torch.inference_mode(False), torch.enable_grad():
            # copies, because what was made in inference mode cannot take part in a gradient
            x, texts, bank = (t.float().clone() for t in (x, texts, bank))
            adapter = Adapter(bank, self.config.residual, generator)
            noise = [
                (self.config.noise * torch.randn(x.shape, generator=generator)).to(x.device)
                for _ in range(self.config.steps)
            ]
            adapt(adapter, x, texts, noise, self.config)
            return adapter(x).detach()

    def _type_map(self, encoded: Features, kinds: Tensor) -> Tensor | None:
        """Ours: distribution over kinds ``(B, T, H, W)``, from the tokens as they came."""
        if not len(kinds):
            return None
        share = text_probabilities(encoded.patches[0], kinds, self.config.kind_temperature)
        return encoded.grid.map(share.mT, align_corners=True)  # (B, L, T) -> (B, T, H, W)


_VIEWS = 32  # pictures that enter the tower at once: bounds memory


def _template_by_template(prompts: PromptEnsemble, states: Sequence[str], name: str) -> list[str]:
    """All states in the first template, then all in the second, ...: the order of the bank."""
    filled, templates = prompts.fill(states, name), len(prompts.templates)
    return [prompt for number in range(templates) for prompt in filled[number::templates]]
