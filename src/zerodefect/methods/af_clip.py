"""AF-CLIP (Fang, Lv and Su, ACM MM 2025, arXiv 2507.19949).

One small self-attention adapter brings the tokens of every tap, averaged over neighbourhoods of
several sizes, into the joint space, where they are compared with two learned sentences. Few-shot:
the distance of each averaged token to the nearest among those of k normal references, before the
adapter, which is then a tenth of the map.

Symbols: o tokens of a tap, j one of the pairs of a tap and a neighbourhood, Z_j its adapted tokens
in the joint space, T the texts [normal, anomalous], z summed logits, m distances to the references,
t targets of the patches, N their number, W the image tower's width, D the joint dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector import clip_detector
from zerodefect.detector.clip_detector import CLIPDetector
from zerodefect.detector.configs import Count, NotNegative, Odd, Positive, Taps, hyper_parameters
from zerodefect.detector.facts import MethodInfo, published_table
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.official_files import LONE_TENSOR, Checked
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import linear
from zerodefect.layers.grid import Grid
from zerodefect.layers.similarity import inner_products
from zerodefect.layers.smoothing import gaussian_smooth, patch_gaussian
from zerodefect.prompts.learnable import LearnedPrompts, Sentence
from zerodefect.types import Prediction, TrainingBatch

_CONTEXT = "state_prompt_embedding"
_SENTENCES = (
    Sentence("normal", (_CONTEXT,), "without defect."),
    Sentence("abnormal", (_CONTEXT,), "with defect."),
)
_IMAGE_METRICS = ("image AUROC", "image AP", "image F1-max")
_PIXEL_METRICS = ("pixel AUROC", "pixel AP", "pixel F1-max", "AUPRO")
_LOGS = "logs of the released weights in the authors' repository"
_FIGURES = (
    *published_table(
        _LOGS, "0-shot", (*_IMAGE_METRICS, *_PIXEL_METRICS),
        {
            "MVTec AD": (92.9, 96.8, 92.9, 92.3, 46.5, 47.8, 85.7),
            "VisA": (88.5, 89.9, 85.2, 96.2, 26.9, 33.6, 88.7),
            "BTAD": (94.3, 95.3, 91.0, 94.4, 41.9, 47.5, 78.4),
            "DTD-Synthetic": (97.9, 99.1, 97.0, 98.6, 66.5, 62.9, 93.8),
            "DAGM": (98.7, 94.6, 92.0, 97.1, 49.2, 50.4, 93.1),
        },
    ),
    *published_table(
        _LOGS, "0-shot", _PIXEL_METRICS,
        {
            "ISIC": (94.8, 88.8, 80.9, 89.6),
            "CVC-ClinicDB": (87.1, 37.8, 45.4, 70.0),
            "CVC-ColonDB": (83.2, 27.2, 36.4, 67.9),
            "Kvasir": (84.5, 46.6, 51.7, 57.5),
        },
    ),
    *published_table(
        _LOGS, "0-shot", _IMAGE_METRICS,
        {"BrainMRI": (95.2, 96.3, 93.6), "Br35H": (96.7, 96.5, 92.2)},
    ),
)  # fmt: skip


@hyper_parameters
class AFCLIPConfig:
    """Hyper-parameters; the defaults are the published code's.

    Attributes:
        taps: image-tower blocks (from 1) whose tokens are read; None for quarters of the depth.
        sides: neighbourhoods that tokens are averaged over, in patches.
        spread: standard deviation of those averages, in patches.
        context_length: learned vectors before both sentences.
        temperature: of the softmax over normal and anomalous.
        alpha: share of the zero-shot part beside references.
        sigma: of the map's Gaussian smoothing, in pixels of the input.
        overwritten_targets: take the gradient of the published training, in which the alignment
            loss overwrites the targets of normal patches before the backward pass; False: that of
            the losses as they are written.
        seed: of the initial values.
    """

    taps: Taps | None = None
    sides: Annotated[tuple[Odd, ...], Field(min_length=1)] = (1, 3, 5)
    spread: Positive = 4.0
    context_length: Count = 12
    temperature: Positive = 0.07
    alpha: NotNegative = 0.1
    sigma: NotNegative = 4.0
    overwritten_targets: bool = True
    seed: int = 122


class AttentionAdapter(nn.Module):
    """Self-attention over all tokens of an image, ``(B, L, W) -> (B, L, W)``, no residual."""

    heads, head_width = 8, 64

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        inner = self.heads * self.head_width
        self.norm = nn.LayerNorm(width)
        self.to_q, self.to_k, self.to_v = (
            linear(width, inner, generator, bias=False) for _ in range(3)
        )
        self.to_out = linear(inner, width, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        y = self.norm(x)
        q, k, v = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@dataclass(frozen=True)
class Features(clip_detector.Features):
    """Image side of one batch; ``classes`` are the class tokens ``(B, 1, W)`` per tap."""

    classes: tuple[Tensor, ...] = ()


@register(
    MethodInfo(
        name="af_clip",
        title="AF-CLIP",
        school="adapter",
        knows_from=("training", "references"),
        optional=("references",),
        paper="Fang et al., ACM MM 2025, arXiv 2507.19949",
        code_licence="none stated; its weights are not redistributed",
        parity="official code at bb7edec4: 0-shot and few-shot forward, losses, gradients as "
        "written and as trained",
        figures=_FIGURES,
    )
)
class AFCLIP(CLIPDetector):
    """One adapter for all tokens. Without references score and map are probabilities.

    With references the map is the mean distance to them, in [0, 1], plus ``alpha`` times the
    probability, and the score is the highest distance plus ``alpha`` times that of the class token.
    """

    Config = AFCLIPConfig
    undecided = 0.5
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=1e-4, betas=(0.5, 0.999), seed=122)
    positions = "bilinear"
    monotone_memory = True  # the distance to the nearest of more references never grows
    official_classes: ClassVar[tuple[str, ...]] = (
        "clip.adaptor.Adaptor",
        "clip.adaptor.BasicTransformerBlock",
        "clip.adaptor.CrossAttention",
    )
    config: AFCLIPConfig

    def __init__(self, clip: CLIPBackbone, config: AFCLIPConfig | None = None) -> None:
        super().__init__(clip, config or AFCLIPConfig())
        self.taps = self.chosen_taps()
        draws = torch.Generator().manual_seed(self.config.seed)
        self.prompts = LearnedPrompts(
            self.clip.text,
            _SENTENCES,
            lengths={_CONTEXT: self.config.context_length},
            depth=1,
            generator=draws,
            std=0.01,
            in_front=True,
        )
        self.adaptor = AttentionAdapter(self.clip.config.vision.width, draws)

    @property
    def texts(self) -> Tensor:
        """T: unit length, ``(2, D)``."""
        return F.normalize(self.prompts.cached(self.clip.text), dim=-1)

    def after_learning(self) -> None:
        """Drop the texts of the former values."""
        self.prompts.clear()

    def references(self, encoded: Features) -> Mapping[str, Tensor]:
        """Averaged tokens of every tap, before the adapter."""
        patches = {f"tap{tap}": T for tap, T in zip(self.taps, encoded.patches, strict=True)}
        return {
            f"{name}/{side}": self.aggregated(T, encoded.grid, side)
            for name, T in patches.items()
            for side in self.config.sides
        }

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """A probability; with references ``alpha`` times it, and a distance."""
        return 0.0, 1.0 + self.config.alpha if knowledge.shots else 1.0

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """Tokens of the taps; nothing is learned in the tower."""
        states = self.run(images, taps=self.taps)
        tokens = [states.taps[tap].float() for tap in self.taps]
        return Features(
            grid=self.grid(images),
            image=self.clip.visual.project(states.tokens[:, 0]).float(),
            patches=tuple(o[:, 1:] for o in tokens),
            classes=tuple(o[:, :1] for o in tokens),
        )

    def predict(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Sentences, and the distance to references where there are any."""
        averaged = self.references(encoded)
        p = self.probabilities(self.adapted(encoded, averaged), self.texts)  # (B, 1+N)
        score, patches = p[:, 0], p[:, 1:]
        if knowledge.shots:
            m = self.distances(averaged, knowledge, left_out)
            score = m.amax(dim=1) + self.config.alpha * score
            patches = m + self.config.alpha * patches
        return Prediction(score, gaussian_smooth(encoded.grid.map(patches), self.config.sigma))

    def aggregated(self, patches: Tensor, grid: Grid, side: int) -> Tensor:
        """Patches ``(B, N, W)`` averaged over their neighbourhoods."""
        return patch_gaussian(patches, grid.shape, side, self.config.spread)

    def adapted(self, features: Features, averaged: Mapping[str, Tensor]) -> list[Tensor]:
        """Z_j, class token first: each ``(B, 1+N, D)``, not normalised."""
        classes = [o for o in features.classes for _ in self.config.sides]
        sets = zip(classes, averaged.values(), strict=True)
        return [self.joint(self.adaptor(torch.cat(tokens, dim=1))) for tokens in sets]

    def joint(self, tokens: Tensor) -> Tensor:
        """The tower's last norm and projection, in float32 whatever its own precision."""
        norm, proj = self.clip.visual.ln_post, self.clip.visual.proj
        weight, bias = norm.weight.float(), norm.bias.float()
        return F.layer_norm(tokens.float(), norm.normalized_shape, weight, bias, norm.eps) @ (
            proj.float()
        )

    def logits(self, Z: Tensor, T: Tensor) -> Tensor:
        """Cosines over the temperature: ``(B, L, D), (2, D) -> (B, L, 2)``."""
        return inner_products(F.normalize(Z, dim=-1), T) / self.config.temperature

    def probabilities(self, Z: Sequence[Tensor], T: Tensor) -> Tensor:
        """Of the abnormal text, of logits that are summed over the sets, ``(B, L)``."""
        z = torch.stack([self.logits(Z_j.float(), T) for Z_j in Z]).sum(dim=0)
        return z.softmax(dim=-1)[..., 1]

    def distances(
        self, averaged: Mapping[str, Tensor], knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Tensor:
        """m: ``(1 - cos) / 2`` to the nearest remembered one, mean over the sets, ``(B, N)``."""
        nearest = [
            self.memory.distance(knowledge, name, o, left_out) for name, o in averaged.items()
        ]
        return torch.stack(nearest).mean(dim=0).clamp(0, 1)

    # --- training -----------------------------------------------------------------------------

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal losses of image and patches, absolute error of the map, alignment of patches."""
        encoded = self.encode(batch.images)
        T = F.normalize(self.prompts(self.clip.text), dim=-1)
        Z = self.adapted(encoded, self.references(encoded))
        with torch.autocast(T.device.type, enabled=False):  # sums of large logits
            p = self.probabilities(Z, T)
            t = patch_targets(batch.masks, encoded.grid)
            overwritten = t.where(t > 0, -1) if self.config.overwritten_targets else t
            alignment = torch.stack([misalignment(Z_j[:, 1:].float(), t) for Z_j in Z])
            return {
                "focal_image": focal(p[:, 0], batch.labels.float()),
                "focal_pixel": focal(p[:, 1:], t, overwritten),
                "l1_pixel": (p[:, 1:] - t).abs().mean(),
                "alignment": alignment.mean(),
            }

    # --- official checkpoints -------------------------------------------------------------------

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Length of the context."""
        vectors = published.get(LONE_TENSOR)
        if not isinstance(vectors, Tensor) or vectors.dim() != 3:
            return {}
        return {"context_length": vectors.shape[1]}

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Learned values of the two files together: a lone tensor, and the adapter's module."""
        checked = Checked(published, "AF-CLIP checkpoint, *_prompt.pt and *_adaptor.pt together")
        context, learned = f"prompts.{_CONTEXT}", self.learned
        state = {context: checked.take(LONE_TENSOR, learned[context].shape[1:])[None]}
        for name in learned.keys() - {context}:
            part, _, kind = name.removeprefix("adaptor.").partition(".")
            place = {"norm": "norm", "to_out": "attn.to_out.0"}.get(part, f"attn.{part}")
            state[name] = checked.take(f"attention.{place}.{kind}", learned[name].shape)
        checked.done()
        return state


def patch_targets(masks: Tensor, grid: Grid) -> Tensor:
    """Masks ``(B, H, W)`` at the patches ``(B, N)``: 0, 1, or 0.5 where both are as much."""
    shrunk = F.interpolate(masks[:, None].float(), grid.shape, mode="bilinear").flatten(1)
    return shrunk.where(shrunk == 0.5, (shrunk > 0.5).float())


def focal(p: Tensor, t: Tensor, overwritten: Tensor | None = None) -> Tensor:
    """Mean of ``BCE(p, t) (1 - p_t)^4`` with ``p_t = p t + (1 - p)(1 - t)``.

    With ``overwritten`` targets the value stays, and the gradient becomes that of a backward pass
    which finds them where it expects ``t``.
    """
    error, p_t = F.binary_cross_entropy(p, t, reduction="none"), p * t + (1 - p) * (1 - t)
    loss = (error * (1 - p_t) ** 4).mean()
    if overwritten is None:
        return loss
    with torch.no_grad():
        slope = (p - overwritten) / (p * (1 - p)).clamp(min=1e-12)
        slope = (1 - p_t) ** 4 * slope - 4 * (1 - p_t) ** 3 * error * (overwritten - (1 - t))
    return loss.detach() + (slope * (p - p.detach())).mean()


def misalignment(Z: Tensor, t: Tensor) -> Tensor:
    """How much more alike unlike patches ``(B, N, D)`` are than like ones; 0 where they are not.

    Mean cosine of all pairs of a normal and an anomalous patch of the same image, less that of all
    pairs of the same kind. Sums over pairs are products of sums: no matrix of all pairs is made.
    """
    f = F.normalize(Z, dim=-1)
    kinds = [(t == kind).to(f.dtype) for kind in (0, 1)]
    normal, anomalous = ((kind[..., None] * f).sum(dim=1) for kind in kinds)  # (B, D)
    n, a = (kind.sum(dim=1) for kind in kinds)
    unlike, like = 2 * (n * a).sum(), (n**2 + a**2).sum()
    if unlike == 0:
        return 0 * f.sum()
    between = 2 * (normal * anomalous).sum() / unlike
    within = ((normal**2).sum() + (anomalous**2).sum()) / like
    return (between - within).relu()
