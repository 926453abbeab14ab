"""Pretraining of the embedded model on procedural pictures: ``zerodefect pretrain``.

A run is a pure function of its configuration: step n draws pictures, prompts and windows from
(seed, n) alone. Killed at any moment and started again, it goes on from its last checkpoint and
ends with the same weights, on the same machine with the same number of threads.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from zerodefect.backbones.clip import CLIP, CLIPConfig, TextConfig, VisionConfig
from zerodefect.files import atomic_write
from zerodefect.images import CLIP_MEAN, CLIP_STD, normalised
from zerodefect.pretraining.initial_weights import prepare
from zerodefect.pretraining.objectives import text_losses, total_loss, training_losses
from zerodefect.pretraining.sample_sheets import samples
from zerodefect.procedural import ProceduralBatch, generate
from zerodefect.training.journal import Journal
from zerodefect.training.run_state import TrainingError

EMBEDDED = CLIPConfig(
    embed_dim=128,
    vision=VisionConfig(image_size=128, patch_size=8, width=192, layers=6, heads=3),
    text=TextConfig(context_length=77, vocab_size=49408, width=128, heads=2, layers=4),
)
"""Shape of the embedded model. The text tower is as wide as the joint space, so that methods which
feed image features into sentences (VCP-CLIP, CoPS, Crane) run on it."""

RECOMMENDED_METHOD = "dense"
"""Patches that see the whole picture find more than small windows that do not."""

RECOMMENDED: dict[str, dict[str, Any]] = {
    "dense": {
        "image_size": 256,
        "sizes": [0.5, 1.0],
        "image_score": "map",
        "reference_weight": 0.8,
        "reference_scale": 0.4,
    },
    "winclip": {"image_score": "map"},
    # These weights' patches were trained to match texts; a second stream would only blur them.
    "anomalyclip": {"attention": "plain"},
    "glocalclip": {"attention": "plain"},
    "crane": {"attention": "plain"},
}
"""Hyper-parameters that suit the embedded model, chosen on held-out procedural pictures and
``neu_steel``."""

CHECKPOINT = "checkpoint.safetensors"
SAMPLES = "samples.png"


class PretrainError(TrainingError):
    """The pretraining run cannot go on; the message says why and what helps."""


@dataclass(frozen=True)
class PretrainConfig:
    """What a run does; everything here changes the weights, except the last four.

    Attributes:
        seed: decides weights, pictures, prompts and windows.
        steps: optimiser steps.
        text_steps: the first of them, which teach the text tower alone to tell states apart;
            afterwards it stands still, so that the image tower has a fixed goal.
        batch: pictures of the model's own size per step, two of each product; as many fewer or
            more of another size as make about the same number of patches.
        learning_rate: peak, reached ``warm_up`` steps after a tower begins to learn; a cosine takes
            it to a hundredth at the end. Matrices of the image tower's blocks are updated by Muon
            (Jordan et al. 2024) with its step scaled to Adam's, all else by AdamW.
        weight_decay: of matrices; vectors and embeddings are spared.
        warm_up: steps of linear rise.
        ema: decay of the averaged weights, which are the ones exported.
        clip_norm: largest gradient norm.
        windows: windows per picture judged through windows, and window side.
        groups: product names per step.
        early_sizes: sides in pixels that the first steps with pictures take in turn. Small ones let
            the tower see more pictures in the same time.
        late_sizes: sides that the remaining steps take in turn; the sizes of use.
        early: share of the steps with pictures that take early sizes.
        precision: of matrix products; ``bfloat16`` where the processor has it in hardware.
        device: where the model is trained and pictures are drawn.
        threads: of this process; another number may change the last bits.
        model: shape of the towers.
        checkpoint_every: steps between checkpoints.
        log_every: steps between log lines.
        show_every: steps between drawings of curves and samples.
        workers: processes that draw pictures ahead, 0 for none; on a GPU none is needed.
    """

    seed: int = 0
    steps: int = 8000
    text_steps: int = 240
    batch: int = 16
    learning_rate: float = 8e-4
    weight_decay: float = 0.05
    warm_up: int = 100
    ema: float = 0.998
    clip_norm: float = 1.0
    windows: int = 4
    groups: int = 2
    early_sizes: tuple[int, ...] = (96, 96, 64, 96, 96, 160)
    late_sizes: tuple[int, ...] = (128, 128, 192, 128, 96, 128, 128, 256, 128, 160)
    early: float = 0.6
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    device: str = "cpu"
    threads: int = 2
    model: CLIPConfig = field(default=EMBEDDED)
    checkpoint_every: int = 50
    log_every: int = 10
    show_every: int = 500
    workers: int = 1

    def identity(self) -> str:
        """JSON of all that the result depends on."""
        facts = asdict(self)
        for name in ("checkpoint_every", "log_every", "show_every", "workers"):
            del facts[name]
        return json.dumps(facts, sort_keys=True)

    def pictures(self, step: int) -> tuple[int, int, int]:
        """First picture, count and size of a step (from 0)."""
        with_pictures = max(0, step - self.text_steps)
        late = with_pictures >= self.early * (self.steps - self.text_steps)
        sizes = self.late_sizes if late else self.early_sizes
        size = sizes[step % len(sizes)]
        return step * self._most, self._count(size), size

    def _count(self, size: int) -> int:
        """Pictures of that size in a step: at least two, and whole pairs."""
        area = (self.model.vision.image_size / size) ** 2
        return max(2, int(self.batch * area) // 2 * 2)

    @property
    def _most(self) -> int:
        """Pictures that the series keeps for each step, so that none comes twice."""
        return max(map(self._count, {*self.early_sizes, *self.late_sizes}))


class _Steps(Dataset[ProceduralBatch]):
    """The pictures of each step, for a worker process to draw ahead."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config

    def __len__(self) -> int:
        return self.config.steps

    def __getitem__(self, step: int) -> ProceduralBatch:
        start, count, size = self.config.pictures(step)
        device = self.config.device
        return generate(self.config.seed, start, count, size, device, pictures_per_product=2)


