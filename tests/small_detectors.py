"""Every registered method on networks of random weights, and what it is tested with."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from dino import dino_file
from models import tiny_backbone
from small_assemblies import ShadeChat, ShadeGrounder, ShadeSegmenter
from small_networks import SMALL_RESNET, small_resnet

from zerodefect import methods
from zerodefect.backbones.backbone import Backbone, LayeredBackbone
from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.layered_features import load_features
from zerodefect.backbones.vision import VisionEncoder, load_vision
from zerodefect.detector.configs import configured
from zerodefect.detector.contract import Detector
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.recipes import Learner
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import Prediction, TrainingBatch

if TYPE_CHECKING:
    from zerodefect.types import Inputs

SIDE, PATCH = 64, 8  # of the small networks' inputs, in pixels
KINDS = Vocabulary.of(["rust", "burr", "dent"])


@dataclass(frozen=True, eq=False)
class Setting:
    """A method at certain options.

    Attributes:
        method: its name.
        options: that differ from the defaults.
        parts: gives further arguments of its constructor.
        name: what is particular to it; empty for the defaults.
    """

    method: str
    options: Mapping[str, Any]
    parts: Callable[[], tuple[Any, ...]] = tuple
    name: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, [self.method, self.name]))

    @property
    def kind(self) -> type[Detector]:
        return methods.get(self.method)

    def build(self, networks: list[Backbone] | None = None, **options: Any) -> Detector:
        """A new detector, in eval mode."""
        kind: Any = self.kind
        config = configured(kind.Config, {**self.options, **options}, self.method)
        chosen = small_networks(self.kind) if networks is None else networks
        return kind(*chosen, config, *self.parts()).eval()


def small_networks(
    kind: type[Detector], seed: int = 0, dtype: torch.dtype = torch.float32, **shape: int
) -> list[Backbone]:
    """What a method's facts ask for; ``shape`` changes the towers of a CLIP."""
    parts = {
        "clip": lambda: small_clip(seed, dtype, **shape),
        "features": lambda: small_cnn(seed, dtype),
        "vit": lambda: small_dino(seed, dtype),
        "segmenter": lambda: small_segmenter(dtype),
        "grounder": lambda: ShadeGrounder(dtype),
        "chat": lambda: ShadeChat(dtype, seed),
    }
    return [parts[each]() for each in kind.info.backbones.values()]


@cache
def small_clip(seed: int = 0, dtype: torch.dtype = torch.float32, **shape: int) -> CLIPBackbone:
    """A CLIP that nothing changes; detectors share it."""
    backbone = tiny_backbone(seed, **shape)
    backbone.clip.to(dtype)
    return backbone


@cache
def small_dino(seed: int = 0, dtype: torch.dtype = torch.float32) -> VisionEncoder:
    """A DINOv2 with registers that nothing changes."""
    shape = {"img_size": 56, "embed_dim": 32, "depth": 2, "num_heads": 2}
    with tempfile.TemporaryDirectory() as folder:
        file = dino_file(Path(folder), registers=4, seed=seed, **shape)
        return load_vision(weights=file, dtype=dtype, **shape)


@cache
def small_cnn(seed: int = 0, dtype: torch.dtype = torch.float32) -> LayeredBackbone:
    """A ResNet of one block a stage that nothing changes."""
    with tempfile.TemporaryDirectory() as folder:
        file = small_resnet(Path(folder), seed)
        return load_features("resnet18", weights=file, dtype=dtype, **SMALL_RESNET)


@cache
def small_segmenter(dtype: torch.dtype = torch.float32) -> ShadeSegmenter:
    """A segmenter that nothing changes."""
    return ShadeSegmenter(dtype)


