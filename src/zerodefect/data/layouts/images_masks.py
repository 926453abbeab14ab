"""Medical segmentation sets, where every picture shows a finding: images beside masks."""

from __future__ import annotations

from pathlib import Path

from zerodefect.data.dataset import UNNAMED_DEFECT, DatasetError
from zerodefect.data.folders import add_pictures, files_by_path, listed_pictures
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.listing import Listing, pattern

TREE = """\
colondb/                               every picture shows a finding
├── images/1.png ...                   TN3K: test-image/
└── masks/1.png ...                    TN3K: test-mask/"""

_TN3K = ("test-image", "test-mask")
_PAIRS = (("images", "masks"), _TN3K)


def _recognises(root: Path, named: bool) -> bool:
    """Find TN3K's own folders; in a folder of a set's name also ``images`` and ``masks``."""
    pair = _image_and_mask_folder(root)
    return pair is not None and (named or all((root / name).is_dir() for name in _TN3K))


@register(Layout("images-masks", TREE, _recognises, asked=19))
def _read(root: Path, name: str) -> Listing:
    found = _image_and_mask_folder(root)
    if found is None:
        reason = "there is no pair of folders images and masks, or test-image and test-mask"
        raise DatasetError(root, reason, "Name the folder that holds both")
    images, masks = found
    listing = Listing(f"{images.name}/ and {masks.name}/: every picture shows a finding")
    listing.all_defective = True
    files, common = listed_pictures(listing, images), pattern(name, "test", UNNAMED_DEFECT)
    add_pictures(listing, images, files, files_by_path(masks), common)
    return listing


def _image_and_mask_folder(root: Path) -> tuple[Path, Path] | None:
    for images, masks in _PAIRS:
        if (root / images).is_dir() and (root / masks).is_dir():
            return root / images, root / masks
    return None
