"""A data set made of good pictures alone: some of them are damaged, with masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zerodefect.data.dataset import DatasetError, check_new
from zerodefect.files import atomic_write
from zerodefect.images import encode_png, find_images, open_image
from zerodefect.procedural.draws import Draws
from zerodefect.procedural.on_pictures import DamageSort, damage_pictures
from zerodefect.procedural.part_edits import edit_picture

_TRIES = 16  # damage may fall where nothing of it is seen; then it is drawn anew


@dataclass(frozen=True)
class Synthesized:
    """What was written: pictures to learn from, good ones and damaged ones to measure on."""

    train: int
    good: int
    damaged: int


def damaged_picture(
    pixels: np.ndarray,
    seed: int,
    number: int,
    sort: DamageSort,
    other: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, str]:
    """Damage one picture; the same numbers give the same damage.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        seed: of the series, at least 0.
        number: of the picture in it.
        sort: which damage.
        other: ``(h, w, 3)`` uint8, another good picture, for ``logical``: parts of it may take the
            place of this one's.

    Returns:
        ``(H, W, 3)`` uint8, ``(H, W)`` bool and the name of the damage; a logical one is named by
        its kind and edit, such as ``logical remove``.

    Raises:
        ValueError: no damage on it can be seen, as on a picture of a few pixels.
    """
    image = values(pixels)[None]
    for draws in tries(seed, number):
        if sort == "logical":
            edited = edit_picture(image[0], draws, None if other is None else values(other))
            return to_pixels(edited.image), edited.mask.numpy(), f"{edited.kind} {edited.edit}"
        made = damage_pictures(image, draws, sort)
        changed = to_pixels(made.images[0])
        if bool((changed != pixels).any(2)[made.masks[0].numpy()].any()):
            return changed, made.masks[0].numpy(), made.kinds[0]
    raise ValueError("damage on it cannot be seen")


def tries(seed: int, number: int) -> Iterator[Draws]:
    """Draws of a picture of a series, one after the other until damage on it is seen."""
    drawn = Draws(seed, np.array([number], np.uint64), torch.device("cpu"))
    for attempt in range(_TRIES):
        yield drawn.under(f"try{attempt}")


def values(pixels: np.ndarray) -> Tensor:
    """``(H, W, 3)`` uint8 as ``(3, H, W)`` in [0, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1) / 255


def to_pixels(image: Tensor) -> np.ndarray:
    """``(3, H, W)`` in [0, 1] as ``(H, W, 3)`` uint8."""
    pixels: np.ndarray = (image * 255).round().byte().permute(1, 2, 0).numpy()
    return pixels


def synthesize(
    folder: str | Path,
    output: str | Path,
    count: int,
    seed: int = 0,
    sort: DamageSort = "both",
    on_picture: Callable[[], None] = lambda: None,
) -> Synthesized:
    """Write a data set in the layout of MVTec AD, one product named as the output folder.

    Half of the good pictures, drawn from the seed, go to ``train/good`` as they are, the others to
    ``test/good``; those are also what is damaged, in turns, so that nothing learned from
    ``train/good`` has seen them.

    Args:
        folder: with good pictures, at any depth.
        output: new or empty folder.
        count: damaged pictures.
        seed: of all draws, at least 0.
        sort: which damage.
        on_picture: called after each damaged picture.

    Raises:
        DatasetError: fewer than two pictures, or the output folder holds something.
        ImageError: a picture cannot be read.
    """
    files, root = find_images([folder]), Path(output)
    train, test = halves(files, Path(folder), root, seed)
    for split, numbers in (("train", train), ("test", test)):
        for number in numbers:
            name = f"{number:04d}{files[number].suffix.lower()}"
            write(root / split / "good" / name, files[number].read_bytes())
    for number in range(count):
        source = files[test[number % len(test)]]
        pixels = open_image(source).to_uint8()
        other = _another(files, train, number) if sort == "logical" else None
        try:
            changed, mask, kind = damaged_picture(pixels, seed, number, sort, other)
        except ValueError as error:
            raise DatasetError(source, str(error), "Leave it out") from None
        kind, truth = kind.replace(" ", "_"), mask.astype(np.uint8) * 255
        write(root / "test" / kind / f"{number:04d}.png", encode_png(changed))
        write(root / "ground_truth" / kind / f"{number:04d}_mask.png", encode_png(truth))
        on_picture()
    return Synthesized(len(train), len(test), count)


def halves(
    files: Sequence[Path], folder: Path, output: Path, seed: int
) -> tuple[list[int], list[int]]:
    """Numbers of the good pictures to learn from, and of those to measure on.

    Raises:
        DatasetError: fewer than two files, or the output folder holds something.
    """
    if len(files) < 2:
        reason = f"holds {len(files)} picture, and two are needed: one to learn from, one to damage"
        raise DatasetError(folder, reason, "Add good pictures")
    check_new(output)
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed)).tolist()
    half = (len(files) + 1) // 2
    return sorted(order[:half]), sorted(order[half:])


def _another(files: Sequence[Path], train: Sequence[int], number: int) -> np.ndarray:
    """A good picture that the damaged one is not made of; each in turn."""
    return open_image(files[train[number % len(train)]]).to_uint8()


def write(path: Path, content: bytes) -> None:
    """Write a file of the data set, and its folder."""
    with atomic_write(path, cached=True) as stream:
        stream.write(content)