# Options that take another way through a method.
FURTHER: dict[str, dict[str, dict[str, Any]]] = {
    "aa_clip": {
        "medical": {"domain": "medical", "relu": True, "image_depth": 2, "text_depth": 2},
        "own patches": {"across": False, "phrases": False, "taps": (1, 3)},
    },
    "adaclip": {
        "short": {"depth": 2, "length": 3, "clusters": 6},
        "unfused": {"fusion": 0.0, "dice": "image"},
    },
    "adaptclip": {
        "short": {"context_length": 6, "reduction": 2, "hidden": 40, "taps": (2, 3)},
        "differences": {"context": False, "attention": "plain", "depth": 2},
    },
    "af_clip": {
        "as written": {"overwritten_targets": False, "context_length": 3, "taps": (2,)},
        "two sides": {"sides": (1, 7), "spread": 1.0, "alpha": 0.5, "sigma": 0.0},
    },
    "anomalyclip": {
        "short": {"context_length": 6},
        "all taps": {"taps": (1, 2, 3), "stream_start": 2},
        "own patches": {"attention": "plain", "taps": (2, 3)},
    },
    "anomalydino": {
        "flat": {"masking": "flat", "threshold": 0.5, "mask_references": True},
        "grid": {"masking": "grid", "threshold": 0.5, "metric": "euclidean"},
    },
    "anomalydino_batch": {"filtered": {"consistency": True}},
    "anovl": {"plain": {"views": False, "adapt": False}},
    "april_gan": {"two taps": {"taps": (1, 3), "templates": ("a photo of a {}.", "the {}.")}},
    "arrangement": {
        "strict": {"share": 0.0, "reach": 1.0, "neighbourhood": 1, "layers": ("layer3",)},
    },
    "autoencoder": {
        "unet": {"network": "unet", "error": "l1", "sigma": 0.0},
        "ssim": {"error": "ssim", "border": "zeros", "width": 2},
    },
    "bt_points": {"small": {"radius": 2.5, "neighbours": 12, "patch": 1, "density": 0.0}},
    "clip_surgery": {
        "probability": {"read_out": "probability", "stream_start": 3},
        "own patches": {"attention": "plain", "templates": ("a photo of a {}.", "the {}.")},
    },
    "clipsam": {"two taps": {"taps": (1, 3), "least": 0.0, "points": 1, "hidden": 6}},
    "cops": {
        "own vectors": {"reconstruction": "own", "crossed": False, "upsampling": "bilinear"},
        "as on VisA": {"training_window": 3, "window": 3, "reconstruction": "none"},
    },
    "crane": {
        "short": {"context_length": 6},
        "distinct taps": {"distinct_taps": True, "training_upsampling": "bilinear"},
        "conditioned test": {"conditioned_test": True, "conditioning": "replace_prefix"},
        "own patches": {"attention": "plain", "distinct_taps": True},
        "unconditioned": {"conditioning": "none"},
    },
    "dense": {"two sizes": {"sizes": (1.0, 0.5), "smoothing": 0.7, "image_score": "mean"}},
    "csad": {
        "coarse": {"components": 3, "size": 24, "windows": (0.6,), "overlap": 0.5, "structure": 0},
    },
    "draem": {
        "own kinds": {"damage": "procedural", "damaged": 1.0, "reconstructive_width": 2},
        "both": {"damage": "both", "turned": 1.0, "discriminative_width": 2},
    },
    "filo": {
        "as the paper says": {"aliased": False, "taps": (1, 3), "details": ["rust"]},
        "later": {"stream_start": 3, "context_length": 4, "fixed_centre": True},
    },
    "filo_plus_plus": {
        "one size": {"kernels": [3], "adapted": False, "window": None, "taps": (2,)},
    },
    "ganomaly": {
        "anomalib": {"flavour": "anomalib", "padding": 4, "size": 64},
    },
    "glocalclip": {
        "short": {"context_length": 6, "abnormal_length": 5},
        "distinct taps": {"distinct_taps": True, "margin": 1.0},
    },
    "iad_r1": {"two shown": {"shown": 2, "max_tokens": 40}},
    "iad_clip": {"two taps": {"taps": (1, 3), "top": 0.5}, "residual": {"residual": True}},
    "leclip": {
        "whole picture": {"alignment": False},
        "small windows": {"window": 3, "stride": 2, "attention": "vv", "taps": (2,)},
    },
    "missingclip": {
        "residual": {"residual": True, "tokens": 2},
        "two taps": {"taps": (1, 3), "reconstructed": 1.0, "top": 0.5},
    },
    "logsad": {
        "words": {"components": ("nut", "washer"), "side": 16, "taps": (2,), "sigma": 2.0},
    },
    "mgfd_clip": {"own patches": {"attention": "plain", "taps": (3,), "context_length": 6}},
    "multiads": {
        "one kind": {"kinds": ["rust"], "taps": (1, 3), "templates": ("a photo of a {}.",)},
        "test pictures": {"adaptation": 0.0001, "templates": ("a photo of a {}.",)},
    },
    "musc": {
        "short": {"neighbourhoods": (3,), "nearest": (0.1, 0.6), "consistency": False},
        "bfloat16": {"search": "bfloat16", "layers": ("layer2",)},
    },
    "pa_clip": {"plain": {"attention": "plain", "consistency": False, "taps": (2, 3)}},
    "padim": {
        "paper": {"flavour": "paper", "channels": 9},
        "diagonal": {"covariance": "diagonal"},
    },
    "patchcore": {
        "anomalib": {"scoring": "anomalib"},
        "narrow": {"layers": ("layer3",), "width": 24},
    },
    "saa_plus": {
        "several": {"count": 3, "captions": ("hole.",), "most": 2, "nearest": 9},
        "plain": {"saliency": 0.0, "swap_colours": False, "area": 1.0, "object": "thing"},
    },
    "spade": {"two": {"neighbours": 2, "image_score": "distance", "whole": "layer3"}},
    "vcp_clip": {"long": {"word_length": 3, "deep_length": 2, "taps": (1, 3)}},
    "winclip": {"mean": {"image_score": "mean", "patch_norm": False, "scales": (2,)}},
}

