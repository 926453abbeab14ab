"""What data loaders yield, one picture after the other: batches, dicts, tuples with labels."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zerodefect.images.arrays import plain_array
from zerodefect.images.decode import ImageError, Picture, is_source, open_image
from zerodefect.images.pixels import float_fault
from zerodefect.images.samples import FaultError

_PICTURE_KEYS = ("image", "images", "img", "picture", "pixels", "pixel_values")
_NAME_KEYS = ("image_path", "path", "file_name", "filename", "name")


@dataclass(frozen=True, eq=False)
class LoadedItem:
    """One picture of what a data loader yielded.

    Attributes:
        source: as ``open_image`` takes it.
        name: what to call it, where the item says it.
        fault: why the batch that it comes from cannot be used: reason and remedy.
    """

    source: Any
    name: str | None = None
    fault: tuple[str, str] | None = None

    def open(self, bit_depth: int | None = None) -> Picture:
        """The picture.

        Raises:
            ImageError: it cannot be used, or the batch cannot.
        """
        if self.fault:
            raise ImageError(self.name or "<array>", *self.fault)
        return open_image(self.source, name=self.name, bit_depth=bit_depth)


def is_item(thing: Any) -> bool:
    """Whether it is a batch, a dict, or a tuple or list, as against one picture."""
    if isinstance(thing, np.ndarray | torch.Tensor):
        return thing.ndim == 4
    return not isinstance(thing, Picture) and not is_source(thing)


def loaded(item: Any) -> Iterator[Any]:
    """The pictures of what a data loader yields.

    Args:
        item: a picture as ``open_image`` takes it; a batch ``(B, C, H, W)`` or ``(B, H, W, C)``; a
            dict with ``image`` (``images``, ``img``, ``picture``, ``pixels``, ``pixel_values``), a
            picture, a batch or a list, and perhaps ``image_path`` (``path``, ``file_name``,
            ``filename``, ``name``), or with paths alone; a tuple or list of a picture or batch with
            its labels and masks; or a list of such.

    Raises:
        TypeError: it holds no picture, or it cannot be told which of it are pictures.
    """
    if not is_item(item):
        yield item
    elif isinstance(item, np.ndarray | torch.Tensor):
        yield from _batch(item)
    elif isinstance(item, Mapping):
        yield from _named(item)
    elif isinstance(item, Sequence):
        yield from _several(item)
    else:
        raise TypeError(
            f"cannot take a picture from {type(item).__name__}. Pass a path, bytes, an open "
            "file, a Pillow image, a tensor, an array, or a dict with 'image'"
        )


def of_batches(item: Any) -> Any:
    """What a loader that makes batches yielded, where its pictures have a place for the batch.

    Raises:
        TypeError: ``(N, H, W)`` may be N grey pictures, or one picture in colour.
    """
    found = item
    if isinstance(item, Mapping):
        found = next((item[key] for key in _PICTURE_KEYS if item.get(key) is not None), None)
    elif isinstance(item, Sequence) and item and not is_source(item):
        found = item[0]
    if isinstance(found, np.ndarray | torch.Tensor) and found.ndim == 3:
        shape = tuple(found.shape)
        raise TypeError(
            f"a data loader of batches yielded {shape}: grey pictures (B, H, W), or one picture in "
            "colour. Yield (B, 1, H, W), or set batch_size=None"
        )
    return item


def _batch(batch: np.ndarray | torch.Tensor) -> Iterator[LoadedItem]:
    """Its pictures. One scale holds for all: were it 0..255, a dark one would pass for 0..1."""
    fault = None
    try:
        pixels = plain_array(batch)
        if pixels.dtype.kind == "f" and pixels.size:
            finite = pixels[np.isfinite(pixels)]  # what is not is its own picture's fault
            fault = float_fault(finite) if finite.size else None
    except FaultError as error:
        fault, pixels = error, np.empty((len(batch), 0, 0), np.uint8)
    told = (f"its batch is refused: {fault.reason}", fault.remedy) if fault else None
    yield from (LoadedItem(picture, fault=told) for picture in pixels)


def _named(item: Mapping[str, Any]) -> Iterator[LoadedItem]:
    key = next((key for key in (*_PICTURE_KEYS, *_NAME_KEYS) if item.get(key) is not None), None)
    if key is None:
        keys = ", ".join(map(repr, item)) or "nothing"
        raise TypeError(f"a dict with {keys} holds no picture. Put it under 'image'")
    found = item[key]
    listed = isinstance(found, Sequence) and not is_source(found)
    pictures = [one for each in (found if listed else [found]) for one in loaded(each)]
    names = next((item[key] for key in _NAME_KEYS if item.get(key) is not None), None)
    if names is None or isinstance(names, str | os.PathLike):
        names = [names] * len(pictures) if len(pictures) == 1 else [None] * len(pictures)
    if len(names) != len(pictures):
        raise TypeError(f"a dict names {len(names)} pictures and holds {len(pictures)}")
    for one, name in zip(pictures, names, strict=True):
        source, fault = (one.source, one.fault) if isinstance(one, LoadedItem) else (one, None)
        yield LoadedItem(source, None if name is None else str(name), fault)


def _several(item: Sequence[Any]) -> Iterator[Any]:
    """Of a tuple or list: its first picture if the rest is labels, or all if all are items."""
    arrays = np.ndarray | torch.Tensor
    if item and all(is_item(one) and not isinstance(one, arrays) for one in item):
        for one in item:
            yield from loaded(one)
        return
    first, *rest = item or (None,)
    if not _is_picture(first):
        kinds = ", ".join(type(one).__name__ for one in item) or "nothing"
        raise TypeError(
            f"a {type(item).__name__} of {kinds} has no picture at its first place. Pass a dict "
            "with 'image', or the picture alone"
        )
    if not all(_belongs(other, first) for other in rest):
        raise TypeError(
            f"a {type(item).__name__} of {len(item)} may be several pictures, or one with what "
            "belongs to it. Pass its pictures one by one, or a dict with 'image'"
        )
    yield from (one if isinstance(one, LoadedItem) else LoadedItem(one) for one in loaded(first))


def _is_picture(thing: Any) -> bool:
    if isinstance(thing, np.ndarray | torch.Tensor):
        return thing.ndim in (2, 3, 4)
    return isinstance(thing, Picture) or is_source(thing)


def _belongs(other: Any, first: Any) -> bool:
    """Whether it is the label or mask of the first one, and no further picture."""
    words = str | os.PathLike
    if not _is_picture(other):
        return True
    if isinstance(other, words):
        return not isinstance(first, words)
    return _grey(other) and not _grey(first)


def _grey(thing: Any) -> bool:
    if isinstance(thing, np.ndarray | torch.Tensor):
        shape = tuple(thing.shape)
        return thing.ndim == 2 or 1 in (shape[-3], shape[-1])
    return getattr(thing, "mode", "RGB") in ("1", "L", "P", "I", "I;16", "F")
