"""AF-CLIP against the numbers of the official code (see the case's meta)."""

from __future__ import annotations

import pytest
import tiny_clip
import torch
import torch.nn.functional as F
from cases import find
from prompt_cases import PromptCase

from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.official_files import LONE_TENSOR
from zerodefect.methods.af_clip import AFCLIP, AFCLIPConfig, misalignment, patch_targets
from zerodefect.prompts.learnable import tokenize
from zerodefect.types import TrainingBatch

_CONTEXT = "state_prompt_embedding"


@pytest.fixture(scope="module", params=find("af_clip"))
def case(request) -> PromptCase:
    return PromptCase(request.param)


def build(case: PromptCase, *, overwritten: bool = True) -> AFCLIP:
    said, facts = case.meta["settings"], case.meta["learned_parameters"]
    config = AFCLIPConfig(
        taps=tuple(said["features_1based"]),
        sides=tuple(said["aggregation_sizes"]),
        spread=said["aggregation_sigma"],
        context_length=said["prompt_len"],
        temperature=said["temperature"],
        alpha=said["alpha"],
        sigma=said["smoothing_sigma"],
        overwritten_targets=overwritten,
    )
    detector, seed, published = AFCLIP(case.backbone(), config).eval(), facts["seed"], {}
    for name, shape in facts["shapes"].items():
        if name == _CONTEXT:
            value = 0.1 * tiny_clip.draw(seed, name, tuple(shape))
            published[LONE_TENSOR] = torch.from_numpy(value)
        else:
            value = tiny_clip.fill(seed, name, tuple(shape))
            value = value * 6 if name.endswith(("to_q.weight", "to_k.weight")) else value
            published[name.removeprefix("adaptor.")] = torch.from_numpy(value)
    missing, unexpected = detector.load_state_dict(detector.official_state(published), strict=False)
    assert not unexpected
    assert not set(missing) & set(detector.learned)
    return detector


@pytest.fixture(scope="module")
def detector(case) -> AFCLIP:
    return build(case)


@pytest.fixture(scope="module")
def encoded(case, detector):
    return detector.encode(case.tensor("input"))


def test_preprocessing(case, detector):
    prepared = case.preprocessed(detector.preprocess)
    torch.testing.assert_close(prepared, case.tensor("input"), atol=1e-5, rtol=0)


def test_the_settings_are_the_default_ones(case, detector):
    assert AFCLIP(case.backbone()).taps == detector.taps
    assert AFCLIP.Config(taps=detector.taps) == detector.config


@torch.no_grad()
def test_sentences(case, detector):
    words = tokenize([sentence.words for sentence in detector.prompts.sentences])
    assert torch.equal(words.int(), case.tensor("out/tokenized_prompts"))
    case.check_feature("out/text_raw", detector.prompts(detector.clip.text))
    case.check_feature("out/text_features", detector.texts)


@torch.no_grad()
def test_tokens_and_their_averages(case, detector, encoded):
    together = {
        tap: torch.cat(tokens, dim=1)
        for tap, *tokens in zip(detector.taps, encoded.classes, encoded.patches, strict=True)
    }
    for name in (name for name in case.arrays if name.startswith("out/backbone_tokens/")):
        case.check_feature(name, together[int(name[-2:])])
    for name in (name for name in case.arrays if name.startswith("out/aggregated_tokens/")):
        layer, side = name.rpartition("layer")[2].split("_r")
        own = together[int(layer)]
        averaged = detector.aggregated(own[:, 1:], encoded.grid, int(side))
        case.check_feature(name, torch.cat([own[:, :1], averaged], dim=1))


