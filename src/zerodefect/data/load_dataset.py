"""One door for data sets: whatever the layout on disk, a `Dataset` comes out."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from zerodefect.data import layout_registry as registry
from zerodefect.data.check import check_files
from zerodefect.data.dataset import Dataset, DatasetError, in_order
from zerodefect.data.layout_registry import KnownSet, Layout, Reader, find_known
from zerodefect.data.layouts.table import unused_tables
from zerodefect.data.listing import Listing, finish
from zerodefect.images import ImageError
from zerodefect.images.find import spellings, visible
from zerodefect.types import printable

_SHOWN = 8  # entries of a folder that an error names


def load_dataset(
    path: str | Path, *, layout: str = "auto", name: str | None = None, sizes: bool = True
) -> Dataset:
    """Find out what pictures, labels and masks there are.

    No picture is decoded, except the masks of KolektorSDD and KolektorSDD2, which alone tell good
    parts from defective ones.

    Each layout is asked whether it recognises the path: first ``meta`` (``meta.json``, the field's
    exchange format), then those of published data sets that cannot be taken for anything else,
    and exports of labelling tools (``docs/datasets.md``), then ``mvtec``, ``csv`` (one table that
    lists the pictures) and ``folder``. A folder that is
    called like a published data set is read as that one's layout if it can be.

    Good pictures lie in folders called good, ok, pass, iO, no_defect or the like, in any case
    (``data/words.py``). A mask has its picture's name, or that with ``_mask``, ``mask_``,
    ``_label``, ``_GT``, ``_seg`` or the like (``data/pairing.py``). What does not fit, and what was
    paired by less than the names, is in ``Dataset.problems``: nothing is left out in silence, and
    no picture changes its split.

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
    if layout not in registry.layout_names():
        raise ValueError(f"no layout {layout!r}; there are: {', '.join(registry.layout_names())}")
    place = _existing(path, layout)
    root = place if place.is_dir() else place.parent
    known = _known(layout, name or root.name)
    called = name or (layout if known and layout != "auto" else root.name)
    product = known.product if known and known.product and find_known(called) else called
    found, listing = _read(place, layout, known, product)
    finish(listing)
    if place.is_dir():
        _report_unused(listing, place, found)
    if not listing.samples:
        first = f" (first problem: {listing.problems[0]})" if listing.problems else ""
        raise DatasetError(place, f"no pictures were found{first}", _understood(layout, place))
    samples = in_order(listing.samples, root)
    if known and layout == known.name:
        listing.notes += _strange_products(known, {sample.product: None for sample in samples})
    rest = (tuple(listing.problems), tuple(listing.notes), listing.defects)
    dataset = Dataset(called, root, found, listing.reason, samples, *rest)
    if not sizes:
        return dataset
    masked = replace(dataset, samples=tuple(sample for sample in samples if sample.mask))
    return replace(dataset, problems=(*dataset.problems, *check_files(masked).problems))


def open_dataset(entry: Dataset | str | Path, layout: str = "auto") -> Dataset:
    """Read the data set that ``PATH`` or ``NAME=PATH`` names; one that was read stays as it is."""
    if isinstance(entry, Dataset):
        return entry
    name, separator, path = str(entry).partition("=")
    if not separator or Path(entry).exists():
        return load_dataset(entry, layout=layout)
    return load_dataset(path, layout=layout, name=name)


def _report_unused(listing: Listing, folder: Path, layout: str) -> None:
    """Report tables that lie in a folder and were not used."""
    for file, why in unused_tables(folder, listing.tables):
        remedy = f"If it describes the pictures, mend that or name the file (read now: {layout})"
        listing.report("warning", file, f"this table is not used: {why}", remedy)


