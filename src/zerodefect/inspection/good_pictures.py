"""The good pictures that a calibration learns from: each once, what cannot be used left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from zerodefect.images import ImageError, Picture
from zerodefect.inspection.sources import Source, digest
from zerodefect.scoring.joining import Scored
from zerodefect.scoring.stream import stream
from zerodefect.types import Failure


class GoodPictures:
    """Reads and scores good pictures, and counts what does not count.

    Args:
        open: gives the picture of a source, or raises ImageError.
        on_failure: called with every picture that cannot be used; None to raise instead.
    """

    def __init__(
        self, open: Callable[[Source], Picture], on_failure: Callable[[Failure], None] | None
    ) -> None:
        self.open, self.on_failure = open, on_failure
        self.copies = self.failures = 0

    def read(self, sources: Iterable[Source]) -> Iterator[Picture]:
        """Open all of them.

        Raises:
            ImageError: one cannot be read, and there is no ``on_failure``.
        """
        for seen in stream(sources, self.open, lambda some: some):
            if isinstance(seen.result, Failure):
                self._fail(seen.result)
            else:
                yield seen.result

    def scored(
        self,
        sources: Iterable[Source],
        score: Callable[[list[Picture]], list[Scored]],
        references: Sequence[str],
        batch_size: int,
    ) -> Iterator[Scored | None]:
        """Score each picture once; None for a copy and for what cannot be used. No map is kept.

        Args:
            sources: of pictures.
            score: gives a result per picture.
            references: digests of pictures that may not be among them.
            batch_size: pictures that are scored together.

        Raises:
            ValueError: one of them is a reference.
            ImageError: one cannot be used, and there is no ``on_failure``.
        """
        done: set[str] = set()

        def score_new(pictures: list[Picture]) -> list[Scored | None]:
            names = [digest(picture) for picture in pictures]
            if not done.isdisjoint(references) or not set(names).isdisjoint(references):
                raise ValueError(
                    "a calibration image is also a reference, so that its score says nothing of "
                    "new parts. Keep the two apart, or calibrate the references themselves "
                    "(leave-one-out)"
                )
            new = {name: p for name, p in zip(names, pictures, strict=True) if name not in done}
            found = dict(zip(new, score(list(new.values())), strict=True)) if new else {}
            done.update(new)
            taken = (found.pop(name, None) for name in names)
            return [one and replace(one, map=None) for one in taken]

        for seen in stream(sources, self.open, score_new, batch_size):
            if isinstance(seen.result, Failure):
                self._fail(seen.result)
                yield None
                continue
            self.copies += seen.result is None
            yield seen.result

    def _fail(self, failure: Failure) -> None:
        if self.on_failure is None:
            raise ImageError(failure.image, failure.reason, failure.remedy)
        self.failures += 1
        self.on_failure(failure)

    def notes(self) -> list[str]:
        """What was given and does not count."""
        notes = []
        if self.copies:
            notes.append(f"Copies of pictures given before, not counted: {self.copies}.")
        if self.failures:
            notes.append(f"Files that could not be read, not counted: {self.failures}.")
        return notes
