"""Parts with points as pictures from several sides, for whatever judges pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zerodefect.data.dataset import check_new
from zerodefect.files import atomic_write
from zerodefect.images import ImageError, encode_png
from zerodefect.images.cloud_views import field_of_view
from zerodefect.images.part_files import COLOURS, POINTS, find_parts, open_part, without_cloud
from zerodefect.images.point_input import part_alone
from zerodefect.images.turned_clouds import turned
from zerodefect.types import Failure

USUAL_TURNS = ((0.0, 0.0), (-30.0, 0.0), (30.0, 0.0), (0.0, -30.0), (0.0, 30.0))
PART_OF_VIEW = r"(?P<part>.+)_yaw.+"
"""Pattern that names the part of a view's file, see ``inspection.part_pictures.part_names``."""


@dataclass(frozen=True)
class PartViews:
    """What was written of a part.

    Attributes:
        part: its file.
        views: files of its views, in the order of the turns.
    """

    part: Path
    views: tuple[Path, ...]


def parsed_turn(text: str) -> tuple[float, float]:
    """``"30,-15"`` as yaw and pitch in degrees.

    Raises:
        ValueError: it is not two numbers in [-90, 90].
    """
    try:
        yaw, pitch = (float(number) for number in text.split(","))
    except ValueError:
        yaw = pitch = np.nan
    if not (abs(yaw) <= 90 and abs(pitch) <= 90):
        raise ValueError(
            f"--turn {text!r}: write YAW,PITCH in degrees from -90 to 90, as in 30,-15"
        )
    return yaw, pitch


def write_views(
    folder: str | Path,
    output: str | Path,
    turns: Sequence[tuple[float, float]] = USUAL_TURNS,
    width: float | None = None,
) -> Iterator[PartViews | Failure]:
    """Write the normals of every part, without its ground, as each side sees them.

    All pictures lie in one folder and are named by the part and the turn: of ``bent/rgb/000.png``
    they are ``bent_000_yaw+30_pitch-15.png``. Views of parts compare if they are made with the same
    turns and width of clouds of one camera.

    Args:
        folder: with parts, as ``find_parts`` reads them.
        output: new or empty folder.
        turns: yaw and pitch of each view, see ``turned``.
        width: what a view covers, in the clouds' unit; None for 1.5 times what each cloud covers.

    Yields:
        Each part as soon as its views are written; a Failure of one that has no cloud.

    Raises:
        DatasetError: the output folder holds something.
        FileNotFoundError, ImageError: as of ``find_parts``; a folder without parts among it.
        ValueError: no turn, or one twice.
    """
    if not turns or len(set(turns)) < len(turns):
        raise ValueError("--turn: give each turn once")
    files, root = find_parts([folder]), Path(output)
    check_new(root)
    taken: set[str] = set()
    for file in files:
        name = _name(file, Path(folder))
        try:
            if name in taken:
                reason = f"another part is called {name}, too"
                raise ImageError(str(file), reason, "Rename one of them")
            taken.add(name)
            yield PartViews(file, tuple(_written(file, root / name, turns, width)))
        except ImageError as error:
            yield Failure(error.path, error.reason, error.remedy)


def _name(file: Path, folder: Path) -> str:
    """The part's place in the folder as one word."""
    within = file.relative_to(folder) if folder.is_dir() else Path(file.name)
    folders = [name for name in within.parent.parts if name not in (COLOURS, POINTS)]
    return "_".join((*folders, file.stem))


def _written(
    file: Path, start: Path, turns: Sequence[tuple[float, float]], width: float | None
) -> Iterator[Path]:
    picture = open_part(file)
    if picture.cloud is None:
        raise without_cloud(picture)
    part = part_alone(picture.cloud)
    covered = 1.5 * field_of_view(picture.cloud) if width is None else width
    for yaw, pitch in turns:
        view = turned(part, yaw, pitch, width=covered)
        path = start.with_name(f"{start.name}_yaw{yaw:+g}_pitch{pitch:+g}.png")
        with atomic_write(path, cached=True) as stream:
            stream.write(encode_png((view.pixels >> 8).astype(np.uint8)))
        yield path
