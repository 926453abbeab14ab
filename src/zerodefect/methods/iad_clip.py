"""IAD-CLIP (Li et al., ICAMechS 2024), a completion of ours.

Known are the title, that it is counted among the zero-shot methods with adapters, and two figures.
What stands here is a small adapter method of that kind: a bottleneck brings the patches of each
tapped block into the joint space, and two residual ones adapt the texts and the class feature.

Symbols: Z_l the adapted patches of tap l, c the adapted class feature, T the adapted texts [normal,
anomalous], p_l probabilities of the anomalous one, M the map, N the number of patches, W the image
tower's width, D the joint dimension.
"""

from __future__ import annotations

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
from zerodefect.layers.losses import map_losses
from zerodefect.layers.similarity import highest_mean, inner_products
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, WINCLIP_TEMPLATES
from zerodefect.types import Prediction, TrainingBatch


@hyper_parameters
class IADCLIPConfig:
    """Hyper-parameters; all are ours.

    Attributes:
        taps: blocks (from 1) whose patches are read; None for quarters of the tower's depth.
        temperature: of the softmax over normal and anomalous.
        adapted: share of a residual adapter's output in a text or class feature.
        top: share of the map's highest values whose mean is half of the image score.
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
        normal_states, anomalous_states, templates: the sentences.
        seed: of the initial values.
    """

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
        knows_from=("training", "words"),
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
    recipe = Recipe(epochs=5, batch_size=8, learning_rate=1e-3)
    prepared = CLIPDetector.prepared
    config: IADCLIPConfig

    def __init__(self, clip: CLIPBackbone, config: IADCLIPConfig | None = None) -> None:
        super().__init__(clip, config or IADCLIPConfig())
        self.taps = self.chosen_taps()
        draws = torch.Generator().manual_seed(self.config.seed)
        W, D = self.clip.config.vision.width, self.clip.config.embed_dim
        self.visual_adapters = nn.ModuleList(Bottleneck(W, W // 4, D, draws) for _ in self.taps)
        self.text_adapter = Bottleneck(D, D // 4, D, draws)
        self.class_adapter = Bottleneck(D, D // 4, D, draws)

    # --- in the order of the completion -------------------------------------------------------

    def predict(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Half the score is the class feature's, half the map's."""
        T, grid = self.adapt(knowledge["texts"], self.text_adapter), encoded.grid
        p = self.patch_logits(encoded, T).softmax(dim=-1)[..., 1]  # (B, K, N)
        M = gaussian_smooth(grid.map(p.mean(dim=1), align_corners=True), self.config.sigma)
        s = self.class_logits(encoded, T).softmax(dim=-1)[:, 1]
        M = M.clamp(0, 1)  # the filter's weights sum to one but for rounding
        return Prediction(score=(s + highest_mean(M, self.config.top)) / 2, map=M)

    def adapt(self, features: Tensor, adapter: nn.Module) -> Tensor:
        """Unit features, mostly as they were: ``(..., D) -> (..., D)``."""
        x, share = nnF.normalize(features, dim=-1), self.config.adapted
        return nnF.normalize((1 - share) * x + share * adapter(x).float(), dim=-1)

    def patch_logits(self, features: Features, T: Tensor) -> Tensor:
        """Z_l against texts ``(2, D)`` or ``(B, 2, D)``: ``(B, K, N, 2)``."""
        pairs = zip(features.patches, self.visual_adapters, strict=True)
        Z = [nnF.normalize(adapter(F).float(), dim=-1) for F, adapter in pairs]
        return torch.stack([inner_products(z, T) for z in Z], dim=1) / self.config.temperature

    def class_logits(self, features: Features, T: Tensor) -> Tensor:
        """c against texts ``(2, D)`` or ``(B, 2, D)``: ``(B, 2)``."""
        c = self.adapt(features.image, self.class_adapter)
        return inner_products(c[:, None], T)[:, 0] / self.config.temperature

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal and two Dice losses of each tap's map, cross entropy of the class feature."""
        features = self.encode(batch.images)
        T = self.adapt(self.texts_of(batch.objects), self.text_adapter)  # (B, 2, D)
        p = self.patch_logits(features, T).softmax(dim=-1)
        maps = [features.grid.map(p_l.mT, align_corners=True) for p_l in p.unbind(dim=1)]
        focal, abnormal, normal = map_losses(maps, batch.masks)
        return {
            "focal": focal,
            "dice_abnormal": abnormal,
            "dice_normal": normal,
            "image": nnF.cross_entropy(self.class_logits(features, T), batch.labels),
        }
