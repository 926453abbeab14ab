"""Good pictures as a product file keeps them: what the networks see of them, lossless."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from zerodefect.images import ImageError, Picture, encode_jpeg, open_image, thumbnail
from zerodefect.images.cloud_files import MAX_POINTS, parsed
from zerodefect.images.clouds import Cloud, own_cells, where_measured
from zerodefect.images.kept import KeptPicture
from zerodefect.images.point_input import PartCloud, part_alone
from zerodefect.inspection.archive import Archive, ProductError
from zerodefect.inspection.frames import Frame, measure
from zerodefect.inspection.product_sections import IGNORE, ROI, PictureEntry
from zerodefect.inspection.shown import Shown, named_words
from zerodefect.inspection.sources import digest
from zerodefect.scoring.areas import AreaWords
from zerodefect.scoring.viewing import Viewing

_AT_ONCE = 4  # threads that shrink and encode; both release the interpreter lock
_LARGEST = 2**31  # bytes of one picture
_SIDE = 96  # pixels of a thumbnail's longer side


def keep(picture: Picture, frame: Frame, viewing: Viewing) -> KeptPicture:
    """A picture as the file keeps it.

    Args:
        picture: whole, or kept before.
        frame: its light and focus; its points, where these are judged. Those of the part are then
            kept, too, but where a view of them is the picture.
        viewing: with ``within``.
    """
    if isinstance(picture, KeptPicture) and picture.digest:
        return picture
    shrunk = viewing.shown(picture)
    light = frame.brightness, frame.contrast, frame.sharpness
    whole, name = (picture.height, picture.width), Path(picture.path).name
    judged = picture.cloud is not None and frame.points is not None and viewing.view is None
    return KeptPicture(
        name,
        shrunk.pixels,
        (),
        whole,
        digest(picture),
        light,
        frame.points,
        cloud=part_alone(picture.cloud) if judged and picture.cloud else None,
        colourless=picture.colourless,
    )


class Keeping:
    """Good pictures of a calibration, kept as they pass, as long as they take little memory.

    Args:
        most: bytes that they may take; beyond, none is kept.

    Attributes:
        pictures: so far; None where they were too many.
    """

    def __init__(self, most: int = 2**30) -> None:
        self.most = most
        self.pictures: list[KeptPicture] | None = []
        self._bytes = 0

    def add(self, picture: Picture, frame: Frame, viewing: Viewing) -> None:
        """Keep one more; arguments as of ``keep``."""
        if self.pictures is None:
            return
        kept = keep(picture, frame, viewing)
        self._bytes += kept.pixels.nbytes + (kept.cloud.points.nbytes if kept.cloud else 0)
        if self._bytes > self.most:
            self.pictures = None
        else:
            self.pictures.append(kept)


# --- as members of a file ------------------------------------------------------------------------


def lossless(pixels: np.ndarray) -> tuple[bytes, str]:
    """``(H, W, 3)`` as PNG, 16-bit values as TIFF, and the ending of such a file.

    Little is gained by packing photographs tighter, and it would take many times as long.
    """
    buffer = io.BytesIO()
    if pixels.dtype == np.uint8:
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue(), "png"
    import tifffile

    tifffile.imwrite(buffer, pixels, photometric="rgb", compression="zlib")
    return buffer.getvalue(), "tif"


def area_members(shown: Shown) -> dict[str, bytes]:
    """Members of a file that hold mask pictures; words stand in ``product.json``."""
    given = zip((ROI, IGNORE), shown.areas, strict=True)
    return {name: lossless(area.to_uint8())[0] for name, area in given if isinstance(area, Picture)}


def opened_areas(
    archive: Archive, roi: str | None, ignore: str | None
) -> tuple[Picture | AreaWords | None, Picture | None]:
    """What counts and what does not, by how ``Shown.hashed`` names them.

    Raises:
        ProductError: words that name no area, or a picture that cannot be read.
    """
    try:
        words = named_words(roi)
    except ValueError as error:
        raise ProductError(archive.path, str(error), "Copy the file again") from None
    white = opened(archive, ROI) if roi is not None and words is None else None
    return words or white, None if ignore is None else opened(archive, IGNORE)


def written(
    folder: str, pictures: Sequence[KeptPicture]
) -> tuple[dict[str, bytes], tuple[PictureEntry, ...]]:
    """Members of a file that hold pictures, and what is said of each in ``product.json``."""
    members: dict[str, bytes] = {}
    about = []
    with ThreadPoolExecutor(_AT_ONCE) as workers:
        for number, (picture, (data, ending)) in enumerate(
            zip(pictures, workers.map(lambda one: lossless(one.pixels), pictures), strict=True)
        ):
            name = f"{folder}/{number:05d}.{ending}"
            members[name] = data
            cloud = None if picture.cloud is None else f"{folder}/{number:05d}.xyz.tif"
            if cloud is not None and picture.cloud is not None:
                members[cloud] = _points(picture.cloud)
            entry = PictureEntry(
                file=name,
                name=picture.path,
                digest=picture.digest,
                whole=picture.whole,
                light=picture.light,
                cloud=cloud,
                points=picture.points,
                colourless=picture.colourless,
            )
            about.append(entry)
    return members, tuple(about)


def _points(cloud: Cloud) -> bytes:
    import tifffile

    buffer = io.BytesIO()
    points = cloud.points * cloud.valid[..., None]
    tifffile.imwrite(buffer, points, photometric="rgb", compression="zlib")
    return buffer.getvalue()


def _opened_points(archive: Archive, name: str) -> PartCloud:
    """A member that holds the points of a part, as they were written.

    Raises:
        ProductError: it is missing or damaged.
    """
    data = archive.read(name, _LARGEST)
    try:
        points = np.ascontiguousarray(parsed(data, MAX_POINTS).points, np.float32)
        valid = where_measured(points)
    except Exception as error:  # decoders meet damage with anything
        reason = f"{name} in it is no cloud, or damaged"
        raise ProductError(archive.path, reason, "Copy it again") from error
    return PartCloud(name, points, valid, own_cells(valid))


def kept(
    pictures: Sequence[Picture],
    area: Callable[[Picture], np.ndarray | None],
    viewing: Viewing,
    points: bool,
) -> list[KeptPicture]:
    """``keep`` for several; ``area`` gives what counts, ``points`` says whether they are judged."""

    def one_kept(one: Picture) -> KeptPicture:
        return keep(one, measure(one, area(one), points=points), viewing)

    with ThreadPoolExecutor(_AT_ONCE) as workers:
        return list(workers.map(one_kept, pictures))


def read(archive: Archive, about: Sequence[PictureEntry]) -> tuple[KeptPicture, ...]:
    """Pictures of a file, by what ``product.json`` says of them.

    Raises:
        ProductError: one is missing or damaged, or larger than what it stands for.
    """
    data = archive.read_all([one.file for one in about], _LARGEST)
    with ThreadPoolExecutor(_AT_ONCE) as workers:
        return tuple(workers.map(lambda *own: _kept_before(archive, *own), about, data))


def _kept_before(archive: Archive, about: PictureEntry, data: bytes) -> KeptPicture:
    pixels = _decoded(archive, about.file, data).pixels
    if pixels.shape[0] > about.whole[0] or pixels.shape[1] > about.whole[1]:
        reason = f"{about.file} in it is larger than the picture that it stands for"
        raise ProductError(archive.path, reason, "Copy it again")
    cloud = None if about.cloud is None else _opened_points(archive, about.cloud)
    told = about.whole, about.digest, about.light, about.points
    return KeptPicture(about.name, pixels, (), *told, cloud=cloud, colourless=about.colourless)


def opened(archive: Archive, name: str) -> Picture:
    """A member that is a picture, as it was written.

    Raises:
        ProductError: it is missing or damaged.
    """
    return _decoded(archive, name, archive.read(name, _LARGEST))


def _decoded(archive: Archive, name: str, data: bytes) -> Picture:
    try:
        return replace(open_image(data, name=name, bit_depth=16), notes=())
    except ImageError as error:
        reason = f"{name} in it is no picture: {error.reason}"
        raise ProductError(archive.path, reason, "Copy it again") from None


def thumbnails(pictures: Sequence[Picture]) -> dict[str, bytes]:
    """Small JPEGs of pictures, in their own shape, as members of a file."""
    members = {}
    for number, picture in enumerate(pictures):
        scale = _SIDE / max(picture.height, picture.width)
        high, wide = (max(1, round(side * scale)) for side in (picture.height, picture.width))
        image = Image.fromarray(thumbnail(picture.to_uint8(), max(4 * _SIDE, high, wide)))
        small = np.asarray(image.convert("RGB").resize((wide, high), Image.Resampling.LANCZOS))
        members[f"thumbnails/{number:05d}.jpg"] = encode_jpeg(small, 85)
    return members
