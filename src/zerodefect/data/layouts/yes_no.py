"""Sets of heads in two folders: no is without a tumour, yes with one."""

from __future__ import annotations

from pathlib import Path

from zerodefect.data.dataset import GOOD, UNNAMED_DEFECT, DatasetError
from zerodefect.data.folders import add_pictures, any_pictures, listed_pictures, subfolders
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.listing import Listing, pattern

TREE = """\
br35h/                                 or with both folders in brain_tumor_dataset/
├── no/no0.jpg ...                     good
└── yes/y0.jpg ...                     with a finding"""

_KINDS = {"no": GOOD, "yes": UNNAMED_DEFECT}


def _recognises(root: Path, named: bool) -> bool:
    """Find BrainMRI's own folder; in one of a set's name also bare ``yes`` and ``no``."""
    return bool(_answers(root / "brain_tumor_dataset") or (named and _answers(root)))


@register(Layout("yes-no", TREE, _recognises, asked=17))
def _read(root: Path, name: str) -> Listing:
    answers = _answers(root / "brain_tumor_dataset") or _answers(root)
    if not answers:
        reason = "there are no folders yes and no"
        raise DatasetError(root, reason, "Name the folder that holds both")
    listing = Listing("yes/ has findings, no/ has none")
    for folder, kind in answers.items():
        found = listed_pictures(listing, folder)
        add_pictures(listing, folder, found, {}, pattern(name, "test", kind))
    for other in subfolders(root):
        if not any(folder.is_relative_to(other) for folder in answers) and any_pictures(other):
            listing.report("warning", other, "its pictures are not read", "Remove it")
    return listing


def _answers(root: Path) -> dict[Path, str]:
    called = {folder: folder.name.casefold() for folder in subfolders(root)}
    found = {folder: _KINDS[name] for folder, name in called.items() if name in _KINDS}
    return found if len(found) == len(_KINDS) else {}
