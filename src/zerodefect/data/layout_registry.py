"""The layouts there are: what each states of itself when it registers, and the sets that have it.

Nothing is downloaded or bundled: the terms of a published data set are for the user to read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter

from zerodefect.data.listing import Listing


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """One published data set.

    Attributes:
        name: short name, as ``--layout`` and ``--data NAME=PATH`` take it.
        title: as papers call it.
        what: what the pictures show.
        layout: name of the layout that it lies in.
        source: who publishes it and where to look, in words.
        licence: of the pictures; weights trained on them may be bound by it, too.
        pictures: how many, normal + anomalous, by public file lists or the paper: they tell a
            complete copy from a partial one.
        products: the classes where they have names, else none.
        count: number of classes; those that have names unless given.
        product: what the pictures of a set with a single class are called in texts.
        masks: whether there are pixel masks.
        aliases: further names that folders have.
        notes: what else a user should know.
    """

    name: str
    title: str
    what: str
    layout: str = ""
    source: str
    licence: str
    pictures: str
    products: tuple[str, ...] = ()
    count: int = 0
    product: str | None = None
    masks: bool = True
    aliases: tuple[str, ...] = ()
    notes: str = ""
    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", self.count or len(self.products) or 1)


# In the order in which they are listed: the field's usual ones first.
_PUBLISHED = TypeAdapter(tuple[KnownSet, ...]).validate_json(
    Path(__file__).with_name("published_sets.json").read_bytes()
)


@dataclass(frozen=True)
class Layout:
    """Facts about one way in which data sets lie on disk.

    Attributes:
        name: as ``--layout`` takes it.
        tree: drawing of it.
        recognises: true, or anything but empty, if a folder or file has the layout, given that and
            whether it bears the name of one of ``sets``. Without such a name the test must be
            narrow, because other people's folders look alike: what it lets pass is read so.
        sets: data sets that lie in it, besides those of ``published_sets.json``.
        asked: layouts are asked in this order, low first. Those that cannot be taken for anything
            else come before those that anybody may have, which begin at 60; one whose name the
            folder bears is asked at 1.
        drawn: place among the trees that errors draw, from 1; 0 for one that is drawn by name only.
        tentative: where reading fails, the others are asked, and this one's error is a warning.
    """

    name: str
    tree: str
    recognises: Callable[[Path, bool], object]
    sets: tuple[KnownSet, ...] = ()
    asked: int = 50
    drawn: int = 0
    tentative: bool = False


# Reads a folder or file, given a name for the product where that holds only one; raises
# DatasetError where it has not the layout at all.
Reader = Callable[[Path, str], Listing]

_LAYOUTS: dict[str, tuple[Layout, Reader]] = {}


def register(layout: Layout) -> Callable[[Reader], Reader]:
    """Decorate a reader: make it known under ``layout.name``.

    Raises:
        ValueError: another layout has that name already.
    """

    def decorate(read: Reader) -> Reader:
        if layout.name in _LAYOUTS:
            raise ValueError(f"two layouts are named {layout.name!r}")
        sets = tuple(replace(known, layout=layout.name) for known in layout.sets)
        _LAYOUTS[layout.name] = replace(layout, sets=sets), read
        return read

    return decorate


def layouts() -> list[tuple[Layout, Reader]]:
    """All layouts with their readers, in the order in which they are asked."""
    return sorted(_LAYOUTS.values(), key=lambda entry: entry[0].asked)


def drawn_layouts() -> list[Layout]:
    """The general layouts, whose trees errors draw, in that order."""
    return sorted((one for one, _ in layouts() if one.drawn), key=lambda one: one.drawn)


def layout_names() -> tuple[str, ...]:
    """What ``load_dataset`` takes as a layout: layouts, and data sets that lie in one of them."""
    names = [one.name for one in (*drawn_layouts(), *(one for one, _ in layouts()))]
    return tuple(dict.fromkeys(["auto", *names, *(known.name for known in published_sets())]))


def published_sets() -> tuple[KnownSet, ...]:
    """The published data sets: the field's, then those that other layouts bring."""
    return (*_PUBLISHED, *(known for layout, _ in layouts() for known in layout.sets))


def find_known(name: str) -> KnownSet | None:
    """Find a published data set by name or alias, in any case and with any separators."""
    wanted = _plain(name)
    for known in published_sets():
        if wanted in map(_plain, (known.name, known.title, *known.aliases)):
            return known
    return None


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
