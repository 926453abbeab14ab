"""VisA: a table of splits beside raw folders, or the tree that its own script makes of them."""

from __future__ import annotations

from pathlib import Path

from zerodefect.data.dataset import GOOD, UNNAMED_DEFECT, DatasetError
from zerodefect.data.folders import add_pictures, files_by_path, listed_pictures, subfolders
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.layouts.mvtec import mvtec_products, read_mvtec
from zerodefect.data.layouts.table import VISA_SPLIT, read_table
from zerodefect.data.listing import Listing, pattern

TREE = """\
visa/
├── split_csv/1cls.csv                 columns object, split, label, image, mask
└── candle/Data/
    ├── Images/Normal/0000.JPG ...
    ├── Images/Anomaly/000.JPG ...
    └── Masks/Anomaly/000.png ...
or the tree that VisA's own script makes of it: candle/{train,test,ground_truth}/..."""


def _recognises(root: Path, named: bool) -> bool:
    """Find its own layout; in a folder of its name also its script's tree, in ``1cls``."""
    own = (root / VISA_SPLIT).is_file() or bool(_products(root))
    return own or (named and bool(mvtec_products(root / "1cls")))


@register(Layout("visa", TREE, _recognises, asked=11))
def _read(root: Path, name: str) -> Listing:
    if (root / VISA_SPLIT).is_file():
        return read_table(root, name)
    products = _products(root)
    if not products:
        inner = next((f for f in (root / "1cls", root) if mvtec_products(f)), None)
        if inner is None:
            reason = "there is no split_csv/1cls.csv and no Data/Images/{Normal,Anomaly}"
            raise DatasetError(root, reason, "Name the folder that holds the classes (candle, ...)")
        return read_mvtec(inner, name)
    listing = Listing("it has VisA's Data/Images/{Normal,Anomaly}")
    listing.notes.append("there is no split_csv/1cls.csv, so the pictures have no split")
    for folder in products:
        product = name if folder == root else folder.name
        masks = files_by_path(folder / "Data" / "Masks" / "Anomaly")
        for part, kind, of_kind in (("Normal", GOOD, {}), ("Anomaly", UNNAMED_DEFECT, masks)):
            images = folder / "Data" / "Images" / part
            found = listed_pictures(listing, images) if images.is_dir() else []
            add_pictures(listing, images, found, of_kind, pattern(product, None, kind))
    return listing


def _products(root: Path) -> list[Path]:
    return [
        folder
        for folder in (root, *subfolders(root))
        if any((folder / "Data" / "Images" / part).is_dir() for part in ("Normal", "Anomaly"))
    ]
