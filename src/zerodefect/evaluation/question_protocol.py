"""Asking a chat model multiple-choice questions about pictures, as MMAD does (arXiv 2410.09453)."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from zerodefect.backbones.chat_model import ChatModel, ChatModelError, Turn
from zerodefect.data.question_file import Question, QuestionedPicture, QuestionedPictures
from zerodefect.evaluation.question_scores import Answered
from zerodefect.images import ImageError, open_image
from zerodefect.prompts.chosen_options import chosen_letter
from zerodefect.prompts.question_prompts import (
    INSTRUCTION,
    LIST,
    QUERY,
    question_text,
    templates_told,
)

_AT_ONCE = 4  # questions about a picture that a server is asked at a time
_SENT = 512  # pixels of the longer side of pictures that leave this process, as the authors send


@dataclass(frozen=True)
class QuestionProtocol:
    """How questions are asked.

    Attributes:
        templates: pictures of good parts shown with each question, at most as many as are named.
        similar: those most like the picture instead of random ones.
        knowledge: tell what is known of the product, too.
        shuffle: seed of another order of the options for each question; None for that of the file,
            as the authors ask. Letters are mapped back, so that figures can be compared.
        max_tokens: of an answer.
    """

    templates: int = 1
    similar: bool = False
    knowledge: bool = False
    shuffle: int | None = None
    max_tokens: int = 128

    def __post_init__(self) -> None:
        if self.templates < 0 or self.max_tokens < 1:
            raise ValueError("name 0 or more templates, and 1 or more tokens")

    def facts(self) -> dict[str, Any]:
        """Everything that decides answers, as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Reply:
    """What came of one question.

    Attributes:
        number: of the question about its picture, from 1.
        kind: of the question.
        true: letter of the right option.
        given: letter of the chosen one, as the file has the options; anything else is no answer.
        text: what the model said; empty where it said nothing.
        failure: why there is no answer; empty where there is one.
    """

    number: int
    kind: str
    true: str
    given: str
    text: str
    failure: str = ""

    def answered(self, image: str) -> Answered:
        """What is scored."""
        return Answered(image, self.kind, self.true, self.given)


def shown_options(
    question: Question, seed: int | None, name: str, number: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Options in the order in which they are shown, and what each shown letter is in the file.

    Args:
        question: with its options.
        seed: of the order; None for that of the file.
        name, number: picture and question, so that an order hangs on nothing else.
    """
    letters = list(question.options)
    drawn = list(letters)
    if seed is not None:
        random.Random(f"{seed}/{name}/{number}").shuffle(drawn)
    back = dict(zip(letters, drawn, strict=True))
    return {shown: question.options[own] for shown, own in back.items()}, back


def ask(
    model: ChatModel,
    data: QuestionedPictures,
    picture: QuestionedPicture,
    protocol: QuestionProtocol,
) -> list[Reply]:
    """Ask all questions about one picture, each by itself.

    Args:
        model: answers.
        data: that the picture is of.
        picture: with its questions.
        protocol: how they are asked.

    Returns:
        A reply to each question. A picture that cannot be opened, and an answer that does not come,
        are replies with a ``failure``.
    """
    orders = [
        shown_options(question, protocol.shuffle, picture.name, number)
        for number, question in enumerate(picture.questions, start=1)
    ]
    try:
        before = _before(model, data, picture, protocol)
    except ImageError as error:
        said: Sequence[str | Exception] = [error] * len(orders)
    else:
        texts = [
            question_text(number, question.text, options)
            for number, (question, (options, _)) in enumerate(
                zip(picture.questions, orders, strict=True), start=1
            )
        ]
        chats = [[Turn("user", (*before, text))] for text in texts]
        said = _answers(model, chats, protocol.max_tokens)
    return [
        _reply(number, question, options, back, one)
        for number, (question, (options, back), one) in enumerate(
            zip(picture.questions, orders, said, strict=True), start=1
        )
    ]


def _reply(
    number: int,
    question: Question,
    options: Mapping[str, str],
    back: Mapping[str, str],
    said: str | Exception,
) -> Reply:
    if isinstance(said, Exception):
        return Reply(number, question.kind, question.answer, "", "", str(said))
    letter = chosen_letter(said, options)
    return Reply(number, question.kind, question.answer, back.get(letter, letter), said)


def _before(
    model: ChatModel,
    data: QuestionedPictures,
    picture: QuestionedPicture,
    protocol: QuestionProtocol,
) -> tuple[str | Image.Image, ...]:
    """What stands before the question.

    Raises:
        ImageError: the picture or a template cannot be opened.
    """
    chosen = picture.similar_templates if protocol.similar else picture.random_templates
    templates = [_opened(file, model) for file in chosen[: protocol.templates]]
    known = "\n".join(data.known_of(picture)) if protocol.knowledge else ""
    parts: list[str | Image.Image] = [INSTRUCTION]
    if known:
        parts.append(f"{known}\n")
    if templates:
        parts += [templates_told(len(templates)), *templates]
    return (*parts, QUERY, _opened(picture.file, model), LIST)


def _opened(file: Path, model: ChatModel) -> Image.Image:
    """A picture as it is; one that leaves the process fits into a square, as the authors send it.

    Raises:
        ImageError: it cannot be opened.
    """
    shown = Image.fromarray(open_image(file).to_uint8())
    if model.leaves_process and max(shown.size) > _SENT:
        scale = _SENT / max(shown.size)
        width, height = (max(1, round(side * scale)) for side in shown.size)
        return shown.resize((width, height), Image.Resampling.BOX)
    return shown


def _answers(
    model: ChatModel, chats: Sequence[Sequence[Turn]], max_tokens: int
) -> list[str | Exception]:
    """A server is asked some at a time; a model in this process all at once, if none fails."""
    if model.leaves_process:
        with ThreadPoolExecutor(_AT_ONCE) as workers:
            return list(workers.map(lambda turns: _answer(model, turns, max_tokens), chats))
    try:
        return list(model.answers(chats, max_tokens))
    except ChatModelError:
        return [_answer(model, turns, max_tokens) for turns in chats]


def _answer(model: ChatModel, turns: Sequence[Turn], max_tokens: int) -> str | Exception:
    try:
        return model.answer(turns, max_tokens)
    except ChatModelError as error:
        return error
