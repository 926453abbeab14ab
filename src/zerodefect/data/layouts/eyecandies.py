"""Eyecandies: rendered sweets as pictures under several lights and as depth, one folder a split."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from zerodefect.data.dataset import DatasetError, Sample, Split
from zerodefect.data.folders import subfolders
from zerodefect.data.layout_registry import KnownSet, Layout, register
from zerodefect.data.listing import Listing, pattern
from zerodefect.images.depth_pictures import DEPTH_SUFFIX, is_depth_picture
from zerodefect.images.find import visible

TREE = """\
eyecandies/
└── CandyCane/                         or one such product
    ├── train/data/000_image_0.png ... 000_image_5.png, 000_depth.png, 000_info_depth.yaml
    ├── val/data/...
    ├── test_public/data/..., 000_metadata.yaml, 000_mask.png
    └── test_private/data/...          without labels"""

_SPLITS: dict[str, Split | None] = {
    **{"train": "train", "val": "validation", "test_public": "test", "test": "test"},
    "test_private": None,
}
_LIGHT = 4  # of six: the one that published figures use
_PICTURE = re.compile(rf"(\w+)_image_{_LIGHT}\.png")
_KINDS = ("bumps", "dents", "colors", "normals")
_NAMES = (
    *("CandyCane", "ChocolateCookie", "ChocolatePraline", "Confetto", "GummyBear"),
    *("HazelnutTruffle", "LicoriceSandwich", "Lollipop", "Marshmallow", "PeppermintCandy"),
)
_KNOWN = KnownSet(
    name="eyecandies",
    title="Eyecandies",
    what="rendered sweets as picture and depth",
    source="Bonfiglioli et al. (ACCV 2022), page 'The Eyecandies Dataset'",
    licence="CC BY-NC-SA 4.0",
    pictures="train 10000, validation 1000, test 500 public + 4000 private",
    products=_NAMES,
    notes=f"of six lights that of image_{_LIGHT} is read; --view judges the depth",
)


def _products(root: Path) -> list[Path]:
    if _splits(root):
        return [root]
    return [folder for folder in subfolders(root) if _splits(folder)]


def _splits(folder: Path) -> list[tuple[Path, Split | None]]:
    found = [(one / "data", _SPLITS[one.name]) for one in subfolders(folder) if one.name in _SPLITS]
    return [(data, split) for data, split in found if _pictures(data)]


def _pictures(data: Path) -> list[tuple[Path, str]]:
    files = visible(data) if data.is_dir() else []
    return [(file, match[1]) for file in files if (match := _PICTURE.fullmatch(file.name))]


@register(Layout("eyecandies", TREE, lambda root, named: _products(root), (_KNOWN,), asked=11))
def _read(root: Path, name: str) -> Listing:
    """Read one picture a part with its depth, and label and mask from the files beside it."""
    products = _products(root)
    if not products:
        reason = f"no folder holds train/data or test_public/data with 000_image_{_LIGHT}.png ..."
        raise DatasetError(root, reason, "Name the folder that holds the products")
    listing = Listing(f"pictures lie in SPLIT/data as NUMBER_image_{_LIGHT}.png")
    for folder in products:
        product = name if folder == root else folder.name
        for data, split in _splits(folder):
            for image, number in _pictures(data):
                listing.samples.append(_sample(listing, image, number, product, split))
    return listing


def _sample(
    listing: Listing, image: Path, number: str, product: str, split: Split | None
) -> Sample:
    kind = _kind(listing, image.with_name(f"{number}_metadata.yaml"), split)
    depth, mask = (image.with_name(number + ending) for ending in (DEPTH_SUFFIX, "_mask.png"))
    common = pattern(product, split, kind)
    masked = mask if common.anomalous and mask.is_file() else None
    cloud = depth if is_depth_picture(depth) else None
    return replace(common, image=image, mask=masked, cloud=cloud)


def _kind(listing: Listing, file: Path, split: Split | None) -> str:
    """Word for what a part shows; empty where nothing says it."""
    import yaml

    if split in ("train", "validation"):
        return "good"  # all of them are, in this data set
    if not file.is_file():
        return ""
    try:
        said: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        anomalous = bool(int(said["anomalous"]))
        kinds = [kind for kind in _KINDS if int(said.get(kind, 0) or 0)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError):
        reason = "it does not say whether the part is anomalous; the part has no label"
        listing.report("error", file, reason, "Copy the data set's own file there")
        return ""
    if not anomalous:
        return "good"
    return "+".join(kinds) or "defect"
