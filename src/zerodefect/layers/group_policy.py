"""The loss of group-relative policy optimisation as IAD-R1 trains with it (arXiv 2508.09178)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GroupPolicy:
    """Loss of a batch of completions, and what is told of it.

    Attributes:
        loss: scalar, with a gradient for the policy.
        kl: mean divergence from the reference model over the completions.
        reward: mean reward.
        reward_std: mean deviation within the groups.
        completion_length: mean number of tokens, the end token among them.
    """

    loss: Tensor
    kl: Tensor
    reward: Tensor
    reward_std: Tensor
    completion_length: Tensor


def tokens_until_end(tokens: Tensor, end: int) -> Tensor:
    """Float mask ``(N, T)``: 1 for completion tokens up to the first ``end``, itself included.

    Args:
        tokens: ``(N, T)`` integers; a completion without an end counts whole.
        end: token that ends a completion.
    """
    before = (tokens == end).long().cumsum(1) - (tokens == end).long()
    return (before == 0).float()


def group_advantages(rewards: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """Rewards ``(N,)`` less the mean of their group over its deviation + 1e-4.

    Args:
        rewards: of all completions; those of one prompt stand one after the other.
        group: completions of each prompt, two or more.

    Returns:
        Advantages ``(N,)`` and the (unbiased) deviation of each group ``(N / group,)``.

    Raises:
        ValueError: rewards that do not make up whole groups.
    """
    if group < 2 or len(rewards) % group:
        raise ValueError(f"{len(rewards)} rewards are no groups of {group}; two or more are needed")
    groups = rewards.unflatten(0, (-1, group))
    spread = groups.std(dim=1)
    centred = groups - groups.mean(dim=1, keepdim=True)
    return (centred / (spread[:, None] + 1e-4)).flatten(), spread


def group_policy_loss(
    log_probs: Tensor,
    reference: Tensor,
    mask: Tensor,
    rewards: Tensor,
    *,
    group: int,
    beta: float = 0.04,
) -> GroupPolicy:
    """SC-GRPO's loss: one update for each sample, no clipping.

    Per token ``-(exp(lp - stop(lp)) A - beta kl)`` with ``kl = exp(ref - lp) - (ref - lp) - 1``;
    the mean over a completion's tokens, then over the completions.

    Args:
        log_probs: ``(N, T)`` of the completions' tokens under the policy, with a gradient.
        reference: ``(N, T)`` under the model before the training.
        mask: ``(N, T)``, 1 where a token counts (``tokens_until_end``).
        rewards: ``(N,)``.
        group: completions of each prompt.
        beta: weight of the divergence.

    Raises:
        ValueError: see ``group_advantages``.
    """
    advantages, spread = group_advantages(rewards, group)
    apart = reference.detach() - log_probs
    kl = apart.exp() - apart - 1
    gain = (log_probs - log_probs.detach()).exp() * advantages[:, None]
    lengths = mask.sum(1)

    def mean(values: Tensor) -> Tensor:
        return ((values * mask).sum(1) / lengths).mean()

    return GroupPolicy(
        loss=mean(beta * kl - gain),
        kl=mean(kl.detach()),
        reward=rewards.mean(),
        reward_std=spread.mean(),
        completion_length=lengths.mean(),
    )


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Logarithms ``(N, T)`` of the probabilities of tokens.

    Args:
        logits: ``(N, T, V)``, each those of the token at its place.
        tokens: ``(N, T)`` integers.
    """
    return torch.log_softmax(logits.float(), dim=-1).gather(2, tokens[..., None])[..., 0]
