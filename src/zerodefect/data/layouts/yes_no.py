"""Sets of heads in two folders: no is without a tumour, yes with one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from zerodefect.data.dataset import GOOD, UNNAMED_DEFECT, DatasetError
from zerodefect.data.folders import add_pictures, any_pictures, listed_pictures, subfolders
from zerodefect.data.layout_registry import RESEARCH, KnownSet, Layout, register
from zerodefect.data.listing import Listing, pattern

TREE = """\
br35h/                                 or with both folders in brain_tumor_dataset/
├── no/no0.jpg ...                     good
└── yes/y0.jpg ...                     with a finding"""

_heads = partial(
    KnownSet,
    what="magnetic resonance pictures of heads, with tumour or without",
    licence=RESEARCH,
    product="brain",
    masks=False,
)
SETS = (
    _heads(
        name="brainmri",
        title="BrainMRI",
        source="Kaggle, 'Brain MRI Images for Brain Tumor Detection'",
        pictures="98 + 155",
        aliases=("brain_tumor_dataset",),
    ),
    _heads(
        name="br35h",
        title="Br35H",
        source="Kaggle, 'Br35H :: Brain Tumor Detection 2020'",
        pictures="1500 + 1500",
    ),
)

_KINDS = {"no": GOOD, "yes": UNNAMED_DEFECT}


def _recognises(root: Path, named: bool) -> bool:
    """Find BrainMRI's own folder; in one of a set's name also bare ``yes`` and ``no``."""
    return bool(_answers(root / "brain_tumor_dataset") or (named and _answers(root)))


@register(Layout("yes-no", TREE, _recognises, SETS, asked=17))
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
