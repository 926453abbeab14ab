"""One door for data sets: whatever the layout on disk, a `Dataset` comes out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from zerodefect.data import folders, loco, originals, real_iad, tables
from zerodefect.data.catalogue import CATALOGUE, KnownSet, find_known
from zerodefect.data.check import check_masks
from zerodefect.data.dataset import Dataset, DatasetError, in_order
from zerodefect.data.listing import Listing, finish
from zerodefect.images.decode import ImageError
from zerodefect.images.find import natural_key

_SHOWN = 8  # entries of a folder that an error names

_GENERAL = {
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


@dataclass(frozen=True)
class _Original:
    """Reader of a published data set's own layout.

    Attributes:
        tree: drawing of it.
        read: reads a folder, with a name for the data set.
        fits: whether a folder has the layout; None where other people's folders look the same.
        fits_if_named: whether it has it, given that the folder bears the data set's name.
    """

    tree: str
    read: Callable[[Path, str], Listing]
    fits: Callable[[Path], bool] | None
    fits_if_named: Callable[[Path], bool]


_ORIGINALS = {
    "loco": _Original(
        """\
loco/
└── breakfast_box/                     or one such product
    ├── train/good/000.png ...
    ├── validation/good/000.png ...
    ├── test/{good,logical_anomalies,structural_anomalies}/000.png ...
    ├── ground_truth/logical_anomalies/000/000.png, 001.png ...
    └── defects_config.json            [{defect_name, pixel_value, saturation_threshold,
                                       relative_saturation}, ...]""",
        loco.read_loco,
        loco.is_loco,
        loco.is_loco,
    ),
    "visa": _Original(
        """\
visa/
├── split_csv/1cls.csv                 columns object, split, label, image, mask
└── candle/Data/
    ├── Images/Normal/0000.JPG ...
    ├── Images/Anomaly/000.JPG ...
    └── Masks/Anomaly/000.png ...
or the tree that VisA's own script makes of it: candle/{train,test,ground_truth}/...""",
        originals.read_visa,
        originals.is_visa,
        originals.is_visa_or_its_tree,
    ),
    "ksdd": _Original(
        """\
ksdd/
└── kos01/Part0.jpg, Part0_label.bmp ...""",
        originals.read_ksdd,
        originals.is_ksdd,
        originals.is_ksdd,
    ),
    "ksdd2": _Original(
        """\
ksdd2/
├── train/10000.png, 10000_GT.png ...  the mask is black where the part is good
└── test/20000.png, 20000_GT.png ...""",
        originals.read_ksdd2,
        originals.is_ksdd2,
        originals.is_ksdd2,
    ),
    "dagm": _Original(
        """\
dagm/
└── Class1/                            or one such class
    ├── Train/0576.PNG ...
    ├── Train/Label/0577_label.PNG ... for defective pictures only
    └── Test/0001.PNG ..., Test/Label/0002_label.PNG ...""",
        originals.read_dagm,
        originals.is_dagm,
        originals.is_dagm,
    ),
    "real-iad": _Original(
        """\
real-iad/
├── realiad_jsons/realiad_jsons/audiojack.json ...
│                                      {"meta": {"prefix"}, "train": [entry, ...], "test": [...]},
│                                      entry = {image_path, mask_path, anomaly_class}
└── realiad_1024/audiojack/            or realiad_512, realiad_256
    ├── OK/S0001/audiojack_0001_OK_C1_2023.jpg ...
    └── NG/AK/S0001/audiojack_0001_NG_AK_C1_2023.jpg, ..._mask.png ...""",
        lambda root, name: real_iad.read_real_iad(root),
        real_iad.is_real_iad,
        real_iad.is_real_iad,
    ),
    "headct": _Original(
        """\
headct/
├── labels.csv                         columns id, hemorrhage
└── head_ct/000.png ...
or brain/test/{good,other}/000.png ...""",
        originals.read_head_ct,
        originals.is_head_ct,
        originals.is_head_ct,
    ),
    "yes-no": _Original(
        """\
br35h/                                 or with both folders in brain_tumor_dataset/
├── no/no0.jpg ...                     good
└── yes/y0.jpg ...                     with a finding""",
        originals.read_yes_no,
        originals.is_brain_mri,
        originals.is_yes_no,
    ),
    "isic": _Original(
        """\
skin/                                  or the folder above
├── test/DIR/ISIC_0000003.jpg ...      the folders' names do not matter
└── ISBI2016_ISIC_Part1_Test_GroundTruth/ISIC_0000003_Segmentation.png ...""",
        originals.read_isic,
        originals.is_isic,
        originals.is_isic,
    ),
    "images-masks": _Original(
        """\
colondb/                               every picture shows a finding
├── images/1.png ...                   TN3K: test-image/
└── masks/1.png ...                    TN3K: test-mask/""",
        originals.read_images_masks,
        originals.is_tn3k,
        originals.is_images_masks,
    ),
}

