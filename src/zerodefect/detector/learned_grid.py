"""The grid of places that a memory learned, for detectors that compare place by place."""

from __future__ import annotations


class GridError(ValueError):
    """An input of another size than those that were learned from."""


def check_grid(method: str, learned: tuple[int, ...], given: tuple[int, ...]) -> None:
    """Make sure that an input has the grid ``(rows, columns)`` that was learned.

    Raises:
        GridError: it has another one; both are named.
    """
    if given != learned:
        rows, columns = learned
        raise GridError(
            f"{method} learned {rows}x{columns} positions and cannot judge {given[0]}x{given[1]}: "
            "give inputs of the same size"
        )
