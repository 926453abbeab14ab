"""LECLIP against the official code's numbers (see the case's meta)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_clip
import torch
import torch.nn.functional as F
from cases import Case, find

from zerodefect.backbones.transformer import CORRELATIONS
from zerodefect.images import open_image
from zerodefect.layers.similarity import cosine, text_probabilities
from zerodefect.layers.windows import covering_windows
from zerodefect.methods.leclip import LECLIP, LECLIPConfig
from zerodefect.types import TrainingBatch


class WindowCase(Case):
    """A case whose tolerances are sentences, and whose CLIP has the small one's own shapes."""

    def __init__(self, path) -> None:
        super().__init__(path)
        if isinstance(self.meta["clip"]["config"], str):  # "clip_shapes defaults"
            self.meta["clip"]["config"] = {}
        self.meta["activation"] = "quick_gelu"

    def near(self, name: str, value: torch.Tensor, kind: str, stride: int = 1) -> None:
        words = self.meta["tolerance"][kind].split()
        stated = dict(zip(words[::2], map(float, words[1::2]), strict=True))
        value = value.detach()[..., ::stride, ::stride] if stride > 1 else value.detach()
        expected = self.tensor(name)
        allowed = {"atol": 0.0, "rtol": 0.0, **stated}
        torch.testing.assert_close(value.reshape(expected.shape), expected, **allowed)


@pytest.fixture(scope="module", params=find("leclip"))
def case(request) -> WindowCase:
    return WindowCase(request.param)


def build(case: WindowCase, **options) -> LECLIP:
    meta, backbone = case.meta, case.backbone()
    layers = backbone.clip.config.vision.layers
    options = {
        "context_length": meta["n_ctx"],
        "depth": meta["deep_depth"],
        "deep_length": meta["deep_length"],
        "stream_start": layers - (meta["dpam_layer"] - 1) + 1,
        "window": meta["winsize"],
        "stride": meta["stride"],
        "sigma": meta["sigma"],
        "map_weight": meta["loss"]["lamda"],
        **options,
    }
    detector = LECLIP(backbone, LECLIPConfig(**options)).eval()
    own, seed = dict(detector.prompts.named_parameters()), meta["clip"]["seed"]
    for name, shape in meta["parameters"]:
        value = torch.from_numpy(tiny_clip.fill(seed, name, tuple(shape)))
        if name in own:
            own[name].data.copy_(value)
        else:
            assert name.startswith("compound_prompt_projections.")
    return detector


@pytest.fixture(scope="module")
def detector(case) -> LECLIP:
    return build(case)


@pytest.fixture(scope="module")
def features(case, detector):
    with torch.no_grad():
        return detector.encode(case.tensor("input"))


def batch(case: WindowCase) -> TrainingBatch:
    image = case.tensor("input")
    return TrainingBatch(
        images=torch.cat([image, image.flip(-1)]),
        masks=case.tensor("mask").float(),
        labels=torch.tensor(case.meta["loss"]["labels"]),
        objects=(case.meta["class_name"],) * 2,
        generator=torch.Generator().manual_seed(0),
    )


def test_preprocessing(case, detector):
    size = (case.meta["image_size"],) * 2
    made = replace(detector.preprocess, size=size)(open_image(case.arrays["image"]))
    torch.testing.assert_close(made[None], case.tensor("input"), atol=1e-5, rtol=0)


def test_texts(case, detector):
    assert torch.equal(detector.prompts.token_ids(), case.tensor("tokens").long())
    case.near("out/text_features", F.normalize(detector.texts, dim=-1), "features")


def test_echo_attention(case, detector):
    """Both outputs of the last block, from what enters its attention."""
    attention = detector.clip.visual.transformer.blocks[-1].attn
    h = case.tensor("out/echo/ln1_output")
    with torch.no_grad():
        q, k, v = attention.project(h)
        for name, rule in {"echo": "echo", "plain": "qk"}.items():
            got = attention.join(CORRELATIONS[rule](q, k, v, h))
            case.near(f"out/echo/{name}_output", got, "features")


def test_image_side(case, detector, features):
    case.near("out/image_feature_raw", features.image, "features")
    case.arrays["patches"] = case.arrays["out/patch_tokens"][:, 1:]  # no map has a class token
    case.near("patches", features.patches[0], "features")
    tau = detector.config.temperature
    case.near(
        "out/patch_prob", text_probabilities(features.patches[0], detector.texts, tau), "maps"
    )


def test_windows(case, detector, features):
    grid = case.meta["grid"]
    sides, strides = ((case.meta[name],) * 2 for name in ("winsize", "stride"))
    places = covering_windows((grid, grid), sides, strides)
    assert [[r.start, r.stop, c.start, c.stop] for r, c in places] == case.meta["windows"]
    tau, T = detector.config.temperature, detector.texts
    case.near("out/window_prob", text_probabilities(features.windows, T, tau), "maps")
    merged = detector.window_map(features.windows, T, features.grid)
    case.near("out/window_map_low", merged, "maps")
    enlarged = features.grid.upsample(merged, align_corners=True)
    case.near("out/window_map", detector.smoothed(enlarged), "maps", stride=2)


def test_score_and_map(case, detector):
    aligned = detector(case.tensor("input"))
    case.near("out/image_score", aligned.score, "maps")
    case.near("out/anomaly_map", aligned.map, "maps", stride=2)
    released = build(case, alignment=False)(case.tensor("input"))
    case.near("out/image_score_global", released.score, "maps")
    case.near("out/anomaly_map_global", released.map, "maps", stride=2)


def test_losses(case, detector):
    given, w = batch(case), case.meta["loss"]["lamda"]
    terms = detector.training_loss(given)
    case.near("out/loss/total", torch.stack(list(terms.values())).sum(), "loss")
    case.near("out/loss/image_ce", terms["image"] / (1 - w), "loss")
    for name in ("focal", "dice_abnormal", "dice_normal"):
        case.near(f"out/loss/{name}", terms[name] / w, "loss")
    image = detector.two_streams(given.images, detector.taps, norm=False).image
    logits = cosine(image, detector.texts) / detector.config.temperature
    torch.testing.assert_close(logits, case.tensor("out/loss/logits"), atol=4e-3, rtol=0)


def test_gradients(case):
    detector = build(case)
    torch.stack(list(detector.training_loss(batch(case)).values())).sum().backward()
    names = {"ctx_pos": "ctx_pos", "ctx_neg": "ctx_neg", "deep0": "compound_prompts_text.0"}
    for stored, name in names.items():
        expected = case.tensor(f"out/loss/grad_{stored}")
        allowed = 1e-3 * float(expected.abs().max())
        got = detector.prompts.get_parameter(name).grad
        torch.testing.assert_close(got, expected, atol=allowed, rtol=0)


def test_any_batch_gives_the_numbers_of_batch_one(case, detector):
    images = batch(case).images
    together = detector(images)
    for row in range(2):
        alone = detector(images[row : row + 1])
        torch.testing.assert_close(together.map[row], alone.map[0], atol=5e-5, rtol=0)
        torch.testing.assert_close(together.score[row], alone.score[0], atol=2e-5, rtol=0)