LAYOUTS: tuple[str, ...] = tuple(
    dict.fromkeys(["auto", *_GENERAL, *_ORIGINALS, *(known.name for known in CATALOGUE)])
)
"""What ``load_dataset`` takes as a layout: layouts, and data sets that lie in one of them."""


def load_dataset(
    path: str | Path, *, layout: str = "auto", name: str | None = None, sizes: bool = True
) -> Dataset:
    """Find out what pictures, labels and masks there are.

    No picture is decoded, except the masks of KolektorSDD and KolektorSDD2, which alone tell good
    parts from defective ones.

    Recognised, in this order, and each to be had by name:

    - ``meta``: ``meta.json``, the field's exchange format (split -> class -> entries);
    - the layouts of published data sets, where they cannot be taken for anything else: ``loco``,
      ``visa``, ``ksdd``, ``ksdd2``, ``dagm``, ``real-iad``, ``headct``, ``isic``. The layouts
      ``yes-no`` and ``images-masks`` must be named, or the folder be called like a data set that
      has them, or be BrainMRI's or TN3K's own;
    - ``mvtec``: ``<product>/{train,validation,test}/{good,KIND}/X``, masks in
      ``<product>/ground_truth/KIND``; one product or several. BTAD, MPDD, DTD-Synthetic and the
      re-organised VisA share this tree;
    - ``csv``: one CSV, TSV or JSON-lines file that lists the pictures (the manifests of Lookout
      for Vision included);
    - ``folder``: ``good/`` beside a folder for each defect kind, one product or several; without
      any folder of that name, unlabelled pictures.

    Good pictures lie in folders called good, ok or normal, in any case. A mask has its picture's
    name, or that with ``_mask``, ``_label``, ``_GT`` or ``_Segmentation``. What does not fit is
    in ``Dataset.problems``: nothing is left out in silence, and no picture changes its split.

    Args:
        path: a folder, or the table itself. Backslashes are understood everywhere.
        layout: name of the layout, or of a data set in the catalogue, if it should not be
            recognised.
        name: what to call the data set, and its product where the path holds only one; the
            folder's name if None. In texts, a published data set with one class is called what
            the catalogue says.
        sizes: whether to compare masks with their pictures (reads the files' headers only).

    Raises:
        DatasetError: if the path does not exist, holds no pictures, or is not of that layout; it
            shows the layout and what was found.
        ValueError: if there is no such layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"no layout {layout!r}; there are: {', '.join(LAYOUTS)}")
    place = _existing(path, layout)
    root = place if place.is_dir() else place.parent
    known = _known(layout, name or root.name)
    called = name or (layout if known and layout != "auto" else root.name)
    product = known.product if known and known.product and find_known(called) else called
    found, listing = _read(place, layout, known, product)
    finish(listing)
    if not listing.samples:
        raise _nothing_there(place, layout, listing)
    dataset = Dataset(
        called,
        root,
        found,
        listing.reason,
        in_order(listing.samples, root),
        tuple(listing.problems),
        tuple(listing.notes),
        listing.defects,
    )
    if known and layout == known.name:
        dataset = _compare_products(dataset, known)
    return check_masks(dataset) if sizes else dataset


def expected_layouts(layout: str = "auto") -> str:
    """Draw the tree of a layout or data set, or of all general ones, as text."""
    if layout != "auto":
        return f"\n{layout}:\n{_tree(layout)}"
    general = "\n".join(f"\n{name}:\n{tree}" for name, tree in _GENERAL.items())
    sets = ", ".join(known.name for known in CATALOGUE)
    return f"{general}\n\nand the published data sets, see 'zerodefect datasets NAME': {sets}"


def _tree(layout: str) -> str:
    known = find_known(layout)
    reader = layout if layout in _GENERAL or layout in _ORIGINALS or not known else known.layout
    if layout != reader and reader == "mvtec" and known and known.products:
        return _GENERAL[reader].replace("bottle/", f"{known.products[0]}/", 1)
    return _GENERAL[reader] if reader in _GENERAL else _ORIGINALS[reader].tree


def _known(layout: str, name: str) -> KnownSet | None:
    """The published data set that the layout names; or, if nothing is said, the folder's name."""
    if layout == "auto":
        return find_known(name)
    return None if layout in _GENERAL else find_known(layout)


def _compare_products(dataset: Dataset, known: KnownSet) -> Dataset:
    """Note which classes are missing, and which are none of the data set's."""
    there = {product.casefold() for product in dataset.products}
    theirs = {product.casefold() for product in known.products}
    if not known.products or len(there) < 2:
        return dataset
    notes = []
    missing = [product for product in known.products if product.casefold() not in there]
    if missing:
        notes.append(f"{known.title} has {known.count} products; missing: {', '.join(missing)}")
    strange = [product for product in dataset.products if product.casefold() not in theirs]
    if strange:
        notes.append(f"these are no products of {known.title}: {', '.join(strange)}")
    return replace(dataset, notes=(*dataset.notes, *notes))


