"""What is lost where a batch is cut into sets: MuSc on all test pictures at once, and on parts.

Image AUROC of the scores of all sets together; each set is spread evenly over the pictures, as
`inspect --batch --batch-sample N` does.

    python benchmarks/sampled_sets.py fabric=DATA/fabric cookies=DATA/cookies [--most 24]
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from zerodefect.backbones.layered_features import load_features
from zerodefect.images import open_image
from zerodefect.methods.musc import MuSc


def pictures(root: Path, most: int) -> list[tuple[Path, bool]]:
    """Test pictures, at most so many good and so many damaged ones, evenly chosen."""
    good = sorted((root / "test" / "good").iterdir())
    damaged = sorted(p for p in (root / "test").glob("*/*") if p.parent.name != "good")
    found = []
    for group, label in ((good, False), (damaged, True)):
        count = min(most, len(group))
        places = np.linspace(0, len(group) - 1, count).round().astype(int)
        found += [(group[place], label) for place in places]
    return found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--most", type=int, default=24, help="good and damaged pictures, each")
    parser.add_argument("--sets", type=int, nargs="+", default=[0, 24, 12, 6])
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    detector = MuSc(load_features()).eval()
    heads = " | ".join("all at once" if not n else f"sets of {n}" for n in asked.sets)
    print(f"| data, pictures | {heads} |\n|---|{'---|' * len(asked.sets)}")
    for entry in asked.data:
        name, _, root = entry.partition("=")
        chosen = pictures(Path(root), asked.most)
        labels = np.array([label for _, label in chosen])
        encoded = [detector.encode(detector.preprocess(open_image(p))[None]) for p, _ in chosen]
        told = []
        for most in asked.sets:
            count = math.ceil(len(chosen) / most) if most else 1
            scores = np.zeros(len(chosen))
            for part in range(count):
                said = detector.score_set(encoded[part::count], detector.empty())
                scores[part::count] = [float(one.score) for one in said]
            told.append(f"{100 * roc_auc_score(labels, scores):.1f}")
        print(f"| {name}, {(~labels).sum()} + {labels.sum()} | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()