def _one(items: list[ProceduralBatch]) -> ProceduralBatch:
    return items[0]


def _batches(config: PretrainConfig, first: int) -> Iterator[ProceduralBatch]:
    """Batches of step ``first``, or of the first step that has any, and all that follow."""
    first = max(first, config.text_steps)
    workers = config.workers if config.device == "cpu" else 0  # a GPU draws faster than they do
    loader = DataLoader(
        _Steps(config),
        batch_size=1,
        sampler=range(first, config.steps),
        collate_fn=_one,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
    return iter(loader)


@dataclass
class _State:
    """Everything that a checkpoint holds."""

    clip: CLIP
    averaged: dict[str, Tensor]
    optimizers: tuple[torch.optim.Optimizer, ...]
    step: int = 0

    @classmethod
    def start(cls, config: PretrainConfig) -> _State:
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

    def moments(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """What its optimiser remembers of a parameter."""
        for optimizer in self.optimizers:
            if parameter in optimizer.state:
                return optimizer.state[parameter]
        return {}

    def _owner(self, parameter: nn.Parameter) -> torch.optim.Optimizer:
        for optimizer in self.optimizers:
            if any(parameter is p for group in optimizer.param_groups for p in group["params"]):
                return optimizer
        raise KeyError("a parameter without optimiser")

    def tensors(self) -> dict[str, Tensor]:
        """Weights, average and moments under flat names."""
        found = {f"ema/{name}": value for name, value in self.averaged.items()}
        for name, parameter in self.clip.named_parameters():
            found[f"model/{name}"] = parameter.detach()
            for key, value in self.moments(parameter).items():
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
                            self._owner(parameter).state[parameter][key] = value
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


def learning_rate(config: PretrainConfig, step: int, tower: str) -> float:
    """Rate of a tower in a step (from 0): linear rise, then a cosine to a hundredth of the peak.

    The text tower learns in the first ``text_steps``, the image tower after them.
    """
    begin, end = (0, config.text_steps) if tower == "text" else (config.text_steps, config.steps)
    if not begin <= step < end:
        return 0.0
    passed, warm_up = step - begin, min(config.warm_up, (end - begin) // 3)
    if passed < warm_up:
        return config.learning_rate * (passed + 1) / warm_up
    done = (passed - warm_up) / max(1, end - begin - warm_up)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


def _train_step(
    config: PretrainConfig, state: _State, batch: ProceduralBatch | None
) -> dict[str, float]:
    """One optimiser step, on texts alone where there is no batch; returns the losses."""
    step_seed = config.seed * 1_000_003 + state.step
    reduced = config.precision == "bfloat16"
    device = torch.device(config.device)
    with torch.autocast(device.type, torch.bfloat16) if reduced else nullcontext():
        if batch is None:
            losses = text_losses(state.clip, step_seed, config.groups)
        else:
            losses = training_losses(
                state.clip,
                batch,
                normalised(batch.images),
                step_seed=step_seed,
                windows=config.windows,
                groups=config.groups,
            )
    trained = (state.step - config.text_steps) / max(1, config.steps - config.text_steps)
    total = total_loss(losses, max(0.0, trained))
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, state.step, group["tower"])
        optimizer.zero_grad(set_to_none=True)
    total.backward()
    parameters = [p for p in state.clip.parameters() if p.grad is not None]
    torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm, error_if_nonfinite=True)
    for optimizer in state.optimizers:
        optimizer.step()
    # Early on the average follows quickly: the first weights are noise.
    decay = min(config.ema, (1 + state.step) / (10 + state.step))
    for name, parameter in state.clip.named_parameters():
        state.averaged[name].lerp_(parameter.detach(), 1 - decay)
    state.step += 1
    return {"total": float(total.detach()), **{n: float(v.detach()) for n, v in losses.items()}}


def pretrain(
    config: PretrainConfig,
    output: str | Path,
    progress: Callable[[int, dict[str, float]], None] | None = None,
    until: int | None = None,
) -> Path:
    """Train the embedded model, or go on with a run that was cut off.

    Args:
        config: what to do.
        output: folder of the run: checkpoint, journal (JSON lines, TensorBoard's file and, with
            matplotlib, curves), samples of what the averaged weights say of pictures, and, at the
            end, the exported model ``embedded.safetensors`` with ``embedded.json``.
        progress: called after every step with the number of steps done and the losses.
        until: stop after this step, export what there is, and go on when called again.

    Returns:
        Path of the exported weights.

    Raises:
        PretrainError: the folder holds a run of another configuration, or a broken checkpoint.
        RuntimeError: the gradient is not finite.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    state = _State.start(config)
    checkpoint, identity = folder / CHECKPOINT, config.identity()
    if checkpoint.exists():
        state.load(checkpoint, identity)
    journal = Journal(folder, state.step)
    since, pictures = time.perf_counter(), 0
    batches = _batches(config, state.step)
    end = config.steps if until is None else min(until, config.steps)
    while state.step < end:
        batch = None if state.step < config.text_steps else next(batches).to(config.device)
        losses = _train_step(config, state, batch)
        pictures += 0 if batch is None else len(batch.images)
        last = state.step == end
        if state.step % config.log_every == 0 or last:
            rate = pictures / (time.perf_counter() - since)
            named = {f"loss/{name}": loss for name, loss in losses.items() if name != "total"}
            journal.write(
                {
                    "step": state.step,
                    "loss": losses["total"],
                    **named,
                    "images_per_second": round(rate, 2),
                }
            )
            since, pictures = time.perf_counter(), 0
        if state.step % config.checkpoint_every == 0 or last:
            state.save(checkpoint, identity)
        if state.step % config.show_every == 0 or last:
            journal.draw()
            samples(folder / SAMPLES, state.average())
        if progress:
            progress(state.step, losses)
    return export(folder, folder)


def export(run: str | Path, target: str | Path) -> Path:
    """Write the averaged weights of a run as a model file with its side-car.

    Args:
        run: folder of the run.
        target: folder for ``embedded.safetensors`` (float16, open_clip's native names) and
            ``embedded.json`` (open_clip's configuration and ``preprocess_cfg``).

    Returns:
        Path of the weights.

    Raises:
        PretrainError: the run has no readable checkpoint.
    """
    checkpoint = Path(run) / CHECKPOINT
    try:
        with safe_open(checkpoint, "pt") as stored:
            facts = stored.metadata() or {}
            names = [n for n in stored.keys() if n.startswith("ema/")]  # noqa: SIM118
            weights = {n.removeprefix("ema/"): stored.get_tensor(n) for n in names}
    except (OSError, SafetensorError) as error:
        raise PretrainError(f"{checkpoint} cannot be read ({error}); has the run begun?") from error
    settings = json.loads(facts["config"])
    clip = CLIP(_model_config(settings["model"]))
    clip.load_state_dict(weights)
    half = {n: v.detach().half().contiguous() for n, v in clip.openai_state().items()}
    path = Path(target) / "embedded.safetensors"
    facts = {"format": "pt", "steps": facts["step"], "seed": str(settings["seed"])}
    with atomic_write(path) as file:
        file.write(save(half, facts))
    path.with_suffix(".json").write_text(
        json.dumps(_side_car(clip.config), indent=2) + "\n", encoding="utf-8"
    )
    return path


def _model_config(facts: dict[str, Any]) -> CLIPConfig:
    return CLIPConfig(
        facts["embed_dim"],
        VisionConfig(**facts["vision"]),
        TextConfig(**facts["text"]),
        facts["activation"],
    )


def _side_car(config: CLIPConfig) -> dict[str, Any]:
    # CLIP's own statistics: a loader that knows nothing of this side-car still gets them right.
    preprocess = {
        "size": config.vision.image_size,
        "mean": list(CLIP_MEAN),
        "std": list(CLIP_STD),
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    return {
        **config.to_open_clip(),
        "preprocess_cfg": preprocess,
        "licence": "Apache-2.0",
        "recommended_method": RECOMMENDED_METHOD,
        "recommended": RECOMMENDED,
    }
