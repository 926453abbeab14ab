"""Teaching a chat model to answer about defects through trl (IAD-R1, arXiv 2508.09178).

Two stages: PA-SFT imitates whole answers, SC-GRPO samples answers and raises the likelier ones
among those with higher rewards (``reasoning_rewards.py``). All parameters are trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image

from zerodefect.backbones.chat_model import ChatModel
from zerodefect.files import atomic_write
from zerodefect.images import open_image
from zerodefect.prompts.tagged_answers import TRAINING_QUESTION, training_prompt
from zerodefect.training.chat_lessons import ChatLesson, check_lessons
from zerodefect.training.reasoning_rewards import accuracy_reward, consistency_reward
from zerodefect.training.run_state import TrainingError

if TYPE_CHECKING:
    from zerodefect.backbones.local_chat import LocalChat

ChatStage = Literal["answers", "rewards"]
"""PA-SFT: answers are imitated. SC-GRPO: answers are sampled and rewarded."""

_MOST_PIXELS = 480_000  # of a picture, as the authors train
_RATES = {"answers": 1e-5, "rewards": 1e-6}
_UNFINISHED = "checkpoints"


@dataclass(frozen=True)
class ChatTeaching:
    """How a chat model is taught; the defaults are the authors', but for ``temperature``.

    Attributes:
        epochs: times that each lesson is shown.
        max_steps: at most so many steps; None for all.
        learning_rate: None for 1e-5 when answers are imitated and 1e-6 with rewards, its default
            in trl, which the authors leave as it is.
        batch_size: lessons a step and device.
        accumulation: steps whose gradients are added up.
        warm_up: steps of rising learning rate when answers are imitated.
        group: answers that are sampled for each lesson.
        beta: weight of the divergence from the model before.
        temperature: of the sampling. trl divides logits by it in the loss, too, and the authors'
            loss does not: at 1 both are the same.
        max_tokens: where a sampled answer is cut off.
        save_steps: steps between states on disk, from which a killed run goes on.
        seed: of order and sampling.
    """

    epochs: float = 1.0
    max_steps: int | None = None
    learning_rate: float | None = None
    batch_size: int = 1
    accumulation: int = 2
    warm_up: int = 100
    group: int = 4
    beta: float = 0.04
    temperature: float = 1.0
    max_tokens: int = 512
    save_steps: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if self.group < 2:
            raise ValueError("rewards compare the answers of a group: two or more are needed")


def teach_chat(
    chat: ChatModel,
    lessons: Sequence[ChatLesson],
    output: str | Path,
    stage: ChatStage,
    teaching: ChatTeaching | None = None,
    *,
    on_log: Callable[[dict[str, float]], None] = lambda figures: None,
) -> Path:
    """Teach one stage, and write the model as ``save_pretrained`` does.

    Killed and started again with the same folder, it goes on from its last state. The second stage
    starts from the folder of the first one.

    Args:
        chat: a model in this process; it is changed.
        lessons: labelled pictures.
        output: folder of the model, for ``load_chat_model`` and ``--backbone``.
        stage: which one.
        teaching: what is otherwise than the authors have it.
        on_log: called with the figures of each step (loss, rewards, divergence).

    Returns:
        The folder.

    Raises:
        ValueError: a model on a server, no lesson that the stage can use, or a file in the place of
            the folder.
        TrainingError: trl is not installed; the message names the extra.
    """
    from zerodefect.backbones.local_chat import LocalChat

    if not isinstance(chat, LocalChat):
        raise ValueError(f"{chat.name} runs on a server; only a model in this process is taught")
    chosen, folder = teaching or ChatTeaching(), Path(output)
    if folder.is_file():
        raise ValueError(f"{folder}: this is a file. Name a folder for the model")
    kept = check_lessons(lessons, imitated=stage == "answers")
    trainer = chat_trainer(chat, kept, folder, stage, chosen, on_log)
    from transformers import PrinterCallback
    from transformers.trainer_utils import get_last_checkpoint

    trainer.remove_callback(PrinterCallback)  # figures go to ``on_log`` alone
    states = folder / _UNFINISHED
    trainer.train(resume_from_checkpoint=get_last_checkpoint(states) if states.is_dir() else None)
    chat.network.requires_grad_(False).eval()
    chat.network.save_pretrained(folder)
    chat.processor.save_pretrained(folder)
    about = {
        "format": "zerodefect-chat-teaching",
        "stage": stage,
        "model": {"name": chat.name, "sha256": chat.fingerprint, "licence": chat.licence},
        "lessons": len(kept),
        "teaching": asdict(chosen),
    }
    with atomic_write(folder / "teaching.json") as file:
        file.write(json.dumps(about, indent=1).encode() + b"\n")
    return folder


def chat_trainer(
    chat: LocalChat,
    lessons: Sequence[ChatLesson],
    folder: Path,
    stage: ChatStage,
    teaching: ChatTeaching,
    on_log: Callable[[dict[str, float]], None] = lambda figures: None,
) -> Any:
    """trl's trainer of one stage, see ``teach_chat``.

    Raises:
        TrainingError: trl is not installed.
    """
    try:
        import trl
        from datasets import Dataset
    except ImportError as error:
        raise TrainingError(
            f"teaching a chat model needs trl ({error}): pip install 'zerodefect[vlm-train]'"
        ) from None
    rows = [_row(lesson, stage) for lesson in lessons]
    given: dict[str, Any] = {
        "model": chat.network.train().requires_grad_(True),
        "processing_class": chat.processor,
        "train_dataset": Dataset.from_list(rows).with_transform(_opened),
        "callbacks": [_told(on_log)],
    }
    usual = _usual(chat, folder, stage, teaching)
    if stage == "answers":
        imitation = trl.SFTConfig(
            **usual,
            lr_scheduler_type="cosine",
            warmup_steps=teaching.warm_up,
            weight_decay=0.1,
            max_length=None,  # pictures' tokens must not be cut
        )
        return trl.SFTTrainer(args=imitation, **given)
    config = trl.GRPOConfig(
        **usual,
        num_generations=teaching.group,
        max_completion_length=teaching.max_tokens,
        beta=teaching.beta,
        temperature=teaching.temperature,
        top_p=0.9,
        top_k=50,
        loss_type="grpo",  # mean over an answer's tokens, then over the answers
        scale_rewards="group",
        use_bias_correction_kl=False,  # else the divergence is weighed by the ratio
    )
    return _policy_trainer(trl)(args=config, reward_funcs=[accuracy, consistency], **given)


def _usual(
    chat: LocalChat, folder: Path, stage: ChatStage, teaching: ChatTeaching
) -> dict[str, Any]:
    """Settings of both stages."""
    rewarded = stage == "rewards"
    return {
        "output_dir": str(folder / _UNFINISHED),
        "num_train_epochs": teaching.epochs,
        "max_steps": teaching.max_steps or -1,
        "learning_rate": teaching.learning_rate or _RATES[stage],
        "per_device_train_batch_size": teaching.batch_size * (teaching.group if rewarded else 1),
        "gradient_accumulation_steps": teaching.accumulation,
        "gradient_checkpointing": chat.network.device.type != "cpu",
        "bf16": chat.precision == "bfloat16",
        "use_cpu": chat.network.device.type == "cpu",
        "save_steps": teaching.save_steps,
        "save_total_limit": 1,
        "logging_steps": 1,
        "remove_unused_columns": False,  # pictures are opened by a column of files
        "report_to": [],
        "disable_tqdm": True,
        "seed": teaching.seed,
    }


def _policy_trainer(trl: Any) -> Any:
    class PolicyTrainer(trl.GRPOTrainer):
        """trl hands on whatever a processor gives, and LLaVA-OneVision's gives more than it takes.

        What is dropped says how many pictures each prompt has: one, as it is taken for without.
        """

        def _get_per_token_logps_and_entropies(self, *given: Any, **named: Any) -> Any:
            named.pop("batch_num_images", None)
            return super()._get_per_token_logps_and_entropies(*given, **named)

    return PolicyTrainer


def _row(lesson: ChatLesson, stage: ChatStage) -> dict[str, Any]:
    asked = TRAINING_QUESTION if stage == "answers" else training_prompt()
    row: dict[str, Any] = {
        "file": str(lesson.file),
        "prompt": [{"role": "user", "content": asked}],
    }
    if stage == "answers":
        return {**row, "completion": [{"role": "assistant", "content": lesson.answer}]}
    return {**row, "solution": lesson.solution}


def _opened(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Rows with their pictures, opened when they are needed."""
    files = rows.pop("file")
    return {**rows, "images": [[_fitted(open_image(file).to_uint8())] for file in files]}


def _fitted(pixels: Any) -> Image.Image:
    """A picture of at most so many pixels as the authors train with."""
    shown = Image.fromarray(pixels)
    scale = (_MOST_PIXELS / (shown.width * shown.height)) ** 0.5
    if scale >= 1:
        return shown
    return shown.resize((max(1, int(shown.width * scale)), max(1, int(shown.height * scale))))


def accuracy(completions: list[Any], solution: list[str], **_: Any) -> list[float]:
    """``accuracy_reward`` as trl calls it."""
    return [accuracy_reward(_said(c), s) for c, s in zip(completions, solution, strict=True)]


def consistency(completions: list[Any], solution: list[str], **_: Any) -> list[float]:
    """``consistency_reward`` as trl calls it."""
    return [consistency_reward(_said(c), s) for c, s in zip(completions, solution, strict=True)]


def _said(completion: Any) -> str:
    content = completion[0]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _told(on_log: Callable[[dict[str, float]], None]) -> Any:
    from transformers import TrainerCallback

    class Told(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            on_log({"step": state.global_step, **(logs or {})})

    return Told()