# Of networks that are not pretrained ones: widths at which tests take no time.
SMALL: dict[str, dict[str, Any]] = {
    "clipsam": {"hidden": 8},
    "autoencoder": {"width": 4},
    "ganomaly": {"size": 32, "width": 4, "code": 6},
    "draem": {"reconstructive_width": 4, "discriminative_width": 4},
}
SETTINGS = [Setting(name, SMALL.get(name, {})) for name in methods.names()]
SETTINGS += [
    Setting(method, {**SMALL.get(method, {}), **options}, name=name)
    for method, more in FURTHER.items()
    for name, options in more.items()
]
SETTINGS.append(Setting("crane", {}, lambda: (small_dino(),), name="plus"))


# --- pictures and knowledge ----------------------------------------------------------------------


def images(count: int, *size: int, seed: int = 0) -> torch.Tensor:
    """Noise ``(count, 3, H, W)``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *(size or (SIDE, SIDE)), generator=generator)


def inputs(detector: Detector, count: int, *size: int, seed: int = 0) -> Inputs:
    """``images`` as the detector takes them; sizes are for a patch of 8 pixels."""
    height, width = size or (SIDE, SIDE)
    taken: dict[str, torch.Tensor] = {}
    for name, needed in detector.inputs.items():
        own = (side // PATCH * needed.multiple for side in (height, width))
        taken[name] = images(count, *own, seed=seed)
    return taken["image"] if taken.keys() == {"image"} else taken


def map_size(detector: Detector, *size: int) -> tuple[int, int]:
    """Of the maps of such ``inputs``: that of the first one."""
    height, width = size or (SIDE, SIDE)
    patch = next(iter(detector.inputs.values())).multiple
    return height // PATCH * patch, width // PATCH * patch


def times(given: Inputs, factor: float) -> Inputs:
    """Pictures of another contrast."""
    if isinstance(given, torch.Tensor):
        return factor * given
    return {name: factor * tensor for name, tensor in given.items()}


def rows(given: Inputs, some: Any) -> Inputs:
    """Some images of a batch."""
    if isinstance(given, torch.Tensor):
        return given[some]
    return {name: tensor[some] for name, tensor in given.items()}


def taught(
    detector: Detector,
    name: str = "screw",
    vocabulary: Vocabulary | None = None,
    references: int | None = None,
) -> Knowledge:
    """What the detector knows of a product, and of some references if it takes them.

    By default there are references only where the method needs them.
    """
    if references is None:
        references = 2 if "references" in detector.info.needs else 0
    known = detector.describe(detector.empty(), Product(name, vocabulary))
    return (
        remembered(detector, known, inputs(detector, references, seed=7)) if references else known
    )


def remembered(detector: Detector, knowledge: Knowledge, *batches: Inputs) -> Knowledge:
    """The knowledge with batches of references."""
    with torch.no_grad():
        encoded = [detector.encode(batch) for batch in batches]
    return detector.settle(detector.remember(knowledge, encoded))


def everything(detector: Detector) -> Knowledge:
    """Words, kinds and references, whatever the method can learn from."""
    takes = "references" in detector.info.knows_from
    return taught(detector, vocabulary=KINDS, references=2 if takes else 0)


def same(got: Prediction, expected: Prediction, atol: float = 0.0) -> None:
    """Fail unless both say the same; ``atol`` is for values up to 1 and grows with larger ones."""
    assert got.answer == expected.answer
    for name in ("score", "map", "type_map"):
        one, other = getattr(got, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if one is not None:
            allowed = atol * max(1.0, float(other.abs().max()))
            torch.testing.assert_close(one, other, atol=allowed, rtol=0)


def differ(one: Prediction, other: Prediction) -> bool:
    """Whether they say something else of any image."""
    pairs = [(one.score, other.score), (one.map, other.map)]
    return any(a is not None and not torch.equal(a, b) for a, b in pairs)


def row_of(prediction: Prediction, row: int) -> Prediction:
    """What is said of one image."""
    parts = {
        name: None if value is None else value[row : row + 1]
        for name, value in vars(prediction).items()
    }
    return Prediction(**parts)


# --- training ------------------------------------------------------------------------------------


def training_batch(
    detector: Detector, labels: list[int], objects: tuple[str, ...] = (), seed: int = 0
) -> TrainingBatch:
    """Noise; the defective pictures have a bright square that the mask marks."""
    count = len(labels)
    given = inputs(detector, count, seed=seed)
    several = given if isinstance(given, Mapping) else {"image": given}
    height, width = next(iter(several.values())).shape[-2:]
    masks = torch.zeros(count, height, width)
    defective = torch.tensor(labels) == 1
    masks[defective, height // 4 : 5 * height // 8, 3 * width // 8 : 3 * width // 4] = 1
    shown: Any = {
        name: noise + 2 * F.interpolate(masks[:, None], noise.shape[-2:])
        for name, noise in several.items()
    }
    if several is not given:
        shown = shown["image"]
    return TrainingBatch(
        images=shown,
        masks=masks,
        labels=torch.tensor(labels),
        objects=objects or ("screw",) * count,
        generator=torch.Generator().manual_seed(seed),
        references=_references(detector, count),
    )


def _references(detector: Detector, count: int) -> Any:
    asked = max(stage.recipe.references for stage in detector.stages())
    if not asked:
        return None
    drawn = inputs(detector, count * asked, seed=3)
    if isinstance(drawn, Mapping):
        return {name: tensor.unflatten(0, (count, asked)) for name, tensor in drawn.items()}
    return drawn.unflatten(0, (count, asked))


def one_by_one(batch: TrainingBatch) -> Iterator[TrainingBatch]:
    """The images of a batch, each as a batch of its own."""
    for row in range(len(batch.labels)):
        some = slice(row, row + 1)
        yield replace(
            batch,
            images=rows(batch.images, some),
            masks=batch.masks[some],
            labels=batch.labels[some],
            objects=batch.objects[some],
            references=None if batch.references is None else rows(batch.references, some),
        )


def learners(detector: Detector) -> list[Learner]:
    """Of all stages."""
    return [learner for stage in detector.stages() for learner in stage.learners]


def total(detector: Detector, batch: TrainingBatch) -> torch.Tensor:
    """The loss of a batch: that of all learners together."""
    terms = [term for each in learners(detector) for term in each.loss(batch).values()]
    return torch.stack(terms).sum()


def alter(detector: Detector, seed: int = 0) -> None:
    """Give a detector other learned values than its initial ones, as training does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in detector.learned.values():
            value.add_(0.05 * torch.randn(value.shape, generator=generator))
    detector.after_learning()