def expected_layouts(layout: str = "auto") -> str:
    """Draw the tree of a layout or data set, or of all general ones, as text."""
    if layout == "auto":
        general = "\n".join(f"\n{one.name}:\n{one.tree}" for one in registry.drawn_layouts())
        sets = ", ".join(known.name for known in registry.published_sets())
        others = {known.layout for known in registry.published_sets()}
        others |= {one.name for one in registry.drawn_layouts()}
        tools = [one.name for one, _ in registry.layouts() if one.name not in others]
        labelled = f"exports of labelling tools ({', '.join(tools)})"
        known_sets = f"the published data sets, see 'zerodefect data list NAME': {sets}"
        return f"{general}\n\nand {labelled}, and {known_sets}"
    known, trees = find_known(layout), {one.name: one.tree for one, _ in registry.layouts()}
    tree = trees[known.layout if known and layout not in trees else layout]
    if known and known.products:
        tree = tree.replace("bottle/", f"{known.products[0]}/", 1)  # MVTec AD's, whose tree it is
    return f"\n{layout}:\n{tree}"


def _known(layout: str, name: str) -> KnownSet | None:
    """The published data set that the layout names; or, if nothing is said, the folder's name."""
    if layout == "auto":
        return find_known(name)
    return None if layout in [one.name for one in registry.drawn_layouts()] else find_known(layout)


def _strange_products(known: KnownSet, products: Collection[str]) -> Iterator[str]:
    """Note which classes are missing, and which are none of the data set's."""
    there, theirs = ({name.casefold() for name in names} for names in (products, known.products))
    if not theirs or len(there) < 2:
        return
    if missing := [name for name in known.products if name.casefold() not in there]:
        yield f"{known.title} has {known.count} products; missing: {', '.join(missing)}"
    if strange := [name for name in products if name.casefold() not in theirs]:
        yield f"these are no products of {known.title}: {', '.join(strange)}"


def _existing(path: str | Path, layout: str) -> Path:
    for text in spellings(path):
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
    remedy = f"Check the path's spelling. {_understood(layout, place)}"
    raise DatasetError(path, "there is no such file or folder", remedy)


def _read(place: Path, layout: str, known: KnownSet | None, product: str) -> tuple[str, Listing]:
    wanted = known.layout if known and layout == known.name else layout
    asked = [entry for entry in registry.layouts() if wanted in ("auto", entry[0].name)]
    if wanted == "auto" or place.is_file():
        return _recognise(place, asked, known if place.is_dir() else None, product)
    ((_, read),) = asked
    try:
        return wanted, read(place, product)
    except DatasetError as error:
        remedy = f"{error.remedy}. The layout {layout}:\n{_expected_and_found(layout, place)}"
        raise DatasetError(error.path, error.reason, remedy) from None


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
        if unused and not listing.samples:
            raise unused
        if unused:
            listing.report("warning", unused.path, f"not used: {unused.reason}", unused.remedy)
        if known and layout in own:
            listing.reason = f"it is called {known.title}; {listing.reason}"
        return layout.name, listing
    reason = "a file can be a data set only as meta.json, a table or a labelling tool's export"
    remedy = f"Name a folder, or such a file:\n{expected_layouts()}"
    raise unused or DatasetError(place, reason, remedy)


def _understood(layout: str, place: Path) -> str:
    return f"These layouts are understood:\n{_expected_and_found(layout, place)}"


def _expected_and_found(layout: str, place: Path) -> str:
    """Draw the layout, and say what lies in a folder, or in the nearest above that exists."""
    folder = next((f for f in (place, *place.parents) if f.is_dir()), place)
    try:
        inside = visible(folder)
    except OSError:
        return f"{expected_layouts(layout)}\n\n{printable(folder)} cannot be read"
    names = ", ".join(printable(e.name) + "/" * e.is_dir() for e in inside[:_SHOWN])
    more = f" and {len(inside) - _SHOWN} more" if len(inside) > _SHOWN else ""
    there = f"In {printable(folder)} there are: {names or 'no files'}{more}"
    return f"{expected_layouts(layout)}\n\n{there}"
