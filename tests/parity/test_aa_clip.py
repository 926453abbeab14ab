"""AA-CLIP against the numbers of the official code (see the case's meta)."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_clip
import torch
from cases import Case, find

from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.layers.losses import map_losses
from zerodefect.methods.aa_clip import AACLIP, AACLIPConfig
from zerodefect.prompts.learnable import tokenize
from zerodefect.prompts.public_classes import described
from zerodefect.types import TrainingBatch


class AACase(Case):
    """A case whose tolerances are words, by kind of array."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        clip = dict(self.meta["clip"])
        self.meta["tiny_clip"] = {"seed": clip.pop("seed"), "config": clip}
        self.meta["activation"] = "gelu"

    def allowed(self, kind: str) -> float:
        return float(self.meta["tolerances"][kind].split()[0])

    def near(self, name: str, value: torch.Tensor, kind: str, scale: float = 1.0) -> None:
        expected = self.tensor(name)
        off = float((value.detach().reshape(expected.shape) - expected).abs().max())
        assert off <= scale * self.allowed(kind), f"{name}: off by {off:.3g}"

    def relative(self, name: str, value: torch.Tensor, kind: str) -> None:
        self.near(name, value, kind, float(self.tensor(name).abs().max()))


@pytest.fixture(scope="module", params=find("aa_clip"))
def case(request) -> AACase:
    return AACase(request.param)


def build(case: AACase, **options) -> AACLIP:
    said, facts = case.meta["settings"], case.meta["extra_parameters"]
    config = AACLIPConfig(
        taps=tuple(said["levels"]),
        text_depth=said["text_adapt_until"],
        image_depth=said["image_adapt_until"],
        relu=said["relu"],
        **options,
    )
    detector = AACLIP(case.backbone(), config).eval()
    files: dict = {"text_adapter": {}, "image_adapter": {}, "epoch": 20, "text_optimizer": {}}
    for name, shape in facts["shapes"].items():
        part, _, key = name.partition(".")
        files[part][key] = torch.from_numpy(tiny_clip.fill(facts["seed"], name, tuple(shape)))
    detector.load_state_dict(detector.official_state(files), strict=False)
    told = AACLIP.official_options(files)
    assert told == {name: getattr(config, name) for name in ("text_depth", "image_depth", "relu")}
    return detector


@pytest.fixture(scope="module")
def detector(case) -> AACLIP:
    return build(case)


@pytest.fixture(scope="module")
def words(case, detector) -> Knowledge:
    return detector.describe(detector.empty(), Product(case.meta["class_name"]))


@pytest.fixture(scope="module")
def encoded(case, detector):
    with torch.no_grad():
        return detector.encode(case.tensor("input"))


def test_preprocessing(case, detector):
    case.check_preprocessed(detector.preprocess)


def test_the_settings_are_the_default_ones(case, detector):
    plain = AACLIP(case.backbone())
    assert plain.taps == detector.taps
    assert [p.shape for p in plain.learned.values()] == [p.shape for p in detector.learned.values()]


@torch.no_grad()
def test_texts(case, detector):
    first, second = case.meta["class_name"], case.meta["second_class"]
    assert described(first) == case.meta["phrase"]
    ids = tokenize(detector.sentences(first))
    assert torch.equal(ids.int(), case.tensor("out/tokens"))
    normal = 6
    features = detector.sentence_features([first])[0]
    case.near("out/text_encoder_first_prompts", features[[0, normal]], "features")
    T = detector.anchors([first, second])
    case.near("out/text_features", T[0].T, "features")
    case.near("out/text_features_second_class", T[1].T, "features")


@torch.no_grad()
def test_patches_and_image(case, detector, words, encoded):
    for tap, f in zip(detector.taps, detector.patches(encoded), strict=True):
        case.near(f"out/seg_tokens/layer_{tap}", f[:1], "features")
    g = detector.image(encoded)
    case.near("out/det_token", g, "features")
    case.near("out/det_cos", g @ words["texts"].T, "features")
    case.near("out/det_score", (g @ words["texts"][1] + 1) / 2, "scores")


@pytest.mark.parametrize("domain", ["industrial", "medical"])
def test_maps_and_scores_over_the_split(case, domain):
    detector = build(case, domain=domain)
    words = detector.describe(detector.empty(), Product(case.meta["class_name"]))
    with torch.no_grad():
        encoded = detector.encode(case.tensor("input"))
        c = [detector.logits(f, words["texts"]) for f in detector.patches(encoded)]
        case.near(f"out/{domain}/low_res_maps", detector.maps(c, encoded.grid), "maps")
    got = detector(case.tensor("input"), words)
    name = "out/anomaly_map" if domain == "industrial" else "out/medical/anomaly_map"
    case.near(name, got.map[: len(case.arrays[name])], "maps")
    step = detector.set_level("class min-max", words)
    step.see(got)
    case.near(f"out/{domain}/image_scores", step.apply(got).score, "scores")
    if domain == "industrial":
        case.near("out/image_score", step.apply(got).score, "scores")


# --- training ------------------------------------------------------------------------------------


def batch(case: AACase) -> TrainingBatch:
    return TrainingBatch(
        images=case.tensor("input"),
        masks=case.tensor("mask")[:, 0].float(),
        labels=case.tensor("label"),
        objects=tuple(case.meta["loss_batch"]["classes"]),
        generator=torch.Generator(),
    )


def segmentation(Y: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    return torch.stack(map_losses([Y], masks)).sum()


@torch.no_grad()
def test_what_the_first_stage_reads(case, detector):
    v, p = detector.frozen_features(case.tensor("input"), detector.taps)
    case.near("out/stage1/cls_token", v, "features")
    case.near("out/stage1/patch_layer24_unit", p[-1], "features")
    data, grid = batch(case), detector.grid(case.tensor("input"))
    T = detector.anchors(data.objects)
    losses = [
        segmentation(detector.probabilities(detector.logits(p_l + v[:, None], T), grid), data.masks)
        for p_l in p
    ]
    case.relative("out/loss/text_stage_seg_per_layer", torch.stack(losses), "loss")


@torch.no_grad()
def test_the_losses_of_each_tap_in_the_second_stage(case, detector, encoded):
    data = batch(case)
    T = detector.anchors(data.objects)
    losses = [
        segmentation(detector.probabilities(detector.logits(f, T), encoded.grid), data.masks)
        for f in detector.patches(encoded)
    ]
    case.relative("out/loss/image_stage_seg_per_layer", torch.stack(losses), "loss")


def test_losses_and_gradients_of_both_stages(case):
    detector, names = build(case), ("text_stage", "image_stage")
    for name, stage in zip(names, detector.stages(), strict=True):
        (learner,) = stage.learners
        loss = torch.stack(list(learner.loss(batch(case)).values())).sum()
        case.relative(f"out/loss/{name}", loss, "loss")
        loss.backward(inputs=[p for group in learner.groups for p in group["params"]])
        prefix = f"out/loss/{name}_grad/"
        found = [array for array in case.arrays if array.startswith(prefix)]
        assert found
        for array in found:
            case.relative(array, detector.learned[array.removeprefix(prefix)].grad, "grads")
    assert all(value.grad is None for value in detector.clip.parameters())
