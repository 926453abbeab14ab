"""Rules on bottles of juice: which logical anomalies they name, at which rate of false alarms.

Components are told by boxes on four good pictures, which are references of the detector as six more
are; limits are learned from the other good ones. The set is a tree in MVTec's layout (MVTec LOCO
AD's juice bottle, halved: 400 x 800 pixels). Where the truth's mask lies says what is wrong.

    python benchmarks/rules_on_juice.py DATA/juice_logical
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

import zerodefect
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.rules.rule_files import read_rules

BOXES = {  # by number of the good picture: left, top, width, height
    "liquid": {
        0: ("133,506,122,96", "143,204,77,82", "133,300,110,50"),
        4: ("133,506,122,96", "143,210,77,76", "133,300,110,50"),
        12: ("133,506,122,96", "143,210,77,76", "133,300,110,50"),
        17: ("143,210,77,76", "133,300,110,50"),
    },
    "label": {
        0: ("122,361,133,129", "127,616,134,61"),
        4: ("150,366,125,118", "150,622,126,54"),
        12: ("150,368,120,122", "150,617,126,50"),
    },
    "fruit": {0: ("159,398,50,52",), 4: ("188,398,52,56",), 12: ("178,402,60,54",)},
}
REFERENCES = (0, 1, 2, 3, 4, 5, 6, 7, 12, 17)
PLACES = ((0.45, "liquid or neck"), (0.66, "upper label"), (1.01, "lower half"))


def place(mask: Path) -> str:
    """Where the middle of a truth's mask lies."""
    rows = np.argwhere(np.asarray(Image.open(mask).convert("L")) > 127)[:, 0]
    height = Image.open(mask).height
    return next(name for end, name in PLACES if rows.mean() / height < end)


def taught(root: Path, rules: Sequence[str]) -> Inspector:
    """An inspector whose limits are learned from the good pictures that nothing else saw."""
    good = sorted((root / "train" / "good").iterdir())
    told = [
        f"{name}={good[number]}:{box}"
        for name, each in BOXES.items()
        for number, boxes in each.items()
        for box in boxes
    ]
    inspector = zerodefect.load(object="bottle", references=[good[n] for n in REFERENCES])
    inspector.teach_rules(rules, told)
    inspector.calibrate([path for n, path in enumerate(good) if n not in REFERENCES])
    return inspector


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    root = parser.parse_args().root
    inspector = taught(root, read_rules("juice_bottle"))
    print(*inspector.active_policy().notes, sep="\n")
    kinds = {"good": sorted((root / "test" / "good").iterdir())}
    for path in sorted((root / "test" / "logical_anomalies").iterdir()):
        mask = root / "ground_truth" / "logical_anomalies" / f"{path.stem}_mask.png"
        kinds.setdefault(place(mask), []).append(path)
    counts: dict[str, Counter[str]] = {}
    for kind, files in kinds.items():
        own = counts.setdefault(kind, Counter())
        for found in inspector.inspect_many(files, keep_maps=False):
            assert isinstance(found, Inspection)
            for one in found.rules:
                own[f"{one.rule}: {one.truth}"] += 1
            truths = {one.truth for one in found.rules}
            own["any rule broken"] += "broken" in truths
            own["none broken, one uncertain"] += "broken" not in truths and "uncertain" in truths
            by_score = inspector.active_policy().verdict(found.score)
            own["defect by score"] += by_score == "defect"
            own["defect by score or rule"] += by_score == "defect" or "broken" in truths
    every = sorted({name for own in counts.values() for name in own})
    print("| rule |", " | ".join(f"{kind} ({len(files)})" for kind, files in kinds.items()), "|")
    for name in every:
        if not name.endswith("kept"):
            print("|", name, "|", " | ".join(str(counts[kind][name]) for kind in kinds), "|")


if __name__ == "__main__":
    main()
