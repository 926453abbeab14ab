"""How well a word's map shows where a defect is, beside words that name something else.

Each data set is a tree in MVTec's layout; the maps are those of ``Inspector.where`` with the
embedded model. Prints the mean pixel AUROC within each picture, and how far the maps reach; asserts
nothing.

    python benchmarks/words_on_pictures.py [--pictures 12] DATA/neu_steel scratches scratch,label
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import roc_auc_score

import zerodefect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("given", nargs="+", help="FOLDER KIND WORD,WORD in turn")
    parser.add_argument("--pictures", type=int, default=12)
    options = parser.parse_args()
    inspector = zerodefect.load("dense")
    print("| set | kind | word | pixel AUROC | lowest | highest |\n|---|---|---|---|---|---|")
    for root, kind, words in zip(*(options.given[n::3] for n in range(3)), strict=True):
        masks = sorted((Path(root) / "ground_truth" / kind).glob("*_mask.png"))
        for word in words.split(","):
            ranked, spans = [], []
            for path in masks[: options.pictures]:
                stem = path.name.removesuffix("_mask.png")
                (picture,) = (Path(root) / "test" / kind).glob(f"{stem}.*")
                map = inspector.where(word, picture)
                truth = np.asarray(Image.open(path).convert("L")) > 127
                ranked.append(roc_auc_score(truth.ravel(), map.ravel()))
                spans.append((map.min(), map.max()))
            low, high = np.mean(spans, axis=0)
            cells = (Path(root).name, kind, word, f"{100 * np.mean(ranked):.1f}")
            print(f"| {' | '.join(cells)} | {low:.2f} | {high:.2f} |", flush=True)


if __name__ == "__main__":
    main()
