"""AnoVL, also called AnoCLIP (Deng et al. 2023, arXiv 2308.15939).

Nothing is trained. Patch tokens come from a second stream of value-value attention beside every
block and are compared with texts that name the domain of the picture; the image score is a mean
over 22 views. Test-time adaptation: a small adapter is started anew for every picture and
optimised for a few steps on that picture alone.

Symbols: F the two texts, X the patch tokens, B the bank of all prompts, L the number of patches,
D the joint dimension, M the number of prompts, V the number of views, T that of defect kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import Backbone
from zerodefect.backbones.transformer import SecondStream
from zerodefect.detector.contract import Detector
from zerodefect.detector.registry import MethodInfo, register
from zerodefect.layers.adapters import linear
from zerodefect.layers.neighbourhood import neighbourhood_mean
from zerodefect.layers.similarity import anomaly_probability, text_probabilities, to_grid, upsample
from zerodefect.layers.views import anovl_views
from zerodefect.prompts.ensemble import PromptEnsemble, domain_templates
from zerodefect.prompts.features import TextFeatures
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import Prediction

NORMAL_STATES = (
    "normal {}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ANOMALOUS_STATES = (
    "damaged {}",
    "abnormal {}",
    "imperfect {}",
    "blemished {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
)
TEXTURES = ("carpet", "leather", "grid", "tile", "wood")
TEXTURE_DOMAINS = ("industrial photo", "textural photo", "surface picture")
OBJECT_DOMAINS = ("industrial photo", "industrial image", "manufacturing image")
NAMES = {"macaroni1": "macaroni", "macaroni2": "macaroni"}  # of VisA, as the texts say them


@dataclass(frozen=True)
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
    steps: int = 5
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    noise: float = 0.055
    residual: float = 0.5
    seed: int = 0
    textures: tuple[str, ...] = TEXTURES
    kind_temperature: float = 0.07

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"adaptation takes at least 1 step, got {self.steps}; or adapt=False")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if min(self.noise, self.weight_decay) < 0:
            raise ValueError(
                f"noise and weight_decay must not be negative, got {self.noise} and "
                f"{self.weight_decay}"
            )
        if not 0 <= self.residual <= 1:
            raise ValueError(f"residual is a share in [0, 1], got {self.residual}")
        if not self.kind_temperature > 0:
            raise ValueError(f"kind_temperature must be positive, got {self.kind_temperature}")


class Adapter(nn.Module):
    """``(1 - r) x + r tanh(W x/|x| + b) B``: a token moves towards the prompts it resembles.

    Args:
        bank: B, ``(M, D)``, rows of unit length.
        residual: r.
        generator: source of the initial values, torch's default ones of a linear layer.
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
    """Optimise the adapter on the tokens of one picture.

    Each step: the picture's tokens are to look normal and its noisy tokens anomalous, and what the
    adapted tokens say is to be certain.

    Args:
        adapter: changed in place; the last gradients stay on it.
        X: ``(L, D)``.
        texts: ``(2, D)``.
        noise: one ``(L, D)`` per step.
        config: learning rate and weight decay.

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
class Features:
    """Image-side features of one batch, float32, not normalised.

    Attributes:
        views: ``(B, V, D)`` class tokens; V is 1 without views.
        patches: ``(B, L, D)`` X.
        grid: rows and columns of patches.
        size: height and width of the network input, which the map is brought to.
    """

    views: Tensor
    patches: Tensor
    grid: tuple[int, int]
    size: tuple[int, int]


@register(
    MethodInfo(
        name="anovl",
        title="AnoVL / AnoCLIP",
        school="prompt",
        knows_from=("words",),
        paper="Deng et al. 2023, arXiv 2308.15939",
        code_licence="MIT",
        parity="the authors' MVTec program, with and without test-time adaptation",
    )
)
class AnoVL(Detector):
    """Value-value attention, domain-aware texts and test-time adaptation.

    Scores and maps are probabilities without temperature: they stay near 0.5, the undecided point,
    and only their order matters.
    """

    Config = AnoVLConfig
    config: AnoVLConfig
    texts: Tensor
    bank: Tensor
    kind_texts: Tensor

    def __init__(self, backbone: Backbone, config: AnoVLConfig | None = None) -> None:
        super().__init__(backbone, config or AnoVLConfig())
        self.preprocess = replace(
            backbone.preprocess, interpolation="bilinear", antialias=True, resize_on="pil"
        )
        self.clip = backbone.clip
        self.text_features = TextFeatures(
            backbone.clip, backbone.fingerprint, reload=backbone.reload
        )
        dimension = backbone.clip.config.embed_dim
        self.register_buffer("texts", torch.empty(0, dimension))  # F, (2, D) once described
        self.register_buffer("bank", torch.empty(0, dimension))  # B, (M, D): normal ones first
        self.register_buffer("kind_texts", torch.empty(0, dimension))  # (T, D)

    # --- words --------------------------------------------------------------------------------

    def describe(self, object_name: str, vocabulary: Vocabulary | None = None) -> None:
        """Prepare the texts: one mean feature per state, the bank, and one feature per kind.

        Raises:
            ValueError: an empty name, or a prompt longer than the text tower reads.
        """
        prompts = self.prompts(object_name)
        name = NAMES.get(object_name, object_name)
        kinds = vocabulary.kinds if vocabulary else ()
        normal = _template_by_template(prompts, prompts.normal, name)
        anomalous = _template_by_template(prompts, prompts.anomalous, name)
        first = replace(prompts, templates=prompts.templates[:22])  # one domain is enough here
        kind_prompts = [first.fill(phrases, name) for _, phrases in kinds]
        bank = self.text_features.rows(normal + anomalous)  # (M, D), not normalised
        kind_texts = self.text_features.means(kind_prompts) if kinds else self.texts[:0]
        # only now, when nothing can be refused any more: words and texts never disagree
        self.texts = F.normalize(bank.unflatten(0, (2, -1)).mean(1), dim=-1)
        self.bank = F.normalize(bank, dim=-1)
        self.kind_texts = kind_texts
        self.object_name, self.vocabulary = object_name, vocabulary

    def prompts(self, object_name: str) -> PromptEnsemble:
        """States and templates for a product: textures have domains of their own."""
        domains = TEXTURE_DOMAINS if object_name in self.config.textures else OBJECT_DOMAINS
        templates = tuple(t for domain in domains for t in domain_templates(domain))
        return PromptEnsemble(NORMAL_STATES, ANOMALOUS_STATES, templates)

    # --- scale --------------------------------------------------------------------------------

    @property
    def neutral_score(self) -> float:
        """Both texts equally likely."""
        return 0.5

    @property
    def map_range(self) -> tuple[float, float]:
        """Softmax of two cosines without temperature: logistic function of [-2, 2]."""
        low, high = torch.tensor([-2.0, 2.0], dtype=torch.float64).sigmoid().tolist()
        return low, high

    # --- forward pass -------------------------------------------------------------------------

    @torch.no_grad()
    def forward(self, images: Tensor) -> Prediction:
        """Score ``(B, 3, H, W)``.

        Raises:
            RuntimeError: ``describe`` was not called.
        """
        return self.predict(self.encode(images))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Features:
        """Class tokens of the views, and patch tokens of the plain picture."""
        visual = self.clip.visual
        pixels = images.to(visual.proj.dtype)
        embedded = visual.embed(pixels, resize="bicubic_antialias")
        states = visual.encode(embedded, second=SecondStream("vv"), class_only=True)
        tokens = visual.project(states.class_and_second()).float()  # (B, 1+L, D)
        others = self._class_tokens(anovl_views(images.float())[1:]) if self.config.views else []
        return Features(
            views=torch.stack([tokens[:, 0], *others], dim=1),
            patches=tokens[:, 1:],
            grid=visual.grid(images),
            size=(images.shape[-2], images.shape[-1]),
        )

    def _class_tokens(self, views: Sequence[Tensor]) -> list[Tensor]:
        """``(B, D)`` of each view; the value stream never reaches the class token."""
        visual = self.clip.visual
        found: list[Tensor] = []
        for _, alike in groupby(views, key=lambda view: view.shape):  # two may lie on their side
            some = list(alike)
            parts = []
            for pixels in torch.cat(some).to(visual.proj.dtype).split(_VIEWS):
                embedded = visual.embed(pixels, resize="bicubic_antialias")
                tokens = visual.encode(embedded, class_only=True).tokens[:, 0]
                parts.append(visual.project(tokens).float())
            found += torch.cat(parts).chunk(len(some))
        return found

    @torch.no_grad()
    def predict(self, encoded: Features) -> Prediction:
        """Score what ``encode`` gave against the present words.

        Raises:
            RuntimeError: ``describe`` was not called.
        """
        if not len(self.texts):
            raise RuntimeError("AnoVL needs the product's name: call describe(name) first")
        score = anomaly_probability(encoded.views, self.texts, 1.0).mean(1)  # (B,)
        X = encoded.patches  # (B, L, D)
        if self.config.adapt:
            X = torch.stack([self.adapted(x) for x in X])
        p = to_grid(anomaly_probability(X, self.texts, 1.0), encoded.grid)  # (B, g, g)
        smooth = neighbourhood_mean(p[:, None], 3, "replicate")[:, 0]
        kinds, kind_map = self._kinds(encoded) if len(self.kind_texts) else (None, None)
        return Prediction(
            score=score,
            map=upsample(smooth, encoded.size, align_corners=True),
            type_score=kinds,
            type_map=kind_map,
        )

    def adapted(self, x: Tensor) -> Tensor:
        """Tokens ``(L, D)`` of one picture through an adapter optimised on them alone."""
        generator = torch.Generator().manual_seed(self.config.seed)
        with torch.inference_mode(False), torch.enable_grad():
            # copies, because what was made in inference mode cannot take part in a gradient
            x, texts, bank = (t.clone() for t in (x, self.texts.float(), self.bank.float()))
            adapter = Adapter(bank, self.config.residual, generator)
            noise = [
                (self.config.noise * torch.randn(x.shape, generator=generator)).to(x.device)
                for _ in range(self.config.steps)
            ]
            adapt(adapter, x, texts, noise, self.config)
            return adapter(x).detach()

    # --- defect kinds: ours, the paper knows one anomalous class ---------------------------------

    def _kinds(self, encoded: Features) -> tuple[Tensor, Tensor]:
        """Distributions over kinds ``(B, T)`` and ``(B, T, H, W)``, from the tokens as they came.

        A patch counts for the image as much as it is anomalous, here with a temperature.
        """
        X, tau = encoded.patches, self.config.kind_temperature
        share = text_probabilities(X, self.kind_texts, tau)  # (B, L, T)
        weight = anomaly_probability(X, self.texts, tau)[..., None]
        score = (share * weight).sum(1) / weight.sum(1)
        grid = to_grid(share.transpose(1, 2), encoded.grid)
        return score, upsample(grid, encoded.size, align_corners=True)


_VIEWS = 32  # pictures that enter the tower at once: bounds memory


def _template_by_template(prompts: PromptEnsemble, states: Sequence[str], name: str) -> list[str]:
    """All states in the first template, then all in the second, ...: the order of the bank."""
    filled, templates = prompts.fill(states, name), len(prompts.templates)
    return [prompt for number in range(templates) for prompt in filled[number::templates]]
