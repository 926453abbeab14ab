"""MVTec LOCO AD: how much of every kind of defect must be found, from ``defects_config.json``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from zerodefect.data import folders
from zerodefect.data.dataset import DatasetError, DefectType
from zerodefect.data.listing import Listing

CONFIG = "defects_config.json"


def is_loco(root: Path) -> bool:
    """Whether some product has a ``defects_config.json``."""
    return any((folder / CONFIG).is_file() for folder in folders.mvtec_products(root))


def read_loco(root: Path, name: str) -> Listing:
    """Read the MVTec tree with a folder of masks per picture, and the defects' configuration.

    Raises:
        DatasetError: if this is no such tree, or no product has the file.
    """
    if not is_loco(root):
        reason = f"no product has train/ or test/ folders and a {CONFIG}"
        raise DatasetError(root, reason, "Name the folder that holds the products (pushpins, ...)")
    listing = folders.read_mvtec(root, name)
    listing.reason += f", and a {CONFIG}"
    for folder in folders.mvtec_products(root):
        file = folder / CONFIG
        if not file.is_file():
            reason = f"there is no {CONFIG}, so no sPRO"
            listing.report("error", folder, reason, "Copy it there")
            continue
        try:
            listing.defects[name if folder == root else folder.name] = read_defects(file)
        except DatasetError as error:
            listing.report("error", file, f"{error.reason}, so no sPRO", error.remedy)
    return listing


def read_defects(file: Path) -> tuple[DefectType, ...]:
    """Read a product's ``defects_config.json``.

    Raises:
        DatasetError: if it cannot be read, is not of that form, or gives a pixel value twice.
    """
    remedy = "Copy the data set's own file there"
    try:
        entries = json.loads(file.read_text(encoding="utf-8-sig"))
        defects = tuple(map(_defect, entries))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DatasetError(file, f"it cannot be understood ({error!r})", remedy) from None
    if len({defect.pixel_value for defect in defects}) < len(defects):
        raise DatasetError(file, "it gives a pixel value twice", remedy)
    return defects


def _defect(entry: dict[str, Any]) -> DefectType:
    defect = DefectType(
        name=str(entry["defect_name"]),
        pixel_value=int(entry["pixel_value"]),
        saturation=float(entry["saturation_threshold"]),
        relative=bool(entry["relative_saturation"]),
    )
    most = 1.0 if defect.relative else math.inf
    if not 0 < defect.saturation <= most or not 1 <= defect.pixel_value <= 255:
        raise ValueError(f"out of range: {entry}")
    return defect
