"""The second stage: a tower on the stem learns beside the first towers, which stand still."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from test_pretrain_clip import CONFIG, TINY, log_of

from zerodefect.backbones.clip import VisionConfig
from zerodefect.backbones.clip_weights import load_clip
from zerodefect.images import normalised
from zerodefect.pretraining.pretrain_clip import CHECKPOINT, pretrain
from zerodefect.pretraining.pretrain_stem import WEIGHTS, StemConfig, jittered, stem_losses
from zerodefect.procedural import generate

pytestmark = pytest.mark.usefixtures("same_threads_afterwards")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(replace(CONFIG, steps=2), tmp_path_factory.mktemp("first"))


def config_onto(first: Path, **changed) -> StemConfig:
    vision = VisionConfig(64, 8, 32, 1, 1, 2.0, "efficientnet_lite0")
    return StemConfig(
        **{
            "steps": 4, "batch": 2, "warm_up": 2, "windows": 2, "early_sizes": (64,),
            "late_sizes": (64,), "threads": 1, "onto": str(first), "sides": (4, 8),
            "model": replace(TINY, vision=vision, fine=TINY.vision), "checkpoint_every": 2,
            "log_every": 1, "workers": 0, **changed,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("second")
    pretrain(config_onto(first), folder)
    return folder


def test_what_was_learned_first_stands_still(first: Path, finished: Path) -> None:
    before, after = load_file(first), load_file(finished / "embedded.safetensors")
    for name, value in before.items():
        kept = name.replace("visual.", "fine.") if name.startswith("visual.") else name
        assert torch.equal(after[kept], value), name
    loaded = load_clip(str(finished / "embedded.safetensors"))
    assert loaded.patches_match_texts
    assert loaded.clip.fine is not None
    assert loaded.clip.visual.config.stem == "efficientnet_lite0"


def test_every_loss_is_logged(finished: Path) -> None:
    lines = log_of(finished)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert set(lines[0]) == {"step", "loss", *(f"loss/{name}" for name in WEIGHTS)}


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    first: Path, finished: Path, tmp_path: Path
) -> None:
    pretrain(config_onto(first), tmp_path, until=3)
    pretrain(config_onto(first), tmp_path)
    assert log_of(tmp_path) == log_of(finished)
    ours, theirs = load_file(tmp_path / CHECKPOINT), load_file(finished / CHECKPOINT)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_second_stage_can_begin_with_its_own_outcome(finished: Path, tmp_path: Path) -> None:
    """Its first tower is then trained anew, and what sees pixels is taken over."""
    weights = finished / "embedded.safetensors"
    again = load_file(pretrain(config_onto(weights, steps=1), tmp_path))
    before = load_file(weights)
    assert again.keys() == before.keys()
    assert all(torch.equal(again[n], before[n]) for n in before if n.startswith("fine."))


def test_losses_fall_on_pictures_seen_again(first: Path) -> None:
    config = config_onto(first, noise=0.0, dropped=0.0, sides=(8,))
    clip = config.begin()
    (optimizer,) = config.optimizers(clip)
    for group in optimizer.param_groups:
        group["lr"] = 3e-3
    batch, totals = generate(0, 0, 8, 64, pictures_per_product=2), []
    for _ in range(25):
        draws = torch.Generator().manual_seed(0)
        total = config.total(stem_losses(clip, batch, config, draws, seed=1), 0)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.8 * totals[0]
    learned = {name for name, p in clip.named_parameters() if p.grad is not None}
    assert learned
    assert all(n.startswith("visual.") and ".eyes." not in n for n in learned)


@torch.no_grad()
def test_without_noise_the_tower_is_taught_as_it_is_used(first: Path) -> None:
    """Of whole pictures, the class token of the loss is the tower's own image embedding."""
    config = config_onto(first, noise=0.0, dropped=0.0, sides=(8,))
    clip, batch = config.begin().eval(), generate(0, 0, 4, 64)
    seen = []
    clip.visual.ln_post.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    stem_losses(clip, batch, config, torch.Generator().manual_seed(0), seed=1)
    taught = clip.visual.project(seen[0][:, 0])
    torch.testing.assert_close(taught, clip.visual(normalised(batch.images)), atol=1e-5, rtol=1e-4)


def test_jittered_pictures_are_pictures_and_hang_on_the_draws_alone() -> None:
    images = generate(0, 0, 12, 32).images
    before = images.clone()
    first, again = (jittered(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(images, before)
    assert first.shape == images.shape
    assert first.min() >= 0 and first.max() <= 1
    assert not torch.equal(first, jittered(images, torch.Generator().manual_seed(4)))
    grey = (first.amax(1) - first.amin(1)).flatten(1).mean(1) < 0.05  # noise is per channel
    assert 0 < int(grey.sum()) < 12


def test_blur_is_a_gaussian_of_its_own_width_per_picture() -> None:
    from zerodefect.pretraining.pretrain_stem import _blurred

    pictures = torch.rand(2, 3, 24, 24, dtype=torch.float64)
    found = _blurred(pictures, torch.tensor([0.8, 1e-3], dtype=torch.float64))
    wanted = gaussian_filter(pictures[0, 1].numpy(), 0.8, radius=3, mode="mirror")
    torch.testing.assert_close(found[0, 1], torch.from_numpy(wanted))
    torch.testing.assert_close(found[1], pictures[1])


def test_surroundings_are_drawn_where_asked_for(first: Path) -> None:
    plain = config_onto(first, batch=32)
    around = replace(plain, surroundings=True)
    assert plain.identity() != around.identity()
    assert not torch.equal(plain.draw(0).images, around.draw(0).images)
    assert torch.equal(around.draw(1).images, around.draw(1).images)
