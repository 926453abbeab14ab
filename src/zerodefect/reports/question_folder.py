"""Asking all questions of a data set into a folder; killed and started again, it goes on."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from zerodefect.backbones.chat_model import ChatModel, ChatModelError
from zerodefect.backbones.weight_files import file_hash
from zerodefect.data.question_file import QuestionedPictures
from zerodefect.evaluation.question_protocol import QuestionProtocol, Reply, ask
from zerodefect.evaluation.question_scores import Answered
from zerodefect.reports.question_tables import QuestionResults, write_question_results
from zerodefect.reports.run_folder import RunStore, image_key
from zerodefect.types import Failure
from zerodefect.version import __version__

_HOPELESS = 10  # pictures without any answer, from the first on, after which none is expected


def ask_all(
    model: ChatModel,
    data: QuestionedPictures,
    folder: Path,
    *,
    protocol: QuestionProtocol | None = None,
    limit: int | None = None,
    overwrite: bool = False,
    on_picture: Callable[[], None] = lambda: None,
) -> QuestionResults:
    """Ask, keep every reply in ``results.jsonl``, and write the tables.

    A picture or an answer that fails costs its questions alone; they are asked again when the run
    is started again, and so are those whose replies cannot be read.

    Args:
        model: answers.
        data: pictures and questions.
        folder: of the results; a run with the same settings that lies there goes on.
        protocol: how they are asked.
        limit: the first so many pictures alone; None for all.
        overwrite: throw away a run of other settings.
        on_picture: called after each picture.

    Raises:
        ChatModelError: none of the first pictures had an answer.
        RunMismatch, RunBusy, StoreError: the folder cannot be used.
    """
    asked = protocol or QuestionProtocol()
    facts = _facts(model, data, asked)
    pictures = list(islice(data.pictures, limit))
    with RunStore(folder, facts, overwrite=overwrite) as store:
        done, told = store.done(), {record["image"] for record in store.records() if _told(record)}
        hopeless: int | None = 0
        for picture in pictures:
            key = image_key(picture.file)
            if key not in done or picture.name not in told:
                replies = ask(model, data, picture, asked)
                hopeless = _hopeless(replies, hopeless)
                store.append(_record(picture.name, replies), key)
            on_picture()
        wanted = {picture.name for picture in pictures}
        records = [record for record in store.records() if record["image"] in wanted]
    answers, failures = _sorted(records)
    results = QuestionResults(facts, answers, failures)
    write_question_results(results, folder)
    return results


def _facts(
    model: ChatModel, data: QuestionedPictures, protocol: QuestionProtocol
) -> dict[str, Any]:
    """What decides answers, and under ``environment`` what does not."""
    return {
        "model": {
            "name": model.name,
            "where": model.where,
            "leaves_process": model.leaves_process,
            "fingerprint": model.fingerprint,
            "licence": model.licence,
            "precision": model.precision,
        },
        "protocol": {"name": "mmad", **protocol.facts()},
        "data": {
            "name": data.root.absolute().name,
            "root": str(data.root),
            "fingerprint": file_hash(data.file),
        },
        "versions": {
            "environment": {
                "zerodefect": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
            }
        },
    }


def _record(name: str, replies: list[Reply]) -> dict[str, Any]:
    failed = any(reply.failure for reply in replies)
    return {
        "image": name,
        "status": "failed" if failed else "ok",
        "replies": [asdict(reply) for reply in replies],
    }


def _told(record: Mapping[str, Any]) -> tuple[Reply, ...] | None:
    """The replies of a record; None where they cannot be read: they are asked for again."""
    try:
        return TypeAdapter(tuple[Reply, ...]).validate_python(record.get("replies"))
    except ValidationError:
        return None


def _sorted(records: list[dict[str, Any]]) -> tuple[tuple[Answered, ...], tuple[Failure, ...]]:
    """What is scored, and what is left out of all figures."""
    answers, failures = [], []
    for record in records:
        for reply in _told(record) or ():
            if reply.failure:
                name, reason = f"{record['image']}, question {reply.number}", reply.failure
                failures.append(Failure(name, reason, "Start again: it is asked again"))
            else:
                answers.append(reply.answered(record["image"]))
    return tuple(answers), tuple(failures)


def _hopeless(replies: list[Reply], before: int | None) -> int | None:
    """Pictures without an answer since the first one; None when one had an answer.

    Raises:
        ChatModelError: they are too many.
    """
    if before is None or not replies:
        return before
    if not all(reply.failure for reply in replies):
        return None
    if before + 1 >= _HOPELESS:
        raise ChatModelError(
            f"none of the first {_HOPELESS} pictures had an answer; the last reason: "
            f"{replies[-1].failure}"
        )
    return before + 1
