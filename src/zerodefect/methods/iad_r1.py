"""IAD-R1 (arXiv 2508.09178).

A vision-language model that was trained twice, on reasoned answers and by rewards, is asked
whether there is a defect and answers in words. The method is its prompts and the reading of its
answers; the model is a chat model of any make, and what it learned is in its weights
(``training/reasoning_rewards.py``, ``training/teach_chat.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zerodefect.backbones.chat_model import ChatModel, Turn
from zerodefect.detector.configs import Count, hyper_parameters
from zerodefect.detector.contract import Detector, Input
from zerodefect.detector.facts import Figure, MethodInfo, published_table
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.picture_memory import PictureMemory, to_bytes
from zerodefect.detector.registry import register
from zerodefect.images import Preprocess
from zerodefect.prompts.tagged_answers import (
    QUESTION,
    SHOWN_BEHIND,
    TaggedAnswer,
    answer_begun,
    read_tags,
    shown_before,
)
from zerodefect.types import Prediction

_SIDE = 672  # pixels; its square is below the 480000 that the authors train with at most
_PATCH = 28  # pixels of a token of Qwen2-VL; others prepare what they are shown anew
_SOURCE = "result files of Yanhui-Lee/IAD-R1 at 625b9365"
_SETS = ("DAGM", "DTD-Synthetic", "MPDD", "MVTec AD", "SDD", "VisA")
_ZERO_SHOT = {
    "LLaVA-OneVision 0.5B": (95.4, 96.9, 69.3, 79.2, 86.6, 76.2),
    "Qwen2-VL 2B": (77.2, 86.1, 63.9, 79.0, 71.1, 68.6),
    "Qwen2.5-VL 3B": (86.0, 92.4, 62.0, 78.4, 89.8, 73.6),
    "Qwen2.5-VL 7B": (89.4, 91.7, 65.4, 81.3, 86.5, 75.0),
    "LLaVA-1.5 7B": (79.1, 87.9, 62.9, 79.6, 85.0, 72.6),
    "LLaVA-OneVision 7B": (91.9, 96.7, 74.3, 87.4, 88.0, 78.1),
    "LLaVA-1.6 8B": (83.5, 89.8, 63.7, 83.1, 86.4, 68.0),
}
_FEW_SHOT = {"2-shot": (85.4, 78.3), "4-shot": (86.3, 80.6)}  # of MVTec AD and VisA


def _figures() -> tuple[Figure, ...]:
    """By data set; ``balanced accuracy (MODEL)``."""
    models = [f"balanced accuracy ({model})" for model in _ZERO_SHOT]
    rows = dict(zip(_SETS, zip(*_ZERO_SHOT.values(), strict=True), strict=True))
    few = [
        published_table(
            _SOURCE,
            setting,
            ("balanced accuracy (Qwen2.5-VL 7B)",),
            {"MVTec AD": values[:1], "VisA": values[1:]},
        )
        for setting, values in _FEW_SHOT.items()
    ]
    return published_table(_SOURCE, "0-shot", models, rows) + sum(few, ())


@hyper_parameters
class IADR1Config:
    """Hyper-parameters.

    Attributes:
        shown: pictures of good parts that are shown with each question, at most; the authors show
            none, two or four.
        max_tokens: where an answer is cut off.
    """

    shown: Count = 4
    max_tokens: Count = 512


@register(
    MethodInfo(
        name="iad_r1",
        title="IAD-R1",
        school="reasoning",
        knows_from=("references",),
        optional=("references",),
        paper="arXiv 2508.09178, 2025",
        code_licence="none stated by the authors; written from its formulas",
        parity="official code at 625b9365: rewards, SC-GRPO loss and its gradients; the language "
        "models themselves are out of reach",
        figures=_figures(),
        backbones={"chat": "chat"},
    )
)
class IADR1(Detector):
    """Answers in words whether there is a defect, and where and of which kind.

    The score is the probability of ``Yes`` against ``No`` where the answer says so, in [0, 1]. A
    model that does not tell probabilities (a server) gives 1 for yes, 0 for no, and 0.5 where it
    says neither. There is no map.

    The authors show a picture as it is; here it is a square of 672 pixels, or of its own aspect
    ratio with ``keep_aspect``.
    """

    Config = IADR1Config
    undecided = 0.5
    config: IADR1Config

    def __init__(self, chat: ChatModel, config: IADR1Config | None = None) -> None:
        plain: Any = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "resize_on": "pil"}
        networks: Any = (chat,)
        inputs = {"image": Input(Preprocess((_SIDE, _SIDE), **plain), _PATCH)}
        super().__init__(config or IADR1Config(), networks, inputs)
        self.chat, self.memory = chat, PictureMemory(self.config.shown)
        if chat.address:  # told in every output, and where a product file finds it again
            self.backbone = chat.address
            self.networks = ({**self.networks[0], "name": chat.address},)

    def encode(self, inputs: Tensor) -> Tensor:
        """The pictures themselves: what the model sees of them hangs on the references."""
        return inputs.detach()

    def references(self, encoded: Tensor) -> dict[str, Tensor]:
        """The pictures themselves."""
        return {"shown": encoded}

    def predict(
        self, encoded: Tensor, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """The model runs here.

        Raises:
            ChatModelError: it gave no answer to one of the pictures.
        """
        assert isinstance(self.memory, PictureMemory)
        out: Sequence[int | None] = [None] * len(encoded)
        out = out if left_out is None else left_out.tolist()
        chats = [
            self.question(picture, self.memory.shown(knowledge, number))
            for picture, number in zip(to_bytes(encoded), out, strict=True)
        ]
        said = self.chat.answers(chats, self.config.max_tokens)
        answers = [read_tags(text) for text in said]
        scores = [self.score(turns, read) for turns, read in zip(chats, answers, strict=True)]
        return Prediction(
            torch.tensor(scores, dtype=torch.float32, device=encoded.device),
            None,
            answer=tuple(read.sentence for read in answers),
        )

    def question(self, picture: Tensor, shown: Sequence[Tensor]) -> list[Turn]:
        """What is asked about a picture ``(3, H, W)`` uint8, with pictures of good parts."""
        before: list[str | Image.Image] = []
        if shown:
            before = [shown_before(len(shown)), *map(_image, shown), SHOWN_BEHIND]
        return [Turn("user", (*before, _image(picture), QUESTION))]

    def score(self, turns: Sequence[Turn], answer: TaggedAnswer) -> float:
        """Probability of yes in [0, 1], see the class."""
        if self.chat.gives_chances:
            return self.chat.chances(turns, answer_begun(answer.raw), ("Yes", "No"))[0]
        return 0.5 if answer.defective is None else float(answer.defective)

    def neutral_score(self, knowledge: Knowledge) -> float:
        """Yes is as likely as no, with and without references."""
        return 0.5

    def map_range(self, knowledge: Knowledge) -> None:
        """It does not say where in pixels."""


def _image(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).cpu().numpy())
