"""The state of a pretraining run, in memory and on disk."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from zerodefect.backbones.clip import CLIP
from zerodefect.files import atomic_write
from zerodefect.pretraining.initial_weights import prepare
from zerodefect.pretraining.pretrain_config import PretrainConfig
from zerodefect.training.run_state import TrainingError

CHECKPOINT = "checkpoint.safetensors"


class PretrainError(TrainingError):
    """The pretraining run cannot go on; the message says why and what helps."""


@dataclass
class PretrainState:
    """Everything that a checkpoint holds."""

    clip: CLIP
    averaged: dict[str, Tensor]
    optimizers: tuple[torch.optim.Optimizer, ...]
    step: int = 0

    @classmethod
    def start(cls, config: PretrainConfig) -> PretrainState:
        """The state before the first step.

        Raises:
            PretrainError: this PyTorch is too old.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            clip = CLIP(config.model)
        prepare(clip.visual, config.seed)
        clip.logit_scale.requires_grad_(False)  # the temperature is WinCLIP's, not learned
        clip.to(config.device)
        averaged = {n: p.detach().clone() for n, p in clip.named_parameters()}
        return cls(clip, averaged, _optimizers(config, clip))

    def average(self) -> CLIP:
        """A model of the averaged weights."""
        clip = copy.deepcopy(self.clip)
        clip.load_state_dict(self.averaged, strict=False)  # all parameters; there are no buffers
        return clip.eval()

    def tensors(self) -> dict[str, Tensor]:
        """Weights, average and moments under flat names."""
        found = {f"ema/{name}": value for name, value in self.averaged.items()}
        for name, parameter in self.clip.named_parameters():
            found[f"model/{name}"] = parameter.detach()
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(parameter, {}).items():
                    found[f"{key}/{name}"] = value
        return found

    def save(self, path: Path, identity: str) -> None:
        """Write the checkpoint in one move: a reader sees the old one or the new one."""
        facts = {"step": str(self.step), "config": identity}
        with atomic_write(path) as file:
            file.write(save(self.tensors(), facts))

    @torch.no_grad()
    def load(self, path: Path, identity: str) -> None:
        """Go on from a checkpoint.

        Raises:
            PretrainError: the checkpoint is of another configuration or cannot be read.
        """
        owners = {
            parameter: optimizer
            for optimizer in self.optimizers
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        try:
            with safe_open(path, "pt") as stored:
                facts = stored.metadata() or {}
                if facts.get("config") != identity:
                    raise PretrainError(
                        f"{path} was written with another configuration: "
                        f"{_difference(facts.get('config', '{}'), identity)}. "
                        "Take another output folder, or delete this one to begin again"
                    )
                names = set(stored.keys())
                for name, parameter in self.clip.named_parameters():
                    parameter.copy_(stored.get_tensor(f"model/{name}"))
                    self.averaged[name].copy_(stored.get_tensor(f"ema/{name}"))
                    for key in ("step", "exp_avg", "exp_avg_sq", "momentum_buffer"):
                        if f"{key}/{name}" in names:
                            value = stored.get_tensor(f"{key}/{name}").clone()
                            if key != "step":
                                value = value.to(parameter.device)
                            owners[parameter].state[parameter][key] = value
                self.step = int(facts["step"])
        except PretrainError:
            raise
        except Exception as error:
            raise PretrainError(
                f"{path} cannot be read ({error}); delete it to begin the run again"
            ) from error


def _optimizers(config: PretrainConfig, clip: CLIP) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices of the image tower's blocks, AdamW for all else.

    Raises:
        PretrainError: this PyTorch is too old for Muon.
    """
    if not hasattr(torch.optim, "Muon"):
        raise PretrainError(
            f"pretraining needs PyTorch 2.9 or newer, this is {torch.__version__}: "
            "pip install --upgrade torch torchvision"
        )
    matrices: list[nn.Parameter] = []
    groups: list[dict[str, Any]] = [
        {"params": [], "tower": tower, "weight_decay": decay}
        for tower in ("visual", "text")
        for decay in (config.weight_decay, 0.0)
    ]
    for name, parameter in clip.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("visual.transformer.") and parameter.ndim == 2:
            matrices.append(parameter)
        else:
            spared = parameter.ndim < 2 or "embedding" in name
            groups[2 * name.startswith("text") + spared]["params"].append(parameter)
    muon = torch.optim.Muon(
        [{"params": matrices, "tower": "visual"}],
        lr=0.0,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return muon, torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))


def _difference(stored: str, asked: str) -> str:
    """Names and values of the settings in which two configurations differ."""
    old, new = json.loads(stored), json.loads(asked)
    return ", ".join(
        f"{name} was {old.get(name)!r} and is now {new.get(name)!r}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    )
