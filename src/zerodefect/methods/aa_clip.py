"""AA-CLIP, anomaly-aware CLIP (CVPR 2025, arXiv 2503.06661).

Two stages. First small residual adapters in the text tower move the sentences about a good and a
damaged product apart; then, with those fixed, residual adapters in the shallow blocks of the image
tower and one projection per tap bring the patches to them.

Symbols: x the tokens after block i and W_i its adapter, T the anchors [normal, abnormal] of a
product, z_l the patches of tap l after ln_post, f_l the projected ones, g the image, c_l logits,
u_l maps, M their sum, s the image's score; of the first stage v the class token, p patches. K is
the number of taps, N of patches, W the image tower's width, D the joint dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerodefect.backbones.clip import TextTower, tokenize
from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.transformer import Apply, Edits, OtherAttention, attend, same_depth
from zerodefect.detector.clip_detector import Activation, CLIPDetector, Features
from zerodefect.detector.composed import SetLevel
from zerodefect.detector.configs import Count, Taps, hyper_parameters
from zerodefect.detector.facts import MethodInfo, published_table
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.official_files import Checked
from zerodefect.detector.recipes import Learner, Recipe, Stage
from zerodefect.detector.registry import register
from zerodefect.layers.grid import Grid
from zerodefect.layers.losses import map_terms
from zerodefect.layers.scaling import MinMax
from zerodefect.layers.similarity import inner_products, two_class
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.ensemble import PromptEnsemble
from zerodefect.prompts.public_classes import described
from zerodefect.types import Prediction, TrainingBatch

_LOG = "the log in the authors' repository, trained on VisA"
_PIXEL = ("pixel AUROC", "pixel AP")
_FIGURES = (
    *published_table(
        _LOG, "0-shot", (*_PIXEL, "image AUROC", "image AP"),
        {
            "MVTec AD": (91.88, 45.27, 90.47, 95.39),
            "BTAD": (97.01, 52.8, 94.32, 96.74),
            "MPDD": (96.62, 26.81, 77.46, 80.58),
            "BMAD brain": (95.72, 44.91, 79.26, 94.41),
            "BMAD liver": (97.92, 12.87, 68.78, 57.72),
            "BMAD retina": (95.31, 56.84, 81.82, 81.8),
        },
    ),
    *published_table(
        _LOG, "0-shot", _PIXEL,
        {
            "CVC-ClinicDB": (89.55, 52.63),
            "CVC-ColonDB": (83.59, 33.21),
            "Kvasir": (87.14, 55.77),
            "CVC-300": (96.84, 53.73),
        },
    ),
)  # fmt: skip

_PROMPTS = PromptEnsemble(
    normal=("{}", "a {}", "the {}"),
    anomalous=(
        "a damaged {}",
        "a broken {}",
        "a {} with flaw",
        "a {} with defect",
        "a {} with damage",
    ),
    templates=("{}.", "a photo of {}."),
)
_MIX = 0.1  # share of an adapter's output
_SCALE = 100.0  # of cosines
_BESIDE = 0.07  # temperature of the map's probabilities that are joined with references; ours
_APART = 0.1  # weight of the squared cosine between the two anchors
_BLURS = {"industrial": (1.0, 3), "medical": (1.5, 4)}  # deviation and reach, in patches
_BETAS = (0.5, 0.999)


@hyper_parameters
class AACLIPConfig:
    """Hyper-parameters; the defaults are the published code's.

    Attributes:
        taps: image-tower blocks (from 1) whose patches are read; None for quarters of the depth.
        text_depth: text blocks with an adapter, from the first; None for 3 of 12.
        image_depth: image blocks with an adapter, from the first; None for 6 of 24.
        relu: whether the projections end in a leaky ReLU.
        domain: ``industrial`` or ``medical`` pictures: how far maps are blurred, and whether the
            score has the image's own part (industrial) or is the map's highest value alone.
        phrases: say of the classes of public data sets what the published code says of them
            ("metal nut which has four notched edges"); False: their names, as of all others.
        across: in the first stage the patches attend over the images of the batch, place by place,
            as in the published code; False: over the patches of their own image.
        activation: see ``Activation``; the published code runs ``gelu``.
        seed: of the initial values.
    """

    taps: Taps | None = None
    text_depth: Count | None = None
    image_depth: Count | None = None
    relu: bool = False
    domain: Literal["industrial", "medical"] = "industrial"
    phrases: bool = True
    across: bool = True
    activation: Activation = "gelu"
    seed: int = 111


class _Layer(nn.Module):
    """A linear layer without bias, and a leaky ReLU if asked for."""

    def __init__(self, inputs: int, outputs: int, draws: torch.Generator, *, relu: bool) -> None:
        super().__init__()
        fc = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
        nn.init.xavier_uniform_(fc.weight, generator=draws)
        self.fc: nn.Module = nn.Sequential(fc, nn.LeakyReLU()) if relu else fc

    def forward(self, x: Tensor) -> Tensor:
        """``(..., inputs) -> (..., outputs)``."""
        return self.fc(x.float())


class ImageAdapter(nn.Module):
    """What the second stage learns, by the names of the authors' file."""

    def __init__(
        self, layer_adapters: Sequence[_Layer], seg_proj: Sequence[_Layer], det_proj: _Layer
    ) -> None:
        super().__init__()
        self.layer_adapters = nn.ModuleList(layer_adapters)
        self.seg_proj = nn.ModuleList(seg_proj)
        self.det_proj = det_proj


