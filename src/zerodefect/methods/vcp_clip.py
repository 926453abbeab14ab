"""VCP-CLIP (Qu et al., ECCV 2024, arXiv 2407.12276).

Segmentation without the product's name: a pseudo-word made of the image's global feature stands in
its place ("Pre-VCP"); the two text features are then rewritten by attention over each layer's
patches ("Post-VCP"); the maps before and after are mixed.

Symbols: r vectors of the pseudo-word, n deep tokens, W the image tower's width, C the width of text
and joint space (they must be equal here), N the number of patches, l a layer that is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zerodefect.backbones.clip import TextTower, tokenize
from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.transformer import Edit, Insert, Overwrite, Remove
from zerodefect.detector.clip_detector import Activation, CLIPDetector, Features
from zerodefect.detector.composed import SetLevel
from zerodefect.detector.configs import Count, NotNegative, Share, Taps, hyper_parameters
from zerodefect.detector.facts import Figure, MethodInfo
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.official_files import Checked
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import Projections, initialised, linear
from zerodefect.layers.grid import Grid
from zerodefect.layers.losses import map_losses
from zerodefect.layers.scaling import MinMax
from zerodefect.layers.similarity import inner_products, two_class
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.types import Prediction, TrainingBatch

_LATER = "as quoted by later papers that compare with it"
_QUOTED = "the paper's values as quoted in a discussion at the official repository"


@hyper_parameters
class VCPCLIPConfig:
    """Hyper-parameters; the defaults are the published code's.

    Attributes:
        taps: image-tower blocks (from 1) whose patches are read; None for quarters of the depth.
        normal_prompt, anomalous_prompt: the two sentences; ``{}`` is where the pseudo-word goes.
        word_length: r vectors of the pseudo-word.
        deep_length: n learned tokens in front of each text block.
        dropout: of the deep tokens, in training.
        heads: of the attention over patches; must divide the image tower's width.
        mix: share of the map after Post-VCP in the final one.
        sigma: of the map's Gaussian smoothing, in pixels.
        top_pixels: the image score averages this many of the highest pixels; None for the
            published share, which is 2000 of 518 x 518.
        activation: see ``Activation``.
        seed: of the initial values.
    """

    taps: Taps | None = None
    normal_prompt: str = "a photo of a good {}"
    anomalous_prompt: str = "a photo of a damaged {}"
    word_length: Count = 2
    deep_length: Count = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    heads: Count = 8
    mix: Share = 0.8
    sigma: NotNegative = 8.0
    top_pixels: Count | None = None
    activation: Activation = "gelu"
    seed: int = 333

    def __post_init__(self) -> None:
        for name in ("normal_prompt", "anomalous_prompt"):
            if getattr(self, name).count("{}") != 1:
                raise ValueError(f"{name} needs '{{}}' exactly once: {getattr(self, name)!r}")


class PreVCP(nn.Module):
    """The pseudo-word of an image, and the temperature of the comparison that uses it."""

    def __init__(self, r: int, C: int, generator: torch.Generator) -> None:
        super().__init__()
        query = torch.empty(1, r, C)
        nn.init.trunc_normal_(query, std=1.0, a=-2.0, b=2.0, generator=generator)
        self.prompt_query = nn.Parameter(query)
        self.prompt_linear1 = initialised(
            nn.utils.skip_init(nn.Conv1d, 1, r, kernel_size=3, padding=1), generator
        )
        self.prompt_temp = nn.Parameter(torch.tensor(1 / 0.07).log())

    def forward(self, g: Tensor) -> Tensor:
        """``(B, C) -> (B, r, C)``: the convolution slides over the feature's values."""
        return self.prompt_query + self.prompt_linear1(g[:, None])


