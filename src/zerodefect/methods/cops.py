"""CoPS (CVPR 2026 Findings, arXiv 2508.03447): conditional prompt synthesis.

The sentences are made anew for every image. Their state tokens get prototypes that cross-attention
extracts from the patches (explicit state token synthesis), their class tokens samples of a small
variational autoencoder (implicit class token sampling), and patch probabilities are weighted by the
distance to the nearest prototypes (spatially-aware glocal alignment). The product's name is not
needed.

Symbols: F the patches, g the image's feature, P_n and P_a normal and abnormal prototypes, t the two
texts of an image, delta a patch's distance to the nearest prototype, z the latent class vector, R
the number of samples, C the joint dimension and text width, L the number of patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as nnF
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.transformer import MLP, Attention, SecondStream, attend, same_depth
from zerodefect.detector.clip_detector import CLIPDetector, Features
from zerodefect.detector.configs import Count, NotNegative, Odd, Positive, Share, hyper_parameters
from zerodefect.detector.facts import MethodInfo, published_table
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.official_files import Checked
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.grid import Grid
from zerodefect.layers.losses import map_losses
from zerodefect.layers.smoothing import gaussian_smooth, patch_mean
from zerodefect.prompts.learnable import LearnedPrompts, Sentence, published_sizes
from zerodefect.types import Prediction, TrainingBatch

_FIGURES = published_table(
    "README of the authors' repository", "0-shot",
    ("image AUROC", "image AP", "pixel AUROC", "pixel AP"),
    {
        "MVTec AD": (95.0, 97.8, 93.4, 41.9), "VisA": (85.4, 88.0, 95.7, 23.4),
        "BTAD": (93.6, 94.9, 94.6, 42.6), "MPDD": (78.6, 81.1, 97.5, 30.9),
        "DTD-Synthetic": (95.2, 98.1, 98.4, 58.5), "HeadCT": (96.1, 97.1, None, None),
        "BrainMRI": (97.4, 97.6, None, None), "Br35H": (98.7, 98.5, None, None),
        "ISIC": (None, None, 93.8, 85.6), "CVC-ColonDB": (None, None, 85.6, 37.2),
        "CVC-ClinicDB": (None, None, 88.8, 49.9), "Kvasir": (None, None, 85.8, 51.5),
        "Endo": (None, None, 90.0, 58.7),
    },
)  # fmt: skip

_SENTENCES = (Sentence("pos", ("ctx_pos",), "."), Sentence("neg", ("ctx_neg",), "."))


@hyper_parameters
class CoPSConfig:
    """Hyper-parameters; the defaults are those of the authors' code.

    That code chooses some by the name of the data set: the values here are the general ones, those
    for VisA or MVTec AD stand beside them.

    Attributes:
        context_length, prototypes, class_length: learned vectors of a sentence that stand alone,
            that take a prototype each, and that take the decoded class vector.
        depth: text blocks that read learned tokens, the contexts included; None for 9 of 12.
        deep_length: learned tokens per further block.
        heads: of the prototypes' attention; None for 12, or as many below as divide the width.
        window: side in patches of the mean over neighbours (tested on VisA: 3).
        training_window: the same in training (trained on MVTec AD: 3).
        alpha: share of the distance to normal prototypes in a patch's weight (tested on VisA:
            0.35); the rest is nearness to abnormal ones.
        beta: share of the image's own probability in its score (tested on VisA: 1.0); the rest is
            the highest patch's.
        samples: R, class vectors drawn when scoring.
        temperature: of the softmax over normal and abnormal.
        sigma: of the map's Gaussian smoothing, in pixels.
        crossed: the normal sentence takes the abnormal prototypes and the abnormal one the normal
            prototypes, as the published weights were trained; or each its own.
        upsampling: of the map; the authors' code repeats each patch in tests, too.
        reconstruction: the decoder's target: ``all_pairs`` compares every image with every decoded
            vector of the batch, ``own`` with its own one; ``none`` (trained on VisA) leaves it out.
        seed: of the initial values and of the class vectors drawn when scoring, which are the same
            for every image.
    """

    context_length: Count = 6
    prototypes: Count = 6
    class_length: Count = 2
    depth: Count | None = None
    deep_length: Count = 4
    heads: Count | None = None
    window: Odd = 5
    training_window: Odd = 5
    alpha: Share = 0.26
    beta: Share = 0.9
    samples: Count = 10
    temperature: Positive = 0.07
    sigma: NotNegative = 4.0
    crossed: bool = True
    upsampling: Literal["nearest", "bilinear"] = "nearest"
    reconstruction: Literal["all_pairs", "own", "none"] = "all_pairs"
    seed: int = 0


# --- learned modules -----------------------------------------------------------------------------


class Extractor(nn.Module):
    """Cross-attention from learned queries to the patches of one image."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)  # of the queries and of the patches
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width, width, "quick_gelu")

    def forward(self, queries: Tensor, F: Tensor) -> Tensor:
        """Prototypes: ``(M, C), (B, L, C) -> (B, M, C)``."""
        width, split = queries.shape[-1], self.attn.split
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        q = nnF.linear(self.ln_1(queries), weight[:width], bias[:width])
        k, v = nnF.linear(self.ln_1(F), weight[width:], bias[width:]).chunk(2, dim=-1)
        x = queries + self.attn.join(attend(split(q.expand(len(F), -1, -1)), split(k), split(v)))
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    """Image feature ``(B, C)`` to mean and log-variance of z, ``(B, C)`` each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.mean = nn.Linear(width, width)
        self.log_var = nn.Linear(width, width)

    def forward(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of the distribution that z is drawn from in training."""
        h = self.net(g)
        return self.mean(h), self.log_var(h)


