"""AdaCLIP (Cao et al., ECCV 2024, arXiv 2407.15795).

Learned tokens enter the first blocks of both frozen towers: static ones, the same for all images,
plus dynamic ones made of the image. Patches and class token are mapped into text space and compared
with normal and anomalous sentences; the image's feature is corrected by the clusters of its most
suspicious patches ("hybrid semantic fusion").

Symbols: M tokens at each of J depths, W the image tower's width, W_t the text tower's, C the joint
dimension, N the number of patches, S the number of sentences, K clusters, l a layer that is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerodefect.backbones.clip import TextTower, tokenize
from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.transformer import Append, Edits, Overwrite
from zerodefect.detector import clip_detector
from zerodefect.detector.clip_detector import Activation, CLIPDetector
from zerodefect.detector.configs import Count, NotNegative, Positive, Share, Taps, hyper_parameters
from zerodefect.detector.facts import MethodInfo, published_table
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.official_files import Checked
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import Projections
from zerodefect.layers.clustering import kmeans
from zerodefect.layers.grid import Grid
from zerodefect.layers.losses import dice_loss, focal_loss
from zerodefect.layers.similarity import inner_products, two_class
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, PromptEnsemble
from zerodefect.types import Prediction, TrainingBatch


@hyper_parameters
class AdaCLIPConfig:
    """Hyper-parameters; the defaults are the published code's.

    Attributes:
        taps: image-tower blocks (from 1) whose patches are compared with the texts; None for
            quarters of the tower's depth.
        depth: blocks of each tower that learned tokens enter (a shallower tower: all of them).
        length: learned tokens per depth.
        clusters: K of the hybrid semantic fusion.
        fusion: weight of the clusters' feature in the image's; 0 leaves the fusion out.
        temperature: factor on cosine similarities before the softmax.
        sigma: of the map's Gaussian smoothing, in pixels.
        activation: see ``Activation``.
        round_tokens: learned tokens pass through float16 on their way into the towers, as in the
            published code (up to 1e-4 in the score). Off by default: the tokens depend on the
            image, and to which side one next to a rounding limit goes depends on the last bits of
            float32, and so on the batch that the image comes in.
        dice: Dice loss per pixel row, with which the published weights were trained, or per image.
        normal_states, anomalous_states, templates: the sentences.
        seed: of the initial values, and of the clustering of each image.
    """

    taps: Taps | None = None
    depth: Count = 4
    length: Count = 5
    clusters: Count = 20
    fusion: Share = 0.2
    temperature: Positive = 100.0
    sigma: NotNegative = 4.0
    activation: Activation = "gelu"
    round_tokens: bool = False
    dice: Literal["rows", "image"] = "rows"
    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = (ANOMALOUS_STATES[0], "broken {}", *ANOMALOUS_STATES[1:])
    templates: tuple[str, ...] = (
        "a bad photo of a {}.", "a low resolution photo of the {}.",
        "a bad photo of the {}.", "a cropped photo of the {}.",
    )  # fmt: skip
    seed: int = 111


@dataclass(frozen=True)
class Features(clip_detector.Features):
    """Image side of one batch: ``image`` and ``patches`` mapped into text space, unit length."""

    frozen: Tensor  # (B, C) global feature of the tower without learned tokens


class StaticTokens(nn.Module):
    """M learned tokens at each of several depths, the same for all images; from N(0, 0.02²)."""

    def __init__(self, depth: int, length: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.static_prompts = nn.ParameterList(
            0.02 * torch.randn(length, width, generator=generator) for _ in range(depth)
        )

    def joined(self, dynamic: Tensor) -> list[Tensor]:
        """Static plus dynamic tokens at each depth, ``(B, M, W)``."""
        return [static + dynamic for static in self.static_prompts]


@register(
    MethodInfo(
        name="adaclip",
        title="AdaCLIP",
        school="prompt",
        knows_from=("training", "words", "references"),
        optional=("references",),
        paper="Cao et al., ECCV 2024, arXiv 2407.15795",
        code_licence="MIT",
        parity="official code at e27ee32b: forward, losses, gradients (k-means labels given)",
        figures=published_table(
            "as quoted by later papers that compare with it",
            "0-shot",
            ("image AUROC", "image AP", "pixel AUROC", "AUPRO"),
            {"MVTec AD": (89.2, 96.4, 88.7, 37.8), "VisA": (85.8, None, 95.5, None)},
        ),
    )
)
class AdaCLIP(CLIPDetector):
    """CLIP with hybrid learned prompts. Score and map are probabilities, 0.5 is undecided.

    The score's clustering draws from a generator that ``config.seed`` starts anew for each image,
    so that it depends on nothing but the image.
    """

    Config = AdaCLIPConfig
    recipe = Recipe(
        epochs=5, batch_size=1, learning_rate=0.01, optimizer="adamw", betas=(0.5, 0.999),
        weight_decay=0.01, seed=111,
    )  # fmt: skip
    undecided = 0.5
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: AdaCLIPConfig

    def __init__(self, clip: CLIPBackbone, config: AdaCLIPConfig | None = None) -> None:
        super().__init__(clip, config or AdaCLIPConfig())
        vision, text = self.clip.config.vision, self.clip.config.text
        C, M = self.clip.config.embed_dim, self.config.length
        self.taps = self.chosen_taps()
        self.prompts = PromptEnsemble(
            self.config.normal_states, self.config.anomalous_states, self.config.templates
        )
        draws = torch.Generator().manual_seed(self.config.seed)
        J_t, J_v = (min(self.config.depth, tower.layers) for tower in (text, vision))
        # The text tower's first block takes no learned tokens: its static ones are in the official
        # files, but nothing reads them and they get no gradient.
        self.text_prompter = StaticTokens(J_t, M, text.width, draws)
        self.visual_prompter = StaticTokens(J_v, M, vision.width, draws)
        self.dynamic_text_prompt_generator = Projections(M, C, text.width, draws)
        self.dynamic_visual_prompt_generator = Projections(M, C, vision.width, draws)
        self.patch_token_layer = Projections(len(self.taps), vision.width, C, draws)
        self.cls_token_layer = Projections(1, C, C, draws)

    def words(self, product: Product) -> dict[str, Tensor]:
        """Token ids of the product's sentences."""
        return {"sentences": self.tokens(product.name).to(self.device)}

    def tokens(self, name: str) -> Tensor:
        """Token ids ``(S, L)``, normal sentences first; only hyphens in a name are replaced.

        Raises:
            ValueError: a sentence that does not fit the text tower or the learned tokens.
        """
        name = name.replace("-", " ")
        sentences = [*self.prompts.normal_prompts(name), *self.prompts.anomalous_prompts(name)]
        ids = tokenize(sentences, self.clip.config.text.context_length)
        shortest = int(TextTower.ends(ids).min())
        if shortest <= self.config.length:
            raise ValueError(
                f"a sentence ends at token {shortest}, but {self.config.length} learned tokens "
                "take the places behind the start; use longer templates or a smaller length"
            )
        return ids

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """Run the image tower without and then with learned tokens."""
        images = images.to(self.clip.visual.proj.dtype)
        frozen = self.frozen_feature(images)
        g, tokens = self.prompted(images, self.dynamic_visual_prompt_generator.of_one(frozen))
        mapped = self.patch_token_layer([T[:, 1:] for T in tokens])
        return Features(
            grid=self.grid(images),
            image=F.normalize(self.cls_token_layer([g])[0], dim=-1),
            patches=tuple(F.normalize(p, dim=-1) for p in mapped),
            frozen=frozen,
        )

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Compare with the product's sentences, which carry tokens of each image."""
        sentences = knowledge["sentences"]
        dynamic = self.dynamic_text_prompt_generator.of_one(encoded.frozen)
        some = max(1, _SEQUENCES // len(sentences))  # images whose sentences run at once
        t = torch.cat([self.texts(part, sentences) for part in dynamic.split(some)])
        z = self.logits(encoded, t)
        seeds = [torch.Generator().manual_seed(self.config.seed) for _ in t]
        return Prediction(
            score=self.image_logits(encoded, t, z, seeds).softmax(dim=-1)[:, 1],
            map=gaussian_smooth(self.map(z, encoded.grid), self.config.sigma),
        )

    @torch.no_grad()
    def frozen_feature(self, images: Tensor) -> Tensor:
        """Global feature ``f (B, C)`` of CLIP as it is."""
        return self.clip.visual(images).float()

    def prompted(self, images: Tensor, dynamic: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Image tower with tokens ``static[j] + dynamic (B, M, W)`` behind the patches.

        Gives ``g (B, C)``, and per tap class token and patches ``(B, 1+N, W)``, all float32.
        """
        visual, half, M = self.clip.visual, self.config.round_tokens, self.config.length
        first, *others = self.visual_prompter.joined(dynamic)
        edits: dict[int, list[Append | Overwrite]] = {1: [Append(first, half)]}
        for block, tokens in enumerate(others, start=2):
            edits[block] = [Overwrite(tokens, half, at=-M)]
        states = visual.encode(visual.embed(images), taps=self.taps, edits=edits)
        g = visual.project(states.tokens[:, 0]).float()
        return g, [states.taps[tap][:, :-M].float() for tap in self.taps]

    def texts(self, dynamic: Tensor, sentences: Tensor) -> Tensor:
        """Text features of each image, ``(B, 2, C)`` unit length: normal, anomalous.

        Made of dynamic tokens ``(B, M, W_t)`` and the ids of sentences ``(S, L)``, or ``(B, S, L)``
        where images have their own.
        """
        text, B, S = self.clip.text, len(dynamic), sentences.shape[-2]
        embedded = text.embed(sentences).expand(B, S, -1, -1)  # cut after the last end of text
        context = [s.repeat_interleave(S, dim=0) for s in self.text_prompter.joined(dynamic)[1:]]
        edits: Edits = {
            j: [Overwrite(s, self.config.round_tokens, at=1)] for j, s in enumerate(context, 2)
        }
        ends = TextTower.ends(sentences).expand(B, S)
        t = F.normalize(text.encode(embedded, ends, edits=edits).float(), dim=-1)  # (B, S, C)
        normal = len(self.config.normal_states) * len(self.config.templates)
        means = torch.stack([t[:, :normal].mean(dim=1), t[:, normal:].mean(dim=1)], dim=1)
        return F.normalize(means, dim=-1)

    def logits(self, features: Features, t: Tensor) -> list[Tensor]:
        """Per layer ``z_l (B, N, 2)``: patches against the texts ``(B, 2, C)``."""
        return [self.config.temperature * inner_products(p, t) for p in features.patches]

    def map(self, z: Sequence[Tensor], grid: Grid) -> Tensor:
        """Anomaly probability per pixel ``(B, H, W)``, before smoothing.

        The layers' logits are averaged before the softmax; being linear, the mean and the
        difference of the two classes come before the upsampling, too.
        """
        return self.upsampled(torch.stack(list(z)).mean(dim=0), grid).sigmoid()

    @staticmethod
    def upsampled(z: Tensor, grid: Grid) -> Tensor:
        """Anomalous minus normal logit per pixel: ``(B, N, 2) -> (B, H, W)``."""
        return grid.map(z[..., 1] - z[..., 0], align_corners=True)

    def image_logits(
        self,
        features: Features,
        t: Tensor,
        z: Sequence[Tensor],
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """Logits ``(B, 2)`` of the whole images; one generator per image."""
        u = features.image
        if self.config.fusion:
            h = self.cluster_features(features, z, generators)
            u = F.normalize(self.config.fusion * h + (1 - self.config.fusion) * u, dim=-1)
        return self.config.temperature * inner_products(u[:, None], t)[:, 0]

    def cluster_features(
        self, features: Features, z: Sequence[Tensor], generators: Sequence[torch.Generator]
    ) -> Tensor:
        """Mean of the cluster centres of the most suspicious patches, ``h (B, C)``."""
        chosen = self.suspicious(z).sort(dim=-1).values  # the order of near-equal ones is noise
        p = torch.stack(list(features.patches), dim=2)  # (B, N, layers, C)
        return torch.stack(
            [self._fused(p[b, chosen[b]], generator) for b, generator in enumerate(generators)]
        )

    def suspicious(self, z: Sequence[Tensor]) -> Tensor:
        """The 5K patches of highest anomaly probability, falling: ``(B, min(N, 5K))`` int64."""
        a = torch.stack(list(z)).mean(dim=0).softmax(dim=-1)[..., 1]
        return a.topk(min(a.shape[1], 5 * self.config.clusters)).indices

    def _fused(self, p: Tensor, generator: torch.Generator) -> Tensor:
        """Feature of one image's clusters: ``(n, layers, C) -> (C,)``."""
        labels = self.cluster(p.flatten(1), generator)
        members = F.one_hot(labels).to(p.dtype)  # (n, K)
        members = members[:, members.any(dim=0)]
        centres = (members / members.sum(dim=0)).mT @ p.mean(dim=1)  # over patches and layers
        return F.normalize(centres.mean(dim=0), dim=-1)  # every cluster counts the same

    def cluster(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Cluster label of each of the points ``(n, layers * C)``: ``(n,)`` int64."""
        return kmeans(points, self.config.clusters, generator)

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal loss of the images; focal and two Dice losses of each layer's map."""
        features = self.encode(batch.images)
        ids = torch.stack([self.tokens(name) for name in batch.objects]).to(features.frozen.device)
        t = self.texts(self.dynamic_text_prompt_generator.of_one(features.frozen), ids)
        z = self.logits(features, t)
        s = self.image_logits(features, t, z, [batch.generator] * len(t)).softmax(dim=-1)
        terms = [self.layer_losses(z_l, features.grid, batch.masks) for z_l in z]
        return {
            "image_focal": focal_loss(s[:, :, None, None], batch.labels[:, None, None]),
            **{name: torch.stack([term[name] for term in terms]).sum() for name in terms[0]},
        }

    def layer_losses(self, z: Tensor, grid: Grid, masks: Tensor) -> dict[str, Tensor]:
        """Loss terms of one layer's logits ``(B, N, 2)`` against masks ``(B, H, W)``."""
        q = two_class(self.upsampled(z, grid))  # (B, 2, H, W)
        # the published code flattens a batch of one image to its rows
        first = (lambda x: x.flatten(0, 1)) if self.config.dice == "rows" else (lambda x: x)
        return {
            "focal": focal_loss(q, masks),
            "dice_anomalous": dice_loss(first(q[:, 1]), first(masks)),
            "dice_normal": dice_loss(first(q[:, 0]), first(1 - masks)),
        }

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Depth and length of the learned tokens, which the file's shapes tell; K it does not."""
        static = [key for key in published if key.startswith(f"{_PREFIX}visual_prompter.")]
        if not static or not hasattr(published[static[0]], "shape"):
            return {}
        return {"depth": len(static), "length": int(published[static[0]].shape[0])}

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Learned values of an official checkpoint: one flat dictionary of ``clip_model.*``."""
        checked = Checked(published, "AdaCLIP checkpoint")
        state = {name: checked.take(_PREFIX + name, p.shape) for name, p in self.learned.items()}
        checked.done()
        return state


_PREFIX = "clip_model."
_SEQUENCES = 256  # sentences that enter the text tower at once: bounds memory
