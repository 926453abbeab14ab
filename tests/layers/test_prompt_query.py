"""The prompt-query head: what it compares, and with what."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from zerodefect.layers.prompt_query import PromptQueryHead, nearest_prompts


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patches(count: int, seed: int, n: int = 12) -> torch.Tensor:
    return normalize(torch.randn(count, n, 8, generator=seeded(seed)), dim=-1)


def head(context: bool = True, layers: int = 2) -> PromptQueryHead:
    made = PromptQueryHead(8, layers, 6, context=context, generator=seeded(0))
    return made.eval()


def test_the_nearest_prompt_is_that_of_the_smallest_angle():
    q = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]])
    prompts = torch.tensor([[[0.8, 0.6], [-1.0, 0.0]]])
    found, distance = nearest_prompts(q, prompts)
    assert torch.equal(found, prompts[:, [0, 0, 0]])
    torch.testing.assert_close(distance, torch.tensor([[0.2, 0.4, 0.04]]), atol=1e-6, rtol=0)
    found, distance = nearest_prompts(q[:, :1], -prompts)
    assert torch.equal(found, -prompts[:, [1]]) and distance.item() == 0


def test_each_query_has_prompts_of_its_own():
    q, prompts = patches(3, 1), patches(3, 2, 20)
    found, distance = nearest_prompts(q, prompts)
    for row in range(3):
        one, own = nearest_prompts(q[row : row + 1], prompts[row : row + 1])
        assert torch.equal(one[0], found[row]) and torch.equal(own[0], distance[row])
    shuffled = prompts[:, torch.randperm(20, generator=seeded(3))]
    assert torch.equal(nearest_prompts(q, shuffled)[0], found)


@pytest.mark.parametrize("shape", [(3, 4), (2, 6), (1, 12)])
def test_shapes(shape):
    q, r = [patches(2, 1)] * 2, [patches(2, 2)] * 2
    maps, images = head()(q, r, shape)
    assert maps.shape == (2, 2, 2, 4 * shape[0], 4 * shape[1])
    assert images.shape == (2, 2, 2)


def test_without_context_what_does_not_differ_looks_the_same_whatever_it_is():
    """And with it, it does not."""
    one, other = ([patches(1, seed)] * 2 for seed in (1, 2))
    for context in (False, True):
        compared = head(context)
        pairs = zip(compared(one, one, (3, 4)), compared(other, other, (3, 4)), strict=True)
        assert all(torch.allclose(a, b) != context for a, b in pairs)


def test_the_heads_are_shared_and_the_normalisations_are_not():
    q, r = patches(2, 1), patches(2, 2)
    compared = head()
    maps, images = compared([q, q], [r, r], (3, 4))
    assert torch.equal(maps[0], maps[1]) and torch.equal(images[0], images[1])
    compared.norms[1].running_mean += 1
    maps, images = compared([q, q], [r, r], (3, 4))
    assert not torch.equal(maps[0], maps[1]) and not torch.equal(images[0], images[1])


def test_it_learns_to_tell_what_differs():
    """Noise on a corner of otherwise equal pictures, at unseen pictures."""
    compared = PromptQueryHead(8, 1, 16, context=False, generator=seeded(0)).train()
    optimiser = torch.optim.Adam(compared.parameters(), lr=0.01)

    def pictures(seed):
        r = patches(8, seed)
        q = r.clone()
        q[:, :3] = normalize(r[:, :3] + patches(8, seed + 1000)[:, :3], dim=-1)
        maps, _ = compared([q], [r], (3, 4))
        return maps[0, :, 1] - maps[0, :, 0]

    target = torch.zeros(8, 12, 16)
    target[:, :4, :12] = 1  # the first three patches of the first row
    for step in range(30):
        optimiser.zero_grad()
        logits = pictures(step)
        torch.nn.functional.binary_cross_entropy_with_logits(logits, target).backward()
        optimiser.step()
    compared.eval()
    with torch.no_grad():
        unseen = pictures(500)
    assert unseen[:, 1:3, 1:11].mean() > unseen[:, 6:].mean() + 1


def test_initial_values_come_from_the_generator_and_one_picture_trains():
    one, again, other = (
        PromptQueryHead(8, 2, 6, context=True, generator=seeded(seed)) for seed in (1, 1, 2)
    )
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(one.local_head[0].weight, other.local_head[0].weight)
    q, r = [patches(1, 1)] * 2, [patches(1, 2)] * 2
    maps, images = one.train()(q, r, (3, 4))
    (maps.sum() + images.square().sum()).backward()
    assert all(value.grad.isfinite().all() for value in one.parameters())
