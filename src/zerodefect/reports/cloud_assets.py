"""What a run leaves of a part's cloud: the other picture of it, its surface to turn, its scores."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from zerodefect.files import atomic_write
from zerodefect.images import Picture, encode_jpeg, heat_rgba, thumbnail
from zerodefect.images.cloud_views import seen_as
from zerodefect.images.clouds import Cloud
from zerodefect.images.part_files import cloud_beside, colours_of
from zerodefect.inspection.inspected import Inspection

_SIDE = 160  # points along the longer side of a surface that is shown
_SHOWN = 1024  # pixels of the longer side of a picture
_GREY = 160  # of the surface itself
_LIBRARY = "plotly.min.js"


def write_cloud_assets(
    picture: Picture,
    inspection: Inspection,
    colour_range: tuple[float, float] | None,
    folder: Path,
    stem: str,
    view: str | None,
) -> dict[str, str]:
    """Write what the report shows of a part's cloud.

    Args:
        picture: with its cloud.
        inspection: its outcome; its map colours the surface.
        colour_range: as of ``write_assets``.
        folder: the run's ``assets`` folder.
        stem: file name without ending, unique within the run.
        view: the view that was judged; None where the picture was.

    Returns:
        Paths relative to the run folder: ``other`` (JPEG), the modality that was not judged; and
        where plotly is installed ``surface``, a page that shows the surface without a network.

    Raises:
        StoreError: a file cannot be written.
    """
    assert picture.cloud is not None
    files: dict[str, tuple[str, bytes]] = {}
    name, other = other_modality(picture, view), None
    if name == "picture":
        other = colours_of(picture.path)
    elif name is not None:
        other = Picture("", seen_as(picture.cloud, name))
    if other is not None:
        shown = thumbnail(other.to_uint8(), _SHOWN)
        files["other"] = (f"{stem}.{name}.jpg", encode_jpeg(shown))
    if library := _library():
        if not (folder / _LIBRARY).is_file():
            with atomic_write(folder / _LIBRARY) as file:
                file.write(library.read_bytes())
        page = surface_page(picture.cloud, inspection.map, colour_range)
        files["surface"] = (f"{stem}.surface.html", page.encode())
    for file_name, content in files.values():
        with atomic_write(folder / file_name) as file:
            file.write(content)
    return {key: f"{folder.name}/{file_name}" for key, (file_name, _) in files.items()}


def cloud_record(picture: Picture, view: str | None, scores: str | None) -> dict[str, Any]:
    """What a record says of a part's cloud.

    Args:
        picture: with its cloud.
        view: that was judged; None where the picture was.
        scores: where the points were written with their scores, relative to the run folder.
    """
    assert picture.cloud is not None
    measured, points = int((picture.cloud.cells >= 0).sum()), len(picture.cloud.cells)
    told = {"view": view, "other": other_modality(picture, view), "scores": scores}
    return {"points": points, "measured": measured, **told}


def other_modality(picture: Picture, view: str | None) -> str | None:
    """``picture``, or the view of the cloud that is shown beside what was judged."""
    if view is None:
        return "depth" if picture.colourless else "normals"
    there = cloud_beside(Path(picture.path)) not in (None, Path(picture.path))
    return "picture" if there else "normals" if view == "depth" else "depth"


@cache
def _library() -> Path | None:
    """plotly's script as its package brings it, or None where that is not installed."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        return None
    script = Path(found.submodule_search_locations[0], "package_data", _LIBRARY)
    return script if script.is_file() else None


def surface_page(
    cloud: Cloud, map: np.ndarray | None, colour_range: tuple[float, float] | None
) -> str:
    """An HTML page of the surface, coloured by the map, or by height where there is none.

    It loads plotly's script from the folder that it lies in, and nothing else.
    """
    step = max(1, -(-max(cloud.valid.shape) // _SIDE))
    valid, points = cloud.valid[::step, ::step], cloud.points[::step, ::step].astype(np.float64)
    measured = map is not None and colour_range is not None
    low, high = colour_range if measured and colour_range else (0.0, 1.0)
    values = map[::step, ::step] if measured and map is not None else None
    if values is None:  # the nearest is the highest
        z = points[..., 2]
        spread = max(float(np.ptp(z[valid])), 1e-12)
        values = (z[valid].max() - z) / spread
    heat = heat_rgba(np.linspace(low, high, 33, dtype=np.float32)[None], low, high)[0]
    share = heat[:, 3:] / 255.0  # as the heat map lies over a picture: grey where it is transparent
    ramp = (heat[:, :3] * share + _GREY * (1 - share)).round().astype(int)
    told: dict[str, Any] = {
        "axes": [_rounded(points[..., axis], valid) for axis in range(3)],
        "scores": _rounded(values, valid),
        "range": [low, high],
        "ramp": [[n / 32, f"rgb({r},{g},{b})"] for n, (r, g, b) in enumerate(ramp.tolist())],
        "organised": cloud.organised,
        "scored": measured,
    }
    template = (resources.files("zerodefect.reports") / "assets" / "surface.html").read_text(
        "utf-8"
    )
    return template.replace("{{data}}", json.dumps(told, separators=(",", ":"), allow_nan=False))


def _rounded(values: np.ndarray, valid: np.ndarray) -> list[list[float | None]]:
    """Rows of numbers to five digits, None where there is no point."""
    rows = zip(values.tolist(), valid.tolist(), strict=True)
    return [
        [float(f"{value:.5g}") if there else None for value, there in zip(*row, strict=True)]
        for row in rows
    ]


def write_scored_points(path: Path, cloud: Cloud, map: np.ndarray) -> None:
    """Write the measured points with their scores as a binary PLY file: x, y, z, score.

    Args:
        path: of the file.
        cloud: of a list, its points that are seen.
        map: ``(H, W)`` raw scores on the cloud's grid.

    Raises:
        StoreError: the file cannot be written.
        ValueError: a map of another size.
    """
    if map.shape != cloud.valid.shape:
        raise ValueError(f"the map is {map.shape}, the cloud's grid {cloud.valid.shape}")
    points = cloud.measured.astype(np.float64)
    points += 0 if cloud.origin is None else cloud.origin
    kinds = [*((axis, "<f8") for axis in "xyz"), ("score", "<f4")]
    rows = np.zeros(len(points), kinds)
    for number, axis in enumerate("xyz"):
        rows[axis] = points[:, number]
    rows["score"] = map[cloud.valid]
    properties = "".join(f"property double {axis}\n" for axis in "xyz")
    head = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n"
        f"{properties}property float score\nend_header\n"
    )
    with atomic_write(path) as file:
        file.write(head.encode() + rows.tobytes())
