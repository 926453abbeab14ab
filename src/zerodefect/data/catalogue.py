"""The field's published data sets: what each is, on which terms, and in which layout it lies.

Numbers of pictures are those of public file lists (MVTec AD, VisA, MPDD, BTAD's test split, the
colonoscopy sets) or of the papers, and are there to tell a complete copy from a partial one.
Nothing is downloaded or bundled: the owners' terms are for the user to read.
"""

from __future__ import annotations

from dataclasses import dataclass

RESEARCH = "research use; ask at the source"
NON_COMMERCIAL = "CC BY-NC-SA 4.0"


@dataclass(frozen=True)
class KnownSet:
    """One published data set.

    Attributes:
        name: short name, as ``--layout`` and ``--data NAME=PATH`` take it.
        title: as papers call it.
        what: what the pictures show.
        layout: name of the reader, see ``load_dataset``.
        source: who publishes it and where to look, in words.
        licence: of the pictures; weights trained on them may be bound by it, too.
        pictures: how many, normal + anomalous.
        products: the classes where they have names, else none.
        count: number of classes.
        product: what the pictures of a set with a single class are called in texts.
        masks: whether there are pixel masks.
        aliases: further names that folders have.
        notes: what else a user should know.
    """

    name: str
    title: str
    what: str
    layout: str
    source: str
    licence: str
    pictures: str
    products: tuple[str, ...] = ()
    count: int = 1
    product: str | None = None
    masks: bool = True
    aliases: tuple[str, ...] = ()
    notes: str = ""


