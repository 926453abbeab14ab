"""IAD-CLIP (Li et al., ICAMechS 2024), a completion of ours.

Known are the title, that it is counted among the zero-shot methods with adapters, and two figures.
What stands here is a small adapter method of that kind: bottlenecks adapt the texts, the class
feature and the patches. Where the weights' own patches match texts, the last block's keep most of
what they are; else those of each tapped block are brought into the joint space.

Symbols: F_l the patches of tap l, Z_l the adapted ones, c the adapted class feature, T the adapted
texts [normal, anomalous], M the map, N the number of patches, K of taps, W the image tower's width,
D the joint dimension.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as nnF
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.clip_detector import CLIPDetector, Features, WordDetector
from zerodefect.detector.configs import NotNegative, Positive, Share, Taps, hyper_parameters
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import Bottleneck
from zerodefect.layers.losses import map_terms
from zerodefect.layers.similarity import highest_mean, inner_products
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, WINCLIP_TEMPLATES
from zerodefect.types import Prediction, TrainingBatch


@hyper_parameters
class IADCLIPConfig:
    """Hyper-parameters; all are ours.

    Attributes:
        residual: whether patches keep most of what CLIP makes of them, as texts and the
            class feature do; None for weights whose patches match texts.
        taps: blocks (from 1) whose patches are read; None for the last if they are ``residual``,
            else for quarters of the tower's depth.
        temperature: of the softmax over normal and anomalous.
        adapted: share of an adapter's output in what is residual.
        top: share of the map's highest values whose mean is half of the image score.
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
        normal_states, anomalous_states, templates: the sentences.
        seed: of the initial values.
    """

    residual: bool | None = None
    taps: Taps | None = None
    temperature: Positive = 0.07
    adapted: Share = 0.1
    top: Share = 0.001
    sigma: NotNegative = 4.0
    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = ANOMALOUS_STATES
    templates: tuple[str, ...] = WINCLIP_TEMPLATES
    seed: int = 111


@register(
    MethodInfo(
        name="iad_clip",
        title="IAD-CLIP (completion)",
        school="adapter",
        knows_from=("training", "words", "references"),
        optional=("references",),
        paper="Li et al., ICAMechS 2024 (title and two figures alone are known)",
        code_licence="none published; ours",
        parity="none: a completion from a title; hand-computed parts",
        completion=True,
        experimental="of the paper are known its title, that it is zero-shot with CLIP and "
        "adapters, and two figures; adapters, sentences, score and losses are ours",
    )
)
class IADCLIP(WordDetector):
    """Bottleneck adapters on patches, class feature and texts. Score and map are probabilities."""

    Config = IADCLIPConfig
    recipe = Recipe(epochs=5, batch_size=8, learning_rate=1e-4)
    monotone_memory = True  # the distance to the nearest of more references never grows
    prepared = CLIPDetector.prepared
    config: IADCLIPConfig

    def __init__(self, clip: CLIPBackbone, config: IADCLIPConfig | None = None) -> None:
        config = config or IADCLIPConfig()
        residual = clip.patches_match_texts if config.residual is None else config.residual
        super().__init__(clip, replace(config, residual=residual))
        self.taps = self.chosen_taps(last=residual)
        draws = torch.Generator().manual_seed(self.config.seed)
        W, D = self.clip.config.vision.width, self.clip.config.embed_dim
        self.visual_adapters = nn.ModuleList(Bottleneck(W, W // 4, D, draws) for _ in self.taps)
        self.text_adapter = Bottleneck(D, D // 4, D, draws)
        self.class_adapter = Bottleneck(D, D // 4, D, draws)

    # --- in the order of the completion -------------------------------------------------------

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Half the score is the class feature's, half the map's."""
        texts, grid = knowledge["texts"], encoded.grid
        T = self.adapted(texts, self.text_adapter)
        p = self.patch_logits(encoded, T).softmax(dim=-1)[..., 1]  # (B, K, N)
        M = gaussian_smooth(grid.map(p.mean(dim=1), align_corners=True), self.config.sigma)
        s = self.class_logits(encoded, T).softmax(dim=-1)[:, 1]
        M = M.clamp(0, 1)  # the filter's weights sum to one but for rounding
        return Prediction(score=(s + highest_mean(M, self.config.top)) / 2, map=M)

    def adapted(self, features: Tensor, adapter: nn.Module) -> Tensor:
        """Texts or class features ``(..., D)`` of unit length, through their adapter."""
        x = nnF.normalize(features, dim=-1)
        return self.mixed(x, adapter(x))

    def mixed(self, own: Tensor, learned: Tensor) -> Tensor:
        """Directions mostly as they were, and a share of what an adapter gave: ``(..., D)``."""
        x, share = nnF.normalize(own, dim=-1), self.config.adapted
        return nnF.normalize((1 - share) * x + share * learned.float(), dim=-1)

    def patch_logits(self, features: Features, T: Tensor) -> Tensor:
        """Z_l against texts ``(2, D)`` or ``(B, 2, D)``: ``(B, K, N, 2)``."""
        pairs = zip(features.patches, self.visual_adapters, strict=True)
        Z = [self.adapted_patches(F, adapter(F)) for F, adapter in pairs]
        return torch.stack([inner_products(z, T) for z in Z], dim=1) / self.config.temperature

    def adapted_patches(self, F: Tensor, learned: Tensor) -> Tensor:
        """Z_l from patches ``(B, N, W)`` and what their adapter gave ``(B, N, D)``."""
        if not self.config.residual:
            return nnF.normalize(learned.float(), dim=-1)
        visual = self.clip.visual
        return self.mixed(visual.project(F.to(visual.proj.dtype)).float(), learned)

    def class_logits(self, features: Features, T: Tensor) -> Tensor:
        """c against texts ``(2, D)`` or ``(B, 2, D)``: ``(B, 2)``."""
        c = self.adapted(features.image, self.class_adapter)
        return inner_products(c[:, None], T)[:, 0] / self.config.temperature

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal and two Dice losses of each tap's map, cross entropy of the class feature."""
        features = self.encode(batch.images)
        texts = self.texts_of(batch.objects)  # (B, 2, D)
        T = self.adapted(texts, self.text_adapter)
        p = self.patch_logits(features, T).softmax(dim=-1)
        maps = [features.grid.map(p_l.mT, align_corners=True) for p_l in p.unbind(dim=1)]
        return {
            **map_terms(maps, batch.masks),
            "image": nnF.cross_entropy(self.class_logits(features, T), batch.labels),
        }
