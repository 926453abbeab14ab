"""Medical segmentation sets, where every picture shows a finding: images beside masks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from zerodefect.data.dataset import UNNAMED_DEFECT, DatasetError
from zerodefect.data.folders import add_pictures, files_by_path, listed_pictures
from zerodefect.data.layout_registry import RESEARCH, KnownSet, Layout, register
from zerodefect.data.listing import Listing, pattern

TREE = """\
colondb/                               every picture shows a finding
├── images/1.png ...                   TN3K: test-image/
└── masks/1.png ...                    TN3K: test-mask/"""

_polyps = partial(
    KnownSet, what="colonoscopy frames with polyps", licence=RESEARCH, product="colon"
)
SETS = (
    _polyps(
        name="colondb",
        title="CVC-ColonDB",
        source="Computer Vision Center, Barcelona",
        pictures="0 + 380",
        aliases=("cvc-colondb",),
    ),
    _polyps(
        name="clinicdb",
        title="CVC-ClinicDB",
        source="Computer Vision Center, Barcelona",
        pictures="0 + 612",
        aliases=("cvc-clinicdb",),
    ),
    _polyps(
        name="kvasir",
        title="Kvasir-SEG",
        source="Simula Research Laboratory",
        pictures="0 + 1000",
        aliases=("kvasir-seg",),
        notes="masks come as JPEG, whose edges are not quite black",
    ),
    _polyps(
        name="endo",
        title="EndoTect 2020 (test)",
        source="Simula Research Laboratory, EndoTect challenge of 2020",
        pictures="0 + 200",
        aliases=("endotect", "endotect_2020"),
    ),
    _polyps(
        name="cvc-300",
        title="CVC-300",
        source="Computer Vision Center, Barcelona",
        pictures="0 + 60",
    ),
    KnownSet(
        name="tn3k",
        title="TN3K (test)",
        what="ultrasound pictures of thyroid nodules",
        source="Gong et al., repository 'TRFE-Net-for-thyroid-nodule-segmentation'",
        licence=RESEARCH,
        pictures="0 + 614",
        product="thyroid",
    ),
)

_TN3K = ("test-image", "test-mask")
_PAIRS = (("images", "masks"), _TN3K)


def _recognises(root: Path, named: bool) -> bool:
    """Find TN3K's own folders; in a folder of a set's name also ``images`` and ``masks``."""
    pair = _image_and_mask_folder(root)
    return pair is not None and (named or all((root / name).is_dir() for name in _TN3K))


@register(Layout("images-masks", TREE, _recognises, SETS, asked=19))
def _read(root: Path, name: str) -> Listing:
    found = _image_and_mask_folder(root)
    if found is None:
        reason = "there is no pair of folders images and masks, or test-image and test-mask"
        raise DatasetError(root, reason, "Name the folder that holds both")
    images, masks = found
    listing = Listing(f"{images.name}/ and {masks.name}/: every picture shows a finding")
    files, common = listed_pictures(listing, images), pattern(name, "test", UNNAMED_DEFECT)
    add_pictures(listing, images, files, files_by_path(masks), common)
    return listing


def _image_and_mask_folder(root: Path) -> tuple[Path, Path] | None:
    for images, masks in _PAIRS:
        if (root / images).is_dir() and (root / masks).is_dir():
            return root / images, root / masks
    return None
