"""Published data sets as their owners lay them out, where that is no MVTec tree.

Each reader comes with a test whether a folder has its layout. The test is narrow, because other
people's folders look alike: what it lets pass needs no name to be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePath

from zerodefect.data import folders, tables
from zerodefect.data.dataset import GOOD, UNNAMED_DEFECT, DatasetError, Sample, Split
from zerodefect.data.folders import direct_pictures, listed_pictures, split_folders, subfolders
from zerodefect.data.listing import Listing
from zerodefect.data.masks import marks
from zerodefect.data.pairing import pair_masks, strip_suffix
from zerodefect.images import ImageError

# --- VisA -----------------------------------------------------------------------------------------

_VISA_FOLDERS: dict[str, bool] = {"Normal": False, "Anomaly": True}


def is_visa(root: Path) -> bool:
    """Whether there is ``split_csv/1cls.csv``, or ``Data/Images/{Normal,Anomaly}``."""
    return _visa_split(root).is_file() or bool(_visa_products(root))


def is_visa_or_its_tree(root: Path) -> bool:
    """Whether it is VisA's own layout, or the tree of its script in a folder ``1cls``."""
    return is_visa(root) or bool(folders.mvtec_products(root / "1cls"))


def read_visa(root: Path, name: str) -> Listing:
    """Read VisA: its split table, its raw folders, or the tree that its own script makes.

    Raises:
        DatasetError: if it is none of the three.
    """
    if _visa_split(root).is_file():
        return tables.read_table(_visa_split(root), root, name)
    products = _visa_products(root)
    if not products:
        inner = next((f for f in (root / "1cls", root) if folders.mvtec_products(f)), None)
        if inner is None:
            reason = "there is no split_csv/1cls.csv and no Data/Images/{Normal,Anomaly}"
            raise DatasetError(root, reason, "Name the folder that holds the classes (candle, ...)")
        return folders.read_mvtec(inner, name)
    listing = Listing("it has VisA's Data/Images/{Normal,Anomaly}")
    listing.notes.append("there is no split_csv/1cls.csv, so the pictures have no split")
    for folder in products:
        masks = folder / "Data" / "Masks" / "Anomaly"
        product = name if folder == root else folder.name
        for part, anomalous in _VISA_FOLDERS.items():
            images = folder / "Data" / "Images" / part
            sample = _labelled(product, anomalous, None)
            _pair(listing, images, _files(listing, images), masks if anomalous else None, sample)
    return listing


def _visa_split(root: Path) -> Path:
    return root / "split_csv" / "1cls.csv"


def _visa_products(root: Path) -> list[Path]:
    return [
        folder
        for folder in (root, *subfolders(root))
        if any((folder / "Data" / "Images" / part).is_dir() for part in _VISA_FOLDERS)
    ]


# --- KolektorSDD and KolektorSDD2: a mask beside every picture, empty where the part is good ------


def is_ksdd(root: Path) -> bool:
    """Whether folders ``kosNN`` hold pictures, each with its ``_label`` beside it."""
    items = [f for f in subfolders(root) if f.name.casefold().startswith("kos")]
    return bool(items) and all(_all_have_masks(folder, "_label") for folder in items)


def read_ksdd(root: Path, name: str) -> Listing:
    """Read KolektorSDD: ``kosNN/PartM.jpg`` with ``PartM_label.bmp``; no splits.

    Raises:
        DatasetError: if there is no such folder.
    """
    if not is_ksdd(root):
        reason = "there are no folders kosNN whose pictures have a _label beside them"
        raise DatasetError(root, reason, "Name the folder that holds the items (kos01, ...)")
    listing = Listing("folders kosNN hold pictures with a _label beside each")
    for folder in subfolders(root):
        if folder.name.casefold().startswith("kos"):
            _read_by_masks(listing, folder, name, "_label", None)
    return listing


