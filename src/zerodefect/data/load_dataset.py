"""One door for data sets: whatever the layout on disk, a `Dataset` comes out."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from zerodefect.data.check import check_masks
from zerodefect.data.dataset import Dataset, DatasetError, in_order
from zerodefect.data.layout_registry import (
    KnownSet,
    Layout,
    Reader,
    drawn_layouts,
    find_known,
    layout_names,
    layouts,
    published_sets,
)
from zerodefect.data.listing import Listing, finish
from zerodefect.images import ImageError
from zerodefect.images.find import natural_key

_SHOWN = 8  # entries of a folder that an error names


def load_dataset(
    path: str | Path, *, layout: str = "auto", name: str | None = None, sizes: bool = True
) -> Dataset:
    """Find out what pictures, labels and masks there are.

    No picture is decoded, except the masks of KolektorSDD and KolektorSDD2, which alone tell good
    parts from defective ones.

    Each layout is asked whether it recognises the path: first ``meta`` (``meta.json``, the field's
    exchange format), then those of published data sets that cannot be taken for anything else,
    then ``mvtec``, ``csv`` (one table that lists the pictures) and ``folder``. A folder that is
    called like a published data set is read as that one's layout if it can be.

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
    if layout not in layout_names():
        raise ValueError(f"no layout {layout!r}; there are: {', '.join(layout_names())}")
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
    if layout == "auto":
        general = "\n".join(f"\n{one.name}:\n{one.tree}" for one in drawn_layouts())
        sets = ", ".join(known.name for known in published_sets())
        return f"{general}\n\nand the published data sets, see 'zerodefect datasets NAME': {sets}"
    known, trees = find_known(layout), {one.name: one.tree for one, _ in layouts()}
    tree = trees[known.layout if known and layout not in trees else layout]
    if known and known.products:
        tree = tree.replace("bottle/", f"{known.products[0]}/", 1)  # MVTec AD's, whose tree it is
    return f"\n{layout}:\n{tree}"


def _known(layout: str, name: str) -> KnownSet | None:
    """The published data set that the layout names; or, if nothing is said, the folder's name."""
    if layout == "auto":
        return find_known(name)
    return None if layout in [one.name for one in drawn_layouts()] else find_known(layout)


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
    for text in dict.fromkeys([str(path), str(path).replace("\\", "/")]):
        # not resolve(): the user's name for a linked folder is the one to show
        place = Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100
        try:
            if place.is_dir():
                os.scandir(place).close()
        except OSError as error:
            reason = f"the folder cannot be read ({error.strerror or error})"
            raise DatasetError(place, reason, "Ask for access to it") from None
        if place.exists():
            return place
    remedy = f"Check the path's spelling. These layouts are understood:\n{expected_layouts(layout)}"
    raise DatasetError(path, "there is no such file or folder", f"{remedy}\n\n{_found_in(place)}")


def _read(place: Path, layout: str, known: KnownSet | None, product: str) -> tuple[str, Listing]:
    wanted = known.layout if known and layout == known.name else layout
    asked = [entry for entry in layouts() if wanted in ("auto", entry[0].name)]
    if wanted == "auto" or place.is_file():
        return _recognise(place, asked, known if place.is_dir() else None, product)
    ((_, read),) = asked
    try:
        return wanted, read(place, product)
    except DatasetError as error:
        tree = f"The layout {layout}:\n{expected_layouts(layout)}\n\n{_found_in(place)}"
        raise DatasetError(error.path, error.reason, f"{error.remedy}. {tree}") from None


def _recognise(
    place: Path, asked: list[tuple[Layout, Reader]], known: KnownSet | None, product: str
) -> tuple[str, Listing]:
    """Read in the first layout that recognises a folder or file.

    The own layout of the data set whose name a folder bears goes before all but ``meta``; the
    general ones keep their turn.
    """
    own = [one for one, _ in asked if known and known.layout == one.name and not one.drawn]
    unused: DatasetError | ImageError | None = None
    for layout, read in sorted(asked, key=lambda entry: 1 if entry[0] in own else entry[0].asked):
        try:
            if not layout.recognises(place, layout in own):
                continue
            listing = read(place, product)
        except (DatasetError, ImageError) as error:
            if unused or not layout.tentative:
                raise unused or error from None
            unused = error
            continue
        if unused:
            listing.report("warning", unused.path, f"not used: {unused.reason}", unused.remedy)
        if known and layout in own:
            listing.reason = f"it is called {known.title}; {listing.reason}"
        return layout.name, listing
    reason = "a file can be a data set only as meta.json, or as a CSV, TSV or JSON-lines table"
    remedy = f"Name a folder, or such a file:\n{expected_layouts()}"
    raise unused or DatasetError(place, reason, remedy)


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
