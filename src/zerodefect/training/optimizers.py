"""Who moves which values, by which optimiser, at which rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from zerodefect.detector.contract import Detector
from zerodefect.detector.recipes import Learner, Recipe, Stage


def check_learners(detector: Detector, stages: Sequence[Stage]) -> None:
    """Make sure that learners change learned values, each value by one at a time, none forgotten.

    Raises:
        ValueError: they do not.
    """
    learned = {id(p) for p in detector.learned.values()}
    moved: set[int] = set()
    for stage in stages:
        own = [id(p) for each in stage.learners for group in each.groups for p in group["params"]]
        if len(set(own)) < len(own) or not set(own) <= learned:
            raise ValueError(
                f"{detector.info.name}: the parameter groups of a stage hold a value twice, or one "
                "that is not learned"
            )
        moved |= set(own)
    if moved != learned:
        raise ValueError(f"{detector.info.name}: a learned value is in none of its groups")


def optimizer_of(learner: Learner, recipe: Recipe) -> torch.optim.Optimizer:
    """Optimiser of a learner in a stage of this recipe; a group's full rate is its ``peak``."""
    recipe = learner.recipe or recipe
    shared = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    groups = [{**shared, **group} for group in learner.groups]
    groups = [{**group, "peak": group["lr"]} for group in groups]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, betas=recipe.betas)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=recipe.betas)
    return torch.optim.SGD(groups, momentum=recipe.betas[0])


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Share of the peak learning rate in a step (from 0) of ``steps``."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    if recipe.schedule == "constant":
        return 1.0
    if recipe.schedule == "halves":
        return 0.5 ** ((step >= 16_000) + (step >= 32_000))
    done = (step - recipe.warm_up) / max(1, steps - recipe.warm_up)
    if recipe.schedule == "steps":
        return 0.2 ** ((done >= 0.8) + (done >= 0.9))
    return (1 + math.cos(math.pi * done)) / 2
