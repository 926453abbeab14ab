"""Crane and Crane+ against the official code's numbers (see the case's meta)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from cases import find
from dino import dino_shapes, dino_value
from models import tiny_backbone
from prompt_cases import PromptCase

from zerodefect.backbones.clip import CLIP, END_OF_TEXT, CLIPConfig, TextConfig, VisionConfig
from zerodefect.backbones.vision import VisionEncoder, load_vision
from zerodefect.images.preprocess import CLIP_MEAN, CLIP_STD
from zerodefect.layers.losses import dice_loss, focal_loss
from zerodefect.methods.crane import Crane, CraneConfig, _upsampled

VARIANTS = ("crane", "crane_plus")


@pytest.fixture(scope="module", params=find("crane"))
def case(request) -> PromptCase:
    return PromptCase(request.param)


@pytest.fixture(scope="module")
def dino(case, tmp_path_factory) -> VisionEncoder:
    """The small DINOv2 of the case, through a file in the layout of the released ones."""
    facts = case.meta["tiny_dino"]
    shapes = {name: tuple(shape) for name, shape in facts["shapes"].items()}
    shape = {key: facts["config"][key] for key in ("img_size", "embed_dim", "depth")}
    registers = facts["config"]["num_register_tokens"]
    patch = facts["config"]["patch_size"]
    assert shapes == dino_shapes(**shape, registers=registers, patch_size=patch)
    path = tmp_path_factory.mktemp("dino") / "dino.pth"
    torch.save({name: dino_value(facts["seed"], name, s) for name, s in shapes.items()}, path)
    return load_vision(
        "vit_base_patch14_reg4_dinov2",
        weights=path,
        num_heads=facts["config"]["num_heads"],
        reg_tokens=registers,
        patch_size=patch,
        **shape,
    )


def build(case: PromptCase, variant: str, dino: VisionEncoder, **options) -> Crane:
    settings = case.meta["settings"]
    layers = case.meta["tiny_clip"]["config"]["vision_layers"]
    config = CraneConfig(
        context_length=settings["n_ctx"],
        deep_length=settings["deep_prompt_length"],
        depth=settings["text_depth"],
        stream_start=layers - (settings["eattn_layer_argument"] - 1) + 1,
        attention=settings["attention"],
        taps=tuple(settings[variant]["features_1based"]),
        beta=settings["d_attn"]["beta"],
        gamma=settings["d_attn"]["gamma"],
        soft_mean=settings[variant]["soft_mean"],
        conditioning=settings["prompt_conditioning_in_training"],
        conditioned_test=settings["prompt_conditioning_at_test"],
        temperature=settings["temperature_test"],
        image_temperature=settings["temperature_train_image"],
        training_upsampling=settings["training_upsampling"],
        sigma=settings["sigma"],
        batch_mean=True,  # as the official code has it
    )
    config = replace(config, **options)
    detector = Crane(case.backbone(), config, dino if variant == "crane_plus" else None)
    case.fill(detector.prompts)
    return detector


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def detector(case, variant, dino) -> Crane:
    return build(case, variant, dino)


def test_preprocessing(case, detector):
    case.near("input", case.preprocessed(detector.preprocess), 1e-5)


def test_dino_features(case, dino):
    grid = case.arrays["dino_features"].shape[-2:]
    (own,) = dino(case.tensor("dino_input"))
    worst = float(case.tensor("dino_features").abs().max())
    case.near("dino_features", own, 2e-5 * worst)

    case.near(
        "dino_features", dino.like(case.tensor("input"), CLIP_MEAN, CLIP_STD, grid), 5e-5 * worst
    )


def test_texts(case, detector):
    ids = case.tensor("out/tokenized_prompts").long()
    assert torch.equal(detector.prompts.token_ids(), ids)
    case.check_feature("out/text_raw", detector.texts)
    case.check_feature("out/text_features", F.normalize(detector.texts, dim=-1))


def test_texts_conditioned_on_the_image(case, detector):
    g = detector.encode(case.tensor("input")).image
    case.check_feature("out/conditioned/text_raw", detector.conditioned_texts(g))
    length, width = detector.config.context_length + 1, detector.clip.config.text.width
    contexts = dict.fromkeys(("ctx_pos", "ctx_neg"), torch.zeros(length, width))
    _, ends = detector.prompts.embeddings(detector.clip.text, contexts)
    ids = case.tensor("out/conditioned/tokenized_prompts")
    assert (ids == END_OF_TEXT).int().argmax(1).tolist() == ends.tolist()


def test_image_side(case, variant, detector):
    features = detector.encode(case.tensor("input"))
    case.check_feature("out/image_feature_raw", features.image)
    case.check_feature("out/image_feature", F.normalize(features.image, dim=-1))
    prefix = f"out/{variant}/patch_features_raw"
    if variant == "crane":
        case.check_feature(f"{prefix}/all_taps", features.patches[0])
    else:
        D, E = features.patches
        case.check_feature(f"{prefix}/d_attn", D)
        case.check_feature(f"{prefix}/e_attn", E)


def test_score_and_map(case, variant, detector):
    images = case.tensor("input")
    got, features = detector(images), detector.encode(images)
    tau = case.meta["settings"]["temperature_test"]
    z = detector.logits(features, detector.texts)
    case.check_logits(f"out/{variant}/patch_logits", torch.stack(z), tau)
    pooled = F.normalize(detector.score_pooled(features, z), dim=-1)
    case.check_feature(f"out/{variant}/score_pooled_feature", pooled)
    G = detector.pooled(features, z)
    case.check_feature(f"out/{variant}/fused_image_feature", G)
    logits = G @ F.normalize(detector.texts, dim=-1).T / tau
    case.check_logits(f"out/{variant}/global_logits", logits, tau)
    case.check_map(f"out/{variant}/image_score", got.score)
    case.check_map(f"out/{variant}/anomaly_map", got.map)


def test_map_before_smoothing_and_the_other_mean(case, variant, dino):
    images = case.tensor("input")
    plain = build(case, variant, dino, sigma=0.0)
    case.check_map(f"out/{variant}/map_before_smoothing", plain(images).map)
    if variant == "crane_plus":
        soft = build(case, variant, dino, soft_mean=True)
        case.check_map("out/crane_plus/anomaly_map_soft_mean", soft(images).map)


def test_one_image_needs_no_mean_over_the_batch(case, variant, dino):
    alone = build(case, variant, dino, batch_mean=False)
    got = alone(case.tensor("input"))
    case.check_map(f"out/{variant}/anomaly_map", got.map)
    batch = case.batch().images
    together = alone(batch)
    for row in range(2):
        single = alone(batch[row : row + 1])
        torch.testing.assert_close(together.map[row], single.map[0], atol=5e-5, rtol=0)
        torch.testing.assert_close(together.score[row], single.score[0], atol=5e-5, rtol=0)


def test_losses(case, variant, detector):
    batch, out = case.batch(), f"out/{variant}"
    features = detector.encode(batch.images)
    T = detector.conditioned_texts(features.image)
    case.check_feature(f"{out}/train/text_raw_normal", T[:, 0])
    case.check_feature(f"{out}/train/text_raw_abnormal", T[:, 1])
    z = detector.logits(features, T)
    G = detector.pooled(features, z)
    tau = case.meta["settings"]["temperature_train_image"]
    logits = torch.einsum("bc,btc->bt", G, F.normalize(T, dim=-1)) / tau
    case.check_logits(f"{out}/train/image_logits", logits, tau)
    case.check_loss(f"{out}/loss/image_ce", F.cross_entropy(logits, batch.labels))
    how = case.meta["settings"]["training_upsampling"]
    P = [_upsampled(zk.softmax(-1), features.grid, how) for zk in z] * detector.copies
    focal = torch.stack([focal_loss(p, batch.masks) for p in P])
    dice = torch.stack([dice_loss((1 - p[:, 0] + p[:, 1]) / 2, batch.masks) for p in P])
    case.check_loss(f"{out}/loss/focal", focal)
    case.check_loss(f"{out}/loss/dice", dice)
    terms = detector.training_loss(batch)
    torch.testing.assert_close(terms["focal"], 2 * focal.sum())
    torch.testing.assert_close(terms["dice"], 2 * dice.sum())
    case.check_loss(f"{out}/loss/total", torch.stack(list(terms.values())).sum())


def test_gradients(case, variant, dino):
    detector = build(case, variant, dino)
    torch.stack(list(detector.training_loss(case.batch()).values())).sum().backward()
    case.check_gradients(f"out/{variant}/grad/", detector.prompts)


# --- the published checkpoint ----------------------------------------------------------------


def published_file() -> Path:
    root = Path(__file__).parents[2]
    folder = Path(os.environ.get("ZERODEFECT_SHARED", root.parent / "shared"))
    return folder / "parity" / "crane" / "published_epoch.pth"


def vit_large(published: dict[str, torch.Tensor]) -> CLIP:
    """Shapes of ViT-L/14@336px without its weights, but for the tokens that the file tells."""
    config = CLIPConfig(
        embed_dim=768,
        vision=VisionConfig(image_size=336, patch_size=14, width=1024, layers=24, heads=16),
        text=TextConfig(77, 49408, 768, heads=12, layers=12),
        activation="quick_gelu",
    )
    with torch.device("meta"):
        clip = CLIP(config)
    table = torch.zeros(49408, 768)
    for name in ("pos", "neg"):
        ids = published[f"tokenized_prompts_{name}"][0, 0].long()
        table[ids[0]] = published[f"token_prefix_{name}"][0, 0, 0]
        table[ids[13:]] = published[f"token_suffix_{name}"][0, 0]
    clip.text.token_embedding.weight = torch.nn.Parameter(table)
    return clip


@pytest.mark.skipif(
    not published_file().is_file(),
    reason="the published checkpoint is not at hand; name its folder by ZERODEFECT_SHARED",
)
def test_the_published_checkpoint():
    path = published_file()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest == "dc9bf1584c8abd8744f39e9607fdea8a04c8d30aa147de595d22bf444488e4c8"
    published = torch.load(path, map_location="cpu", weights_only=True)
    clip = vit_large(published["prompt_learner"])
    backbone = replace(tiny_backbone(), clip=clip)
    detector = Crane(backbone, CraneConfig(**Crane.official_options(published)))
    assert len(detector.prompts.compound_prompts_text) == 8
    state = detector.official_state(published)
    detector.load_state_dict(state, strict=False)
    sums = {  # sum and sum of absolute values in float64
        "prompts.ctx_pos": (0.637297, 240.133160),
        "prompts.ctx_neg": (-2.257181, 226.404955),
        "prompts.compound_prompts_text.0": (1.341484, 71.802863),
        "prompts.compound_prompts_text.7": (1.427963, 81.059337),
    }
    for name, (whole, size) in sums.items():
        value = detector.learned[name].detach().double()
        assert float(value.sum()) == pytest.approx(whole, abs=1e-6)
        assert float(value.abs().sum()) == pytest.approx(size, abs=1e-6)
    first = detector.learned["prompts.ctx_pos"].flatten()[:3].tolist()
    assert first == pytest.approx([0.0483863577, 0.0211395118, -0.0513161942], abs=1e-9)
    first = detector.learned["prompts.ctx_neg"].flatten()[:3].tolist()
    assert first == pytest.approx([0.0570727102, 0.0366824046, -0.0014855949], abs=1e-9)

    clip.text.token_embedding.weight.data[49406] += 0.1
    with pytest.raises(ValueError, match="token_prefix_pos is not this backbone's"):
        detector.official_state(published)