def is_ksdd2(root: Path) -> bool:
    """Whether ``train`` and ``test`` hold pictures only, each with its ``_GT`` beside it."""
    splits = split_folders(root)
    return bool(splits) and all(
        not subfolders(folder) and _all_have_masks(folder, "_gt") for folder, _ in splits
    )


def read_ksdd2(root: Path, name: str) -> Listing:
    """Read KolektorSDD2: ``{train,test}/N.png`` with ``N_GT.png``.

    Raises:
        DatasetError: if there is no split with a mask beside a picture.
    """
    splits = split_folders(root)
    if not any(_beside(folder, "_gt")[1] for folder, _ in splits):
        reason = "there is no train/ or test/ folder with a picture and its _GT beside it"
        raise DatasetError(root, reason, "Name the folder that holds train and test")
    listing = Listing("every picture in train/ and test/ has its _GT beside it")
    for folder, split in splits:
        _read_by_masks(listing, folder, name, "_gt", split)
    return listing


def _read_by_masks(
    listing: Listing, folder: Path, product: str, suffix: str, split: Split | None
) -> None:
    images, masks, doubles = _beside(folder, suffix)
    for file in doubles:
        reason = "another file has this name with another ending; this one is not read"
        listing.report("error", file, reason, "Keep one of the two")
    for stem, image in images.items():
        mask = masks.pop(stem, None)
        sample = Sample(image, None, product, "", None, split)
        if mask is None:
            reason = f"there is no {stem}{suffix.upper()} beside it, so its label is not known"
            listing.report("error", image, reason, "Add the mask, empty if the part is good")
            listing.samples.append(sample)
            continue
        try:
            anomalous = marks(mask)
        except ImageError as error:
            reason = f"{error.reason}; the label of its picture is not known"
            listing.report("error", mask, reason, error.remedy)
            listing.samples.append(sample)
            continue
        kind = UNNAMED_DEFECT if anomalous else GOOD
        kept = mask if anomalous else None
        listing.samples.append(replace(sample, mask=kept, kind=kind, anomalous=anomalous))
    for mask in masks.values():
        listing.report("error", mask, "this mask belongs to no picture", "Remove it")