@torch.no_grad()
def test_zero_shot(case, detector, encoded):
    Z = detector.adapted(encoded, detector.references(encoded))
    sides = detector.config.sides
    for name in (name for name in case.arrays if name.startswith("out/adapted_features_raw/")):
        layer, side = name.rpartition("layer")[2].split("_r")
        case.check_feature(
            name, Z[len(sides) * detector.taps.index(int(layer)) + sides.index(int(side))]
        )
    logits = torch.stack([detector.logits(Z_j, detector.texts) for Z_j in Z])
    case.check_logits("out/logits_per_set", logits, detector.config.temperature)
    case.near("out/logits_sum", logits.sum(0), case.tolerance("logits_sum"))
    p = detector.probabilities(Z, detector.texts)
    case.check_map("out/image_score", p[:, 0])
    case.check_map("out/patch_map", encoded.grid.fold(p[:, 1:])[:, None])
    got = detector(case.tensor("input"))
    case.check_map("out/image_score", got.score)
    case.check_map("out/anomaly_map", got.map)


@pytest.fixture(scope="module")
def shown(case, detector) -> Knowledge:
    references = detector.encode(case.tensor("reference_input"))
    return detector.remember(detector.empty(), [references])


@torch.no_grad()
def test_few_shot(case, detector, encoded, shown):
    m = detector.distances(detector.references(encoded), shown)
    allowed = case.tolerance("memory_scores")
    case.near("out/few_shot/memory_patch_map", encoded.grid.fold(m)[:, None], allowed)
    case.near("out/few_shot/memory_score", m.amax(1), allowed)
    got = detector(case.tensor("input"), shown)
    case.check_map("out/few_shot/image_score", got.score)
    case.check_map("out/few_shot/anomaly_map", got.map)


# --- training ------------------------------------------------------------------------------------


def batch(case: PromptCase) -> TrainingBatch:
    return TrainingBatch(
        images=torch.cat([case.tensor("input"), case.tensor("reference_input")[:1]]),
        masks=case.tensor("train/mask"),
        labels=case.tensor("train/label").long(),
        objects=(case.meta["class_name"],) * 2,
        generator=torch.Generator(),
    )


def test_losses(case, detector):
    with torch.no_grad():
        terms = detector.training_loss(batch(case))
    named = {"alignment": "patch_alignment"}
    for name, value in terms.items():
        case.check_loss(f"out/loss/{named.get(name, name)}", value)
    case.check_loss("out/loss/total", torch.stack(list(terms.values())).sum())


def test_targets_at_the_patches(case, encoded):
    got = encoded.grid.fold(patch_targets(case.tensor("train/mask"), encoded.grid))
    assert torch.equal(got[:, None], case.tensor("train/target_at_patch_grid"))


@pytest.mark.parametrize("overwritten", [False, True], ids=["as written", "as trained"])
def test_gradients(case, overwritten):
    detector = build(case, overwritten=overwritten)
    torch.stack(list(detector.training_loss(batch(case)).values())).sum().backward()
    learned, prefix = (
        detector.learned,
        "out/grad_official_in_place/" if overwritten else "out/grad/",
    )
    found = {name.removeprefix(prefix) for name in case.arrays if name.startswith(prefix)}
    assert found
    for name in found:
        own = name.replace("attention.attn.", "").replace("attention.", "").replace("out.0", "out")
        own, rows, _ = own.partition("_first8rows")
        gradient = learned[f"prompts.{own}" if name == _CONTEXT else own].grad
        gradient = gradient[:8] if rows else gradient
        allowed = case.tolerance("gradients_relative_to_max")
        case.near(prefix + name, gradient, allowed * float(case.tensor(prefix + name).abs().max()))


def test_the_pairs_are_those_of_the_whole_matrix(case, detector, encoded):
    """The sums of products against all cosines, as the formula has them."""
    t = patch_targets(case.tensor("train/mask")[:1], encoded.grid)
    with torch.no_grad():
        Z = detector.adapted(encoded, detector.references(encoded))[0][:, 1:]
    signs = torch.where(t == 0, -1.0, t)
    K = signs[:, :, None] * signs[:, None]
    unit = F.normalize(Z, dim=-1)
    C = unit @ unit.mT
    expected = (C[K == -1].mean() - C[K == 1].mean()).relu()
    torch.testing.assert_close(misalignment(Z, t), expected, atol=1e-5, rtol=1e-4)
