"""LogSAD (Zhang et al., CVPR 2025): are the components of a picture those of good ones?

References are clustered into components, which words name where they are told; each component is an
instance that must find its like among those of the references (Hungarian method), and every place
must find its like for structure. Both are standardised, and the larger one counts.

The authors run ViT-L CLIP and DINOv2 and have words, thresholds and rules for the five products of
MVTec LOCO. Here any CLIP and any features do; words are the product's components where they are
told (``Product.counts`` or ``components``); without, clusters stay nameless. Instances are parts of
one component, statistics come from references left out in turn, and rules are not this method's.

Symbols: P tokens in the space of texts, G the side of the component map, z standardised scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zerodefect.backbones.backbone import LayeredBackbone, check_layers, layers_at
from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.every_segment import every_segment
from zerodefect.backbones.segmenter import Segmenter
from zerodefect.backbones.transformer import Rule, SecondStream
from zerodefect.detector.configs import Layers, NotNegative, Share, Taps, hyper_parameters
from zerodefect.detector.contract import Detector, Input, PatchFeatures
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.reference_pictures import ReferencePictures
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import check_taps, quarter_depths
from zerodefect.layers.component_maps import (
    cluster_centres,
    finer_tokens,
    named_clusters,
    nearest_centre,
    painted,
    sharpened,
)
from zerodefect.layers.components import components
from zerodefect.layers.grid import Grid
from zerodefect.layers.instance_matching import (
    instance_features,
    instance_masks,
    matching_score,
    nearest_tokens,
)
from zerodefect.layers.similarity import anomaly_probability
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.classification_templates import IMAGENET_TEMPLATES
from zerodefect.prompts.ensemble import (
    ANOMALOUS_STATES,
    NORMAL_STATES,
    WINCLIP_TEMPLATES,
    PromptEnsemble,
)
from zerodefect.prompts.features import TextFeatures
from zerodefect.types import Prediction

UNCHECKED = (
    "Logic (numbers, places and combinations of parts) was not checked: that takes good pictures "
    "or rules."
)
_BACKGROUND = "background"
_SPREAD = 5.0  # patches, of the Gaussian that keeps attention near
_TEMPERATURE = 0.07  # of words without references
_SPEAKING = 16  # references, at most, that are left out in turn
_LEAST = 1e-2  # deviation below which a scale is not believed: of few references it is chance
_SMALL = 9  # cells of a component, at least, that make it an instance


@hyper_parameters
class LogSADConfig:
    """Hyper-parameters.

    Attributes:
        taps: blocks of the image tower whose tokens are clustered and matched; None for quarters
            of its depth.
        layers: of the features for structure; None for those at strides 8 and 16.
        clusters: of the references' tokens.
        side: G.
        components: words of the components; empty for those of ``Product.counts``.
        least: product of a cluster with the best word that it must exceed.
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
        seed: of the clustering.
    """

    taps: Taps | None = None
    layers: Layers | None = None
    clusters: Annotated[int, Field(ge=2, le=64)] = 8
    side: Annotated[int, Field(ge=8, le=256)] = 64
    components: tuple[str, ...] = ()
    least: Share = 0.0
    sigma: NotNegative = 0.0
    seed: int = 42


@dataclass(frozen=True)
class Seen:
    """Image side of a batch.

    Attributes:
        grid: of the tokens.
        tokens: ``(B, N, sum of widths)``, the taps' one behind the other.
        P: ``(B, N, D)``.
        fine: grid of the features for structure.
        structure: ``(B, M, sum of channels)``, layers one behind the other.
        widths: channels of each.
        segments: ``(B, G, G)`` int64, all 0 without a segmenter.
    """

    grid: Grid
    tokens: Tensor
    P: Tensor
    fine: Grid
    structure: Tensor
    widths: tuple[int, ...]
    segments: Tensor


@register(
    MethodInfo(
        name="logsad",
        title="LogSAD (completion)",
        school="component",
        knows_from=("words", "references"),
        optional=("references",),
        paper="Zhang et al., CVPR 2025",
        code_licence="none stated by the authors; written from its formulas",
        parity="official scoring at 1c5fcf05 with stand-ins for the networks: components, "
        "instances, matching, structure, fusion; networks and statistics are a completion",
        completion=True,
        backbones={"clip": "clip", "features": "features", "segmenter": "segmenter"},
        spare=("segmenter",),
    )
)
class LogSAD(Detector):
    """The larger of two standardised scores: instances that match, and structure.

    With references the score has no ends and the map holds cosine distances in [0, 2]. Without,
    both are probabilities from words, and the answer says that logic was not checked.
    """

    Config = LogSADConfig
    undecided = 0.5
    memory: ReferencePictures
    config: LogSADConfig

    def __init__(
        self,
        clip: CLIPBackbone,
        features: LayeredBackbone,
        segmenter: Segmenter | None = None,
        config: LogSADConfig | None = None,
    ) -> None:
        config = config or LogSADConfig()
        self_layers = tuple(config.layers or layers_at(features, (8, 16)))
        check_layers(features, self_layers)
        multiple = max(features.layers[name] for name in self_layers)
        networks = [each for each in (clip, features, segmenter) if each is not None]
        inputs = {
            "clip": Input(clip.preprocess, clip.stride),
            "features": Input(features.preprocess, multiple),
        }
        if segmenter is not None:
            inputs["segmenter"] = Input(segmenter.preprocess, segmenter.stride)
        super().__init__(config, networks, inputs)
        self.clip, self.match = clip.clip.requires_grad_(False), clip.patches_match_texts
        self.features, self.segmenter, self.layers = features, segmenter, self_layers
        depth = self.clip.config.vision.layers
        self.taps = check_taps(config.taps or quarter_depths(depth), depth)
        self.text_features = TextFeatures(clip.clip, clip.fingerprint, reload=clip.reload)
        self.prompts = PromptEnsemble(NORMAL_STATES, ANOMALOUS_STATES, WINCLIP_TEMPLATES)
        self.memory = ReferencePictures(self._learned)

    # --- words ----------------------------------------------------------------------------------

    def words(self, product: Product) -> dict[str, Tensor]:
        """``texts (2, D)``, normal and anomalous, and ``queries (K, D)``, the background last."""
        named = self.config.components or tuple(name for name, _ in product.counts)
        normal = self.prompts.normal_prompts(product.name)
        texts = self.text_features.means([normal, self.prompts.anomalous_prompts(product.name)])
        if not named:
            return {"texts": texts, "queries": texts[:0]}
        groups = [[t.format(word) for t in IMAGENET_TEMPLATES] for word in (*named, _BACKGROUND)]
        return {"texts": texts, "queries": self.text_features.directions(groups)}

    def describe(self, knowledge: Knowledge, product: Product) -> Knowledge:
        """Learn from words; what references showed is named anew."""
        return self.settle(super().describe(knowledge, product))

    # --- what is seen ---------------------------------------------------------------------------

    def encode(self, inputs: Mapping[str, Tensor]) -> Seen:
        """Run all networks."""
        images, pixels = inputs["clip"], inputs["features"]
        size = (images.shape[-2], images.shape[-1])
        tokens, P = self._tokens(images)
        grid = Grid(*self.clip.visual.grid(images), size)
        maps = self.features.maps(pixels, self.layers)
        shape = (maps[-1].shape[-2], maps[-1].shape[-1])
        f = torch.cat([F.adaptive_avg_pool2d(each, shape) for each in maps], 1)
        widths = tuple(each.shape[1] for each in maps)
        segments = self._segments(inputs, len(images)).to(images.device)
        return Seen(grid, tokens, P, Grid(*shape, size), f.flatten(2).mT, widths, segments)

    def _tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of the taps, and those of the last block in the space of texts."""
        visual = self.clip.visual
        embedded = visual.embed(images.to(visual.proj.dtype))
        last, shape = self.clip.config.vision.layers, visual.grid(images)
        taps = sorted({*self.taps, max(1, last - 1)})
        if self.match:  # they were trained to match texts as they are
            states = visual.encode(embedded, taps=taps)
            final = states.tokens
        else:
            stream = SecondStream(near_keys(shape), start=last)
            states = visual.encode(embedded, taps=taps, second=stream)
            assert states.second is not None
            before = states.taps[last - 1] if last > 1 else embedded
            final = states.second - before  # attention alone, no residual
        tokens = torch.cat([states.taps[tap][:, 1:].float() for tap in self.taps], 2)
        return tokens, visual.project(final[:, 1:]).float()

    def _segments(self, inputs: Mapping[str, Tensor], count: int) -> Tensor:
        side = (self.config.side,) * 2
        if self.segmenter is None:
            return torch.zeros(count, *side, dtype=torch.long)
        embedded = self.segmenter.embed(inputs["segmenter"])
        found = (every_segment(self.segmenter, embedded, row, side) for row in range(count))
        return torch.stack([painted(each) for each in found])

    def references(self, encoded: Seen) -> Mapping[str, Tensor]:
        """Everything that is seen."""
        count = len(encoded.P)
        return {
            "tokens": encoded.tokens,
            "P": encoded.P,
            "structure": encoded.structure,
            "segments": encoded.segments.short(),
            "grid": torch.tensor([encoded.grid.shape] * count),
            "widths": torch.tensor([encoded.widths] * count),
        }

    def patch_features(self, encoded: Seen) -> tuple[PatchFeatures, ...]:
        """Tokens in the space of texts, and the features for structure."""
        return (
            PatchFeatures(encoded.P, encoded.grid, joint=True),
            PatchFeatures(encoded.structure, encoded.fine),
        )

    # --- components -----------------------------------------------------------------------------

    def component_map(
        self, tokens: Tensor, P: Tensor, segments: Tensor, centres: Tensor, queries: Tensor
    ) -> Tensor:
        """Components ``(G, G)`` int64 of one picture; the last one is the background.

        Args:
            tokens: ``(G * G, C)`` of unit length.
            P: ``(G * G, D)`` of unit length.
            segments: ``(G, G)`` int64.
            centres: ``(k, C)``, the background's last.
            queries: ``(K, D)``; without any, clusters are components.
        """
        side = (self.config.side,) * 2
        labels = nearest_centre(tokens, centres).view(side)
        if len(queries):
            least = [self.config.least] * len(queries)
            labels = named_clusters(labels, len(centres), P, queries, least)
        return sharpened(labels, segments) if bool(segments.any()) else labels

    def instances(
        self, tokens: Tensor, P: Tensor, segments: Tensor, shape: tuple[int, int], known: Knowledge
    ) -> list[Tensor]:
        """Features of the instances of one picture, per tap ``(n, C)``."""
        side, queries = (self.config.side,) * 2, known["queries"]
        fine = finer_tokens(tokens[None], shape, side)[0]
        joint = finer_tokens(P[None], shape, side)[0]
        centres = known["learned/centres"]
        labels = self.component_map(fine, joint, segments, centres, queries)
        background = (len(queries) or len(centres)) - 1
        masks = [instance_masks(components(labels == k, _SMALL), side) for k in range(background)]
        return instance_features(torch.cat(masks), fine, self._blocks(fine))

    def _blocks(self, tokens: Tensor) -> list[int]:
        return [tokens.shape[-1] // len(self.taps)] * len(self.taps)

    def _learned(self, knowledge: Knowledge) -> Mapping[str, Tensor]:
        """Centres, instances of the references, and what these say of each other."""
        if "queries" not in knowledge:  # not described yet
            return {}
        tokens, P, segments, structure, grid = (
            self.memory.of(knowledge, name)
            for name in ("tokens", "P", "segments", "structure", "grid")
        )
        shape = (int(grid[0, 0]), int(grid[0, 1]))
        unit = F.normalize(tokens, dim=2)
        centres = cluster_centres(unit.flatten(0, 1), self.config.clusters, self.config.seed)
        centres = background_last(centres, unit.unflatten(1, shape))
        known = knowledge.having({"learned/centres": centres})
        found = [
            self.instances(t, p, s.long(), shape, known)
            for t, p, s in zip(tokens, P, segments, strict=True)
        ]
        numbers = self.memory.numbers(knowledge)
        learned = {"learned/centres": centres, "learned/scale": torch.zeros(2, 2)}
        for place in range(len(self.taps)):
            learned[f"learned/instances{place}"] = torch.cat([one[place] for one in found])
        widths = self.memory.of(knowledge, "widths")[0].tolist()
        scores = self._left_out(found, structure, numbers, widths)
        means, deviations = scores.mean(1), scores.std(1) if scores.shape[1] > 1 else None
        spread = torch.full_like(means, _LEAST) if deviations is None else deviations
        learned["learned/scale"] = torch.stack([means, spread.clamp(min=_LEAST)], 1)
        return learned

    def _left_out(
        self,
        found: Sequence[list[Tensor]],
        structure: Tensor,
        numbers: Tensor,
        widths: list[int],
    ) -> Tensor:
        """Scores ``(2, n)`` of references left out in turn, matching and structure."""
        asked = numbers.unique()
        if len(asked) < 2:
            return torch.zeros(2, 1, device=structure.device)
        asked = asked[torch.linspace(0, len(asked) - 1, min(_SPEAKING, len(asked))).long()]
        said = []
        for number in asked.tolist():
            rest = [one for one, n in zip(found, numbers.tolist(), strict=True) if n != number]
            others = [torch.cat(each) for each in zip(*rest, strict=True)]
            bank = structure[numbers != number].flatten(0, 1)
            for row in (numbers == number).nonzero()[:, 0].tolist():
                d = nearest_tokens(structure[row], bank, widths)
                said.append(torch.stack([matching_score(found[row], others), d.max()]))
        return torch.stack(said, 1)

    # --- what it says ---------------------------------------------------------------------------

    def predict(
        self, encoded: Seen, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Words alone, or components and structure where there are references."""
        self.memory.check(left_out)
        if not knowledge.shots:
            p = anomaly_probability(encoded.P, knowledge["texts"], _TEMPERATURE)
            map = gaussian_smooth(encoded.grid.map(p), self.config.sigma)
            return Prediction(map.amax((1, 2)), map, answer=(UNCHECKED,) * len(map))
        if "learned/centres" not in knowledge:
            knowledge = self.settle(knowledge)
        bank = self.memory.of(knowledge, "structure").flatten(0, 1)
        d = torch.stack([nearest_tokens(one, bank, encoded.widths) for one in encoded.structure])
        remembered = [knowledge[f"learned/instances{place}"] for place in range(len(self.taps))]
        matching = []
        for t, p, s in zip(encoded.tokens, encoded.P, encoded.segments, strict=True):
            own = self.instances(t, p, s.long(), encoded.grid.shape, knowledge)
            matching.append(matching_score(own, remembered))
        both = torch.stack([torch.stack(matching), d.amax(1)])  # (2, B)
        mean, deviation = knowledge["learned/scale"].to(both)[:, :, None].unbind(1)
        z = ((both - mean) / deviation).amax(0)
        map = gaussian_smooth(encoded.fine.map(d.clamp(0, 2)), self.config.sigma)
        return Prediction(z, map)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Probabilities from words, cosine distances with references."""
        return 0.0, 2.0 if knowledge.shots else 1.0


# --- parts ---------------------------------------------------------------------------------------


def near_keys(grid: tuple[int, int]) -> Rule:
    """NACLIP's attention: keys with keys, and what lies near counts more.

    ``softmax(k k^T / sqrt(d) + W) v``, where W is ``exp(-|p_i - p_j|^2 / (2 5^2))`` in patches and
    0 for the class token.
    """
    y, x = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    places = torch.stack([y, x], 2).view(-1, 2).float()
    near = torch.exp(-torch.cdist(places, places).square() / (2 * _SPREAD**2))
    W = F.pad(near, (1, 0, 1, 0))

    def rule(q: Tensor, k: Tensor, v: Tensor, h: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(k, k, v, attn_mask=W.to(k))

    return rule


def background_last(centres: Tensor, tokens: Tensor) -> Tensor:
    """Centres with that one last which most of the borders of pictures ``(n, h, w, C)`` are of."""
    near = nearest_centre(tokens.flatten(1, 2), centres).unflatten(1, tokens.shape[1:3])
    sides = (near[:, 0], near[:, -1], near[:, :, 0], near[:, :, -1])
    border = torch.cat(sides, 1).flatten()
    last = int(torch.bincount(border, minlength=len(centres)).argmax())
    return centres[[*(k for k in range(len(centres)) if k != last), last]]
