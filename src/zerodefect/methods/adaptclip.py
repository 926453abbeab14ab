"""AdaptCLIP (Gao et al., AAAI 2026, arXiv 2505.09926).

Three small learners outside a frozen CLIP with a second stream of value-value attention: residual
layers on visual features, against fixed texts; two learned sentences, against the visual features
as they are; and a comparison of the query with normal pictures. Zero-shot the first two judge,
few-shot all three, with the same weights.

Symbols: I the image's feature, F_l the second stream's patches at tap l, E the fixed and T the
learned texts [normal, anomalous], q and r unit-length patches and the normal ones nearest to them,
a_l their distances, D these as one map, A and p each learner's map and image probability, D_c the
joint dimension, K the number of taps, N that of patches, S the input size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as nnF
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.configs import Count, hyper_parameters
from zerodefect.detector.facts import MethodInfo, published_table
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.learned_sentences import (
    Features,
    LearnedSentencesConfig,
    LearnedSentencesDetector,
)
from zerodefect.detector.official_files import Checked
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import BatchNorm, linear
from zerodefect.layers.grid import Grid
from zerodefect.layers.losses import map_losses
from zerodefect.layers.prompt_query import PromptQueryHead, nearest_prompts
from zerodefect.layers.similarity import cosine, harmonic_mean
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.ensemble import PromptEnsemble
from zerodefect.prompts.learnable import Sentence
from zerodefect.types import Prediction, TrainingBatch

_TABLES = "result tables at the official repository"
_SEVEN = (
    "image AUROC", "image AP", "image F1-max", "pixel AUROC", "pixel AP", "pixel F1-max", "AUPRO",
)  # fmt: skip
_REAL_IAD = {
    "0-shot": ((74.2, 70.8, 68.9, 94.9, 27.9, 35.4, 83.1), (73.0, 89.2, 36.2)),
    "1-shot": ((81.7, 80.2, 73.4, 97.1, 36.2, 42.2, 88.1), (84.3, 92.5, 48.9)),
    "2-shot": ((83.0, 81.6, 74.4, 97.3, 37.7, 43.6, 88.6), (86.4, 92.8, 50.8)),
    "4-shot": ((84.0, 82.6, 75.2, 97.4, 38.8, 44.4, 89.1), (88.1, 93.0, 52.5)),
}
_FIGURES = (
    *published_table(
        "README of the official repository", "0-shot", ("image AUROC", "pixel AP"),
        {"MVTec AD": (93.5, 38.3), "VisA": (84.8, 26.1)},
    ),
    *published_table(
        "README of the official repository", "1-shot", ("image AUROC", "pixel AP"),
        {"MVTec AD": (94.2, 52.5), "VisA": (92.0, 38.8)},
    ),
    *(f for shots, (seven, _) in _REAL_IAD.items()
      for f in published_table(_TABLES, shots, _SEVEN, {"Real-IAD": seven})),
    *(f for shots, (_, three) in _REAL_IAD.items()
      for f in published_table(_TABLES, shots, ("image AUROC", "pixel AUROC", "pixel AP"),
                               {"Real-IAD Variety": three})),
)  # fmt: skip

_SENTENCES = (Sentence("pos", ("ctx_pos",), "."), Sentence("neg", ("ctx_neg",), "."))
# where the authors' file keeps what, and ours; their shared heads stand there four times
_PLACES = (
    ("local_mlp.", "visual_learner", "local_adater."),
    ("global_mlp.", "visual_learner", "global_adapter."),
    ("comparison.norms.", "pq_learner", "sharebn."),
    ("comparison.local_head.", "pq_learner", "local_adapter.3."),
    ("comparison.global_head.", "pq_learner", "global_adapter.3."),
)
_SIZES: dict[str, tuple[str, str, Callable[[Sequence[int]], int]]] = {
    "reduction": ("visual_learner", "local_adater.fc.0.weight", lambda shape: shape[1] // shape[0]),
    "hidden": ("pq_learner", "local_adapter.3.0.weight", lambda shape: shape[0]),
}


@hyper_parameters
class AdaptCLIPConfig(LearnedSentencesConfig):
    """Hyper-parameters; the defaults are the published code's. Without ``taps``: quarters.

    Attributes:
        depth: as the base has it; 1 for no deep tokens.
        reduction: of the width inside the residual layers.
        hidden: channels of the comparison's head.
        context: whether the comparison sees the patch itself besides its difference.
    """

    depth: Count | None = 1
    seed: int = 10
    reduction: Count = 4
    hidden: Count = 128
    context: bool = True


class ResidualMLP(nn.Module):
    """``x + W2 ReLU(BN(W1 x))`` of ``(B, D)`` or ``(B, L, D)``, all tokens in one statistic."""

    def __init__(self, width: int, reduction: int, generator: torch.Generator) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.fc = nn.Sequential(
            linear(width, hidden, generator, bias=False),
            BatchNorm(hidden),
            nn.ReLU(),
            linear(hidden, width, generator, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        changed: Tensor = self.fc(x.flatten(0, -2))
        return x + changed.view(x.shape)


@dataclass(frozen=True)
class Logits:
    """What a learner says, normal and anomalous; with a leading axis K of the comparison."""

    image: Tensor  # (B, 2)
    patches: Tensor  # (B, 2, h, w), or (B, 2, 4h, 4w) of the comparison

    @property
    def p(self) -> Tensor:
        """Anomaly probability of the image, ``(B,)``."""
        return self.image.softmax(dim=-1)[..., 1]

    @property
    def low(self) -> Tensor:
        """Anomaly probability of the patches, ``(B, h, w)``."""
        return self.patches.softmax(dim=-3)[..., 1, :, :]


@register(
    MethodInfo(
        name="adaptclip",
        title="AdaptCLIP",
        school="adapter",
        knows_from=("training", "references"),
        optional=("references",),
        paper="Gao et al., AAAI 2026, arXiv 2505.09926",
        code_licence="GPL-2.0; nothing of it is in here but constants and sentences",
        parity="official code at 354d9e3: 0-shot and few-shot forward, losses, gradients",
        figures=_FIGURES,
    )
)
class AdaptCLIP(LearnedSentencesDetector):
    """Visual, textual and prompt-query adapters.

    Zero-shot, score and map are probabilities. With references they are harmonic means of
    probabilities and of cosine distances, so a patch that a reference has is normal whatever the
    learners say of it. The published checkpoints of ViT-B-16-plus-240 were trained with QuickGELU
    and ``stream_start=4``.
    """

    Config = AdaptCLIPConfig
    learner = "textual_learner"
    recipe = Recipe(
        epochs=15, batch_size=8, learning_rate=1e-3, betas=(0.5, 0.999), references=1, seed=10
    )
    config: AdaptCLIPConfig

    def __init__(self, clip: CLIPBackbone, config: AdaptCLIPConfig | None = None) -> None:
        super().__init__(clip, config or AdaptCLIPConfig())
        self.taps = self.chosen_taps()
        n, D = self.config.context_length, self.clip.config.embed_dim
        self.prompts = self.learned_prompts({"ctx_pos": n, "ctx_neg": n}, sentences=_SENTENCES)
        draws = torch.Generator().manual_seed(self.config.seed)
        self.local_mlp = ResidualMLP(D, self.config.reduction, draws)
        self.global_mlp = ResidualMLP(D, self.config.reduction, draws)
        self.comparison = PromptQueryHead(
            D, len(self.taps), self.config.hidden, context=self.config.context, generator=draws
        )

    @property
    def fixed_texts(self) -> Tensor:
        """E: mean embedding of the normal and of the anomalous sentences, ``(2, D_c)``."""
        words = PromptEnsemble()
        groups = words.normal_prompts("object"), words.anomalous_prompts("object")
        return self.text_features.means(groups)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """A probability; with references its harmonic mean with a distance of at most 2."""
        return 0.0, 4 / 3 if knowledge.shots else 1.0

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """The image tower with its second stream; the class token skips ``ln_post``."""
        return self.two_streams(images, self.taps, norm=False)

    def predict(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Both text learners, and the comparison where there are references."""
        said = [self.visual(encoded), self.textual(encoded, self.texts)]
        grid, sigma = encoded.grid, self.config.sigma
        p, A = [each.p for each in said], [grid.upsample(each.low) for each in said]
        if not knowledge.shots:
            M = gaussian_smooth(torch.stack(A).mean(0), sigma).clamp(0, 1)
            return Prediction(torch.stack([*p, M.amax((1, 2))]).mean(0), M)
        r, a = self.aligned(encoded, knowledge, left_out)
        compared = self.compared(encoded, r)
        p.append(compared.p.mean(0))
        A.append(grid.upsample(compared.low.mean(0)))
        joint = harmonic_mean([torch.stack(A).mean(0), self.distance_map(a, grid)])
        M = gaussian_smooth(joint, sigma).clamp(*self.map_range(knowledge))
        return Prediction(harmonic_mean([torch.stack(p).mean(0), M.amax((1, 2))]), M)

    def visual(self, features: Features) -> Logits:
        """Rewritten features against the fixed texts; the last tap alone."""
        assert features.own_class is not None
        tokens = torch.cat([features.own_class, features.patches[-1]], dim=1)  # (B, 1+N, D_c)
        F = self.local_mlp(tokens)[:, 1:]  # the class token counts in the statistics
        return self._against(self.global_mlp(features.image), F, self.fixed_texts, features.grid)

    def textual(self, features: Features, T: Tensor) -> Logits:
        """Features as they are against the learned texts ``T (2, D_c)``."""
        return self._against(features.image, features.patches[-1], T, features.grid)

    def _against(self, image: Tensor, patches: Tensor, texts: Tensor, grid: Grid) -> Logits:
        tau = self.config.temperature
        return Logits(cosine(image, texts) / tau, grid.fold(cosine(patches, texts).mT / tau))

    def aligned(
        self, features: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Nearest remembered patches r ``(B, N, D_c)`` of each tap, and distances a ``(B, N)``."""
        r, a = [], []
        for name, F in self.references(features).items():
            halves, rows = self.memory.neighbours(knowledge, name, F, 1, left_out)
            r.append(self.memory.bank(knowledge, name).features[rows[..., 0]])
            a.append((2 * halves[..., 0]).clamp(min=0))
        return r, a

    @staticmethod
    def beside(features: Features, shown: Features) -> list[Tensor]:
        """As ``aligned``, with each image's own references: its ``k`` rows among ``B * k``."""
        found = []
        for F, R in zip(features.patches, shown.patches, strict=True):
            own = nnF.normalize(R, dim=-1).view(len(F), -1, F.shape[-1])
            found.append(nearest_prompts(nnF.normalize(F, dim=-1), own)[0])
        return found

    def compared(self, features: Features, r: Sequence[Tensor]) -> Logits:
        """What the comparison says, per tap."""
        q = [nnF.normalize(F, dim=-1) for F in features.patches]
        maps, images = self.comparison(q, r, features.grid.shape)
        return Logits(images.float(), maps.float())

    @staticmethod
    def distance_map(a: Sequence[Tensor], grid: Grid) -> Tensor:
        """D: harmonic mean of the taps' distances ``(B, H, W)``; 0 where any of them is."""
        return harmonic_mean([grid.map(a_l) for a_l in a])

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Of each learner the cross entropy of the image, and focal and Dice losses of its map.

        The comparison sees the references that come with each image; its taps' losses are summed.
        """
        features = self.encode(batch.images)
        shown = self.encode(batch.references.flatten(0, 1))
        compared = self.compared(features, self.beside(features, shown))
        each_tap = [Logits(*pair) for pair in zip(compared.image, compared.patches, strict=True)]
        said = {
            "visual": [self.visual(features)],
            "textual": [self.textual(features, self.prompts(self.clip.text))],
            "comparison": each_tap,
        }
        losses: dict[str, Tensor] = {}
        for name, answers in said.items():
            maps = [features.grid.upsample(each.patches.softmax(dim=1)) for each in answers]
            images = [nnF.cross_entropy(each.image, batch.labels) for each in answers]
            losses[f"{name}_image"] = torch.stack(images).sum()
            losses[f"{name}_map"] = torch.stack(map_losses(maps, batch.masks)).sum()
        return losses

    # --- the authors' file --------------------------------------------------------------------

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Length of the learned contexts, and widths of the two other learners."""
        sizes = super().official_options(published)
        for option, (part, key, axis) in _SIZES.items():
            entries = published.get(part)
            value = entries.get(key) if isinstance(entries, Mapping) else None
            if isinstance(value, Tensor) and value.dim() > 1:
                sizes[option] = axis(value.shape)
        return sizes

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Learned values and running statistics from the three learners' dictionaries."""
        checked = Checked(published, "AdaptCLIP checkpoint")
        text = checked.inside("textual_learner")
        parts = {name: checked.inside(name) for name in ("visual_learner", "pq_learner")}
        state = {
            f"prompts.{name}": value
            for name, value in self.prompts.published(text, self.clip.text).items()
        }
        for name, value in self.learned_values.items():
            for own, part, theirs in _PLACES:
                if name.startswith(own):
                    key = name.replace(own, theirs, 1)
                    state[name] = parts[part].take(key, value.shape)
        for place in range(3):  # the same tensors again
            parts["pq_learner"].ignore(f"local_adapter.{place}.*")
            parts["pq_learner"].ignore(f"global_adapter.{place}.*")
        checked.done()
        return state
