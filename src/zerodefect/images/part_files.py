"""Parts that were taken as picture and cloud: which files belong together, and opening them.

MVTec 3D-AD's way is understood everywhere: ``rgb/000.png`` and ``xyz/000.tiff`` (or .ply, .pcd) are
one part, and either may be missing.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zerodefect.images import formats
from zerodefect.images.cloud_files import is_cloud_file
from zerodefect.images.cloud_views import seen_as
from zerodefect.images.clouds import Cloud, open_cloud
from zerodefect.images.decode import ImageError, Picture, open_image, picture_size
from zerodefect.images.depth_pictures import DEPTH_SUFFIX, is_depth_picture
from zerodefect.images.find import find_images
from zerodefect.images.formats import CLOUD_ENDINGS

COLOURS, POINTS, MASKS = "rgb", "xyz", "gt"
_CLOUD_ENDINGS = (".tiff", ".tif", *sorted(CLOUD_ENDINGS))
_PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_LIGHTS = re.compile(r"_image_\d+\.png$")  # Eyecandies' pictures of one part
_NOT_USED = " is not used: "
_FITS = 0.02  # relative difference of aspect ratios that rounding makes


def find_parts(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """``find_images``, each part once: clouds that belong to a picture are not listed besides.

    A part is listed as its picture, or as its cloud where it has none. Masks in ``gt`` beside
    ``rgb`` or ``xyz`` are no parts. A file that is named is always listed.

    Raises:
        FileNotFoundError, ImageError: as of ``find_images``.
    """
    paths = list(paths)
    named = {Path(path) for path in paths}
    return [file for file in find_images(paths) if file in named or not _is_side_file(file)]


def _is_side_file(file: Path) -> bool:
    folder = file.parent
    if folder.name == POINTS:
        return _sibling(file, COLOURS, _PICTURE_ENDINGS) is not None
    return folder.name == MASKS and any((folder.parent / n).is_dir() for n in (COLOURS, POINTS))


def cloud_beside(file: Path) -> Path | None:
    """The cloud of a part: the file itself, or that in ``xyz`` beside its folder ``rgb``."""
    if file.parent.name == POINTS or file.suffix.lower() in CLOUD_ENDINGS or is_depth_picture(file):
        return file
    if depth := _LIGHTS.sub(DEPTH_SUFFIX, file.name) if "_image_" in file.name else "":
        beside = file.with_name(depth)
        return beside if depth != file.name and is_depth_picture(beside) else None
    return _sibling(file, POINTS, _CLOUD_ENDINGS) if file.parent.name == COLOURS else None


def part_of(file: Path) -> tuple[Path, ...]:
    """The files that a part is read from: its picture and its cloud, those that there are."""
    cloud = cloud_beside(file)
    return (file,) if cloud in (None, file) else (file, cloud)


def _sibling(file: Path, folder: str, endings: Iterable[str]) -> Path | None:
    stem = file.parent.parent / folder / file.stem
    candidates = (Path(f"{stem}{ending}") for ending in endings)
    return next((path for path in candidates if path.is_file()), None)


def open_part(
    source: Any,
    *,
    bit_depth: int | None = None,
    cloud: Path | None = None,
    view: str | None = None,
) -> Picture:
    """``open_image`` with the part's cloud, or of a cloud alone a view of it.

    Args:
        source: as ``open_image`` takes it, or the path or content of a cloud.
        bit_depth: as of ``open_image``.
        cloud: file with the picture's cloud, where it does not lie in MVTec 3D-AD's way.
        view: give this view of the cloud instead of the picture, see ``seen_as``.

    Returns:
        A picture with ``cloud``; ``colourless`` where it is nothing but a view of the cloud. Where
        a picture's cloud cannot be used, it has none and a note says why.

    Raises:
        ImageError: the picture cannot be read, or the cloud where there is no picture, or there
            is none for the view.
    """
    picture = _opened(source, bit_depth, cloud)
    return picture if view is None else viewed(picture, view)


def viewed(picture: Picture, view: str) -> Picture:
    """A view of a part's cloud in place of its picture.

    Raises:
        ImageError: the part has no cloud that can be used.
        ValueError: there is no such view.
    """
    if picture.cloud is None:
        raise without_cloud(picture, ", or leave out --view")
    return replace(picture, pixels=seen_as(picture.cloud, view), colourless=False)


def without_cloud(picture: Picture, more: str = "") -> ImageError:
    """What to raise of a part whose cloud is needed; ``more`` goes on with the remedy."""
    reason = unused_cloud(picture) or "there is no point cloud of it"
    remedy = f"Put its cloud into xyz/ beside rgb/ under the same name{more}"
    return ImageError(picture.path, reason, remedy)


def unused_cloud(picture: Picture) -> str | None:
    """Why the cloud of a part was not used, in words; None where there is none, or it was."""
    return next((note for note in picture.notes if _NOT_USED in note), None)


def _opened(source: Any, bit_depth: int | None, cloud: Path | None) -> Picture:
    path = Path(source) if isinstance(source, (str, os.PathLike)) else None
    if cloud is None and path is not None:
        cloud = cloud_beside(path)
    if (cloud is not None and cloud == path) or _holds_points(source):
        return _of_points(open_cloud(source))
    picture = open_image(source, bit_depth=bit_depth)
    if cloud is None:
        return picture
    try:
        fitting = _fitting(open_cloud(cloud), picture)
        return replace(picture, cloud=fitting, notes=(*picture.notes, *fitting.notes))
    except ImageError as error:
        note = f"its cloud {cloud}{_NOT_USED}{error.reason}"
        return replace(picture, notes=(*picture.notes, note))


def colours_of(path: str | os.PathLike[str]) -> Picture | None:
    """The picture of a part whose cloud was judged; None where there is none that can be read."""
    if cloud_beside(Path(path)) in (None, Path(path)):
        return None
    try:
        return open_image(path)
    except ImageError:
        return None


def part_size(path: Path) -> tuple[int, int]:
    """``picture_size`` of a part; of a cloud alone that of its grid.

    Raises:
        ImageError: the file cannot be read.
    """
    if cloud_beside(path) != path and not _holds_points(path):
        return picture_size(path)
    found = open_cloud(path)
    return found.width, found.height


def _of_points(cloud: Cloud) -> Picture:
    pixels = seen_as(cloud, "normals")
    return Picture(cloud.path, pixels, cloud.notes, cloud=cloud, colourless=True)


def _holds_points(source: Any) -> bool:
    """Whether a file or its content is a cloud: PLY, PCD, or a TIFF of numbers beyond [0, 1]."""
    try:
        if isinstance(source, (str, os.PathLike)):
            if not Path(source).is_file():
                return False
            with Path(source).open("rb") as file:
                return _file_holds_points(file)
        if isinstance(source, bytes | bytearray | memoryview):
            return _file_holds_points(io.BytesIO(source))
    except Exception:  # whatever damage does; it is told when the file is opened
        return False
    return False


def _file_holds_points(file: Any) -> bool:
    head = file.read(formats.HEAD_BYTES)
    if is_cloud_file(head):
        return True
    if formats.sniff(head) != "TIFF":
        return False
    from zerodefect.images.decode import MAX_PIXELS
    from zerodefect.images.tiff import stored_samples
    from zerodefect.images.tiff_tags import stored_channels

    if stored_channels(file) not in ((3, "float"), (3, "signed")):
        return False
    file.seek(0)
    samples, _ = stored_samples(file.read(), MAX_PIXELS)
    finite = samples[np.isfinite(samples)]
    beyond = finite.size < samples.size or finite.min() < 0 or finite.max() > 1
    return samples.dtype.kind == "i" or bool(beyond)


def _fitting(cloud: Cloud, picture: Picture) -> Cloud:
    """The cloud with a point for each pixel of the picture, which may be larger or smaller."""
    own, wanted = cloud.valid.shape, (picture.height, picture.width)
    if own == wanted:
        return cloud
    if not cloud.organised or abs(own[0] * wanted[1] / (own[1] * wanted[0]) - 1) > _FITS:
        reason = (
            f"its grid of {own[1]} x {own[0]} points does not fit the picture's "
            f"{wanted[1]} x {wanted[0]} pixels"
        )
        raise ImageError(cloud.path, reason, "Record both with one camera, or inspect it alone")
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * o / n).astype(np.int64), o - 1)
        for o, n in zip(own, wanted, strict=True)
    )
    # a point of the file is at the pixel in the middle of what shows it
    down, across = (
        np.minimum(((np.arange(o) + 0.5) * n / o).astype(np.int64), n - 1)
        for o, n in zip(own, wanted, strict=True)
    )
    cells = (down[:, None] * wanted[1] + across).ravel()
    note = f"its cloud of {own[1]} x {own[0]} points is shown on the picture's pixels"
    return replace(
        cloud,
        points=cloud.points[rows][:, columns],
        valid=cloud.valid[rows][:, columns],
        cells=np.where(cloud.cells >= 0, cells, -1),
        notes=(*cloud.notes, note),
    )