CATALOGUE: tuple[KnownSet, ...] = (
    KnownSet(
        "mvtec",
        "MVTec AD",
        "industrial objects and textures",
        "mvtec",
        "MVTec Software GmbH, page 'MVTec Anomaly Detection Dataset'",
        NON_COMMERCIAL,
        "train 3629, test 467 + 1258",
        (
            *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
            *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
        ),
        15,
        aliases=("mvtec-ad", "mvtec_anomaly_detection"),
    ),
    KnownSet(
        "visa",
        "VisA",
        "circuit boards, food, candles and other objects",
        "visa",
        "Amazon Science, repository 'spot-diff'",
        "CC BY 4.0",
        "train 8659, test 962 + 1200 (split 1cls)",
        (
            *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2"),
            *("pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum"),
        ),
        12,
        aliases=("VisA_20220922", "VisA_pytorch"),
        notes="masks hold small class ids: whatever is not black is defective",
    ),
    KnownSet(
        "mpdd",
        "MPDD",
        "painted metal parts",
        "mvtec",
        "Jezek et al., 2021, repository 'MPDD'",
        NON_COMMERCIAL,
        "train 888, test 176 + 282",
        (
            *("bracket_black", "bracket_brown", "bracket_white"),
            *("connector", "metal_plate", "tubes"),
        ),
        6,
    ),
    KnownSet(
        "btad",
        "BTAD",
        "three industrial products, bodies and surfaces",
        "mvtec",
        "beanTech, with the paper 'VT-ADL', 2021",
        NON_COMMERCIAL,
        "test 451 + 290",
        ("01", "02", "03"),
        3,
        aliases=("BTech_Dataset_transformed",),
        notes="folders say ok and ko; name the products for the texts with --object",
    ),
    KnownSet(
        "ksdd",
        "KolektorSDD",
        "electrical commutators",
        "ksdd",
        "University of Ljubljana, ViCoS Lab, and Kolektor Group",
        NON_COMMERCIAL,
        "347 + 52",
        product="electrical commutators",
        aliases=("KolektorSDD", "sdd"),
        notes="has no splits; CLIP papers cut every picture into three bands first",
    ),
    KnownSet(
        "ksdd2",
        "KolektorSDD2",
        "metal surfaces of a production line",
        "ksdd2",
        "University of Ljubljana, ViCoS Lab, and Kolektor Group",
        NON_COMMERCIAL,
        "train 2085 + 246, test 894 + 110",
        aliases=("KolektorSDD2",),
        notes="labels are in the masks alone, so loading opens every mask",
    ),
    KnownSet(
        "dagm",
        "DAGM 2007",
        "computer-made textures",
        "dagm",
        "Heidelberg Collaboratory for Image Processing, DAGM 2007 competition",
        "terms of the 2007 competition, research use",
        "16,100",
        tuple(f"Class{n}" for n in range(1, 11)),
        10,
        aliases=("DAGM2007", "DAGM_KaggleUpload"),
        notes="masks are coarse ellipses; both splits hold defective pictures",
    ),
    KnownSet(
        "dtd",
        "DTD-Synthetic",
        "textures with defects that were drawn into them",
        "mvtec",
        "Aota et al., 'Zero-shot versus Many-shot', WACV 2023",
        "built on DTD, research use; ask at the source",
        "test 357 + 947",
        (
            *("Woven_001", "Woven_127", "Woven_104", "Stratified_154", "Blotchy_099", "Woven_068"),
            *("Woven_125", "Marbled_078", "Perforated_037", "Mesh_114", "Fibrous_183"),
            "Matted_069",
        ),
        12,
        aliases=("DTD-Synthetic", "DTD_Synthetic"),
    ),
    KnownSet(
        "real-iad",
        "Real-IAD",
        "small parts from five sides",
        "real-iad",
        "Wang et al., CVPR 2024; on request from the authors",
        NON_COMMERCIAL,
        "99,721 + 51,329",
        count=30,
        aliases=("realiad", "Real-IAD"),
        notes="the folder of JSON files named decides the protocol; five pictures are one part",
    ),
    KnownSet(
        "loco",
        "MVTec LOCO AD",
        "assemblies with logical and structural faults",
        "loco",
        "MVTec Software GmbH, page 'MVTec LOCO AD'",
        NON_COMMERCIAL,
        "train 1772, validation 304, test 1568",
        ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"),
        5,
        aliases=("mvtec-loco", "mvtec_loco_anomaly_detection"),
        notes="evaluate adds sPRO, whose saturation is read from defects_config.json",
    ),
    KnownSet(
        "mvtec-3d",
        "MVTec 3D-AD",
        "objects in colour and depth",
        "mvtec",
        "MVTec Software GmbH, page 'MVTec 3D-AD'",
        NON_COMMERCIAL,
        "train 2656, validation 294, test 249 + 948",
        (
            *("bagel", "cable_gland", "carrot", "cookie", "dowel", "foam", "peach", "potato"),
            *("rope", "tire"),
        ),
        10,
        aliases=("mvtec_3d_anomaly_detection",),
        notes="the colour pictures are read, the positions (xyz) are not",
    ),
    KnownSet(
        "headct",
        "HeadCT",
        "computed tomography of heads, with haemorrhage or without",
        "headct",
        "Kaggle, 'Head CT - hemorrhage'",
        RESEARCH,
        "100 + 100",
        product="brain",
        masks=False,
        aliases=("head_ct",),
    ),
    KnownSet(
        "brainmri",
        "BrainMRI",
        "magnetic resonance pictures of heads, with tumour or without",
        "yes-no",
        "Kaggle, 'Brain MRI Images for Brain Tumor Detection'",
        RESEARCH,
        "98 + 155",
        product="brain",
        masks=False,
        aliases=("brain_tumor_dataset",),
    ),
    KnownSet(
        "br35h",
        "Br35H",
        "magnetic resonance pictures of heads, with tumour or without",
        "yes-no",
        "Kaggle, 'Br35H :: Brain Tumor Detection 2020'",
        RESEARCH,
        "1500 + 1500",
        product="brain",
        masks=False,
    ),
    KnownSet(
        "isic",
        "ISIC 2016",
        "photographs of skin lesions",
        "isic",
        "ISIC archive, challenge of 2016 (ISBI), part 1, test",
        RESEARCH,
        "0 + 379",
        product="skin",
        aliases=("isic2016", "isbi"),
    ),
    KnownSet(
        "colondb",
        "CVC-ColonDB",
        "colonoscopy frames with polyps",
        "images-masks",
        "Computer Vision Center, Barcelona",
        RESEARCH,
        "0 + 380",
        product="colon",
        aliases=("cvc-colondb",),
    ),
    KnownSet(
        "clinicdb",
        "CVC-ClinicDB",
        "colonoscopy frames with polyps",
        "images-masks",
        "Computer Vision Center, Barcelona",
        RESEARCH,
        "0 + 612",
        product="colon",
        aliases=("cvc-clinicdb",),
    ),
    KnownSet(
        "kvasir",
        "Kvasir-SEG",
        "colonoscopy frames with polyps",
        "images-masks",
        "Simula Research Laboratory",
        RESEARCH,
        "0 + 1000",
        product="colon",
        aliases=("kvasir-seg",),
        notes="masks come as JPEG, whose edges are not quite black",
    ),
    KnownSet(
        "endo",
        "EndoTect 2020 (test)",
        "colonoscopy frames with polyps",
        "images-masks",
        "Simula Research Laboratory, EndoTect challenge of 2020",
        RESEARCH,
        "0 + 200",
        product="colon",
        aliases=("endotect", "endotect_2020"),
    ),
    KnownSet(
        "cvc-300",
        "CVC-300",
        "colonoscopy frames with polyps",
        "images-masks",
        "Computer Vision Center, Barcelona",
        RESEARCH,
        "0 + 60",
        product="colon",
    ),
    KnownSet(
        "tn3k",
        "TN3K (test)",
        "ultrasound pictures of thyroid nodules",
        "images-masks",
        "Gong et al., repository 'TRFE-Net-for-thyroid-nodule-segmentation'",
        RESEARCH,
        "0 + 614",
        product="thyroid",
    ),
)


def find_known(name: str) -> KnownSet | None:
    """Find a published data set by name or alias, in any case and with any separators."""
    wanted = _plain(name)
    for known in CATALOGUE:
        if wanted in map(_plain, (known.name, known.title, *known.aliases)):
            return known
    return None


def _plain(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())