class Decoder(nn.Module):
    """z to a class vector, ``(..., C) -> (..., C)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, z: Tensor) -> Tensor:
        """Decode."""
        return self.net(z)


@torch.no_grad()
def _initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Linear layers N(0, 0.02²) without bias, packed projections Xavier, norms the identity."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02, generator=generator)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, Attention):
            nn.init.xavier_uniform_(part.in_proj_weight, generator=generator)
            nn.init.zeros_(part.in_proj_bias)


# --- the detector --------------------------------------------------------------------------------


@register(
    MethodInfo(
        name="cops",
        title="CoPS",
        school="prompt",
        knows_from=("training", "references"),
        optional=("references",),
        paper="CVPR 2026 Findings, arXiv 2508.03447",
        code_licence="MIT",
        parity="official code at a3a41fc, batch of one: forward, losses, gradients",
        figures=_FIGURES,
    )
)
class CoPS(CLIPDetector):
    """Sentences synthesised for each image.

    Map values are probabilities times a weight, both in [0, 1], and do not sum to one with those of
    "normal"; so there is no undecided point.
    """

    Config = CoPSConfig
    # on VisA; 5 epochs on MVTec AD
    recipe = Recipe(epochs=10, batch_size=8, learning_rate=1e-3, betas=(0.5, 0.999))
    positions = "bilinear"
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: CoPSConfig
    z: Tensor

    def __init__(self, clip: CLIPBackbone, config: CoPSConfig | None = None) -> None:
        super().__init__(clip, config or CoPSConfig())
        text, width, c = self.clip.config.text, self.clip.config.embed_dim, self.config
        if text.width != width:
            raise ValueError(
                f"CoPS puts image features of width {width} among text tokens of width "
                f"{text.width}: it needs a CLIP whose text tower is as wide as the joint space, "
                "such as ViT-L-14-336/openai"
            )
        generator = torch.Generator().manual_seed(c.seed)
        length = c.context_length + c.prototypes + c.class_length
        self.prompts = LearnedPrompts(
            self.clip.text,
            _SENTENCES,
            lengths={"ctx_pos": length, "ctx_neg": length},
            depth=same_depth(9, 12, text.layers) if c.depth is None else c.depth,
            deep_length=c.deep_length,
            generator=generator,
        )
        self.t_n, self.t_a = (
            nn.Parameter(0.02 * torch.randn(c.prototypes, width, generator=generator))
            for _ in range(2)
        )
        with torch.device("meta"):  # no draw from the global generator
            self.extractor = Extractor(width, _heads(width) if c.heads is None else c.heads)
            self.vae_encoder, self.vae_decoder = Encoder(width), Decoder(width)
        for module in (self.extractor, self.vae_encoder, self.vae_decoder):
            _initialise(module.to_empty(device="cpu"), generator)
        # the same class vectors for every image, whatever the initial values took
        z = torch.randn(c.samples, width, generator=torch.Generator().manual_seed(c.seed))
        self.register_buffer("z", z, persistent=False)  # (R, C)

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """The image tower: class token of the ordinary stream, patches of the value stream."""
        visual = self.clip.visual
        states = self.run(images, second=SecondStream("vv"), class_only=True)
        assert states.second is not None
        return Features(
            grid=self.grid(images),
            image=visual.project(states.tokens[:, 0], norm=False).float(),  # no ln_post here
            patches=(visual.project(states.second[:, 1:]).float(),),
        )

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Synthesise the sentences of each image and score it against them."""
        c, g = self.config, encoded.image
        F = patch_mean(encoded.patches[0], encoded.grid.shape, c.window, "zeros")  # (B, L, C)
        P_n, P_a = self.extractor(self.t_n, F), self.extractor(self.t_a, F)
        bias = self.vae_decoder(self.z)[None]  # (1, R, C)
        some = zip(P_n.split(_IMAGES), P_a.split(_IMAGES), strict=True)
        t = torch.cat([self.texts(*prototypes, bias) for prototypes in some])  # (B, 2, C)
        p = self.logits(F, t).softmax(-1)[..., 1]  # (B, L)
        p = p * self.weight(distance(F, P_n), distance(F, P_a))
        s = self.logits(g[:, None], t).softmax(-1)[:, 0, 1]  # (B,)
        map = self.upsampled(p[:, None], encoded.grid)[:, 0]
        return Prediction(
            score=c.beta * s + (1 - c.beta) * p.amax(1),
            map=gaussian_smooth(map, c.sigma).clamp(0, 1),  # the filter rounds
        )

    def texts(self, P_n: Tensor, P_a: Tensor, bias: Tensor) -> Tensor:
        """t, the mean over an image's sentences: ``(B, 2, C)``, unit length: normal, abnormal.

        ``P_n`` and ``P_a`` are ``(B, M, C)``; ``bias``, the class vectors in which the sentences
        differ, is ``(B, R, C)``, or ``(1, R, C)`` for all images.
        """
        return nnF.normalize(self.text_samples(P_n, P_a, bias).mean(1), dim=-1)

    def text_samples(self, P_n: Tensor, P_a: Tensor, bias: Tensor) -> Tensor:
        """Unit-length texts of every sentence, ``(B, R, 2, C)``."""
        if self.config.crossed:
            P_n, P_a = P_a, P_n
        contexts = {
            "ctx_pos": self.synthesised("ctx_pos", P_n, bias),
            "ctx_neg": self.synthesised("ctx_neg", P_a, bias),
        }
        return nnF.normalize(self.prompts(self.clip.text, contexts), dim=-1)

    def synthesised(self, name: str, prototypes: Tensor, bias: Tensor) -> Tensor:
        """A learned context plus prototypes and class vector in their slots, ``(B, R, n, C)``."""
        context, (B, _, C), R = self.prompts.context(name), prototypes.shape, bias.shape[1]
        plain = context.new_zeros(B, R, self.config.context_length, C)
        state = prototypes[:, None].expand(-1, R, -1, -1)
        product = bias[:, :, None].expand(B, -1, self.config.class_length, -1)
        return context + torch.cat([plain, state, product], dim=2)

    def logits(self, F: Tensor, t: Tensor) -> Tensor:
        """``(B, L, C), (B, 2, C) -> (B, L, 2)``: normal, abnormal."""
        return nnF.normalize(F, dim=-1) @ t.mT / self.config.temperature

    def weight(self, delta_n: Tensor, delta_a: Tensor) -> Tensor:
        """Far from normal and near to abnormal prototypes, in [0, 1]: ``(B, L)`` each.

        Distances are stretched to [0, 1] per image; the authors' code does it over the batch, which
        is the same for a batch of one.
        """
        alpha = self.config.alpha
        return alpha * min_max(delta_n) + (1 - alpha) * (1 - min_max(delta_a))

    def upsampled(self, p: Tensor, grid: Grid) -> Tensor:
        """``(B, c, L)`` to the input's size, ``(B, c, H, W)``."""
        if self.config.upsampling == "bilinear":
            return grid.map(p)
        return nnF.interpolate(grid.fold(p), grid.size, mode="nearest")

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Alignment of image and patches, prototypes' centres, and the autoencoder's terms."""
        features = self.encode(batch.images)
        eps = torch.randn(features.image.shape, generator=batch.generator)
        return self.losses(features, batch, eps.to(features.image))

    def losses(self, features: Features, batch: TrainingBatch, eps: Tensor) -> dict[str, Tensor]:
        """Terms of the loss; ``eps (B, C)`` is a normally distributed draw of each image."""
        g = features.image
        side = self.config.training_window
        F = patch_mean(features.patches[0], features.grid.shape, side, "zeros")
        P_n, P_a = self.extractor(self.t_n, F), self.extractor(self.t_a, F)
        mean, log_var = self.vae_encoder(g)
        bias = self.vae_decoder(mean + (0.5 * log_var).exp() * eps)  # (B, C), one sample
        # the extractor learns from the centre losses alone
        t = self.texts(P_n.detach(), P_a.detach(), bias[:, None])
        p = self.upsampled(self.logits(F, t).softmax(-1).mT, features.grid)  # (B, 2, H, W)
        focal, dice_abnormal, dice_normal = map_losses([p], batch.masks)
        abnormal = self.patch_labels(batch.masks)  # (B, L)
        return {
            "image": nnF.cross_entropy(self.logits(g[:, None], t)[:, 0], batch.labels),
            "patch": 4 * (focal + dice_abnormal + dice_normal),
            "gather": _mean_where(distance(F, P_n), ~abnormal),
            "scatter": _mean_where(distance(F, P_a), abnormal),
            "kl": -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(1).mean(),
            **self.reconstruction(g, bias),
        }

    def reconstruction(self, g: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """Decoded class vectors ``(B, C)`` against the images' features ``(B, C)``."""
        if self.config.reconstruction == "none":
            return {}
        if self.config.reconstruction == "own":
            return {"reconstruction": ((g - bias) ** 2).mean()}
        return {"reconstruction": ((g[:, None] - bias[None]) ** 2).mean()}

    def patch_labels(self, masks: Tensor) -> Tensor:
        """Which patches hold an abnormal pixel: ``(B, H, W) -> (B, L)`` bool."""
        patch = self.clip.config.vision.patch_size
        return nnF.max_pool2d(masks[:, None].float(), patch).flatten(1) > 0

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Depth, length of the deep tokens and number of prototypes, from their shapes."""
        learner = published.get("prompt_learner")
        if not isinstance(learner, Mapping):
            return {}
        sizes = published_sizes(learner)
        queries = learner.get("t_n")
        found: dict[str, Any] = {
            name: sizes[name] for name in ("depth", "deep_length") if name in sizes
        }
        if isinstance(queries, Tensor) and queries.dim() == 2:
            found["prototypes"] = queries.shape[0]
        return found

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Learned values from ``{"prompt_learner": ...}``.

        The autoencoder's encoder is not published; it keeps its values, which training alone reads.
        """
        checked = Checked(published, "CoPS checkpoint")
        learner = checked.inside("prompt_learner")
        sentences = self.prompts.published(learner, self.clip.text, tokens=False)
        state = {f"prompts.{name}": value for name, value in sentences.items()}
        for name, value in self.learned.items():
            if name.startswith("vae_encoder."):
                state[name] = value.detach().clone()
            elif name not in state:
                state[name] = learner.take(name, value.shape)
        learner.ignore("projector*")  # in the official module, but never used
        learner.ignore("extractor_.*")
        checked.done()
        return state


_IMAGES = 8  # whose sentences enter the text tower at once: bounds memory


def distance(F: Tensor, prototypes: Tensor) -> Tensor:
    """``1 - cos`` to the nearest prototype: ``(B, L, C), (B, M, C) -> (B, L)``."""
    unit = nnF.normalize(prototypes, dim=-1, eps=1e-8)
    return (1 - nnF.normalize(F, dim=-1, eps=1e-8) @ unit.mT).amin(-1)


def min_max(delta: Tensor) -> Tensor:
    """Stretch each row of ``(B, L)`` to [0, 1]; a constant row becomes 0."""
    low, high = delta.amin(1, keepdim=True), delta.amax(1, keepdim=True)
    return (delta - low) / (high - low).clamp_min(torch.finfo(delta.dtype).tiny)


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values; 0, still part of the graph, where there are none."""
    return (values * chosen).sum() / chosen.sum().clamp_min(1)


def _heads(width: int) -> int:
    """Twelve as published, or the largest smaller number that divides the width."""
    return next(heads for heads in range(12, 0, -1) if width % heads == 0)
