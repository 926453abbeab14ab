"""The group-relative loss: values by hand, gradients, and what is refused."""

from __future__ import annotations

import pytest
import torch

from zerodefect.layers.group_policy import (
    group_advantages,
    group_policy_loss,
    token_log_probs,
    tokens_until_end,
)


def test_tokens_count_up_to_the_first_end():
    tokens = torch.tensor([[5, 2, 0, 2], [2, 5, 5, 5], [5, 6, 7, 8]])
    expected = [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]]
    assert tokens_until_end(tokens, 2).tolist() == expected


def test_advantages_are_within_groups():
    advantages, spread = group_advantages(torch.tensor([0.0, 2.0, 5.0, 5.0]), 2)
    root = 2**0.5
    torch.testing.assert_close(advantages, torch.tensor([-1, 1, 0, 0]) / (root + 1e-4))
    torch.testing.assert_close(spread, torch.tensor([root, 0.0]))
    for count, group in ((4, 3), (4, 1)):
        with pytest.raises(ValueError, match="no groups"):
            group_advantages(torch.zeros(count), group)


def test_equal_rewards_leave_the_divergence_alone():
    lp = torch.log(torch.tensor([[0.5, 0.2], [0.1, 0.4]])).requires_grad_()
    reference = torch.log(torch.tensor([[0.25, 0.2], [0.1, 0.4]]))
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    got = group_policy_loss(lp, reference, mask, torch.ones(2), group=2, beta=0.5)
    kl = 0.5 - torch.log(torch.tensor(0.5)) - 1  # of the first token alone
    torch.testing.assert_close(got.kl, (kl / 2) / 2)
    torch.testing.assert_close(got.loss, 0.5 * got.kl)
    assert got.completion_length == 1.5 and got.reward == 1 and got.reward_std == 0


def test_the_better_completion_becomes_likelier():
    logits = torch.zeros(2, 3, 4, requires_grad=True)
    tokens = torch.tensor([[0, 1, 2], [3, 1, 2]])
    lp = token_log_probs(logits, tokens)
    got = group_policy_loss(lp, lp.detach(), torch.ones(2, 3), torch.tensor([1.0, 0.0]), group=2)
    got.loss.backward()
    assert logits.grad[0, 0, 0] < 0 < logits.grad[1, 0, 3]  # a step goes against the gradient
    torch.testing.assert_close(got.loss, torch.zeros(()), atol=1e-6, rtol=0)