def mixed(layer: nn.Module, x: Tensor) -> Tensor:
    """``w |x| a / |a| + (1 - w) x`` with ``a = layer(x)``, w = 0.1: the length of a is x's."""
    a = layer(x)
    length = x.float().norm(dim=-1, keepdim=True) / a.norm(dim=-1, keepdim=True)
    return _MIX * length * a + (1 - _MIX) * x


def across_images(q: Tensor, k: Tensor, v: Tensor, h: Tensor) -> Tensor:
    """Values attend to those at the same place in the other images: ``(B, heads, L, d)``."""
    places = v.transpose(0, 2)  # (L, heads, B, d)
    return attend(places, places, places).transpose(0, 2)


@register(
    MethodInfo(
        name="aa_clip",
        title="AA-CLIP",
        school="adapter",
        knows_from=("training", "words", "references"),
        optional=("references",),
        paper="CVPR 2025, arXiv 2503.06661",
        code_licence="Apache-2.0",
        parity="official code at 53db195f: forward, both blurs, scores over a split, losses and "
        "gradients of both stages",
        figures=_FIGURES,
    )
)
class AACLIP(CLIPDetector):
    """Adapters in both towers. The map is the sum of K values ``50 (cos_a - cos_n) + 1/2``.

    The score is the mean of the map's highest value, divided by 100 K, and of
    ``s = (cos_a + 1) / 2`` of the whole image; with ``domain="medical"`` the former alone. The
    published code instead scales both over all test pictures of a class, which one picture does not
    have: ``set_level`` does so. References are an addition of ours.
    """

    Config = AACLIPConfig
    recipe = Recipe(5, 16, 1e-5, betas=_BETAS, augment="aa", seed=111)
    image_recipe = Recipe(
        20, 2, 5e-4, betas=_BETAS, schedule="halves", augment="aa_colours", seed=111
    )
    positions = "bicubic_antialias"
    monotone_memory = True  # the distance to the nearest of more references never grows
    set_levels = ("class min-max",)
    score_range = (0.5 / _SCALE - 1, 0.5 / _SCALE + 1)
    config: AACLIPConfig

    def __init__(self, clip: CLIPBackbone, config: AACLIPConfig | None = None) -> None:
        super().__init__(clip, config or AACLIPConfig())
        self.taps = self.chosen_taps()
        vision, text = self.clip.config.vision, self.clip.config.text
        W, V, D, relu = vision.width, text.width, self.clip.config.embed_dim, self.config.relu
        deep = _depth(self.config.text_depth, 3, 12, text.layers, "text_depth")
        image_deep = _depth(self.config.image_depth, 6, 24, vision.layers, "image_depth")
        draws = torch.Generator().manual_seed(self.config.seed)
        self.text_adapter = nn.ModuleList(
            [_Layer(V, V, draws, relu=True) for _ in range(deep)] + [_Layer(V, D, draws, relu=True)]
        )
        self.image_adapter = ImageAdapter(
            [_Layer(W, W, draws, relu=True) for _ in range(image_deep)],
            [_Layer(W, D, draws, relu=relu) for _ in self.taps],
            _Layer(W, D, draws, relu=relu),
        )
        self._anchors: dict[str, Tensor] = {}  # of the second stage

    def words(self, product: Product) -> dict[str, Tensor]:
        """T ``(2, D)``."""
        return {"texts": self.anchors([product.name])[0]}

    def after_learning(self) -> None:
        """Drop the anchors of the former values."""
        self._anchors.clear()

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """K times 50 differences of two cosines, and a half."""
        K = len(self.taps)
        return (0.5 - _SCALE) * K, (0.5 + _SCALE) * K

    def map_share(self, map: Tensor, knowledge: Knowledge) -> Tensor:
        """Probability of the abnormal anchor, by the taps' mean difference of cosines."""
        return ((2 * map / len(self.taps) - 1) / (_SCALE * _BESIDE)).sigmoid()

    def set_level(self, name: str, knowledge: Knowledge) -> SetLevel | None:
        """``class min-max``: map and score as the official test has them; none with references."""
        if name not in self.set_levels:
            return super().set_level(name, knowledge)
        if knowledge.shots:
            return None
        return _ClassMinMax(len(self.taps), industrial=self.config.domain == "industrial")

    # --- texts --------------------------------------------------------------------------------

    def sentences(self, name: str) -> list[str]:
        """Six of a good product, then ten of a damaged one."""
        name = described(name) if self.config.phrases else name
        return [*_PROMPTS.normal_prompts(name), *_PROMPTS.anomalous_prompts(name)]

    def sentence_features(self, names: Sequence[str]) -> Tensor:
        """Adapted features of the products' sentences, ``(len(names), 16, D)``, not normalised."""
        text, texts = self.clip.text, [s for name in names for s in self.sentences(name)]
        ids = tokenize(texts, self.clip.config.text.context_length).to(self.device)
        ends = TextTower.ends(ids)
        edits = _after_blocks(self.text_adapter[:-1])
        x = text.encode(text.embed(ids), ends, edits=edits, projection=False)
        return self.text_adapter[-1](x).unflatten(0, (len(names), -1))

    def anchors(self, names: Sequence[str]) -> Tensor:
        """T of each product: unit mean directions, ``(len(names), 2, D)``."""
        unit = F.normalize(self.sentence_features(names), dim=-1)
        normal = len(_PROMPTS.normal) * len(_PROMPTS.templates)
        means = [unit[:, :normal].mean(dim=1), unit[:, normal:].mean(dim=1)]
        return F.normalize(torch.stack(means, dim=1), dim=-1)

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """z_l of every tap, ``(B, N, W)``."""
        states = self.run(
            images, taps=self.taps, edits=_after_blocks(self.image_adapter.layer_adapters)
        )
        taps = {tap: states.taps[tap] for tap in self.taps}
        for tap, adapter in enumerate(self.image_adapter.layer_adapters, start=1):
            if tap in taps:  # taps are read before edits
                taps[tap] = mixed(adapter, taps[tap]).to(taps[tap].dtype)
        visual = self.clip.visual
        return Features(
            grid=self.grid(images),
            image=visual.project(states.tokens[:, 0]).float(),
            patches=tuple(
                visual.project(x[:, 1:], projection=False).float() for x in taps.values()
            ),
        )

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Patches and image against the anchors."""
        T = knowledge["texts"]
        u = self.maps([self.logits(f, T) for f in self.patches(encoded)], encoded.grid)
        M = encoded.grid.upsample(u.sum(dim=1), align_corners=True)
        score = M.amax(dim=(1, 2)) / (_SCALE * len(self.taps))
        if self.config.domain == "industrial":
            s = (inner_products(self.image(encoded), T)[:, 1] + 1) / 2
            score = (score + s) / 2
        return Prediction(score, M)

    def patches(self, features: Features) -> list[Tensor]:
        """f_l: unit length, ``(B, N, D)`` per tap."""
        pairs = zip(self.image_adapter.seg_proj, features.patches, strict=True)
        return [F.normalize(layer(z).float(), dim=-1) for layer, z in pairs]

    def image(self, features: Features) -> Tensor:
        """g: mean of unit vectors, ``(B, D)``, not normalised again."""
        return F.normalize(self.image_adapter.det_proj(features.patches[-1]).float(), dim=-1).mean(
            dim=1
        )

    @staticmethod
    def logits(f: Tensor, T: Tensor) -> Tensor:
        """c_l: ``(B, N, D), (2, D)`` or ``(B, 2, D) -> (B, N, 2)``."""
        return _SCALE * inner_products(f, T)

    def maps(self, c: Sequence[Tensor], grid: Grid) -> Tensor:
        """u_l: blurred at the resolution of patches, ``(B, K, h, w)``."""
        u = grid.fold(torch.stack([(c_l[..., 1] + 1 - c_l[..., 0]) / 2 for c_l in c], dim=1))
        sigma, reach = _BLURS[self.config.domain]
        return gaussian_smooth(u, sigma, edge_twice=False, radius=reach)

    # --- training -----------------------------------------------------------------------------

    def stages(self) -> Sequence[Stage]:
        """Text adapters, then image adapters against the anchors that these gave."""

        def stage(name: str, recipe: Recipe, loss: Callable[..., Any], part: nn.Module) -> Stage:
            learner = Learner(loss, [{"params": list(part.parameters())}])
            return Stage(recipe, (learner,), name)

        return (
            stage("texts", self.recipe, self.text_loss, self.text_adapter),
            stage("images", self.image_recipe, self.image_loss, self.image_adapter),
        )

    def text_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Losses of the last tap's map, and the squared cosine of the two anchors."""
        self._anchors.clear()  # they change with every step of this stage
        T = self.texts_of(batch.objects)  # (B, 2, D)
        v, p = self.frozen_features(batch.images, self.taps[-1:])
        Y = self.probabilities(self.logits(p[0] + v[:, None], T), self.grid(batch.images))
        cosine = (T[:, 0] * T[:, 1]).sum(dim=-1).mean()
        return {**map_terms([Y], batch.masks), "apart": _APART * cosine**2}

    @torch.no_grad()
    def frozen_features(self, images: Tensor, taps: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """v ``(B, D)`` of CLIP as it is, p ``(B, N, D)`` per tap of one that attends otherwise."""
        visual = self.clip.visual
        start = same_depth(6, 24, visual.config.layers)
        other = OtherAttention(across_images if self.config.across else "vv", start)
        plain = self.run(images, class_only=True).tokens[:, 0]
        states = self.run(images, taps=taps, other=other)
        patches = [visual.project(states.taps[tap][:, 1:]).float() for tap in taps]
        v = F.normalize(visual.project(plain).float(), dim=-1)
        return v, [F.normalize(p, dim=-1) for p in patches]

    def image_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Losses of every tap's map, cross-entropy of the image without a temperature."""
        T = torch.stack([self._frozen_anchors(name) for name in batch.objects])
        encoded = self.encode(batch.images)
        maps = [self.probabilities(self.logits(f, T), encoded.grid) for f in self.patches(encoded)]
        logits = inner_products(self.image(encoded)[:, None], T)[:, 0]
        image = F.cross_entropy(logits, batch.labels)
        return {"image": image, **map_terms(maps, batch.masks)}

    @torch.no_grad()
    def _frozen_anchors(self, name: str) -> Tensor:
        if name not in self._anchors:
            self._anchors[name] = self.anchors([name])[0]
        return self._anchors[name]

    @staticmethod
    def probabilities(c: Tensor, grid: Grid) -> Tensor:
        """Y: probabilities of normal and abnormal per pixel, ``(B, N, 2) -> (B, 2, H, W)``."""
        return two_class(grid.map(c[..., 1] - c[..., 0], align_corners=True))

    # --- official checkpoints -------------------------------------------------------------------

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Depths of the adapters, and whether the projections end in a leaky ReLU."""
        text, image = (published.get(f"{part}_adapter") for part in ("text", "image"))
        told: dict[str, Any] = {}
        if isinstance(text, Mapping) and len(text) > 1:
            told["text_depth"] = len(text) - 1
        if isinstance(image, Mapping):
            if depth := sum(str(name).startswith("layer_adapters.") for name in image):
                told["image_depth"] = depth
            told["relu"] = "det_proj.fc.0.weight" in image
        return told

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Learned values of the two files together, each a dictionary by our names."""
        checked = Checked(published, "AA-CLIP checkpoint, text_adapter and image_adapter together")
        state: dict[str, Tensor] = {}
        for part in ("text_adapter", "image_adapter"):
            layers, own = checked.inside(part), f"{part}."
            shapes = {n.removeprefix(own): p.shape for n, p in self.learned.items() if own in n}
            state |= {own + name: layers.take(name, shape) for name, shape in shapes.items()}
        checked.ignore("epoch")
        checked.ignore("*_optimizer")
        checked.done()
        return state


def _depth(given: int | None, block: int, of: int, layers: int, option: str) -> int:
    """Adapted blocks of a tower, by default as deep as the paper's."""
    depth = same_depth(block, of, layers) if given is None else given
    if depth > layers:
        raise ValueError(f"{option} {depth}: that tower has 1..{layers} blocks")
    return depth


def _after_blocks(adapters: Sequence[nn.Module] | nn.ModuleList) -> Edits:
    """Each adapter mixed in after its block, the first after block 1."""

    def edit(adapter: nn.Module) -> Apply:
        return Apply(lambda x: mixed(adapter, x))

    return {after + 1: [edit(each)] for after, each in enumerate(adapters, start=1)}


class _ClassMinMax:
    """Map and image part, each scaled to [0, 1] over all images unless its highest is 1 already."""

    def __init__(self, taps: int, *, industrial: bool) -> None:
        self.taps, self.industrial = taps, industrial
        self.pixels, self.images = MinMax(), MinMax()

    def see(self, prediction: Prediction) -> None:
        assert prediction.map is not None
        self.pixels.see(prediction.map)
        self.images.see(self._image(prediction))

    def apply(self, prediction: Prediction) -> Prediction:
        assert prediction.map is not None
        M = self._scaled(self.pixels, prediction.map)
        score = M.amax(dim=(1, 2))
        if self.industrial:
            score = (score + self._scaled(self.images, self._image(prediction))) / 2
        return replace(prediction, score=score, map=M)

    def _image(self, prediction: Prediction) -> Tensor:
        """s, out of the score."""
        assert prediction.map is not None
        return 2 * prediction.score - prediction.map.amax(dim=(1, 2)) / (_SCALE * self.taps)

    @staticmethod
    def _scaled(seen: MinMax, values: Tensor) -> Tensor:
        return values if seen.high == 1 else seen.scaled(values)
