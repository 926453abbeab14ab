"""CLIP Surgery (Li et al., Pattern Recognition 162, 2025, arXiv 2304.05653).

Nothing is trained. Patch tokens come from a second stream of value-value attention beside the last
six blocks ("architecture surgery"), and of the similarities with several texts what all texts share
is taken away ("feature surgery"). It was made to show where a word is found in a picture; the
authors publish no anomaly detection, and the read-out as an anomaly map is ours.

Symbols: f the tokens, T the texts, r the redundant text, S the similarities after surgery, L the
number of patches, D the joint dimension, n the number of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.clip_detector import CLIPDetector, Features
from zerodefect.detector.configs import Count, Positive, hyper_parameters
from zerodefect.detector.contract import PatchFeatures
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.learned_sentences import Attention, attending, second_stream
from zerodefect.detector.registry import register
from zerodefect.layers.similarity import (
    anomaly_probability,
    cosine,
    text_probabilities,
    upsample,
)
from zerodefect.prompts.classification_templates import IMAGENET_TEMPLATES, SCENE_TEMPLATES
from zerodefect.prompts.ensemble import PromptEnsemble
from zerodefect.types import Prediction

_BLOCKS = 6  # with the second stream, the last of the tower


@hyper_parameters
class CLIPSurgeryConfig:
    """Hyper-parameters; those of the surgery are the authors', those of the read-out ours.

    Attributes:
        stream_start: first image block with the second stream; None for the last six blocks.
        attention: what the second stream attends by; None for the paper's, or ``plain`` on weights
            whose patches match texts.
        normal_states, anomalous_states, templates: the sentences.
        read_out: ``surgery`` maps half the weighted difference of the two similarities,
            ``probability`` the softmax over the plain ones.
        temperature: of that softmax, and of the one over defect kinds.
        image_temperature: of the softmax of the image score.
    """

    stream_start: Count | None = None
    attention: Attention | None = None
    normal_states: tuple[str, ...] = ("flawless {}",)
    anomalous_states: tuple[str, ...] = ("damaged {}",)
    templates: tuple[str, ...] = (*IMAGENET_TEMPLATES, *SCENE_TEMPLATES)
    read_out: Literal["surgery", "probability"] = "surgery"
    temperature: Positive = 0.07
    image_temperature: Positive = 0.01


# --- feature surgery ------------------------------------------------------------------------------


def feature_surgery(f_cls: Tensor, f: Tensor, T: Tensor) -> Tensor:
    """Similarities of tokens with several texts, without what all texts share.

    Each text weighs as much as the whole picture speaks for it, relative to the mean over texts.

    Args:
        f_cls: ``(B, D)`` class tokens, for the weights.
        f: ``(B, L, D)`` tokens.
        T: ``(n, D)`` texts. None of the three need be normalised.

    Returns:
        S ``(B, L, n)``; the n values of a token add up to zero.
    """
    w = (2 * cosine(f_cls, T)).softmax(-1)  # (B, n)
    s = (w / w.mean(-1, keepdim=True))[:, None] * cosine(f, T)
    return s - s.mean(-1, keepdim=True)


def redundant_surgery(f: Tensor, T: Tensor, r: Tensor) -> Tensor:
    """The same against a given redundant text: S ``(B, L, n)`` of f ``(B, L, D)``, r ``(D,)``."""
    return cosine(f, T) - cosine(f, r[None])


def explanation_map(S: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Maps ``(B, n, H, W)`` of patches S ``(B, L, n)``: each from 0 to 1, its scale is lost.

    They show where in one picture a text fits best, and say nothing of whether it fits.
    """
    low, high = S.amin(1, keepdim=True), S.amax(1, keepdim=True)
    return upsample(((S - low) / (high - low)).mT.unflatten(-1, grid), size)


