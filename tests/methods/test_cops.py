"""CoPS: what it does besides the official numbers."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from models import tiny_backbone

from zerodefect.methods.cops import CoPS, CoPSConfig, distance, min_max
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import TrainingBatch


def images(count: int, *size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *(size or (64, 64)), generator=generator)


def batch_of(*labels: int, draw: int = 0) -> TrainingBatch:
    """Noise; the defective ones have a bright square."""
    pictures, masks = images(len(labels)), torch.zeros(len(labels), 64, 64)
    for row, label in enumerate(labels):
        if label:
            masks[row, 16:40, 24:48] = 1
            pictures[row, :, 16:40, 24:48] += 3
    return TrainingBatch(
        images=pictures,
        masks=masks,
        labels=torch.tensor(labels),
        objects=("screw",) * len(labels),
        generator=torch.Generator().manual_seed(draw),
    )


def made(**options) -> CoPS:
    return CoPS(tiny_backbone(), CoPSConfig(**{"window": 3, "training_window": 3, **options}))


def total(detector: CoPS, batch: TrainingBatch) -> torch.Tensor:
    return torch.stack(list(detector.training_loss(batch).values())).sum()


def published(detector: CoPS) -> dict[str, dict[str, torch.Tensor]]:
    """A file with the documented keys and shapes."""
    generator = torch.Generator().manual_seed(7)
    return {
        "prompt_learner": {
            name.removeprefix("prompts."): torch.randn(value.shape, generator=generator)
            for name, value in detector.learned.items()
            if not name.startswith("vae_encoder.")
        }
    }


def test_an_image_does_not_depend_on_its_batch():
    detector, batch = made(), images(9)  # more than enter the text tower at once
    together = detector(batch)
    for row in (0, 8):
        alone = detector(batch[row : row + 1])
        torch.testing.assert_close(alone.map[0], together.map[row], atol=2e-5, rtol=0)
        torch.testing.assert_close(alone.score[0], together.score[row], atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [(40, 88), (8, 16)])
def test_any_size(size):
    got = CoPS(tiny_backbone())(images(2, *size))  # also grids smaller than the window
    assert got.map.shape == (2, *size)
    assert got.map.isfinite().all()
    assert got.score.isfinite().all()


def test_the_name_changes_nothing_and_there_are_no_kinds():
    detector = made()
    before = detector(images(1))
    detector.describe("screw", Vocabulary.default())
    after = detector(images(1))
    assert detector.object_name == "screw"
    assert detector.kinds == ()
    assert after.type_map is None
    assert torch.equal(before.map, after.map)


def test_the_seed_decides_initial_values_and_class_vectors():
    backbone, state = tiny_backbone(), torch.get_rng_state()
    first, same, other = (CoPS(backbone, CoPSConfig(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    for name, value in first.learned.items():
        assert torch.equal(value, same.learned[name])
        constant = name.endswith("bias") or ".ln_" in name
        assert torch.equal(value, other.learned[name]) == constant, name
    assert torch.equal(first.z, same.z)
    assert not torch.equal(first.z, other.z)
    # class vectors that are drawn when scoring are no learned value
    assert "z" not in first.state_dict()


def test_bfloat16_towers_are_close():
    """Learned values stay float32, and so does what is predicted."""
    backbone, batch = tiny_backbone(), images(2)
    full = CoPS(backbone)(batch)
    half = CoPS(dataclasses.replace(backbone, clip=backbone.clip.to(torch.bfloat16)))
    assert half.t_n.dtype == torch.float32
    got = half(batch)
    assert got.map.dtype == got.score.dtype == torch.float32
    torch.testing.assert_close(got.map, full.map, atol=0.1, rtol=0)
    torch.testing.assert_close(got.score, full.score, atol=0.1, rtol=0)


def test_the_towers_stay_frozen_and_sizes_follow_them():
    backbone = tiny_backbone(text_layers=12)
    backbone.clip.requires_grad_(True)
    detector = CoPS(backbone)
    assert not any(p.requires_grad for p in backbone.clip.parameters())
    assert len(detector.prompts.compound_prompts_text) == 8  # as published, for 12 blocks
    assert len(made().prompts.compound_prompts_text) == 1  # for 2
    assert made().extractor.attn.heads == 8  # 12 do not divide a width of 64
    wide = tiny_backbone(text_width=192, embed_dim=192)
    assert CoPS(wide).extractor.attn.heads == 12


def test_a_text_tower_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"width 64 among text tokens of width 128.*ViT-L-14"):
        CoPS(tiny_backbone(text_width=128))


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


@pytest.mark.parametrize("labels", [(0, 1, 1), (0,), (1,), (0, 0)])
def test_every_learned_value_gets_a_gradient(labels):
    detector = made()
    terms = detector.training_loss(batch_of(*labels))
    assert set(terms) == {"image", "patch", "gather", "scatter", "kl", "reconstruction"}
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in detector.named_parameters():
        if name not in detector.learned:
            assert parameter.grad is None, name
            continue
        assert parameter.grad.isfinite().all(), name
        # nothing is to be learned of abnormal patches where there are none
        if 1 in labels or name != "t_a":
            assert parameter.grad.abs().max() > 0, name


def test_draws_come_from_the_batch():
    detector, state = made(), torch.get_rng_state()
    first, same, other = (total(detector, batch_of(0, 1, draw=d)) for d in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_training_reduces_the_loss_and_finds_the_squares():
    detector, batch = made(sigma=0.0), batch_of(0, 1, 0, 1)
    optimizer = torch.optim.Adam(detector.learned.values(), lr=3e-3)
    before = float(total(detector, batch).detach())
    for _ in range(25):
        optimizer.zero_grad()
        loss = total(detector, batch)
        loss.backward()
        optimizer.step()
    detector.after_learning()
    assert float(loss.detach()) < 0.8 * before
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
    assert "reconstruction" not in made(reconstruction="none").training_loss(batch_of(0, 1))


def test_patches_that_hold_one_abnormal_pixel():
    masks = torch.zeros(1, 16, 24)
    masks[0, 9, 23] = 1
    assert made().patch_labels(masks).tolist() == [[False] * 5 + [True]]


# --- official checkpoints ------------------------------------------------------------------------


def test_an_official_file_is_taken_over():
    detector = made()
    file = published(detector)
    file["prompt_learner"]["projector.net.0.weight"] = torch.ones(2)  # unused, as documented
    state = detector.official_state(file)
    assert set(state) == set(detector.learned)
    assert torch.equal(state["prompts.ctx_pos"], file["prompt_learner"]["ctx_pos"])
    assert torch.equal(
        state["vae_decoder.net.2.bias"], file["prompt_learner"]["vae_decoder.net.2.bias"]
    )
    assert torch.equal(state["vae_encoder.mean.weight"], detector.vae_encoder.mean.weight)
    before = detector(images(1)).map
    detector.load_state_dict(state, strict=False)
    detector.after_learning()
    assert not torch.equal(detector(images(1)).map, before)


def test_the_files_shapes_tell_the_sizes():
    file = published(made(prototypes=3, depth=2, deep_length=5))
    options = CoPS.official_options(file)
    assert options == {"prototypes": 3, "depth": 2, "deep_length": 5}
    assert CoPS.official_options({}) == {}


def test_faults_of_a_file_are_listed_together():
    detector = made()
    file = published(detector)
    learner = file["prompt_learner"]
    del learner["t_n"]
    learner["ctx_pos"] = torch.zeros(1, 1, 12, 64)
    learner["surprise"] = torch.zeros(1)
    with pytest.raises(ValueError) as caught:
        detector.official_state(file)
    message = str(caught.value)
    for fault in ("t_n is missing", "ctx_pos has shape (1, 1, 12, 64)", "surprise is unknown"):
        assert fault in message


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"prototypes": 0}, "prototypes"),
        ({"samples": 0}, "samples"),
        ({"window": 4}, "window is an odd"),
        ({"training_window": 0}, "training_window is an odd"),
        ({"alpha": 1.1}, "alpha"),
        ({"beta": -0.1}, "beta"),
        ({"temperature": 0.0}, "temperature"),
        ({"sigma": -1.0}, "sigma"),
        ({"upsampling": "cubic"}, "upsampling"),
        ({"reconstruction": "half"}, "reconstruction"),
    ],
)
def test_impossible_hyper_parameters(option, reason):
    with pytest.raises(ValueError, match=reason):
        CoPSConfig(**option)
