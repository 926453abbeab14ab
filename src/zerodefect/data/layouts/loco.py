"""MVTec LOCO AD: MVTec's tree, and how much of every kind of defect must be found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from zerodefect.data.dataset import DatasetError, DefectType
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.layouts.mvtec import mvtec_products, read_mvtec
from zerodefect.data.listing import Listing

TREE = """\
loco/
└── breakfast_box/                     or one such product
    ├── train/good/000.png ...
    ├── validation/good/000.png ...
    ├── test/{good,logical_anomalies,structural_anomalies}/000.png ...
    ├── ground_truth/logical_anomalies/000/000.png, 001.png ...
    └── defects_config.json            [{defect_name, pixel_value, saturation_threshold,
                                       relative_saturation}, ...]"""

CONFIG = "defects_config.json"


def _recognises(root: Path, named: bool) -> bool:
    return any((folder / CONFIG).is_file() for folder in mvtec_products(root))


@register(Layout("loco", TREE, _recognises, asked=10))
def _read(root: Path, name: str) -> Listing:
    """Read the MVTec tree with a folder of masks per picture, and the defects' configuration."""
    if not _recognises(root, named=True):
        reason = f"no product has train/ or test/ folders and a {CONFIG}"
        raise DatasetError(root, reason, "Name the folder that holds the products (pushpins, ...)")
    listing = read_mvtec(root, name)
    listing.reason += f", and a {CONFIG}"
    for folder in mvtec_products(root):
        file = folder / CONFIG
        if not file.is_file():
            listing.report("error", folder, f"there is no {CONFIG}, so no sPRO", "Copy it there")
            continue
        try:
            listing.defects[name if folder == root else folder.name] = _read_defects(file)
        except (OSError, ValueError, TypeError, KeyError) as error:
            reason = f"it cannot be understood ({error!r}), so no sPRO"
            listing.report("error", file, reason, "Copy the data set's own file there")
    return listing


def _read_defects(file: Path) -> tuple[DefectType, ...]:
    defects = tuple(map(_defect, json.loads(file.read_text(encoding="utf-8-sig"))))
    if len({defect.pixel_value for defect in defects}) < len(defects):
        raise ValueError("it gives a pixel value twice")
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
