"""What the image tower begins with: fine detail, a sense of place, a look at what is alike."""

import pytest
import torch

from zerodefect.backbones.clip import VisionConfig, VisionTower
from zerodefect.pretraining.initial_weights import attend_alike, prepare, waves, whiten


def test_patches_begin_as_an_orthogonal_transform() -> None:
    weight = torch.zeros(192, 3, 8, 8)
    whiten(weight)
    flat = weight.flatten(1)
    gram = flat @ flat.T
    off = gram - torch.diag(gram.diagonal())
    assert off.abs().max() < 1e-5
    plain = (weight @ torch.ones(8)).sum(-1).sum(-1)  # answer to a patch of one brightness
    assert (plain.abs() > 1e-4).sum() == 1


@pytest.mark.parametrize("grid", [(16, 16), (6, 10)])
def test_positions_are_most_alike_where_patches_touch(grid: tuple[int, int]) -> None:
    found = waves(grid, 192)
    assert found.shape == (grid[0] * grid[1], 192)
    torch.testing.assert_close(found.norm(dim=1), torch.full((len(found),), 4.0).double())
    alike = (found @ found.T / 16).view(*grid, *grid)
    middle = alike[grid[0] // 2, grid[1] // 2]
    row, column = grid[0] // 2, grid[1] // 2
    assert middle[row, column] == pytest.approx(1.0)
    for step in ((0, 1), (1, 0)):
        near = middle[row - step[0], column - step[1]]
        far = middle[row - 3 * step[0], column - 3 * step[1]]
        assert 1 > near > far


def test_narrow_towers_have_positions_too() -> None:
    assert waves((2, 2), 3).abs().sum() == 0  # no room for a wave in both directions
    assert waves((2, 2), 6)[:, 4:].abs().sum() == 0
    assert waves((1, 1), 4).isfinite().all()


def test_heads_begin_by_looking_at_what_is_alike() -> None:
    torch.manual_seed(0)
    in_proj, out_proj = torch.zeros(3 * 192, 192), torch.zeros(192, 192)
    attend_alike(in_proj, out_proj, 3, torch.Generator().manual_seed(0))
    q, k, v = in_proj.chunk(3)
    x = torch.randn(20, 192)
    for rows in (slice(0, 64), slice(64, 128), slice(128, 192)):
        logits = (x @ q[rows].T) @ (x @ k[rows].T).T
        own = logits.diagonal()
        others = logits[~torch.eye(20, dtype=torch.bool)]
        assert own.mean() > others.mean() + 3 * others.std()
    # values and output projection together begin near -0.4 times the token
    through = out_proj @ v
    assert through.diagonal().mean() == pytest.approx(-0.4, abs=0.05)
    assert abs(float((through - torch.diag(through.diagonal())).mean())) < 0.01


def test_a_prepared_tower_depends_on_the_seed_alone() -> None:
    config = VisionConfig(image_size=32, patch_size=8, width=64, layers=2, heads=1)
    towers = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        tower = VisionTower(config, 16, "gelu")
        for parameter in tower.parameters():
            torch.nn.init.normal_(parameter)
        prepare(tower, seed)
        towers.append(tower.state_dict())
    first, again, other = towers
    assert all(torch.equal(first[name], again[name]) for name in first)
    name = "transformer.resblocks.1.attn.in_proj_weight"
    assert not torch.equal(first[name], other[name])
