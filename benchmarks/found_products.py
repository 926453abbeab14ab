"""Products of a batch found by their look: real sets thrown together, and each set alone.

Pictures, good and damaged, are described once; then draws of N of each set are grouped. Of the
mixture of all sets it counts how often every group is of one product and every product is one
group, how often there are too few groups, and how often a group mixes products; of each set alone
how often it stays one group. Prints a table, and asserts nothing.

    python benchmarks/found_products.py /data/fryum /data/cookies /data/fabric ... [--draws 100]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from zerodefect.images import find_images, open_image
from zerodefect.inspection.product_groups import described, grouped
from zerodefect.inspection.sources import evenly

SIZES = (4, 6, 10, 20, 40)


def descriptions(folder: Path, most: int) -> np.ndarray:
    files = [f for f in find_images([folder]) if "ground_truth" not in f.parts]
    files = evenly(files, most) if len(files) > most else files
    return np.stack([one for one in described(files, open_image) if one is not None])


def right(x: np.ndarray, products: np.ndarray) -> tuple[bool, bool, bool]:
    """Whether all is right, groups are too few, a group is of several products."""
    label, strange = grouped(x)
    pairs = set(zip(label[~strange], products[~strange], strict=True))
    groups, kinds = len({g for g, _ in pairs}), len(set(products))
    return len(pairs) == groups == kinds, groups < kinds, len(pairs) > groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=80)
    parser.add_argument("--draws", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(1)
    known = {folder.name: descriptions(folder, given.most) for folder in given.sets}
    for name, x in known.items():
        label, strange = grouped(x)
        print(f"{name}: {len(x)} pictures, {label.max() + 1} groups, {strange.sum()} strange")
    x, of = (
        np.concatenate(list(known.values())),
        np.repeat(list(known), list(map(len, known.values()))),
    )
    label, strange = grouped(x)
    print(f"all: {len(x)} pictures, {label.max() + 1} groups, {strange.sum()} strange, "
          f"right {right(x, of)[0]}")  # fmt: skip
    print("\n| pictures of each | all right | too few groups | mixed | "
          + " | ".join(f"{name} alone: cut" for name in known) + " |")  # fmt: skip
    print("|---" * (4 + len(known)) + "|")
    for size in SIZES:
        random = np.random.default_rng(0)
        mixed, cut = [], {name: 0 for name in known}
        for _ in range(given.draws):
            drawn = {n: v[random.permutation(len(v))[:size]] for n, v in known.items()}
            kinds = np.repeat(list(drawn), [len(v) for v in drawn.values()])
            mixed.append(right(np.concatenate(list(drawn.values())), kinds))
            for name, own in drawn.items():
                cut[name] += int(grouped(own)[0].max()) > 0
        shares = [*np.mean(mixed, axis=0), *(n / given.draws for n in cut.values())]
        print(f"| {size} | " + " | ".join(f"{100 * share:.0f} %" for share in shares) + " |")


if __name__ == "__main__":
    main()
