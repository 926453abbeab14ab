"""What is VCP-CLIP's own; its numbers are held by tests/parity/test_vcp_clip.py."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from official_samples import official_file
from small_detectors import images, small_clip, total, training_batch

from zerodefect.methods.vcp_clip import VCPCLIP, PostVCP
from zerodefect.types import Prediction


def build(backbone=None, **options) -> VCPCLIP:
    return VCPCLIP.build(backbone or small_clip(), **options).eval()


# --- predictions -----------------------------------------------------------------------------


def test_initial_values_are_those_of_the_paper():
    made = build(small_clip(text_width=128, embed_dim=128, text_layers=4)).learned
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
    detector = build()

    def scaled(given: Prediction) -> Prediction:
        step = detector.set_level("min-max", detector.empty())
        step.see(given)
        return step.apply(given)

    maps = torch.tensor([[[2.0, 3.0]], [[4.0, 6.0]]])
    got = scaled(Prediction(score=torch.tensor([1.0, 3.0]), map=maps))
    assert got.map.tolist() == [[[0.0, 0.25]], [[0.5, 1.0]]]
    assert got.score.tolist() == [0.0, 1.0]
    flat = scaled(Prediction(score=torch.ones(2), map=torch.ones(2, 1, 2)))
    assert flat.score.tolist() == [0.0, 0.0]


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


def test_the_terms_of_the_loss():
    losses = build().training_loss(training_batch(build(), [0, 1]))
    assert set(losses) == {"pre_focal", "pre_dice", "post_focal", "post_dice"}


def test_dropout_draws_from_the_batch_and_only_in_training():
    detector = build(dropout=0.5)

    def loss(seed: int) -> float:
        batch = training_batch(detector, [0, 1])
        batch.generator.manual_seed(seed)
        return total(detector, batch).item()

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


# --- options and files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"word_length": 0}, "option word_length=0: .*greater than or equal to 1"),
        ({"deep_length": 0}, "option deep_length=0: .*greater than or equal to 1"),
        ({"heads": 0}, "option heads=0: .*greater than or equal to 1"),
        ({"top_pixels": 0}, "option top_pixels=0: .*greater than or equal to 1"),
        ({"dropout": 1.0}, "option dropout=.* less than 1"),
        ({"mix": -0.1}, "option mix=.* greater than or equal to 0"),
        ({"normal_prompt": "a good one"}, "normal_prompt needs '{}' exactly once"),
    ],
)
def test_impossible_options(option, reason):
    with pytest.raises(ValueError, match=reason):
        build(**option)


def test_backbones_and_options_that_do_not_fit():
    with pytest.raises(ValueError, match="joint space of 32 and a text tower of 64"):
        build(small_clip(embed_dim=32))
    with pytest.raises(ValueError, match=r"heads=7 does not divide .* width 64"):
        build(heads=7)
    with pytest.raises(ValueError, match=r"which has 1\.\.3"):
        build(taps=(2, 4))
    with pytest.raises(ValueError, match="text tower reads 77"):
        build(word_length=80)


def test_the_official_format():
    file = official_file(build(word_length=3, deep_length=2))
    assert file["New_Lan_Embed"]["prompt_linear1.fc.weight"].shape == (3, 1, 3)
    assert file["Zero_try"]["q_proj_pre.weight"].shape == (64, 64, 1)
    assert file["trainable_linearlayer"]["fc.0.weight"].shape == (64, 64)
    assert VCPCLIP.official_options(file) == {"word_length": 3, "deep_length": 2}
    file["Zero_try"]["q_proj_pre.weight"] = torch.ones(64, 64)
    with pytest.raises(
        ValueError, match=r"q_proj_pre.weight has shape \(64, 64\) instead of \(64, 64, 1\)"
    ):
        build(word_length=3, deep_length=2).official_state(file)
