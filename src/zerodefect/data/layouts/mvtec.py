"""The tree of MVTec AD, which most industrial data sets share."""

from __future__ import annotations

from pathlib import Path

from zerodefect.data import folders
from zerodefect.data.dataset import DatasetError
from zerodefect.data.layout_registry import NON_COMMERCIAL, KnownSet, Layout, register
from zerodefect.data.listing import Listing

TREE = """\
bottle/                                or a folder of several such products
├── train/good/000.png ...
├── test/good/000.png ...
├── test/scratch/000.png ...
└── ground_truth/scratch/000_mask.png  optional"""

SETS = (
    KnownSet(
        name="mvtec",
        title="MVTec AD",
        what="industrial objects and textures",
        source="MVTec Software GmbH, page 'MVTec Anomaly Detection Dataset'",
        licence=NON_COMMERCIAL,
        pictures="train 3629, test 467 + 1258",
        products=(
            *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
            *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
        ),
        aliases=("mvtec-ad", "mvtec_anomaly_detection"),
    ),
    KnownSet(
        name="mpdd",
        title="MPDD",
        what="painted metal parts",
        source="Jezek et al., 2021, repository 'MPDD'",
        licence=NON_COMMERCIAL,
        pictures="train 888, test 176 + 282",
        products=(
            *("bracket_black", "bracket_brown", "bracket_white"),
            *("connector", "metal_plate", "tubes"),
        ),
    ),
    KnownSet(
        name="btad",
        title="BTAD",
        what="three industrial products, bodies and surfaces",
        source="beanTech, with the paper 'VT-ADL', 2021",
        licence=NON_COMMERCIAL,
        pictures="test 451 + 290",
        products=("01", "02", "03"),
        aliases=("BTech_Dataset_transformed",),
        notes="folders say ok and ko; name the products for the texts with --object",
    ),
    KnownSet(
        name="dtd",
        title="DTD-Synthetic",
        what="textures with defects that were drawn into them",
        source="Aota et al., 'Zero-shot versus Many-shot', WACV 2023",
        licence="built on DTD, research use; ask at the source",
        pictures="test 357 + 947",
        products=(
            *("Woven_001", "Woven_127", "Woven_104", "Stratified_154", "Blotchy_099", "Woven_068"),
            *("Woven_125", "Marbled_078", "Perforated_037", "Mesh_114", "Fibrous_183"),
            "Matted_069",
        ),
        aliases=("DTD-Synthetic", "DTD_Synthetic"),
    ),
    KnownSet(
        name="mvtec-3d",
        title="MVTec 3D-AD",
        what="objects in colour and depth",
        source="MVTec Software GmbH, page 'MVTec 3D-AD'",
        licence=NON_COMMERCIAL,
        pictures="train 2656, validation 294, test 249 + 948",
        products=(
            *("bagel", "cable_gland", "carrot", "cookie", "dowel", "foam", "peach", "potato"),
            *("rope", "tire"),
        ),
        aliases=("mvtec_3d_anomaly_detection",),
        notes="the colour pictures are read, the positions (xyz) are not",
    ),
)


def mvtec_products(root: Path) -> list[Path]:
    """Find the product folders of an MVTec tree: the root itself, or folders in it.

    Returns:
        Folders that hold train/ or test/ (any case) with something in them; none if this is no
        such tree.
    """
    if folders.split_folders(root):
        return [root]
    return [folder for folder in folders.subfolders(root) if folders.split_folders(folder)]


@register(
    Layout("mvtec", TREE, lambda place, named: mvtec_products(place), SETS, asked=60, drawn=2)
)
def read_mvtec(root: Path, name: str) -> Listing:
    """Read ``<product>/{train,validation,test}/KIND/X`` and ``ground_truth/KIND/X_mask``.

    Raises:
        DatasetError: if there is no train/ or test/ folder.
    """
    products = mvtec_products(root)
    if not products:
        raise DatasetError(root, "there is no train/ or test/ folder", "Check the path")
    if products == [root]:
        listing = Listing("it has train/ or test/ folders")
        _read_product(listing, root, name)
        return listing
    listing = Listing("each product's folder has train/ or test/ folders")
    for folder in products:
        _read_product(listing, folder, folder.name)
    for folder in folders.subfolders(root):
        if folder not in products and folders.listed_pictures(listing, folder, may_be_empty=True):
            reason = "its pictures are not read: it has no train/ or test/ folder"
            listing.report("warning", folder, reason, "Arrange it like the other products")
    return listing


def _read_product(listing: Listing, folder: Path, product: str) -> None:
    before = len(listing.samples)
    truth = [f for f in folders.subfolders(folder) if folders.is_mask_folder(f)]
    for part, split in folders.split_folders(folder):
        # Masks beside the splits belong to the tests: training pictures of this tree are good.
        folders.read_kinds(listing, part, product, split, truth if split == "test" else ())
    if len(listing.samples) == before:
        listing.report("error", folder, "the product has no pictures", "Add them or remove it")
    for other in folders.subfolders(folder):
        if folders.is_split(other) or folders.is_mask_folder(other):
            continue
        if folders.listed_pictures(listing, other, may_be_empty=True):
            reason = "its pictures are not read: it is no split and no folder of masks"
            listing.report("warning", other, reason, "Move them under train/ or test/ if meant so")
