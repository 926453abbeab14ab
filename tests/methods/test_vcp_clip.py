"""How VCP-CLIP behaves; its numbers are held by tests/parity/test_vcp_clip.py."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from models import tiny_backbone

from zerodefect.methods.vcp_clip import VCPCLIP, PostVCP, VCPCLIPConfig
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import Prediction, TrainingBatch


def images(count: int, height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def batch(labels: list[int], seed: int = 0) -> TrainingBatch:
    masks = torch.zeros(len(labels), 64, 64)
    masks[torch.tensor(labels) == 1, 8:30, 20:44] = 1
    return TrainingBatch(
        images=images(len(labels)) + 2 * masks[:, None],
        masks=masks,
        labels=torch.tensor(labels),
        objects=("screw",) * len(labels),
        generator=torch.Generator().manual_seed(seed),
    )


def build(backbone=None, **options) -> VCPCLIP:
    return VCPCLIP(backbone or tiny_backbone(), VCPCLIPConfig(**options)).eval()


@pytest.fixture(scope="module")
def detector() -> VCPCLIP:
    return build()


# --- predictions -----------------------------------------------------------------------------


def test_words_are_not_needed_and_change_nothing():
    detector, one = build(), images(1)
    before = detector(one)
    detector.describe("screw", Vocabulary.default())
    assert torch.equal(detector(one).map, before.map)
    assert detector.object_name == "screw"
    assert detector.kinds == ()


def test_a_prediction_depends_on_its_image_alone(detector):
    several = images(5, 48, 80)
    together = detector(several)
    assert together.map.shape == (5, 48, 80)
    for row in range(5):
        alone = detector(several[row : row + 1])
        torch.testing.assert_close(alone.map[0], together.map[row], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.score[0], together.score[row], atol=1e-5, rtol=0)


def test_bfloat16_is_close():
    plain, backbone = build(), tiny_backbone()
    backbone.clip.to(torch.bfloat16)
    rounded = build(backbone)
    rounded.load_state_dict(plain.learned, strict=False)
    several = images(2)
    got, expected = rounded(several), plain(several)
    assert got.map.dtype == got.score.dtype == torch.float32
    torch.testing.assert_close(got.map, expected.map, atol=0.05, rtol=0)
    torch.testing.assert_close(got.score, expected.score, atol=0.1, rtol=0)


def test_the_seed_decides_initial_values_and_nothing_else_does():
    constants = {"pre_vcp.prompt_temp", "post_vcp.prompt_temp_l1"}
    constants |= {"prompt_norm.weight", "prompt_norm.bias"}
    state = torch.get_rng_state()
    first = build(seed=1).learned
    torch.manual_seed(5)
    again, other = build(seed=1).learned, build(seed=2).learned
    torch.set_rng_state(state)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert {name for name, v in first.items() if torch.equal(v, other[name])} == constants


def test_initial_values_are_those_of_the_paper():
    made = build(tiny_backbone(text_width=128, embed_dim=128, text_layers=4)).learned
    assert made["deep_prompt_embeddings"].shape == (3, 1, 128)
    assert 0.9 < made["deep_prompt_embeddings"].abs().max() <= 1
    assert 1.5 < made["pre_vcp.prompt_query"].abs().max() <= 2
    assert made["prompt_proj.weight"].std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert made["pre_vcp.prompt_temp"].exp().item() == pytest.approx(1 / 0.07)


def test_folded_attention_equals_the_plain_one():
    draws = torch.Generator().manual_seed(0)
    post = PostVCP(C=48, W=64, heads=4, generator=draws)
    with torch.no_grad():  # far from uniform attention
        post.q_proj_pre.weight.mul_(20)
        post.k_proj_pre_1.weight.mul_(20)
    t = F.normalize(torch.randn(3, 2, 48, generator=draws), dim=-1)
    e = F.normalize(torch.randn(3, 30, 64, generator=draws), dim=-1)

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (4, -1)).transpose(1, 2)

    q, k, v = (
        heads(f(x))
        for f, x in zip(
            (post.q_proj_pre, post.k_proj_pre_1, post.v_proj_pre_1), (t, e, e), strict=True
        )
    )
    A = (q @ k.mT).softmax(-1)
    assert A.amax(-1).max() > 0.2
    expected = F.normalize(post.proj_post_t((A @ v).transpose(1, 2).flatten(-2)), dim=-1)
    torch.testing.assert_close(post(t, e), expected, atol=1e-6, rtol=0)


def test_the_score_averages_the_published_share_of_pixels():
    detector = build()
    ramp = torch.arange(518.0 * 518).reshape(1, 518, 518)
    assert detector._highest(ramp).item() == pytest.approx(ramp.flatten()[-2000:].mean().item())
    assert detector._highest(ramp[:, :4, :4]).item() == ramp[0, 3, 3]
    whole = build(top_pixels=10**6)
    assert whole._highest(ramp[:, :4, :4]).item() == pytest.approx(ramp[:, :4, :4].mean().item())


def test_maps_before_and_after_are_mixed():
    one, sigma = images(1), 0.0
    pre, post, mixed = (build(mix=mix, sigma=sigma)(one).map for mix in (0.0, 1.0, 0.8))
    assert not torch.allclose(pre, post, atol=1e-3)
    torch.testing.assert_close(mixed, 0.2 * pre + 0.8 * post)


def test_set_level_scales_over_all_images():
    maps = torch.tensor([[[2.0, 3.0]], [[4.0, 6.0]]])
    scaled = build().set_level(Prediction(score=torch.tensor([1.0, 3.0]), map=maps))
    assert scaled.map.tolist() == [[[0.0, 0.25]], [[0.5, 1.0]]]
    assert scaled.score.tolist() == [0.0, 1.0]
    flat = build().set_level(Prediction(score=torch.ones(2), map=torch.ones(2, 1, 2)))
    assert flat.score.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "shape", [{"vision_layers": 8, "text_layers": 5}, {"vision_layers": 1, "text_layers": 1}]
)
def test_any_depth_of_towers(shape):
    detector = build(tiny_backbone(**shape), deep_length=2, word_length=3)
    assert torch.isfinite(detector(images(2)).map).all()


def test_prompts_of_different_lengths():
    """The shorter sentence is read at its own end."""
    plain = build()
    longer = build(anomalous_prompt="a photo of a very badly damaged {} on a table")
    longer.load_state_dict(plain.learned, strict=False)
    g = plain.encode(images(2)).image
    with torch.no_grad():
        one, other = plain.texts(g), longer.texts(g)
    torch.testing.assert_close(one[:, 0], other[:, 0], atol=1e-6, rtol=0)
    assert not torch.allclose(one[:, 1], other[:, 1], atol=1e-3)


# --- training --------------------------------------------------------------------------------


def test_what_is_learned():
    detector = build()
    assert all(name.split(".")[0] != "clip" for name in detector.learned)
    sum(detector.training_loss(batch([0, 1])).values()).backward()
    without = {name for name, p in detector.learned.items() if p.grad is None}
    assert without == {"post_vcp.k_proj_pre_1.bias"}  # it cancels in the softmax
    assert all(p.grad.abs().max() > 0 for n, p in detector.learned.items() if n not in without)
    assert all(p.grad is None for p in detector.clip.parameters())


@pytest.mark.parametrize("labels", [[0], [1], [0, 0], [1, 1], [0, 1, 0]])
def test_any_batch_can_be_learned_from(labels):
    losses = build().training_loss(batch(labels))
    assert set(losses) == {"pre_focal", "pre_dice", "post_focal", "post_dice"}
    assert torch.isfinite(torch.stack(list(losses.values()))).all()


def test_dropout_draws_from_the_batch_and_only_in_training():
    detector = build(dropout=0.5)

    def loss(seed: int) -> float:
        return sum(detector.training_loss(batch([0, 1], seed)).values()).item()

    assert loss(0) == loss(1)
    detector.train()
    assert loss(0) == loss(0)
    assert loss(0) != loss(1)
    one = images(1)
    assert torch.equal(detector(one).map, detector.eval()(one).map)


def test_the_temperatures_have_a_rate_of_their_own():
    detector = build()
    groups = detector.parameter_groups(detector.recipe)
    assert [group.get("lr") for group in groups] == [None, 0.01]
    assert [p.ndim for p in groups[1]["params"]] == [0, 0]
    assert {id(p) for g in groups for p in g["params"]} == {
        id(p) for p in detector.learned.values()
    }


def test_mixed_precision_is_close():
    detector = build()
    expected = detector.training_loss(batch([0, 1]))
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector.training_loss(batch([0, 1]))
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name].item(), abs=0.1), name
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in detector.learned.values() if p.grad is not None)


def test_learning_lowers_the_loss():
    detector = build()
    optimizer = torch.optim.Adam(detector.learned.values(), lr=5e-3)

    def loss() -> torch.Tensor:
        return sum(detector.training_loss(batch([0, 1])).values())

    before = loss().item()
    for _ in range(15):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.8 * before


# --- options and files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"word_length": 0}, "word_length must be at least 1"),
        ({"deep_length": 0}, "deep_length must be at least 1"),
        ({"heads": 0}, "heads must be at least 1"),
        ({"top_pixels": 0}, "top_pixels must be at least 1"),
        ({"dropout": 1.0}, "dropout is a share"),
        ({"mix": -0.1}, "mix is a share"),
        ({"normal_prompt": "a good one"}, "exactly once"),
    ],
)
def test_impossible_hyper_parameters(option, reason):
    with pytest.raises(ValueError, match=reason):
        VCPCLIPConfig(**option)


def test_backbones_and_options_that_do_not_fit():
    with pytest.raises(ValueError, match="joint space of 32 and a text tower of 64"):
        build(tiny_backbone(embed_dim=32))
    with pytest.raises(ValueError, match=r"heads=7 does not divide .* width 64"):
        build(heads=7)
    with pytest.raises(ValueError, match=r"which has 1\.\.3"):
        build(taps=(2, 4))
    with pytest.raises(ValueError, match="text tower reads 77"):
        build(word_length=80)


def official(detector: VCPCLIP) -> dict:
    """A file in the documented form: three dictionaries and seven tensors."""
    parts: dict = defaultdict(dict)
    owners = {
        "trainable_linearlayer": "trainable_linearlayer",
        "pre_vcp": "New_Lan_Embed",
        "post_vcp": "Zero_try",
    }
    flat = {"prompt_text_projection": torch.ones(64, 64)}
    for name, parameter in detector.learned.items():
        value = parameter.detach() + 1
        part, _, key = name.partition(".")
        if part not in owners:
            flat[name] = value
            continue
        if part == "post_vcp" and value.ndim == 2:
            value = value[..., None]
        key = key.replace("head.", "fc.").replace("linear1.", "linear1.fc.")
        parts[owners[part]][key] = value
    return {**parts, **flat}


def test_official_files_come_and_go():
    detector = build(word_length=3, deep_length=2)
    file = official(detector)
    assert file["New_Lan_Embed"]["prompt_linear1.fc.weight"].shape == (3, 1, 3)
    assert file["Zero_try"]["q_proj_pre.weight"].shape == (64, 64, 1)
    assert file["trainable_linearlayer"]["fc.0.weight"].shape == (64, 64)
    assert VCPCLIP.official_options(file) == {"word_length": 3, "deep_length": 2}
    state = detector.official_state(file)
    assert set(state) == set(detector.learned)
    for name, value in state.items():
        torch.testing.assert_close(value, detector.learned[name] + 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda file: file.pop("prompt_norm.bias"), "prompt_norm.bias is missing"),
        (lambda file: file["Zero_try"].pop("q_proj_pre.bias"), "q_proj_pre.bias is missing"),
        (lambda file: file.pop("New_Lan_Embed"), "New_Lan_Embed is missing"),
        (lambda file: file["Zero_try"].update(more=torch.ones(1)), "more is unknown"),
        (
            lambda file: file["Zero_try"].update({"q_proj_pre.weight": torch.ones(64, 64)}),
            r"q_proj_pre.weight has shape \(64, 64\) instead of \(64, 64, 1\)",
        ),
    ],
)
def test_official_files_that_do_not_fit(detector, change: Callable, reason: str):
    file = official(detector)
    change(file)
    with pytest.raises(ValueError, match=reason):
        detector.official_state(file)
    assert VCPCLIP.official_options({}) == {}
