"""What a user may hand over as pictures, and the good ones that a calibration learns from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from zerodefect.images import ImageError, Picture, is_source
from zerodefect.images.decode import Encoded
from zerodefect.images.kept import KeptPicture
from zerodefect.images.loader_items import LoadedItem, loaded, of_batches
from zerodefect.images.part_files import find_parts, open_part, viewed
from zerodefect.scoring.scorer import DEFAULT_BATCH
from zerodefect.scoring.stream import stream
from zerodefect.types import Failure

R = TypeVar("R")
Source = Encoded | Image.Image | np.ndarray | torch.Tensor | Picture


def expand(sources: Source | Iterable[Any], *, tolerant: bool = False) -> Iterable[Any]:
    """Folders to their images, and what data loaders yield to its pictures, see ``loaded``.

    What is no sequence (a generator, a loader, a camera) is read as it is needed, and may never
    end.

    Args:
        sources: of pictures.
        tolerant: keep what is not there, and folders without pictures, to fail in their turn.

    Raises:
        ValueError: an empty list.
        FileNotFoundError: a named file or folder is not there, unless ``tolerant``.
        TypeError: something holds no picture, or it cannot be told which it is.
    """
    one = isinstance(sources, (Picture, Mapping)) or is_source(sources)
    several: Any = [sources] if one else sources
    images = chain.from_iterable(_images_of(each, tolerant) for each in _each(several))
    expanded = (_numbered(image, number) for number, image in enumerate(images))
    if not isinstance(several, Sequence):
        return expanded
    found = list(expanded)  # a wrong path is an error before anything is inspected
    if not found:
        raise ValueError("no image was given")
    return found


def _each(several: Any) -> Iterable[Any]:
    """Go through a loader of batches, or a data set that can be asked by number alone, too."""
    if isinstance(several, DataLoader) and several.batch_sampler is not None:
        return map(of_batches, several)
    if hasattr(several, "__iter__") or not hasattr(several, "__len__"):
        return iter(several)
    return (several[number] for number in range(len(several)))


def _images_of(source: Any, tolerant: bool) -> Iterable[Any]:
    try:
        path = isinstance(source, (str, os.PathLike))
        return find_parts([source]) if path else loaded(source)
    except (FileNotFoundError, ImageError):
        if tolerant:
            return [source]
        raise


def _numbered(image: Any, number: int) -> Any:
    """A picture out of a batch or item, which is called by its place if it has no name."""
    if not isinstance(image, LoadedItem) or image.name or _is_named(image.source):
        return image
    return replace(image, name=f"<picture {number}>")


def _is_named(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike, Picture)) or bool(getattr(source, "name", ""))


def one_of(source: Any) -> Any:
    """The picture of a source, of an item of a data set, or of a batch of one.

    Raises:
        TypeError: it holds none, or cannot be told which.
        ImageError: it holds several.
    """
    pictures = list(loaded(source))
    if len(pictures) == 1:
        return pictures[0]
    reason = f"{len(pictures)} pictures were given where one is inspected"
    raise ImageError("<batch>", reason, "Pass them to inspect_many")


def plain_source(source: Any) -> Any:
    """What ``open_image`` takes, or a Picture."""
    return source.source if isinstance(source, LoadedItem) else source


def open_source(source: Any, bit_depth: int | None = None, view: str | None = None) -> Picture:
    """The picture of a source, with its point cloud if it has one; or a view of that.

    A ``Picture`` without a cloud stays as it is: it may be a view already.

    Raises:
        ImageError: it cannot be read; the message names file, reason and remedy.
    """
    if isinstance(source, LoadedItem) and not isinstance(source.source, Picture):
        return source.open(bit_depth)
    source = plain_source(source)
    if isinstance(source, Picture):
        return viewed(source, view) if view and source.cloud else source
    return open_part(source, bit_depth=bit_depth, view=view)


def digest(picture: Picture) -> str:
    """Name of a picture's pixels, of the whole ones where it was shrunk; 16 hexadecimal digits."""
    if isinstance(picture, KeptPicture) and picture.digest:
        return picture.digest
    found = hashlib.sha256(str((picture.pixels.shape, picture.pixels.dtype)).encode())
    found.update(np.ascontiguousarray(picture.pixels).tobytes())
    return found.hexdigest()[:16]


def evenly(values: Sequence[R], count: int) -> list[R]:
    """So many of the values, two at least, evenly spread from the first to the last."""
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


def mirrored(picture: Picture) -> list[Picture]:
    """A picture left to right and upside down: parts like it that no memory holds."""
    turned = (picture.pixels[:, ::-1], picture.pixels[::-1])
    return [replace(picture, pixels=np.ascontiguousarray(pixels)) for pixels in turned]


class GoodPictures:
    """Good pictures, each once; counts what was given and does not count.

    Args:
        open: gives the picture of a source, or raises ImageError.
        on_failure: called with every picture that cannot be used; None to raise instead.
    """

    def __init__(
        self, open: Callable[[Source], Picture], on_failure: Callable[[Failure], None] | None
    ) -> None:
        self.open, self.on_failure = open, on_failure
        self.copies = self.failures = 0

    def once(
        self,
        sources: Iterable[Source],
        act: Callable[[list[Picture]], list[R]],
        references: Sequence[str] = (),
        batch_size: int = DEFAULT_BATCH,
    ) -> Iterator[R | None]:
        """What comes of each picture; None for a copy and for what cannot be used.

        Args:
            sources: of pictures.
            act: gives a result per picture.
            references: digests of pictures that may not be among them.
            batch_size: pictures that are handled together.

        Raises:
            ValueError: one of them is a reference.
            ImageError: one cannot be used, and there is no ``on_failure``.
        """
        done: set[str] = set()

        def act_once(pictures: list[Picture]) -> list[R | None]:
            names = [digest(picture) for picture in pictures]
            if not done.isdisjoint(references) or not set(names).isdisjoint(references):
                raise ValueError(
                    "a calibration image is also a reference, so that its score says nothing of "
                    "new parts. Keep the two apart, or calibrate the references themselves "
                    "(leave-one-out)"
                )
            new = {name: p for name, p in zip(names, pictures, strict=True) if name not in done}
            found = dict(zip(new, act(list(new.values())), strict=True)) if new else {}
            done.update(new)
            return [found.pop(name, None) for name in names]

        for seen in stream(sources, self.open, act_once, batch_size):
            result = seen.result
            if isinstance(result, Failure):
                if self.on_failure is None:
                    raise ImageError(result.image, result.reason, result.remedy)
                self.failures += 1
                self.on_failure(result)
                yield None
                continue
            self.copies += result is None
            yield result

    def pictures(self, sources: Iterable[Source]) -> list[Picture]:
        """Those that can be used, each once; errors as of ``once``."""
        return [one for one in self.once(sources, lambda some: some) if one is not None]

    def notes(self) -> list[str]:
        """What was given and does not count."""
        notes = []
        if self.copies:
            notes.append(f"Copies of pictures given before, not counted: {self.copies}.")
        if self.failures:
            notes.append(f"Files that could not be used, not counted: {self.failures}.")
        return notes
