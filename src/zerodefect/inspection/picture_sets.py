"""Which pictures of a run are compared with each other, for methods that judge a whole set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zerodefect.inspection.conformal import PER_PRODUCT
from zerodefect.inspection.inspector import Inspector

SET_BYTES = 2 * 2**30
"""Of the distances between the pictures of one set; beyond it they are drawn into several sets."""

SetsBy = Literal["all", "folder"]


@dataclass(frozen=True)
class PictureSets:
    """The sets of a run.

    Attributes:
        sets: files of each set, in the order in which they are compared.
        by: whether all files may be of one product, or each folder is a product of its own.
        most: pictures of a set, good ones included; None for any number.
        good: files of good parts that are scored in the set.
        step: official steps over a set that the method has and a run does not apply.
    """

    sets: tuple[tuple[Path, ...], ...]
    by: SetsBy
    most: int | None
    good: tuple[Path, ...] = ()
    step: tuple[str, ...] = ()

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
            ValueError: good pictures that are inspected, too, that are given for several products,
                or that do not fit into one set with all the others.
        """
        most = inspector.detector.most_in_set(SET_BYTES) if most is None else most
        if both := {one.resolve() for one in good} & {one.resolve() for one in files}:
            raise ValueError(
                f"{min(both)}: given as a good part and to be inspected, so that it would be "
                "compared with itself. Keep the two apart"
            )
        groups: dict[Any, list[Path]] = {}
        for file in files:
            groups.setdefault(file.parent if by == "folder" else None, []).append(file)
        sets = [one for group in groups.values() for one in _divided(group, most, len(good))]
        if good and by == "folder" and len(groups) > 1:
            raise ValueError(
                f"these are {len(groups)} folders, each a product of its own, and good parts are "
                f"those of one product. {PER_PRODUCT}"
            )
        if good and len(sets) > 1:
            raise ValueError(
                f"good parts are scored in one set with all pictures, and these are {len(sets)} "
                f"sets (of at most {most} pictures). Give one product and fewer pictures, or "
                "leave the good parts out"
            )
        steps = tuple(inspector.detector.set_levels)
        return cls(tuple(map(tuple, sets)), by, most, tuple(good), steps)

    @property
    def products(self) -> int:
        """How many products the sets are of."""
        return 1 if self.by == "all" else len({file.parent for one in self.sets for file in one})

    def whole(self, files: Iterable[Path]) -> list[Path]:
        """All files of the sets that any of these are in."""
        some = set(files)
        return [file for one in self.sets if not some.isdisjoint(one) for file in one]

    def facts(self) -> dict[str, Any]:
        """What a run's manifest says of it, as plain data."""
        return {
            "compared": "with each other",
            "by": self.by,
            "most": self.most,
            "sets": [len(one) for one in self.sets],
            "good": sorted(map(str, self.good)),
            "set_level_steps_not_applied": list(self.step),
        }

    def sentence(self) -> str:
        """What readers should know of it."""
        sizes = sorted({len(one) for one in self.sets})
        told = f"{sizes[0]}" if len(sizes) <= 1 else f"{sizes[0]} to {sizes[-1]}"
        sets = "one set" if len(self.sets) == 1 else f"{len(self.sets)} sets"
        step = f" The method's step over a set ({', '.join(self.step)}) is not applied; it is in "
        return (
            f"Transductive: scores come from comparing the pictures of this batch with each other "
            f"({sets} of {told}), and would be others in another batch."
            + (f"{step}'evaluate --set-level'." if self.step else "")
        )


def _divided(files: Sequence[Path], most: int | None, good: int) -> list[Sequence[Path]]:
    if most is None or len(files) + good <= most:
        return [files]
    count = math.ceil(len(files) / max(2, most - good))
    if not good:
        count = max(1, min(count, len(files) // 2))  # one alone is compared with nothing
    return [files[number::count] for number in range(count)]