class PostVCP(nn.Module):
    """Text features rewritten by cross-attention over patches; one module serves all layers."""

    def __init__(self, C: int, W: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj_pre = linear(C, W, generator)
        self.k_proj_pre_1 = linear(W, W, generator)
        self.v_proj_pre_1 = linear(W, W, generator)
        self.proj_post_t = linear(W, W, generator)
        self.prompt_temp_l1 = nn.Parameter(torch.tensor(1 / 0.07).log())

    def forward(self, t: Tensor, e: Tensor) -> Tensor:
        """Texts ``(B, 2, C)`` and unit-length patches ``(B, N, W)`` -> texts ``(B, 2, W)``.

        With K = Wk e + bk and V = Wv e + bv, the attention softmax(Q K^T) V (no 1/sqrt(d) in the
        published code) needs neither K nor V of the many patches: Q K^T = (Q Wk) e^T + Q bk, whose
        last term is the same for all patches and leaves the softmax alone; A V = (A e) Wv^T + bv,
        as the rows of A sum to one. So the bias bk has no effect and gets no gradient.
        """
        Q = self.q_proj_pre(t).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, 2, d)
        Wk = self.k_proj_pre_1.weight.unflatten(0, (self.heads, -1))  # (heads, d, W)
        Wv = self.v_proj_pre_1.weight.unflatten(0, (self.heads, -1))
        A = ((Q @ Wk) @ e.mT[:, None]).softmax(dim=-1)  # (B, heads, 2, N)
        o = ((A @ e[:, None]) @ Wv.mT).transpose(1, 2).flatten(-2) + self.v_proj_pre_1.bias
        return F.normalize(self.proj_post_t(o), dim=-1)


