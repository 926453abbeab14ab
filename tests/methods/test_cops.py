"""What is CoPS' own; its numbers are held by tests/parity/test_cops.py."""

from __future__ import annotations

import pytest
import torch
from models import tiny_backbone
from official_samples import official_file
from small_detectors import images, small_clip, total, training_batch

from zerodefect.methods.cops import CoPS, distance, min_max


def made(backbone=None, **options) -> CoPS:
    chosen = {"window": 3, "training_window": 3, **options}
    return CoPS.build(backbone or small_clip(), **chosen).eval()


def test_running_the_sentences_in_parts_changes_nothing(monkeypatch):
    detector, batch = made(), images(3)
    whole = detector(batch)
    monkeypatch.setattr("zerodefect.methods.cops._IMAGES", 1)
    torch.testing.assert_close(detector(batch).map, whole.map, atol=2e-5, rtol=0)
    torch.testing.assert_close(detector(batch).score, whole.score, atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [(40, 88), (8, 16)])
def test_grids_smaller_than_the_window(size):
    got = CoPS.build(small_clip())(images(2, *size))
    assert got.map.shape == (2, *size)
    assert got.map.isfinite().all()
    assert got.score.isfinite().all()


def test_the_seed_decides_the_class_vectors_and_they_are_no_learned_value():
    first, same, other = (made(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.z, same.z)
    assert not torch.equal(first.z, other.z)
    assert "z" not in first.state_dict()


def test_sizes_follow_the_towers():
    detector = CoPS.build(small_clip(text_layers=12))
    assert len(detector.prompts.compound_prompts_text) == 8  # as published, for 12 blocks
    assert len(made().prompts.compound_prompts_text) == 1  # for 2
    assert made().extractor.attn.heads == 8  # 12 do not divide a width of 64
    assert made(small_clip(text_width=192, embed_dim=192)).extractor.attn.heads == 12


def test_a_text_tower_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"width 64 among text tokens of width 128.*ViT-L-14"):
        made(tiny_backbone(text_width=128))


# --- forward -------------------------------------------------------------------------------------


def test_slots_of_a_synthesised_sentence():
    detector = made(context_length=2, prototypes=3, class_length=1)
    prototypes, bias = torch.full((2, 3, 64), 1.0), torch.full((1, 4, 64), 10.0)
    with torch.no_grad():
        added = detector.synthesised("ctx_pos", prototypes, bias) - detector.prompts.context(
            "ctx_pos"
        )
    assert added.shape == (2, 4, 6, 64)
    expected = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0, 10.0])[:, None].expand(6, 64)
    torch.testing.assert_close(added, expected.expand(added.shape))


def test_crossed_prototypes_are_a_choice():
    detector, own = made(), made(crossed=False)
    generator = torch.Generator().manual_seed(0)
    P_n, P_a = torch.randn(2, 1, 6, 64, generator=generator)
    bias = detector.vae_decoder(detector.z)[None]
    with torch.no_grad():
        torch.testing.assert_close(detector.texts(P_n, P_a, bias), own.texts(P_a, P_n, bias))
        assert not torch.allclose(detector.texts(P_n, P_a, bias), own.texts(P_n, P_a, bias))


def test_distance_and_stretching():
    F = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]]])
    prototypes = torch.tensor([[[5.0, 0.0], [0.0, 1.0]]])
    torch.testing.assert_close(distance(F, prototypes), torch.tensor([[0.0, 0.0, 1.0]]))
    rows = torch.tensor([[1.0, 3.0, 2.0], [4.0, 4.0, 4.0]])
    assert torch.equal(min_max(rows), torch.tensor([[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]))


def test_a_patch_far_from_normal_and_near_to_abnormal_weighs_most():
    weight = made(alpha=0.25).weight(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]]))
    assert torch.equal(weight, torch.tensor([[0.0, 1.0]]))