def points(S: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Points for prompting a segmenter, from the patches S ``(L,)`` of one text.

    Args:
        S: similarities after surgery.
        grid: rows and columns of patches.
        size: ``(height, width)`` of the picture in pixels.

    Returns:
        ``(2m, 2)`` int64 pixels ``(x, y)`` and ``(2m,)`` labels: m ones, which lie where the text
        fits best, from the worst of them to the best, then m zeros, from the worst place on.
    """
    rows, columns = max(1, grid[0] // 2), max(1, grid[1] // 2)
    cells = upsample(S.view(1, *grid), (rows, columns)).flatten()
    cells = (cells - cells.min()) / (cells.max() - cells.min())
    m = min(int((cells >= 0.8).sum()), len(cells) // 2)
    ranking = cells.argsort(stable=True)
    chosen = torch.cat([ranking[len(cells) - m :], ranking[:m]])
    x = ((chosen % columns + 0.5) * size[1] / columns).clamp(max=size[1] - 1)
    y = ((chosen // columns + 0.5) * size[0] / rows).clamp(max=size[0] - 1)
    labels = torch.arange(2 * m, device=S.device) < m
    return torch.stack([x, y], -1).long(), labels.long()


@register(
    MethodInfo(
        name="clip_surgery",
        title="CLIP Surgery",
        school="prompt",
        knows_from=("words", "references"),
        optional=("references",),
        paper="Li et al., Pattern Recognition 162 (2025), arXiv 2304.05653",
        code_licence="no licence in the authors' repository",
        parity="official code at d4696d4: both streams, texts, surgery, maps, points",
    )
)
class CLIPSurgery(CLIPDetector):
    """Where a text is found in a picture; its read-out as an anomaly detector is ours.

    The score is a probability, that of the ``damaged`` text. The map is half the weighted
    difference of two cosines and lies in [-1, 1]; with ``read_out="probability"`` in [0, 1], with
    0.5 as the undecided point of both.
    """

    Config = CLIPSurgeryConfig
    tells_kinds = True
    positions = "bilinear"
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: CLIPSurgeryConfig

    def __init__(self, clip: CLIPBackbone, config: CLIPSurgeryConfig | None = None) -> None:
        config = attending(config or CLIPSurgeryConfig(), clip, "vv")
        super().__init__(clip, config)
        layers = self.clip.config.vision.layers
        self.stream = second_stream(config, layers, max(1, layers - _BLOCKS + 1))
        self.prompts = PromptEnsemble(
            config.normal_states, config.anomalous_states, config.templates
        )

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """The ordinary stream's class token and the second stream's patches, projected."""
        states = self.run(images, second=self.stream, class_only=self.stream is not None)
        tokens = states.tokens if self.stream is None else states.class_and_second()
        f = self.clip.visual.project(tokens).float()  # (B, 1+L, D)
        return Features(grid=self.grid(images), image=f[:, 0], patches=(f[:, 1:],))

    def texts(self, words: Sequence[str]) -> Tensor:
        """T ``(n, D)``, unit length: each of the words in all templates.

        An empty word gives the redundant text.
        """
        filled = [[t.replace("{}", word) for t in self.config.templates] for word in words]
        return self.text_features.directions(filled)

    def word_evidence(self, encoded: Features, words: Sequence[str]) -> Tensor:
        """What the patches say for each of the words, ``(B, n, h, w)`` on the grid of patches.

        The surgery against the redundant text over the temperature: the logit of the softmax over
        the word and no word, on a scale that is the same for every picture. Above 0 a patch rather
        speaks for the word.
        """
        S = redundant_surgery(encoded.patches[0], self.texts(words), self.texts([""])[0])
        return encoded.grid.fold(S.mT / self.config.temperature)

    # --- ours: as an anomaly detector -----------------------------------------------------------

    def words(self, product: Product) -> dict[str, Tensor]:
        """``texts (2, D)``, normal and anomalous, and ``kind_texts (T, D)``, all of unit length."""
        name, kinds = product.name, product.vocabulary.kinds if product.vocabulary else ()
        groups = [self.prompts.normal_prompts(name), self.prompts.anomalous_prompts(name)]
        groups += [self.prompts.fill(phrases, name) for _, phrases in kinds]
        T = self.text_features.directions(groups)
        return {"texts": T[:2], "kind_texts": T[2:]}

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Of half a difference of cosines whose weights add up to 2, or of a probability."""
        return (-1.0, 1.0) if self.config.read_out == "surgery" else (0.0, 1.0)

    def neutral_score(self, knowledge: Knowledge) -> float | None:
        """0.5 where the map has the score's scale, without references."""
        return None if self.config.read_out == "surgery" or knowledge.shots else 0.5

    def map_share(self, map: Tensor, knowledge: Knowledge) -> Tensor:
        """A probability: as the other read-out's, of the weighted similarities."""
        if self.config.read_out == "probability":
            return map
        return (2 * map / self.config.temperature).sigmoid()

    def patch_features(self, encoded: Features) -> tuple[PatchFeatures, ...]:
        """Patches of the second stream."""
        return (PatchFeatures(encoded.patches[0], encoded.grid, joint=True),)

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Class token and patches against the two texts."""
        T, kinds, (f,) = knowledge["texts"], knowledge["kind_texts"], encoded.patches
        score = anomaly_probability(encoded.image, T, self.config.image_temperature)
        map = encoded.grid.map(self.patch_anomaly(encoded, T))
        type_map = None
        if len(kinds):
            share = text_probabilities(f, kinds, self.config.temperature)  # (B, L, T)
            type_map = encoded.grid.map(share.mT)
        return Prediction(score, map, type_map)

    def patch_anomaly(self, encoded: Features, T: Tensor) -> Tensor:
        """``(B, L)``: what the anomalous one of the two texts T ``(2, D)`` keeps after surgery."""
        (f,) = encoded.patches
        if self.config.read_out == "probability":
            return anomaly_probability(f, T, self.config.temperature)
        return feature_surgery(encoded.image, f, T)[..., 1]
