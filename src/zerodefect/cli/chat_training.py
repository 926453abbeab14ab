"""``zerodefect train iad_r1``: a chat model is taught instead of a method of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerodefect.cli.options import MachineOptions, NetworkOptions, Options, option
from zerodefect.cli.telling import LeftOut, progress, say, tell

if TYPE_CHECKING:
    from zerodefect.training.chat_lessons import ChatLesson

_TAUGHT = ("iad_r1",)
_STAGES = ("answers", "rewards")
_ANSWERS = "answers:"  # before a file of whole answers in the place of a data set


@dataclass(frozen=True)
class ChatStageOptions(Options, panel="Training"):
    """Which stage of a chat model's training."""

    stage: str | None = option(
        None, "Of iad_r1: answers, to be imitated, or rewards for sampled ones; in this order."
    )


def taught(method: str, chat: ChatStageOptions) -> bool:
    """Whether a chat model is taught.

    Raises:
        ValueError: a stage of another method, or none or an unknown one of such a method.
    """
    if method not in _TAUGHT:
        if chat.stage is not None:
            raise ValueError(f"--stage is for {', '.join(_TAUGHT)}; leave it out")
        return False
    if chat.stage not in _STAGES:
        raise ValueError(
            f"{method} is taught in two stages: --stage {' or --stage '.join(_STAGES)}"
        )
    return True


def teach(
    method: str,
    chat: ChatStageOptions,
    data: Any,
    network: NetworkOptions,
    recipe: Options,
    run: Any,
    machine: MachineOptions,
    output: Path | None,
    processes: int,
) -> None:
    """Teach one stage; the arguments are groups of the verb ``train``.

    Raises:
        ValueError: options that such a model does not have, no model, or nothing to learn.
    """
    from zerodefect.training.chat_lessons import check_lessons
    from zerodefect.training.teach_chat import ChatTeaching, teach_chat

    said = {name: value for name, value in recipe.keywords().items() if value is not None}
    others = {
        "--val": data.val,
        "--train-good": data.train_good,
        "--object": data.object,
        "--few": "augment" in said,
        "--mosaic": run.mosaic,
        "--workers": run.workers,
        "--processes": processes > 1,
        "--set": network.settings,
        "--image-size": network.image_size,
    }
    if unknown := [name for name, value in others.items() if value]:
        raise ValueError(f"a chat model is taught without {', '.join(unknown)}: leave it out")
    steps = {"max_steps": run.max_steps, "save_steps": run.state_steps}
    given = {**said, **{name: value for name, value in steps.items() if value is not None}}
    folder, left_out = output or Path("runs") / f"{method}-{chat.stage}", LeftOut()
    lessons = [
        lesson for entry in data.data for lesson in _lessons(entry, data.layout, left_out.add)
    ]
    model = _model(method, network, machine)
    stage: Any = chat.stage
    kept = check_lessons(lessons, imitated=stage == "answers")
    say(f"{len(kept)} pictures to learn from; {len(left_out)} left out")
    if bare := len(lessons) - len(kept):
        say(f"{bare} defects have no mask, and so no answer to imitate")
    with progress(f"teaching {chat.stage}") as bar:
        made = teach_chat(model, kept, folder, stage, ChatTeaching(**given), on_log=_told(bar))
    tell(f"model: {made}")
    tell(f"use:   zerodefect inspect PICTURES --method {method} --backbone {made}")


def _lessons(entry: str, layout: str, on_failure: Callable[[Any], None]) -> list[ChatLesson]:
    """Of a data set, or of a file of answers."""
    from zerodefect.data import open_dataset
    from zerodefect.training.chat_lessons import lessons_of, read_lessons

    if entry.startswith(_ANSWERS):
        return read_lessons(entry.removeprefix(_ANSWERS), on_failure)
    return lessons_of(open_dataset(entry, layout), on_failure)


def _model(method: str, network: NetworkOptions, machine: MachineOptions) -> Any:
    """The chat model that was named, as the method would load it."""
    from zerodefect.detector.load_detector import load_backbones, pick_device, pick_dtype
    from zerodefect.methods import get

    named, device = network.keywords(), pick_device(machine.device)
    where: dict[str, Any] = {"device": device, "dtype": pick_dtype(machine.precision, device)}
    (model,) = load_backbones(get(method), named["backbone"], named["weights"], **where)
    return model


def _told(bar: Callable[..., None]) -> Callable[[dict[str, float]], None]:
    """Tells of every step's loss, and of the rewards where there are any."""

    def on_log(figures: dict[str, float]) -> None:
        told = [
            f"{name} {figures[name]:.4f}" for name in ("loss", "reward", "kl") if name in figures
        ]
        if told:
            bar(completed=int(figures["step"]), description=" ".join(told))
            say(f"step {int(figures['step'])}: {', '.join(told)}")

    return on_log
