"""IAD-R1's rewards and its SC-GRPO loss against the official ones."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_clip
import torch
from cases import Case, find

from zerodefect.layers.group_policy import group_policy_loss, token_log_probs, tokens_until_end
from zerodefect.training.defect_types import type_score
from zerodefect.training.reasoning_rewards import (
    accuracy_reward,
    consistency_reward,
    location_reward,
    rewards,
)

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module", params=find("iad_r1"))
def case(request) -> Case:
    return Case(request.param)


def test_rewards(case):
    pairs = list(zip(case.meta["completions"], case.meta["solutions"], strict=True))
    for name, reward in (("accuracy", accuracy_reward), ("consistency", consistency_reward)):
        got = [reward(*pair) for pair in pairs]
        np.testing.assert_allclose(got, case.arrays[f"out/{name}"], atol=1e-12, rtol=0)
    together = case.arrays["out/accuracy"] + case.arrays["out/consistency"]
    got = rewards(case.meta["completions"], case.meta["solutions"])
    np.testing.assert_allclose(got, together, atol=1e-12, rtol=0)


def test_types_and_locations(case):
    types = [type_score(*pair) for pair in case.meta["type_pairs"]]
    np.testing.assert_allclose(types, case.arrays["out/type"], atol=1e-12, rtol=0)
    places = [location_reward(*pair) for pair in case.meta["location_pairs"]]
    np.testing.assert_allclose(places, case.arrays["out/location"], atol=1e-12, rtol=0)


def log_probs(emb, out, prompt, completions, mask):
    """Of the case's model: a running mean over attended positions, read out by a second table."""
    ids = torch.cat([prompt, completions], dim=1)
    attended = torch.cat([torch.ones_like(prompt), mask], dim=1)
    weights = attended[..., None].to(emb.dtype)
    mean = (emb[ids] * weights).cumsum(1) / weights.cumsum(1).clamp(min=1)
    logits = 3 * torch.tanh(mean) @ out.T
    before = prompt.shape[1] - 1
    return token_log_probs(logits[:, before:-1], completions)


def test_sc_grpo_loss_and_gradients(case):
    facts = case.meta["grpo"]
    shape = (facts["V"], facts["H"])

    def table(name):
        values = tiny_clip.fill(facts["seed"], f"{name}.weight", shape)
        return torch.from_numpy(np.asarray(values))

    completions = case.tensor("grpo/completions").long()
    prompt = case.tensor("grpo/prompt").long().expand(len(completions), -1)
    mask = tokens_until_end(completions, 2)
    policy = [table(f"policy.{part}").requires_grad_() for part in ("emb", "out")]
    said = log_probs(*policy, prompt, completions, mask)
    reference = log_probs(
        *(table(f"reference.{part}") for part in ("emb", "out")), prompt, completions, mask
    )
    given = torch.tensor(rewards(facts["texts"], [facts["solution"]] * len(facts["texts"])))
    got = group_policy_loss(said, reference, mask, given, group=facts["G"], beta=facts["beta"])
    got.loss.backward()
    found = {
        "loss": got.loss,
        "grad_emb": policy[0].grad,
        "grad_out": policy[1].grad,
        **{name: getattr(got, name) for name in ("kl", "reward", "reward_std")},
        "completion_length": got.completion_length,
    }
    for name, value in found.items():
        expected = case.arrays[f"out/grpo/{name}"]
        np.testing.assert_allclose(
            value.detach().numpy(), expected, rtol=1e-4, atol=1e-6, err_msg=name
        )