def _beside(folder: Path, suffix: str) -> tuple[dict[str, Path], dict[str, Path], list[Path]]:
    """Tell pictures from the masks beside them, both by the picture's stem; then the doubles."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    doubles = []
    for file in direct_pictures(folder):
        stem = strip_suffix(file.stem, suffix)
        of = images if stem is None else masks
        if (stem or file.stem) in of:
            doubles.append(file)
        else:
            of[stem or file.stem] = file
    return images, masks, doubles


def _all_have_masks(folder: Path, suffix: str) -> bool:
    images, masks, doubles = _beside(folder, suffix)
    return bool(images) and not doubles and images.keys() == masks.keys()


# --- DAGM 2007 ------------------------------------------------------------------------------------


def is_dagm(root: Path) -> bool:
    """Whether folders ``Train`` and ``Test`` hold pictures, and ``Label`` the masks of some."""
    return bool(_dagm_products(root))


def read_dagm(root: Path, name: str) -> Listing:
    """Read DAGM 2007: a picture is defective where ``Label`` holds a mask of it.

    Raises:
        DatasetError: if there is no such class.
    """
    products = _dagm_products(root)
    if not products:
        reason = "there is no class with pictures in Train or Test and masks in Label"
        raise DatasetError(root, reason, "Name the folder that holds the classes (Class1, ...)")
    listing = Listing("masks lie in Label; pictures without one are good")
    for product in products:
        for folder, split in split_folders(product):
            masks = _label_folder(folder)
            sample = _labelled(name if product == root else product.name, False, split)
            _pair(listing, folder, direct_pictures(folder), masks, sample)
    return listing


def _dagm_products(root: Path) -> list[Path]:
    return [folder for folder in (root, *subfolders(root)) if _is_dagm_class(folder)]


def _is_dagm_class(folder: Path) -> bool:
    splits = [part for part, _ in split_folders(folder)]
    return any(map(_label_folder, splits)) and all(
        len(subfolders(part)) <= 1 and direct_pictures(part) for part in splits
    )


def _label_folder(split: Path) -> Path | None:
    """Find the folder ``Label``, where every mask is called ``_label``."""
    for folder in subfolders(split):
        if folder.name.casefold() == "label":
            masks = direct_pictures(folder)
            if masks and all(strip_suffix(file.stem, "_label") for file in masks):
                return folder
    return None


# --- medical sets ---------------------------------------------------------------------------------

_PAIRS = (("images", "masks"), ("test-image", "test-mask"))


def is_images_masks(root: Path) -> bool:
    """Whether there are ``images`` and ``masks``, or ``test-image`` and ``test-mask``."""
    return _image_and_mask_folder(root) is not None


def is_tn3k(root: Path) -> bool:
    """Whether there are ``test-image`` and ``test-mask``."""
    return (root / "test-image").is_dir() and (root / "test-mask").is_dir()


def read_images_masks(root: Path, name: str) -> Listing:
    """Read segmentation sets, where every picture shows a finding: ``images/X``, ``masks/X``.

    Raises:
        DatasetError: if one of the two folders is missing.
    """
    found = _image_and_mask_folder(root)
    if found is None:
        reason = "there is no pair of folders images and masks, or test-image and test-mask"
        raise DatasetError(root, reason, "Name the folder that holds both")
    images, masks = found
    listing = Listing(f"{images.name}/ and {masks.name}/: every picture shows a finding")
    _pair(listing, images, _files(listing, images), masks, _labelled(name, True, "test"))
    return listing


def _image_and_mask_folder(root: Path) -> tuple[Path, Path] | None:
    for images, masks in _PAIRS:
        if (root / images).is_dir() and (root / masks).is_dir():
            return root / images, root / masks
    return None


def is_isic(root: Path) -> bool:
    """Whether there is a folder ``ISBI2016_ISIC_..._GroundTruth``."""
    return _isic_truth(root) is not None


def read_isic(root: Path, name: str) -> Listing:
    """Read ISIC: pictures at any depth beside the folder of ``X_Segmentation`` masks.

    Raises:
        DatasetError: if there is no such folder.
    """
    truth = _isic_truth(root)
    if truth is None:
        reason = "there is no folder called ISBI2016_ISIC_Part1_Test_GroundTruth"
        raise DatasetError(root, reason, "Name the folder that holds it, or the one above")
    listing = Listing(f"masks lie in {truth.name}/: every picture shows a lesion")
    files = [f for folder in subfolders(truth.parent) if folder != truth for f in _inside(folder)]
    sample = _labelled(name, True, "test")
    _pair(listing, truth.parent, [*direct_pictures(truth.parent), *files], truth, sample)
    return listing


def _isic_truth(root: Path) -> Path | None:
    for place in (root, root / "skin"):
        for folder in subfolders(place):
            called = folder.name.casefold()
            if "isic" in called and called.endswith("groundtruth"):
                return folder
    return None


def is_head_ct(root: Path) -> bool:
    """Whether ``labels.csv`` has a column ``hemorrhage``."""
    try:
        head = (root / "labels.csv").read_text(encoding="utf-8-sig").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return False
    return "hemorrhage" in [cell.strip().casefold() for cell in head.split(",")]


def read_head_ct(root: Path, name: str) -> Listing:
    """Read HeadCT: ``labels.csv`` (id, hemorrhage) and pictures whose names are the ids.

    The tree ``brain/test/{good,other}`` that CLIP repositories make of it is read, too.

    Raises:
        DatasetError: if there is neither.
    """
    if not is_head_ct(root):
        if folders.mvtec_products(root):
            return folders.read_mvtec(root, name)
        reason = "there is no labels.csv with a column hemorrhage"
        raise DatasetError(root, reason, "Name the folder that holds labels.csv")
    listing = Listing("labels.csv says which pictures show a haemorrhage")
    pictures: dict[int, Path] = {}
    for file in _inside(root):
        if not file.stem.isdecimal() or int(file.stem) in pictures:
            listing.report("error", file, "its name is no id, or another's", "Remove the file")
        else:
            pictures[int(file.stem)] = file
    for row in tables.plain_rows(root / "labels.csv"):
        number, label = row.get("id", "").strip(), row.get("hemorrhage", "").strip()
        if not number.isdecimal() or label not in ("0", "1"):
            listing.report("error", root / "labels.csv", f"not understood: {row}", "Correct it")
        elif int(number) not in pictures:
            reason = f"there is no picture for id {number}"
            listing.report("error", root / "labels.csv", reason, "Copy it there")
        else:
            sample = _labelled(name, label == "1", "test")
            listing.samples.append(replace(sample, image=pictures.pop(int(number))))
    for left in pictures.values():
        listing.report("error", left, "labels.csv does not name it", "Add it, or remove the file")
    return listing


def is_brain_mri(root: Path) -> bool:
    """Whether there is a folder ``brain_tumor_dataset`` with ``yes`` and ``no``."""
    return (root / "brain_tumor_dataset").is_dir() and bool(_answers(root / "brain_tumor_dataset"))


def is_yes_no(root: Path) -> bool:
    """Whether there are folders ``yes`` and ``no``, here or in ``brain_tumor_dataset``."""
    return is_brain_mri(root) or bool(_answers(root))


def read_yes_no(root: Path, name: str) -> Listing:
    """Read ``no`` (good) and ``yes`` (with a finding).

    Raises:
        DatasetError: if one of them is missing.
    """
    place = root / "brain_tumor_dataset" if is_brain_mri(root) else root
    answers = _answers(place)
    if not answers:
        reason = "there are no folders yes and no"
        raise DatasetError(root, reason, "Name the folder that holds both")
    listing = Listing("yes/ has findings, no/ has none")
    for folder, anomalous in answers.items():
        sample = _labelled(name, anomalous, "test")
        _pair(listing, folder, _files(listing, folder), None, sample)
    for other in subfolders(root):
        if other not in answers and other != place and _inside(other):
            listing.report("warning", other, "its pictures are not read", "Remove it")
    return listing


def _answers(root: Path) -> dict[Path, bool]:
    meaning = {"no": False, "yes": True}
    called = {folder: folder.name.casefold() for folder in subfolders(root)}
    found = {folder: meaning[name] for folder, name in called.items() if name in meaning}
    return found if len(found) == len(meaning) else {}


# --- shared ---------------------------------------------------------------------------------------


def _labelled(product: str, anomalous: bool, split: Split | None) -> Sample:
    """Make a pattern for samples; the picture is filled in."""
    return Sample(Path(), None, product, UNNAMED_DEFECT if anomalous else GOOD, anomalous, split)


def _files(listing: Listing, folder: Path) -> list[Path]:
    return listed_pictures(listing, folder)


def _inside(folder: Path) -> list[Path]:
    return listed_pictures(Listing(""), folder, may_be_empty=True)


def _pair(
    listing: Listing, folder: Path, images: Iterable[Path], truth: Path | None, pattern: Sample
) -> None:
    """Note a sample per picture like ``pattern``; one with a mask in ``truth`` is defective."""
    pictures = {file.relative_to(folder): file for file in images}
    masks: dict[PurePath, Path] = {}
    if truth:
        masks = {file.relative_to(truth): file for file in _inside(truth)}
    pairing = pair_masks(list(pictures), list(masks))
    for inside, image in pictures.items():
        mask = next((masks[m] for m in pairing.masks.get(inside, ())), None)
        sample = replace(pattern, image=image, mask=mask)
        if mask and not pattern.anomalous:
            sample = replace(sample, kind=UNNAMED_DEFECT, anomalous=True)
        listing.samples.append(sample)
    folders.report_pairing(listing, folder, pairing, masks)
