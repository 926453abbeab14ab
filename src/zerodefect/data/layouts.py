"""One door for data sets: whatever the layout on disk, a `Dataset` comes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from zerodefect.data import folders, tables
from zerodefect.data.check import check_masks
from zerodefect.data.dataset import Dataset, DatasetError, in_order
from zerodefect.data.listing import Listing, finish

Layout = Literal["auto", "folder", "mvtec", "meta", "csv"]
LAYOUTS: tuple[Layout, ...] = ("auto", "folder", "mvtec", "meta", "csv")

_TREES = {
    "folder": """\
parts/
├── good/0.png ...                     good, ok or normal; one folder is enough, and without
├── scratch/0.png ...                  any such folder the pictures count as unlabelled
└── ground_truth/scratch/0_mask.png    optional""",
    "mvtec": """\
bottle/                                or a folder of several such products
├── train/good/000.png ...
├── test/good/000.png ...
├── test/scratch/000.png ...
└── ground_truth/scratch/000_mask.png  optional""",
    "meta": """\
data/
├── meta.json                          {"train": {class: [entry, ...]}, "test": {...}}, entry =
└── ...                                {img_path, mask_path, cls_name, specie_name, anomaly}""",
    "csv": """\
data/
├── parts.csv                          columns image, label, mask, product, kind, split; only
└── ...                                image is needed; .tsv and .jsonl are read, too""",
}


def load_dataset(
    path: str | Path, *, layout: Layout = "auto", name: str | None = None, sizes: bool = True
) -> Dataset:
    """Find out what pictures, labels and masks there are; no picture is decoded.

    Recognised, in this order, and each to be had by name:

    - ``meta``: ``meta.json``, the field's exchange format (split -> class -> entries);
    - ``mvtec``: ``<product>/{train,validation,test}/{good,KIND}/X``, masks in
      ``<product>/ground_truth/KIND``; one product or several. BTAD, MPDD, the re-organised VisA
      and MVTec LOCO AD share this tree;
    - ``csv``: one CSV, TSV or JSON-lines file that lists the pictures (VisA's
      ``split_csv/1cls.csv`` and the manifests of Lookout for Vision included);
    - ``folder``: ``good/`` beside a folder for each defect kind, one product or several; without
      any folder of that name, unlabelled pictures.

    Good pictures lie in folders called good, ok or normal, in any case. A mask has its picture's
    name, or that with ``_mask``, ``_label``, ``_GT`` or ``_Segmentation``. What does not fit is
    in ``Dataset.problems``: nothing is left out in silence, and no picture changes its split.

    Args:
        path: a folder, or the table itself. Backslashes are understood everywhere.
        layout: name of the layout, if it should not be recognised.
        name: what to call the data set, and its product where the path holds only one; the
            folder's name if None.
        sizes: whether to compare masks with their pictures (reads the files' headers only).

    Raises:
        DatasetError: if the path does not exist, holds no pictures, or is not of that layout.
        ValueError: if there is no such layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"no layout {layout!r}; there are: {', '.join(LAYOUTS)}")
    place = _existing(path)
    root = place if place.is_dir() else place.parent
    name = name or root.name
    found, listing = _read(place, layout, name)
    finish(listing)
    if not listing.samples:
        raise _nothing_there(place, layout, listing)
    dataset = Dataset(
        name,
        root,
        found,
        listing.reason,
        in_order(listing.samples, root),
        tuple(listing.problems),
        tuple(listing.notes),
    )
    return check_masks(dataset) if sizes else dataset


def expected_layouts(layout: str = "auto") -> str:
    """Draw the tree of a layout, or of all, as text."""
    names = _TREES if layout == "auto" else (layout,)
    return "\n".join(f"\n{name}:\n{_TREES[name]}" for name in names)


def _existing(path: str | Path) -> Path:
    candidates = [Path(path).expanduser()]
    if "\\" in str(path):
        candidates.append(Path(str(path).replace("\\", "/")).expanduser())
    for candidate in candidates:
        if candidate.exists():
            # not resolve(): the user's name for a linked folder is the one to show
            place = Path(os.path.abspath(candidate))  # noqa: PTH100
            _check_access(place)
            return place
    remedy = f"Check the path's spelling. These layouts are understood:\n{expected_layouts()}"
    raise DatasetError(path, "there is no such file or folder", remedy)


def _check_access(place: Path) -> None:
    try:
        for _ in os.scandir(place) if place.is_dir() else ():
            break
    except OSError as error:
        reason = f"the folder cannot be read ({error.strerror or error})"
        raise DatasetError(place, reason, "Ask for access to it") from None


def _read(place: Path, layout: Layout, name: str) -> tuple[str, Listing]:
    if place.is_file():
        return _read_file(place, layout, name)
    try:
        if layout == "meta":
            return layout, tables.read_meta(_meta_file(place), name)
        if layout == "mvtec":
            return layout, folders.read_mvtec(place, name)
        if layout == "folder":
            return layout, folders.read_folder(place, name)
        if layout == "csv":
            return layout, tables.read_table(_table_file(place), place, name)
    except DatasetError as error:
        remedy = f"{error.remedy}. The layout {layout}:\n{expected_layouts(layout)}"
        raise DatasetError(error.path, error.reason, remedy) from None
    return _recognise(place, name)


def _read_file(file: Path, layout: Layout, name: str) -> tuple[str, Listing]:
    ending = file.suffix.lower()
    if layout in ("auto", "meta") and ending == ".json":
        return "meta", tables.read_meta(file, name)
    if layout in ("auto", "csv") and ending in tables.TABLE_ENDINGS:
        return "csv", tables.read_table(file, file.parent, name)
    reason = "a file can be a data set only as meta.json, or as a CSV, TSV or JSON-lines table"
    raise DatasetError(file, reason, f"Name a folder, or such a file:\n{expected_layouts()}")


def _recognise(root: Path, name: str) -> tuple[str, Listing]:
    unused: DatasetError | None = None
    if (root / "meta.json").is_file():
        try:
            return "meta", tables.read_meta(root / "meta.json", name)
        except DatasetError as error:
            unused = error  # some other program's file of that name
    if folders.mvtec_products(root):
        found, listing = "mvtec", folders.read_mvtec(root, name)
    elif table := tables.find_table(root):
        found, listing = "csv", tables.read_table(table, root, name)
    else:
        found, listing = "folder", folders.read_folder(root, name)
    if unused:
        listing.report("warning", unused.path, f"not used: {unused.reason}", unused.remedy)
    return found, listing


def _meta_file(root: Path) -> Path:
    file = root / "meta.json"
    if not file.is_file():
        raise DatasetError(root, "there is no meta.json", "Write one, or name another layout")
    return file


def _table_file(root: Path) -> Path:
    table = tables.find_table(root)
    if table is None:
        reason = "there is no CSV, TSV or JSON-lines file that lists pictures"
        raise DatasetError(root, reason, "Write one, or name another layout")
    return table


def _nothing_there(place: Path, layout: str, listing: Listing) -> DatasetError:
    first = f" (first problem: {listing.problems[0]})" if listing.problems else ""
    remedy = f"These layouts are understood:\n{expected_layouts(layout)}"
    return DatasetError(place, f"no pictures were found{first}", remedy)