def test_upsampling_repeats_patches_or_does_not():
    batch = images(1)
    blocks = made(sigma=0.0)(batch).map
    corner = blocks[:, ::8, ::8].repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert torch.equal(blocks, corner)
    smooth = made(sigma=0.0, upsampling="bilinear")(batch).map
    assert smooth.unique().numel() > blocks.unique().numel()


def test_beta_mixes_image_and_highest_patch():
    batch = images(2)
    image, patch = made(beta=1.0)(batch).score, made(beta=0.0, sigma=0.0)(batch)
    torch.testing.assert_close(patch.score, patch.map.amax((1, 2)))
    torch.testing.assert_close(made(beta=0.5)(batch).score, (image + patch.score) / 2)


# --- training ------------------------------------------------------------------------------------


def test_the_terms_of_the_loss():
    terms = made().training_loss(training_batch(made(), [0, 1]))
    assert set(terms) == {"image", "patch", "gather", "scatter", "kl", "reconstruction"}


def test_each_batch_has_draws_of_its_own():
    detector = made()
    batches = [training_batch(detector, [0, 1]) for _ in range(3)]
    batches[2].generator.manual_seed(1)
    first, same, other = (total(detector, batch) for batch in batches)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_training_finds_the_squares():
    detector = made(sigma=0.0)
    optimizer = torch.optim.Adam(detector.learned.values(), lr=3e-3)
    losses = []
    for _ in range(25):
        batch = training_batch(detector, [0, 1, 0, 1])
        optimizer.zero_grad()
        loss = total(detector, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    detector.after_learning()
    assert losses[-1] < 0.8 * losses[0]
    got = detector(batch.images)
    inside = batch.masks[1] > 0
    assert got.map[1][inside].mean() > 2 * got.map[1][~inside].mean()
    assert got.score[[1, 3]].min() > got.score[[0, 2]].max()


def test_what_the_decoder_is_compared_with():
    g, bias = torch.tensor([[1.0], [3.0]]), torch.tensor([[1.0], [2.0]])
    expected = {"all_pairs": (0 + 1 + 4 + 1) / 4, "own": (0 + 1) / 2}
    for choice, value in expected.items():
        [term] = made(reconstruction=choice).reconstruction(g, bias).values()
        assert float(term) == pytest.approx(value)
    without = made(reconstruction="none")
    assert "reconstruction" not in without.training_loss(training_batch(without, [0, 1]))


def test_patches_that_hold_one_abnormal_pixel():
    masks = torch.zeros(1, 16, 24)
    masks[0, 9, 23] = 1
    assert made().patch_labels(masks).tolist() == [[False] * 5 + [True]]


# --- options and files ---------------------------------------------------------------------------


def test_the_official_format():
    detector = made(prototypes=3, depth=2, deep_length=5)
    file = official_file(detector)
    options = {"prototypes": 3, "depth": 2, "deep_length": 5}
    assert CoPS.official_options(file) == options
    state = detector.official_state(file)
    assert torch.equal(state["prompts.ctx_pos"], file["prompt_learner"]["ctx_pos"])
    # the encoder is not published and keeps its values
    assert "vae_encoder.mean.weight" not in file["prompt_learner"]
    assert torch.equal(state["vae_encoder.mean.weight"], detector.vae_encoder.mean.weight)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"prototypes": 0}, "option prototypes=0: "),
        ({"samples": 0}, "option samples=0: "),
        ({"window": 4}, "option window=4: an odd number"),
        ({"training_window": 0}, "option training_window=0: "),
        ({"alpha": 1.1}, "option alpha=.* less than or equal to 1"),
        ({"beta": -0.1}, "option beta=.* greater than or equal to 0"),
        ({"temperature": 0.0}, "option temperature=.* greater than 0"),
        ({"sigma": -1.0}, "option sigma=.* greater than or equal to 0"),
        ({"upsampling": "cubic"}, "option upsampling='cubic': "),
        ({"reconstruction": "half"}, "option reconstruction='half': "),
    ],
)
def test_impossible_options(option, reason):
    with pytest.raises(ValueError, match=reason):
        made(**option)