def _existing(path: str | Path, layout: str) -> Path:
    candidates = [Path(path).expanduser()]
    if "\\" in str(path):
        candidates.append(Path(str(path).replace("\\", "/")).expanduser())
    for candidate in candidates:
        if candidate.exists():
            # not resolve(): the user's name for a linked folder is the one to show
            place = Path(os.path.abspath(candidate))  # noqa: PTH100
            _check_access(place)
            return place
    remedy = f"Check the path's spelling. These layouts are understood:\n{expected_layouts(layout)}"
    found = _found_in(candidates[-1].absolute())
    raise DatasetError(path, "there is no such file or folder", f"{remedy}\n\n{found}")


def _check_access(place: Path) -> None:
    try:
        for _ in os.scandir(place) if place.is_dir() else ():
            break
    except OSError as error:
        reason = f"the folder cannot be read ({error.strerror or error})"
        raise DatasetError(place, reason, "Ask for access to it") from None


def _read(place: Path, layout: str, known: KnownSet | None, product: str) -> tuple[str, Listing]:
    reader = known.layout if known and layout == known.name else layout
    if place.is_file() and reader != "real-iad":
        return _read_file(place, reader, product)
    if reader == "auto":
        return _recognise(place, known, product)
    try:
        return reader, _READERS[reader](place, product)
    except DatasetError as error:
        wanted = f"The layout {layout}:\n{expected_layouts(layout)}\n\n{_found_in(place)}"
        raise DatasetError(error.path, error.reason, f"{error.remedy}. {wanted}") from None


def _read_file(file: Path, layout: str, name: str) -> tuple[str, Listing]:
    ending = file.suffix.lower()
    if layout == "auto" and real_iad.is_real_iad(file):
        return "real-iad", real_iad.read_real_iad(file)
    if layout in ("auto", "meta") and ending == ".json":
        return "meta", tables.read_meta(file, name)
    if layout in ("auto", "csv") and ending in tables.TABLE_ENDINGS:
        return "csv", tables.read_table(file, file.parent, name)
    reason = "a file can be a data set only as meta.json, or as a CSV, TSV or JSON-lines table"
    raise DatasetError(file, reason, f"Name a folder, or such a file:\n{expected_layouts()}")


def _recognise(root: Path, known: KnownSet | None, name: str) -> tuple[str, Listing]:
    unused: DatasetError | None = None
    if (root / "meta.json").is_file():
        try:
            return "meta", tables.read_meta(root / "meta.json", name)
        except DatasetError as error:
            unused = error  # some other program's file of that name
    try:
        found, listing = _recognise_tree(root, known, name)
    except (DatasetError, ImageError) as error:
        raise unused or error from None
    if unused:
        listing.report("warning", unused.path, f"not used: {unused.reason}", unused.remedy)
    return found, listing


def _recognise_tree(root: Path, known: KnownSet | None, name: str) -> tuple[str, Listing]:
    if original := _original_of(root, known):
        found, listing = original, _ORIGINALS[original].read(root, name)
        if known and known.layout == found:
            listing.reason = f"it is called {known.title}; {listing.reason}"
    elif folders.mvtec_products(root):
        found, listing = "mvtec", folders.read_mvtec(root, name)
    elif table := tables.find_table(root):
        found, listing = "csv", tables.read_table(table, root, name)
    else:
        found, listing = "folder", folders.read_folder(root, name)
    return found, listing


def _original_of(root: Path, known: KnownSet | None) -> str | None:
    """Name the published layout that a folder has for certain, or given what it is called."""
    if known and known.layout in _ORIGINALS and _ORIGINALS[known.layout].fits_if_named(root):
        return known.layout
    return next((n for n, o in _ORIGINALS.items() if o.fits and o.fits(root)), None)


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


_READERS: dict[str, Callable[[Path, str], Listing]] = {
    "meta": lambda place, name: tables.read_meta(_meta_file(place), name),
    "csv": lambda place, name: tables.read_table(_table_file(place), place, name),
    "mvtec": folders.read_mvtec,
    "folder": folders.read_folder,
    **{name: original.read for name, original in _ORIGINALS.items()},
}


def _nothing_there(place: Path, layout: str, listing: Listing) -> DatasetError:
    first = f" (first problem: {listing.problems[0]})" if listing.problems else ""
    remedy = f"These layouts are understood:\n{expected_layouts(layout)}\n\n{_found_in(place)}"
    return DatasetError(place, f"no pictures were found{first}", remedy)


def _found_in(place: Path) -> str:
    """Say what lies in a folder, or in the nearest one above that exists."""
    folder = next((f for f in (place, *place.parents) if f.is_dir()), place)
    try:
        entries = [e for e in folder.iterdir() if not e.name.startswith(".")]
    except OSError:
        return f"{folder} cannot be read"
    entries.sort(key=lambda e: natural_key(e.name))
    names = ", ".join(f"{e.name}/" if e.is_dir() else e.name for e in entries[:_SHOWN])
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return f"In {folder} there are: {names or 'no files'}{more}"
