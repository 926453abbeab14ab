"""A data set made of good parts that are seen as picture and points: some of them are damaged."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from zerodefect.data.dataset import DatasetError
from zerodefect.data.synthesis import Synthesized, halves, to_pixels, tries, values, write
from zerodefect.images import Picture, encode_png
from zerodefect.images.part_files import (
    COLOURS,
    MASKS,
    POINTS,
    find_parts,
    open_part,
    part_of,
    unused_cloud,
)
from zerodefect.images.point_input import part_alone
from zerodefect.procedural.on_clouds import damage_parts

_LIST = "Record it as a grid, picture and points by one camera, or leave it out"


@dataclass(frozen=True, eq=False)
class DamagedPart:
    """A part with the truth about it.

    Attributes:
        pixels: ``(H, W, 3)`` uint8; None of a part without a picture.
        points: ``(H, W, 3)`` float32 in the unit of its file; zero where not measured.
        mask: ``(H, W)`` bool, what is damaged.
        kind: name of the damage, of ``on_clouds.CLOUD_KINDS``.
    """

    pixels: np.ndarray | None
    points: np.ndarray
    mask: np.ndarray
    kind: str


def damaged_part(picture: Picture, seed: int, number: int) -> DamagedPart:
    """Damage one part, alike in its picture and its points; the same numbers give the same damage.

    Args:
        picture: with a cloud whose grid is the picture's, as ``open_part`` gives it.
        seed: of the series, at least 0.
        number: of the part in it.

    Raises:
        ValueError: it has no points on a grid, or damage on them cannot be seen.
    """
    cloud = picture.cloud
    if cloud is None or not cloud.organised:
        raise ValueError("it has no points on a grid")
    part = part_alone(cloud)
    alone = np.where(part.valid[..., None], part.points, np.nan).astype(np.float32)
    points = torch.from_numpy(alone).permute(2, 0, 1)[None]
    image = values(picture.to_uint8())[None]
    for draws in tries(seed, number):
        made = damage_parts(image, points, draws)
        mask = made.masks[0].numpy()
        if mask.any():
            break
    else:
        raise ValueError("damage on it cannot be seen")
    moved = made.points[0].permute(1, 2, 0).numpy()
    whole = np.where(part.valid[..., None], moved, cloud.points).astype(np.float64)
    whole += 0 if cloud.origin is None else cloud.origin
    whole = np.where(cloud.valid[..., None], whole, 0).astype(np.float32)
    pixels = None if picture.colourless else to_pixels(made.images[0])
    return DamagedPart(pixels, whole, mask, made.kinds[0])


def synthesize_parts(
    folder: str | Path,
    output: str | Path,
    count: int,
    seed: int = 0,
    on_part: Callable[[], None] = lambda: None,
) -> Synthesized:
    """Write a data set in the layout of MVTec 3D-AD, one product named as the output folder.

    As ``synthesize`` does it of pictures: ``train/good`` and ``test/good`` hold ``rgb`` and ``xyz``
    as they were, ``test/KIND`` these damaged and ``gt`` with masks.

    Args:
        folder: with good parts, ``rgb`` and ``xyz`` as ``find_parts`` reads them, or clouds alone.
        output: new or empty folder.
        count: damaged parts.
        seed: of all draws, at least 0.
        on_part: called after each damaged part.

    Raises:
        DatasetError: fewer than two parts, one that has no points on a grid, or the output folder
            holds something.
        ImageError: a part cannot be read.
    """
    files, root = find_parts([folder]), Path(output)
    train, test = halves(files, Path(folder), root, seed)
    for split, numbers in (("train", train), ("test", test)):
        for number in numbers:
            _copy(files[number], root / split / "good", number)
    for number in range(count):
        source = files[test[number % len(test)]]
        picture = open_part(source)
        try:
            made = damaged_part(picture, seed, number)
        except ValueError as error:
            raise DatasetError(source, unused_cloud(picture) or str(error), _LIST) from None
        _write(made, root / "test" / made.kind.replace(" ", "_"), f"{number:04d}")
        on_part()
    return Synthesized(len(train), len(test), count)


def _copy(file: Path, folder: Path, number: int) -> None:
    """The files of a good part, as they are."""
    files = part_of(file)
    if len(files) == 2:
        folders: tuple[str, ...] = (COLOURS, POINTS)
    else:
        folders = (POINTS if open_part(file).colourless else COLOURS,)
    for name, one in zip(folders, files, strict=True):
        write(folder / name / f"{number:04d}{one.suffix.lower()}", one.read_bytes())


def _write(made: DamagedPart, folder: Path, name: str) -> None:
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, made.points, photometric="rgb")
    write(folder / POINTS / f"{name}.tiff", buffer.getvalue())
    truth = made.mask.astype(np.uint8) * 255
    write(folder / MASKS / f"{name}.png", encode_png(truth))
    if made.pixels is not None:
        write(folder / COLOURS / f"{name}.png", encode_png(made.pixels))