@register(
    MethodInfo(
        name="vcp_clip",
        title="VCP-CLIP",
        school="prompt",
        knows_from=("training", "references"),
        optional=("references",),
        paper="Qu et al., ECCV 2024, arXiv 2407.12276",
        code_licence="MIT (stated in the README, no licence file)",
        parity="official code at 4dd96ec6: forward, losses, gradients",
        figures=(
            Figure("MVTec AD", "0-shot", "pixel AUROC", 92.0, _LATER),
            Figure("MVTec AD", "0-shot", "AUPRO", 87.3, _LATER),
            Figure("VisA", "0-shot", "pixel AUROC", 95.7, _QUOTED),
            Figure("VisA", "0-shot", "AUPRO", 90.7, _QUOTED),
            Figure("VisA", "0-shot", "pixel AP", 30.1, _QUOTED),
            Figure("VisA", "0-shot", "image AUROC", 83.8, _QUOTED),
            Figure("VisA", "0-shot", "image AP", 87.6, _QUOTED),
        ),
    )
)
class VCPCLIP(CLIPDetector):
    """CLIP with visual context prompting; needs no words.

    The map is a probability; the score is the sum of two, of the most anomalous pixels before and
    after Post-VCP, and lies in (0, 2).
    """

    Config = VCPCLIPConfig
    recipe = Recipe(
        epochs=10, batch_size=32, learning_rate=4e-5, betas=(0.5, 0.999), augment="vcp", seed=333
    )
    score_range = (0.0, 2.0)
    undecided = 1.0  # the most anomalous pixels are as likely normal as anomalous, in both maps
    positions = "bicubic_antialias"
    set_levels = ("min-max",)
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: VCPCLIPConfig

    def __init__(self, clip: CLIPBackbone, config: VCPCLIPConfig | None = None) -> None:
        super().__init__(clip, config or VCPCLIPConfig())
        vision, text = self.clip.config.vision, self.clip.config.text
        W, C = vision.width, text.width
        if self.clip.config.embed_dim != C:
            raise ValueError(
                "VCP-CLIP puts a feature of the joint space among the words, so both must have the "
                f"same width; {clip.name} has a joint space of {self.clip.config.embed_dim} "
                f"and a text tower of {C}. Choose another backbone, such as ViT-L-14-336/openai"
            )
        if W % self.config.heads:
            heads = self.config.heads
            raise ValueError(f"heads={heads} does not divide the image tower's width {W}")
        self.taps = self.chosen_taps()
        prompts = (self.config.normal_prompt, self.config.anomalous_prompt)
        self.sentences = [self._around(prompt) for prompt in prompts]

        draws = torch.Generator().manual_seed(self.config.seed)
        self.trainable_linearlayer = Projections(len(self.taps), W, C, draws)
        self.pre_vcp = PreVCP(self.config.word_length, C, draws)
        self.post_vcp = PostVCP(C, W, self.config.heads, draws)
        n = self.config.deep_length
        self.prompt_embeddings = _uniform((1, n, C), draws)
        self.deep_prompt_embeddings = _uniform((text.layers - 1, n, C), draws)
        self.prompt_proj = linear(C, C, draws)
        nn.init.kaiming_normal_(self.prompt_proj.weight, mode="fan_out", generator=draws)
        self.prompt_norm = nn.LayerNorm(C, eps=1e-6)

    def _around(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Token ids before and behind the pseudo-word, with start and end of text."""
        context = self.clip.config.text.context_length
        before, behind = tokenize(prompt.split("{}"), context)
        before, behind = before[: TextTower.ends(before)], behind[1 : TextTower.ends(behind) + 1]
        length = len(before) + len(behind) + self.config.word_length + self.config.deep_length
        if length > context:
            raise ValueError(
                f"{prompt!r} with its learned tokens has {length} tokens, but the text tower reads "
                f"{context}; choose a shorter prompt, word_length or deep_length"
            )
        return before, behind

    def set_level(self, name: str, knowledge: Knowledge) -> SetLevel | None:
        """``min-max``: scores and maps on [0, 1] over a class, as in the official test."""
        return _MinMax() if name in self.set_levels else super().set_level(name, knowledge)

    # --- in the order of the paper ------------------------------------------------------------

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Texts of each image and their comparison with its patches."""
        both = self.logits(encoded.patches, self.texts(encoded.image))
        pre, post = (self.map(z, encoded.grid) for z in both)
        mixed = (1 - self.config.mix) * pre + self.config.mix * post
        return Prediction(
            score=self._highest(pre) + self._highest(post),
            map=gaussian_smooth(mixed, self.config.sigma),
        )

    def texts(self, g: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Texts of images with global features ``g (B, C)``: ``(B, 2, C)``, unit length.

        Normal, anomalous. The generator draws the dropout of the deep tokens; None for no dropout.
        """
        text, n = self.clip.text, self.config.deep_length
        x, ends = self._sentences(self.pre_vcp(g))
        B, two, length, _ = x.shape
        x = (x + text.positional_embedding[:length]).flatten(0, 1)  # deep tokens get no position

        def deep(tokens: Tensor) -> Tensor:
            return self._dropped(self.prompt_proj(tokens), len(x), generator)

        edits: dict[int, list[Edit | Remove]] = {1: [Insert(deep(self.prompt_embeddings[0]), at=1)]}
        for block, tokens in enumerate(self.deep_prompt_embeddings, start=2):
            edits[block] = [Overwrite(deep(tokens), at=1)]
        edits[text.transformer.layers + 1] = [Remove(at=1, count=n)]
        x = text.transformer(x, causal=True, edits=edits).tokens
        x = self.prompt_norm(x.float()).to(x.dtype)
        t = text.pool(x, ends.repeat(B)).float()
        return F.normalize(t, dim=-1).unflatten(0, (B, two))

    def _sentences(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Both sentences around pseudo-words ``(B, r, C)``: ``(B, 2, L, C)``, and ends ``(2,)``.

        They are cut after the end of text, behind which nothing matters under the causal mask.
        """
        table, rows = self.clip.text.token_embedding, []
        for ids in self.sentences:
            before, behind = (table(part.to(words.device)) for part in ids)
            parts = [part.expand(len(words), -1, -1) for part in (before, behind)]
            rows.append(torch.cat([parts[0], words.to(before.dtype), parts[1]], dim=1))
        lengths = [row.shape[1] for row in rows]
        padded = [F.pad(row, (0, 0, 0, max(lengths) - row.shape[1])) for row in rows]
        return torch.stack(padded, dim=1), torch.tensor(lengths, device=words.device) - 1

    def _dropped(self, tokens: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
        """Dropout of deep tokens ``(n, C)``, drawn for each of ``count`` sequences."""
        p = self.config.dropout
        if generator is None or not p:
            return tokens
        kept = torch.rand(count, *tokens.shape, generator=generator) >= p
        return tokens * kept.to(tokens.device) / (1 - p)

    def logits(self, patches: Sequence[Tensor], t: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Per layer ``(B, N, 2)``: mapped patches against the texts, plain ones after Post-VCP."""
        d = [F.normalize(d_l, dim=-1) for d_l in self.trainable_linearlayer(patches)]
        z = [self.pre_vcp.prompt_temp.exp() * inner_products(d_l, t) for d_l in d]
        e = [F.normalize(e_l, dim=-1) for e_l in patches]
        scale = self.post_vcp.prompt_temp_l1.exp()
        return z, [scale * inner_products(e_l, self.post_vcp(t, e_l)) for e_l in e]

    def map(self, z: Sequence[Tensor], grid: Grid) -> Tensor:
        """Mean over layers of the anomaly probability per pixel, ``(B, H, W)``."""
        return torch.stack([self._upsampled(z_l, grid).sigmoid() for z_l in z]).mean(dim=0)

    @staticmethod
    def _upsampled(z: Tensor, grid: Grid) -> Tensor:
        """Anomalous minus normal logit per pixel: ``(B, N, 2) -> (B, H, W)``."""
        return grid.map(z[..., 1] - z[..., 0], align_corners=True)

    def _highest(self, map: Tensor) -> Tensor:
        """Mean of the highest pixels of each map, ``(B,)``."""
        pixels = map.flatten(1)
        count = self.config.top_pixels or max(1, round(2000 / 518**2 * pixels.shape[1]))
        return pixels.topk(min(count, pixels.shape[1])).values.mean(dim=1)

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal and Dice loss of each layer's map before and after Post-VCP, summed over layers.

        Deep tokens are dropped in training mode only (``self.training``).
        """
        features = self.encode(batch.images)
        t = self.texts(features.image, batch.generator if self.training else None)
        losses: dict[str, Tensor] = {}
        for stage, z in zip(("pre", "post"), self.logits(features.patches, t), strict=True):
            p = [two_class(self._upsampled(z_l, features.grid)) for z_l in z]  # (B, 2, H, W)
            focal, dice, _ = map_losses(p, batch.masks)
            losses |= {f"{stage}_focal": focal, f"{stage}_dice": dice}
        return losses

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """The two temperatures learn at 0.01, everything else at the recipe's rate."""
        temperatures = [self.pre_vcp.prompt_temp, self.post_vcp.prompt_temp_l1]
        others = [p for p in self.learned.values() if not any(p is t for t in temperatures)]
        return [{"params": others}, {"params": temperatures, "lr": 0.01}]

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Lengths of the pseudo-word and the deep tokens, which the file's shapes tell."""
        query = _entry(published, "New_Lan_Embed", "prompt_query")
        deep = _entry(published, "prompt_embeddings")
        shapes = {"word_length": query, "deep_length": deep}
        return {k: int(v.shape[1]) for k, v in shapes.items() if getattr(v, "ndim", 0) == 3}

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Learned values of an official checkpoint: three dictionaries and seven tensors."""
        checked = Checked(published, "VCP-CLIP checkpoint")
        parts = {part: checked.inside(theirs) for part, theirs in _OFFICIAL_PARTS.items()}
        state = {}
        for name, parameter in self.learned.items():
            part, _, leaf = name.partition(".")
            source, key = (parts[part], leaf) if part in parts else (checked, name)
            for ours, theirs in _OFFICIAL_LEAVES.items():
                key = key.replace(ours, theirs)
            # their linear layers over patches are convolutions of kernel 1
            pointwise = part == "post_vcp" and parameter.dim() == 2
            shape = (*parameter.shape, 1) if pointwise else tuple(parameter.shape)
            state[name] = source.take(key, shape).reshape(parameter.shape)
        checked.ignore("prompt_text_projection")  # the published code never uses it
        checked.done()
        return state


_OFFICIAL_PARTS = {
    "trainable_linearlayer": "trainable_linearlayer",
    "pre_vcp": "New_Lan_Embed",
    "post_vcp": "Zero_try",
}
_OFFICIAL_LEAVES = {"head.": "fc.", "prompt_linear1.": "prompt_linear1.fc."}


def _entry(published: Mapping[str, Any], *keys: str) -> Any:
    """Value under nested keys, or None."""
    value: Any = published
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-1, 1, generator=generator))


class _MinMax:
    """Scores and maps on [0, 1] between the lowest and the highest of all images."""

    def __init__(self) -> None:
        self.scores, self.pixels = MinMax(), MinMax()

    def see(self, prediction: Prediction) -> None:
        assert prediction.map is not None
        self.scores.see(prediction.score)
        self.pixels.see(prediction.map)

    def apply(self, prediction: Prediction) -> Prediction:
        assert prediction.map is not None
        score, map = self.scores.scaled(prediction.score), self.pixels.scaled(prediction.map)
        return Prediction(score, map)
