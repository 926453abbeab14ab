"""The one loop over many pictures: opened ahead, scored in batches, failures as values."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import numpy as np

from zerodefect.backbones.chat_model import ChatModelError
from zerodefect.detector.composed import SetLevel
from zerodefect.detector.contract import TooFewError
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.learned_grid import GridError
from zerodefect.images import ImageError, Picture
from zerodefect.scoring.joining import Scored
from zerodefect.scoring.scorer import DEFAULT_BATCH, Scorer
from zerodefect.types import Failure

S = TypeVar("S")
R = TypeVar("R")

_READERS = 2  # threads that decode ahead; decoding releases the interpreter lock


@dataclass(frozen=True)
class Seen(Generic[S, R]):
    """What came of one source."""

    source: S  # path, array,
    picture: Picture | None  # as opened; None where it could not be
    result: R | Failure  # of the picture, or why there is none


def stream(
    sources: Iterable[S],
    open: Callable[[S], Picture],
    score: Callable[[list[Picture]], Sequence[R]],
    batch_size: int = DEFAULT_BATCH,
) -> Iterator[Seen[S, R]]:
    """Open and score one source after the other; results come in order.

    A list of sources is opened ahead, in threads. What is no sequence (a generator, a camera) is
    read as it is needed, and may never end. A picture that breaks its batch costs itself alone.

    Args:
        sources: of pictures.
        open: gives the picture of a source, or raises ImageError.
        score: gives one result per picture.
        batch_size: pictures that are scored together.

    Raises:
        ValueError: a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, got {batch_size}")
    for batch in _opened(sources, open, batch_size):
        pictures = [item for _, item in batch if isinstance(item, Picture)]
        results = iter(_scored(pictures, score))
        for source, item in batch:
            if isinstance(item, Picture):
                yield Seen(source, item, next(results))
            else:
                yield Seen(source, None, item)


def scored_stream(
    scorer: Scorer,
    knowledge: Knowledge,
    sources: Iterable[S],
    open: Callable[[S], Picture],
    area: Callable[[Picture], np.ndarray | None] = lambda picture: None,
    batch_size: int = DEFAULT_BATCH,
    left_out: Callable[[Picture], int] | None = None,
    step: SetLevel | None = None,
) -> Iterator[Seen[S, Scored]]:
    """``stream`` with a detector; a set method sees all sources before it says anything.

    ``area`` gives the inspected area of a picture, or None; ``left_out`` the number of the
    reference that does not count for it, or -1. A set-level ``step`` is for a set method; pictures
    of a set that is too small for it are failures.

    Raises:
        RuntimeError, KnowledgeError: the knowledge is not enough, or not this detector's.
    """
    scorer.detector.check(knowledge)
    if "set" in scorer.detector.info.needs:
        return _set_stream(scorer, knowledge, list(sources), open, area, batch_size, step)

    def score(pictures: list[Picture]) -> list[Scored]:
        areas = [area(picture) for picture in pictures]
        out = None if left_out is None else [left_out(picture) for picture in pictures]
        return scorer.score(pictures, areas, knowledge, batch_size, left_out=out)

    return stream(sources, open, score, batch_size)


def _set_stream(
    scorer: Scorer,
    knowledge: Knowledge,
    sources: list[S],
    open: Callable[[S], Picture],
    area: Callable[[Picture], np.ndarray | None],
    batch_size: int,
    step: SetLevel | None = None,
) -> Iterator[Seen[S, Scored]]:
    """Each picture is opened twice: to be encoded, and to be handed out with its result."""
    failed: dict[int, Failure] = {}

    def checked(pictures: list[Picture]) -> list[tuple[Picture, np.ndarray | None]]:
        for picture in pictures:  # what cannot be shown costs itself alone, not the set
            scorer.check(picture)
        return [(picture, area(picture)) for picture in pictures]

    def shown() -> Iterator[tuple[Picture, np.ndarray | None]]:
        for number, seen in enumerate(stream(sources, open, checked, batch_size)):
            if isinstance(seen.result, Failure):
                failed[number] = seen.result
            else:
                yield seen.result

    results = scorer.score_set(shown(), knowledge, batch_size, step)
    alone = None
    try:
        first = next(results, None)  # only now it is known what failed
    except TooFewError as error:
        first, alone = None, str(error)
    for number, source in enumerate(sources):
        if number in failed:
            yield Seen(source, None, failed[number])
            continue
        if alone is not None:
            opened = _attempted(open, source)
            if isinstance(opened, Picture):
                reason, _, remedy = alone.partition(". ")
                opened = Failure(opened.path, reason, remedy)
            yield Seen(source, None, opened)
            continue
        result = first if first is not None else next(results)
        first = None
        again = _attempted(open, source)
        if isinstance(again, Picture):
            yield Seen(source, again, result)
        else:  # it vanished meanwhile
            yield Seen(source, None, again)


def _attempted(open: Callable[[S], Picture], source: S) -> Picture | Failure:
    try:
        return open(source)
    except ImageError as error:
        return error.failure


def _opened(
    sources: Iterable[S], open: Callable[[S], Picture], batch_size: int
) -> Iterator[list[tuple[S, Picture | Failure]]]:
    rest = iter(sources)
    if not isinstance(sources, Sequence):
        while some := list(islice(rest, batch_size)):
            yield [(source, _attempted(open, source)) for source in some]
        return
    with ThreadPoolExecutor(_READERS) as readers:
        ahead: deque[tuple[S, Future[Picture | Failure]]] = deque()

        def fill() -> None:
            for source in islice(rest, 2 * batch_size - len(ahead)):
                ahead.append((source, readers.submit(_attempted, open, source)))

        fill()
        try:
            while ahead:
                taken = [ahead.popleft() for _ in range(min(batch_size, len(ahead)))]
                batch = [(source, future.result()) for source, future in taken]
                fill()
                yield batch
        finally:
            for _, future in ahead:  # whoever stops early does not wait for them
                future.cancel()


def _scored(
    pictures: list[Picture], score: Callable[[list[Picture]], Sequence[R]]
) -> Sequence[R | Failure]:
    if not pictures:
        return []
    try:
        return score(pictures)
    except (ImageError, GridError, RuntimeError, MemoryError) as error:
        if len(pictures) > 1:
            return [result for picture in pictures for result in _scored([picture], score)]
        return [_failure(pictures[0].path, error)]


def _failure(path: str, error: Exception) -> Failure:
    """Why a picture alone could not be scored."""
    if isinstance(error, ImageError):
        return error.failure
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, ChatModelError):
        return Failure(path, reason, "Start again: it is asked again")
    if isinstance(error, GridError):
        remedy = "Take it in the shape of the good ones, or judge without --keep-aspect"
        return Failure(path, reason.partition(": ")[0], remedy)
    remedy = "Free memory, use a smaller --batch-size, or shrink the picture"
    return Failure(path, f"could not be scored ({reason})", remedy)
