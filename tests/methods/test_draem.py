"""What is DRAEM's own: good pictures are damaged, and it learns to tell where."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from zerodefect import cli
from zerodefect.methods import load_detector
from zerodefect.methods.draem import DRAEM
from zerodefect.procedural.draws import Draws
from zerodefect.types import TrainingBatch


def draem(**options) -> DRAEM:
    return DRAEM.build(**{"reconstructive_width": 4, "discriminative_width": 4, **options})


def draws(count: int) -> Draws:
    return Draws(0, np.arange(count, dtype=np.uint64), torch.device("cpu"))


def test_about_half_of_the_pictures_are_damaged_and_a_third_is_turned():
    images = torch.rand(200, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    good, damaged, mask = draem().corrupted(images, draws(200))
    turned = (good != images).flatten(1).any(1).float().mean()
    assert 0.2 < turned < 0.4
    changed = (damaged != good).flatten(1).any(1)
    assert 0.25 < changed.float().mean() < 0.55  # some masks are empty
    assert torch.equal(changed, mask.flatten(1).any(1))
    outside = (damaged != good).any(1) & (mask == 0)
    assert not outside.any()


def test_shares_of_nothing_leave_everything_as_it_is():
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    good, damaged, mask = draem(damaged=0.0, turned=0.0).corrupted(images, draws(4))
    assert torch.equal(good, images) and torch.equal(damaged, images) and not mask.any()


def test_the_score_is_the_highest_mean_with_zeros_outside():
    detector = draem()
    logits = torch.full((1, 2, 64, 64), -20.0)
    logits[:, 0] = 20
    logits[0, :, 30:33, 10:20] = torch.tensor([-20.0, 20.0])[:, None, None]  # 30 pixels
    got = detector.predict(logits, detector.empty())
    torch.testing.assert_close(got.score, torch.tensor([30 / 21**2]))
    logits[0, 0], logits[0, 1] = -20, 20
    at_corner = detector.predict(logits[..., :11, :11], detector.empty())
    torch.testing.assert_close(at_corner.score, torch.tensor([11 * 11 / 21**2]))


@pytest.mark.slow
@pytest.mark.training
def test_it_learns_where_good_pictures_were_damaged():
    detector = draem(damaged=1.0, turned=0.0, discriminative_width=8).train()
    images = torch.full((8, 3, 32, 32), 0.5)
    blank, labels = torch.zeros(8, 32, 32), torch.zeros(8, dtype=torch.int64)
    batch = TrainingBatch(images, blank, labels, ("plate",) * 8, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(detector.parameters(), 5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        sum(detector.training_loss(batch).values()).backward()
        optimizer.step()
    _, damaged, mask = detector.corrupted(images, draws(8))
    with torch.no_grad():  # running statistics lag behind after so few steps
        map = detector.encode(damaged).softmax(1)[:, 1]
    assert map[mask > 0].mean() > 1.5 * map[mask == 0].mean()


@pytest.mark.slow
def test_two_official_files_become_one_checkpoint(tmp_path):
    published = draem(seed=5)
    files = [tmp_path / "run.pckl", tmp_path / "run_seg.pckl"]
    for file, network in zip(
        files, (published.reconstructive, published.discriminative), strict=True
    ):
        torch.save(network.state_dict(), file)
    target = tmp_path / "draem.safetensors"
    words = ["import", "draem", *map(str, files), "-o", str(target)]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    loaded = load_detector("draem", checkpoint=target, device="cpu")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loaded(images).map, published.eval()(images).map)
    half = CliRunner().invoke(cli.app, ["import", "draem", str(files[0]), "-o", str(target)])
    assert "encoder_segment.block1.0.weight is missing" in str(half.exception)
    twice = CliRunner().invoke(cli.app, [*words[:3], *words[2:3], "-o", str(target)])
    assert "stands in another file, too" in str(twice.exception)
