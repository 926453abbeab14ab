"""Which pictures of a run are compared with each other, for methods that judge a whole set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from zerodefect.images import Picture
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.product_groups import ProductGroup, found_groups
from zerodefect.inspection.sources import digest, open_source
from zerodefect.scoring.stream import stream
from zerodefect.types import Failure

SET_BYTES = 2 * 2**30
"""Of the distances between the pictures of one set; beyond it they are drawn into several sets."""

SetsBy = Literal["all", "folder", "look"]
Open = Callable[[Path], Picture]


@dataclass(frozen=True)
class PictureSets:
    """The sets of a run.

    Attributes:
        sets: files of each set, in the order in which they are compared.
        by: whether all files are of one product, each folder is a product of its own, or products
            are found by what they look like.
        most: pictures of a set, good ones included; None for any number.
        groups: the products, each with all of its files.
        group_of: number of the group of each set.
        step: official steps over a set that the method has and a run does not apply.
        policies: of each group, where there are several; none as long as they are not known.
    """

    sets: tuple[tuple[Path, ...], ...]
    by: SetsBy
    most: int | None
    groups: tuple[ProductGroup, ...]
    group_of: tuple[int, ...]
    step: tuple[str, ...] = ()
    policies: tuple[Policy, ...] = ()

    @classmethod
    def of(
        cls,
        inspector: Inspector,
        files: Sequence[Path],
        by: SetsBy = "all",
        most: int | None = None,
        good: Sequence[Path] = (),
    ) -> PictureSets:
        """Divide files into sets.

        A product with more pictures than ``most`` becomes several sets of about the same size, each
        spread evenly over its files. None is of a single picture: rather a set has one too many.

        Args:
            inspector: with a method that compares pictures.
            files: that are inspected.
            by: what is of one product.
            most: pictures of a set, 2 or more; None for as many as ``SET_BYTES`` allow.
            good: pictures of good parts, where limits are to be learned within the set.

        Raises:
            ValueError: good pictures that are inspected, too, whatever their names, that are given
                for several folders, or that do not fit into one set with all others of a product.
        """
        most = inspector.detector.most_in_set(SET_BYTES) if most is None else most
        inspector.infer_bit_depth(files)
        open = partial(open_source, bit_depth=inspector.bit_depth, view=inspector.viewing.view)
        if good:
            _check_apart(open, files, good)
        groups = _groups(open, files, by, good)
        sets, group_of = [], []
        for number, group in enumerate(groups):
            own = _divided(group.files, most, len(group.good))
            if group.good and len(own) > 1:
                raise ValueError(
                    f"good parts are scored in one set with all pictures of their product, and "
                    f"these are {len(own)} sets (of at most {most} pictures). Give fewer pictures, "
                    "or leave the good parts out"
                )
            sets += [tuple(one) for one in own]
            group_of += [number] * len(own)
        steps = tuple(inspector.detector.set_levels)
        return cls(tuple(sets), by, most, tuple(groups), tuple(group_of), steps)

    @property
    def products(self) -> int:
        """How many products the sets are of."""
        return len(self.groups)

    @property
    def good(self) -> tuple[Path, ...]:
        """Files of good parts that are scored in the sets."""
        return tuple(file for group in self.groups for file in group.good)

    def judged_by(self, policies: Iterable[Policy]) -> PictureSets:
        """The same, each group with limits of its own."""
        return replace(self, policies=tuple(policies))

    def whole(self, files: Iterable[Path]) -> list[Path]:
        """All files of the sets that any of these are in."""
        some = set(files)
        return [file for one in self.sets if not some.isdisjoint(one) for file in one]

    def facts(self) -> dict[str, Any]:
        """What a run's manifest says of it, as plain data."""
        told: dict[str, Any] = {
            "compared": "with each other",
            "by": self.by,
            "most": self.most,
            "sets": [len(one) for one in self.sets],
            "good": sorted(map(str, self.good)),
            "set_level_steps_not_applied": list(self.step),
        }
        if self.by != "all":
            told["products"] = [
                {"name": one.name, "pictures": len(one.files), "good": len(one.good)}
                | {"strange": list(map(str, one.strange))}
                for one in self.groups
            ]
        return told

    def sentence(self) -> str:
        """What readers should know of it."""
        sizes = sorted(
            len(one) + len(self.groups[number].good)
            for one, number in zip(self.sets, self.group_of, strict=True)
        )
        told = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
        told += f", {len(self.good)} good parts among them" if self.good else ""
        sets = "one set" if len(self.sets) == 1 else f"{len(self.sets)} sets"
        step = f" The method's step over a set ({', '.join(self.step)}) is not applied; it is in "
        return (
            f"Transductive: scores come from comparing the pictures of this batch with each other "
            f"({sets} of {told}), and would be others in another batch."
            + self._products_told()
            + (f"{step}'evaluate --set-level'." if self.step else "")
        )

    def _products_told(self) -> str:
        if self.by != "look":
            return ""
        odd = sum(len(one.strange) for one in self.groups)
        counts = ", ".join(str(len(one.files)) for one in self.groups)
        found = "one product" if self.products == 1 else f"{self.products} products ({counts})"
        strange = (
            f"; {odd} picture{'s' * (odd != 1)} resemble{'s' * (odd == 1)} none of them, and "
            f"{'is' if odd == 1 else 'are'} compared with the nearest"
        )
        return f" By their look the pictures are of {found}{strange if odd else ''}."


def _groups(
    open: Open, files: Sequence[Path], by: SetsBy, good: Sequence[Path]
) -> list[ProductGroup]:
    """The products.

    Raises:
        ValueError: good pictures for several folders.
    """
    if by == "look":
        return found_groups(files, good, open=open)
    if by == "all":
        return [ProductGroup("all", tuple(files), tuple(good))]
    folders: dict[Path, list[Path]] = {}
    for file in files:
        folders.setdefault(file.parent, []).append(file)
    if good and len(folders) > 1:
        raise ValueError(
            f"these are {len(folders)} folders, each a product of its own, and nothing says whose "
            "the good parts are. Inspect each folder by itself, or let the products be found "
            "(--batch-by look)"
        )
    return [ProductGroup(str(one), tuple(own), tuple(good)) for one, own in folders.items()]


def _check_apart(open: Open, files: Sequence[Path], good: Sequence[Path]) -> None:
    """Make sure that no good part is inspected, too, under whatever name: pixels are compared.

    Raises:
        ValueError: one is.
    """
    known = dict(_digests(open, good))
    for name, file in _digests(open, files):
        if name in known:
            same = "" if known[name].resolve() == file.resolve() else f" (as {known[name]})"
            raise ValueError(
                f"{file}: given as a good part{same} and to be inspected, so that it would be "
                "compared with itself. Keep the two apart"
            )


def _digests(open: Open, files: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    for seen in stream(files, open, lambda some: list(map(digest, some))):
        if not isinstance(seen.result, Failure):  # it is reported when its turn comes
            yield seen.result, seen.source


def _divided(files: Sequence[Path], most: int | None, good: int) -> list[Sequence[Path]]:
    if most is None or len(files) + good <= most:
        return [files]
    count = math.ceil(len(files) / max(2, most - good))
    if not good:
        count = max(1, min(count, len(files) // 2))  # one alone is compared with nothing
    return [files[number::count] for number in range(count)]
