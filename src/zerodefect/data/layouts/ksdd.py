"""KolektorSDD: a folder for each item, with a mask beside every picture."""

from __future__ import annotations

from pathlib import Path

from zerodefect.data.dataset import DatasetError
from zerodefect.data.folders import subfolders
from zerodefect.data.layout_registry import NON_COMMERCIAL, KnownSet, Layout, register
from zerodefect.data.listing import Listing
from zerodefect.data.masks_beside import all_have_masks, read_by_masks

TREE = """\
ksdd/
└── kos01/Part0.jpg, Part0_label.bmp ..."""

KSDD = KnownSet(
    name="ksdd",
    title="KolektorSDD",
    what="electrical commutators",
    source="University of Ljubljana, ViCoS Lab, and Kolektor Group",
    licence=NON_COMMERCIAL,
    pictures="347 + 52",
    product="electrical commutators",
    aliases=("KolektorSDD", "sdd"),
    notes="has no splits; CLIP papers cut every picture into three bands first",
)


def _recognises(root: Path, named: bool) -> bool:
    items = _items(root)
    return bool(items) and all(all_have_masks(folder, "_label") for folder in items)


@register(Layout("ksdd", TREE, _recognises, (KSDD,), asked=12))
def _read(root: Path, name: str) -> Listing:
    if not _recognises(root, named=True):
        reason = "there are no folders kosNN whose pictures have a _label beside them"
        raise DatasetError(root, reason, "Name the folder that holds the items (kos01, ...)")
    listing = Listing("folders kosNN hold pictures with a _label beside each")
    for folder in _items(root):
        read_by_masks(listing, folder, name, "_label", None)
    return listing


def _items(root: Path) -> list[Path]:
    return [folder for folder in subfolders(root) if folder.name.casefold().startswith("kos")]
