"""``zerodefect evaluate --protocol mmad``: a chat model's answers to questions about pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zerodefect.cli.options import LoadingOptions, Options, option
from zerodefect.cli.telling import progress, say, tell

if TYPE_CHECKING:
    from zerodefect.backbones.chat_model import ChatModel

_ANOMALIES, _MMAD = "anomalies", "mmad"


@dataclass(frozen=True)
class QuestionOptions(Options, panel="Questions"):
    """Which questions are asked, whom, and how."""

    protocol: str = option(
        _ANOMALIES, "anomalies, or mmad: multiple-choice questions that a chat model answers."
    )
    chat: str | None = option(
        None, "Chat model: folder, name, or http://HOST:PORT/v1#MODEL.", metavar="MODEL"
    )
    templates: int = option(1, "Pictures of good parts shown with each question.", min=0)
    similar: bool = option(False, "Those most like the picture, not random ones.", "--similar")
    knowledge: bool = option(False, "Tell what is known of the product.", "--knowledge")
    shuffle: int | None = option(None, "Options in another order, drawn by this seed.")
    limit: int | None = option(None, "The first so many pictures alone.", min=1)

    def asked(self, *contenders: object) -> bool:
        """Whether questions are asked; ``contenders`` are what else there is to measure.

        Raises:
            ValueError: no such protocol, or the two that go together are not both there, or a
                method is named besides.
        """
        if self.protocol not in (_ANOMALIES, _MMAD):
            raise ValueError(f"--protocol {self.protocol!r}: there are {_ANOMALIES} and {_MMAD}")
        if (self.protocol == _MMAD) != (self.chat is not None):
            raise ValueError(
                "--protocol mmad asks a chat model (--chat MODEL: a folder, a name, or "
                "http://HOST:PORT/v1#MODEL); name both or neither"
            )
        if self.protocol == _MMAD and any(contenders):
            raise ValueError(
                "--protocol mmad measures a chat model: drop --method, --checkpoint and --product"
            )
        return self.protocol == _MMAD


def ask_questions(
    options: QuestionOptions,
    folders: list[str],
    loading: LoadingOptions,
    output: Path,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Ask, and tell the figures.

    Exit code as of ``evaluate``: 3 where questions are left without an answer.
    """
    from zerodefect.data.question_file import KNOWLEDGE, read_questions
    from zerodefect.evaluation.question_protocol import QuestionProtocol
    from zerodefect.reports.question_folder import ask_all

    if len(folders) != 1:
        raise ValueError("--protocol mmad takes one --data: the folder with mmad.json")
    protocol = QuestionProtocol(
        options.templates, options.similar, options.knowledge, options.shuffle
    )
    data = read_questions(folders[0])
    if options.knowledge and not data.knowledge:
        known = data.root / KNOWLEDGE
        raise ValueError(
            f"--knowledge: {known} is not there, or empty. Bring it, or drop the option"
        )
    pictures = data.pictures[: options.limit]
    count = sum(len(picture.questions) for picture in pictures)
    model = _loaded(str(options.chat), loading)
    say(f"{count} questions about {len(pictures)} pictures for {model.name}")
    if model.leaves_process:
        say(f"pictures leave this process: they are sent to {model.where}")
    with progress(f"mmad by {model.name}", len(pictures), quiet=as_json) as bar:
        results = ask_all(
            *(model, data, output),
            protocol=protocol,
            limit=options.limit,
            overwrite=overwrite,
            on_picture=partial(bar, advance=1),
        )
    for failure in results.failures:
        say(f"left out: {failure}")
    if as_json:
        tell(json.dumps(json.loads((output / "results.json").read_text("utf-8"))))
    else:
        tell((output / "results.md").read_text("utf-8"), lines=True)
    tell(f"{results.headline()}\nresults: {output}", lines=True, err=as_json)
    if results.failures:
        raise typer.Exit(3)


def _loaded(name: str, loading: LoadingOptions) -> ChatModel:
    """The chat model, on the device and in the precision that were asked for."""
    from zerodefect.backbones.chat_model import load_chat_model
    from zerodefect.detector.load_detector import pick_device, pick_dtype

    device = pick_device(loading.device)
    return load_chat_model(name, device=device, dtype=pick_dtype(loading.precision, device))
