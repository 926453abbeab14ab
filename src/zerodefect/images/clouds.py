"""One door for point clouds: whatever the file, points on a grid come out, or one `ImageError`.

Cameras of depth write a point per pixel ("organised"); other scanners a list of points. A list is
seen from the side that a camera at the origin looks at, along z, so that both are the same record,
and what is found on the grid's pixels comes back to the points of the file.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zerodefect.images.cloud_files import MAX_POINTS, StoredPoints, parsed
from zerodefect.images.cloud_resolution import resolution_notes
from zerodefect.images.decode import ImageError
from zerodefect.images.depth_pictures import depth_points, is_depth_picture
from zerodefect.images.samples import COPY_AGAIN, FaultError

_LARGEST_FLOAT32 = 1000.0  # times the extent; beyond, float32 would lose what matters
_PER_CELL = 1.5  # points of a list that share a cell on average, so that few cells stay empty
_LONGEST = 2048  # cells along a side of the grid that a list is laid on
_ASTRAY = 3.0  # times the longest side of all others' box, from where a point is a false reading
_LOOKED_AT = 100_000  # points, at most, that the box is made of
_LEAST_MEASURED = 0.005  # of the points, for the rest to be holes in something


@dataclass(frozen=True, eq=False)
class Cloud:
    """Measured points on a grid.

    Attributes:
        path: as the user named it; a word in angle brackets for clouds from memory.
        points: ``(H, W, 3)`` float32 x, y, z in the file's unit; zero where nothing was measured.
            The camera looks along z: the smaller z, the nearer.
        valid: ``(H, W)`` bool, True where a point was measured.
        cells: ``(N,)`` int64, for each point of the file its cell ``row * W + column``; -1 for one
            that was not measured. Points that lie behind another share its cell.
        organised: whether the file itself had the grid.
        origin: ``(3,)`` float64 that was taken off all points to keep float32 exact; mostly zero.
        notes: what the reader should know about the file.
    """

    path: str
    points: np.ndarray
    valid: np.ndarray
    cells: np.ndarray
    organised: bool = True
    origin: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    @property
    def height(self) -> int:
        """Rows of the grid."""
        return int(self.points.shape[0])

    @property
    def width(self) -> int:
        """Columns of the grid."""
        return int(self.points.shape[1])

    @property
    def measured(self) -> np.ndarray:
        """The measured points ``(n, 3)``, row by row."""
        return np.asarray(self.points[self.valid])

    def at_points(self, map: np.ndarray) -> np.ndarray:
        """Values ``(H, W)`` of the grid at each point of the file: ``(N,)`` float32.

        NaN at points that were not measured.

        Raises:
            ValueError: a map of another size.
        """
        if map.shape != self.valid.shape:
            raise ValueError(f"the map is {map.shape}, the cloud's grid {self.valid.shape}")
        found = map.reshape(-1)[np.maximum(self.cells, 0)].astype(np.float32)
        return np.where(self.cells >= 0, found, np.float32(np.nan))


def open_cloud(
    source: str | os.PathLike[str] | bytes | np.ndarray,
    *,
    name: str | None = None,
    max_points: int = MAX_POINTS,
) -> Cloud:
    """Open a cloud from a file or from memory.

    Files: TIFF with three channels of numbers (x, y, z of each pixel, as MVTec 3D-AD has it), PLY
    and PCD (ASCII and binary, either byte order where the format has both); and by its name a depth
    picture ``X_depth.png`` with ``X_info_depth.yaml`` beside it (Eyecandies).
    Points that are zero, or not finite, were not measured, and neither was what lies far from all
    others: a single false reading would stretch the part to nothing.

    Args:
        source: path, file content, array ``(H, W, 3)`` of a grid or ``(N, 3)`` of a list.
        name: what to call the cloud in results and errors, instead of the path.
        max_points: files with more points are refused before memory is claimed.

    Raises:
        ImageError: for any cloud that cannot be read whole; says why and what to do.
    """
    if name is None:
        path = isinstance(source, (str, os.PathLike))
        name = str(source) if path else "<array>" if isinstance(source, np.ndarray) else "<bytes>"
    try:
        stored = _stored(source, max_points)
        return _cloud(name, stored)
    except FaultError as fault:
        raise ImageError(name, fault.reason, fault.remedy) from None
    except MemoryError:
        reason = "there is not enough memory to read it"
        raise ImageError(name, reason, "Thin the cloud out, or cut it into parts") from None
    except Exception as error:  # decoders meet damage with anything
        reason = "it is damaged, or of a rare kind, and cannot be read as a cloud"
        raise ImageError(name, reason, f"{COPY_AGAIN}, or export it anew as PLY") from error


def _stored(source: str | os.PathLike[str] | bytes | np.ndarray, most: int) -> StoredPoints:
    if isinstance(source, np.ndarray):
        return _from_array(source, most)
    if isinstance(source, bytes | bytearray | memoryview):
        return parsed(bytes(source), most)
    path = Path(source)
    try:
        if path.is_dir():
            raise FaultError("it is a folder", "Name the cloud files in it")
        if path.exists() and not path.is_file():
            raise FaultError("it is not a regular file", "Copy the cloud into an ordinary file")
        if path.stat().st_size > _most_bytes(most):
            reason = f"the file is too large ({path.stat().st_size / 2**30:.1f} GiB)"
            raise FaultError(reason, "Thin the cloud out, or cut it into parts")
        return (
            depth_points(path, most) if is_depth_picture(path) else parsed(path.read_bytes(), most)
        )
    except FileNotFoundError:
        raise FaultError("there is no such file", "Check the path and its spelling") from None
    except PermissionError:
        raise FaultError("permission to read it is denied", "Ask for read access to it") from None
    except OSError as error:
        reason = f"it cannot be read ({error.strerror or error})"
        raise FaultError(reason, "Check the path and disk") from None


def _most_bytes(most: int) -> int:
    return 128 * most + 2**24  # ASCII with colours and normals takes the most


def _from_array(given: np.ndarray, most: int) -> StoredPoints:
    if given.ndim not in (2, 3) or given.shape[-1] != 3 or given.dtype.kind not in "fiu":
        reason = f"an array of shape {given.shape} and type {given.dtype} is no cloud"
        raise FaultError(reason, "Pass numbers of shape (height, width, 3) or (points, 3)")
    if given.size // 3 > most:
        reason = f"it has {given.size // 3:,} points, the limit is {most:,}"
        raise FaultError(reason, "Thin the cloud out, or cut it into parts")
    return StoredPoints(given, given.ndim == 3)


def _cloud(name: str, stored: StoredPoints) -> Cloud:
    points = np.asarray(stored.points, np.float64)
    if not points.size:
        raise FaultError("it has no points")
    valid = where_measured(points)
    _check_measured(valid)
    astray = _astray(points[valid])
    notes = stored.notes
    if count := int(astray.sum()):
        valid[valid] = ~astray
        lie = "1 of its points lies" if count == 1 else f"{count} of its points lie"
        notes = (*notes, f"{lie} far from all others and counts as not measured")
    measured = points[valid]
    low, high = measured.min(0), measured.max(0)
    if max(np.abs(low).max(), np.abs(high).max()) > np.finfo(np.float32).max / 4:
        reason = "its coordinates are too large for numbers of 32 bits"
        raise FaultError(reason, "Export it in another unit")
    origin = np.zeros(3)
    far = np.maximum(np.abs(low), np.abs(high)) > _LARGEST_FLOAT32 * max((high - low).max(), 1e-300)
    if far.any() and (high - low).max() > 0:
        origin = np.where(far, np.floor((low + high) / 2), 0.0)
        notes = (*notes, f"moved by {-origin} to keep its precision")
    plain = np.where(valid[..., None], points - origin, 0.0).astype(np.float32)
    if stored.organised:
        cells = own_cells(valid)
        notes = (*notes, *resolution_notes(plain, valid))
        return Cloud(name, plain, valid, cells, True, origin, notes)
    grid, seen, cells = _projected(plain.reshape(-1, 3), valid.ravel())
    said = f"a list of {valid.size} points, seen along z on {seen.shape[1]} x {seen.shape[0]} cells"
    notes = (*notes, said, *resolution_notes(grid, seen))
    return Cloud(name, grid, seen, cells, False, origin, notes)


def where_measured(points: np.ndarray) -> np.ndarray:
    """Which of points ``(..., 3)`` were measured: those that are finite, and not all zero."""
    return np.asarray(np.isfinite(points).all(-1) & (points != 0).any(-1))


def own_cells(valid: np.ndarray) -> np.ndarray:
    """The cell of each point of a grid ``(H, W)``, itself, and -1 where it was not measured."""
    return np.where(valid.ravel(), np.arange(valid.size), -1)


def _check_measured(valid: np.ndarray) -> None:
    remedy = "Check the camera's exposure and range, and record it again"
    count = int(valid.sum())
    if not count:
        raise FaultError("none of its points was measured: all are zero or not finite", remedy)
    if count < max(min(3, valid.size), _LEAST_MEASURED * valid.size):
        was = "was" if count == 1 else "were"
        raise FaultError(f"only {count:,} of its {valid.size:,} points {was} measured", remedy)


def _astray(measured: np.ndarray) -> np.ndarray:
    """Points of ``(n, 3)`` that lie far outside of the box of the others: ``(n,)`` bool."""
    low, high = np.percentile(measured[:: max(1, len(measured) // _LOOKED_AT)], (1, 99), axis=0)
    reach = _ASTRAY * (high / 2 - low / 2).max() * 2
    if not 0 < reach < np.inf:
        return np.zeros(len(measured), bool)
    return np.asarray(((measured < low - reach) | (measured > high + reach)).any(-1))


def _projected(points: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay a list on a grid of square cells in x and y; of each cell's points the nearest is seen.

    Args:
        points: ``(N, 3)``, with y downwards on the grid.
        valid: ``(N,)`` bool.

    Returns:
        Points ``(H, W, 3)``, where there are any ``(H, W)``, and the cell of each point ``(N,)``.
    """
    own = points[valid].astype(np.float64)
    low, spread = own[:, :2].min(0), np.ptp(own[:, :2], axis=0)
    area = max(spread[0], spread.max() / len(own)) * max(spread[1], spread.max() / len(own))
    side = math.sqrt(area * _PER_CELL / len(own)) or 1.0
    side = max(side, float(spread.max()) / (_LONGEST - 1))
    place = np.floor((own[:, :2] - low) / side).astype(np.int64)
    width, height = (int(n) + 1 for n in place.max(0))
    flat = place[:, 1] * width + place[:, 0]
    order = np.lexsort((own[:, 2], flat))  # by cell, the nearest first
    seen, first = np.unique(flat[order], return_index=True)
    grid = np.zeros((height * width, 3), np.float32)
    grid[seen] = points[valid][order[first]]
    there = np.zeros(height * width, bool)
    there[seen] = True
    cells = np.full(len(points), -1, np.int64)
    cells[valid] = flat
    return grid.reshape(height, width, 3), there.reshape(height, width), cells
