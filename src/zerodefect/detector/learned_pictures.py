"""Which picture files learned values come from, by content and small enough to travel with them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from zerodefect.backbones.weight_files import file_hash

LEARNED_FROM = "learned_from.pictures"
"""Name of these in a checkpoint, beside the learned values."""


def picture_names(files: Iterable[Path]) -> Tensor:
    """Names of files' contents: int64 ``(N,)``, ascending, each content once.

    A name is the first eight bytes of a file's SHA-256, so that 100,000 pictures take 800 kB; that
    a new picture has the name of one of them by chance has a probability below 1e-14.

    Raises:
        OSError: a file cannot be read.
    """
    names = {_name(file) for file in files}
    return torch.tensor(sorted(names), dtype=torch.int64)


def _name(file: Path) -> int:
    return int.from_bytes(bytes.fromhex(file_hash(file)[:16]), "big", signed=True)


def known_among(files: Iterable[Path], names: Tensor) -> list[Path]:
    """Those of the files that have one of the names; files that cannot be read have none."""
    known = set(names.tolist())
    found = []
    for file in files:
        try:
            if known and _name(file) in known:
                found.append(file)
        except OSError:
            continue  # it is reported when its turn comes
    return found
