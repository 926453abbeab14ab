"""Kinds of defects from a few examples and from words, and how many there are, on real pictures.

Data sets are folders in MVTec's layout with masks. Ten examples of each kind (half of the pictures
where there are few) are drawn again and again, and all other pictures are told by them: with the
damaged area known (the largest area of the mask), and with the region that the detector itself
finds. The words are the kinds' own names. "Unknown" is how many of the taught kinds' pictures are
called unknown, and how many of a kind that was not taught. Counts are compared with the areas of
the mask. Prints tables, and asserts nothing.

    python benchmarks/kinds_and_counts.py /data/neu_steel:"hot-rolled steel" /data/fabric:fabric
        [--shots 16] [--examples 10] [--draws 20] [--most 100] [--fewest 5]
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

import zerodefect
from zerodefect.images import open_image
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.region_features import describe_regions
from zerodefect.inspection.region_kinds import KindExamples, by_words
from zerodefect.inspection.regions import find_regions
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import Region

TOUCHING = np.ones((3, 3))


@dataclass(frozen=True)
class Seen:
    """A damaged picture: its kind, descriptions of the mask's areas, of the region found, words."""

    kind: str
    areas: np.ndarray  # (n, D), the largest first
    found: np.ndarray | None  # (1, D)
    words: str | None  # of the largest area
    found_words: str | None
    counts: tuple[int, int, int, int, int]  # true, plain components, told, low, high


def read_mask(root: Path, image: Path) -> np.ndarray:
    path = root / "ground_truth" / image.parent.name / f"{image.stem}_mask.png"
    return open_image(path).to_uint8().max(-1) > 127


def regions_of(mask: np.ndarray) -> list[Region]:
    found = find_regions(mask.astype(np.float32), 0.5)
    return sorted(found, key=lambda region: -region.area)[:8]


def opened(root: Path, name: str, shots: int, kinds: list[str]) -> Inspector:
    good = sorted((root / "train" / "good").glob("*"))[:shots]
    phrases = {kind: (f"{{}} with {kind.replace('_', ' ')}",) for kind in kinds}
    words = Vocabulary(tuple(phrases.items()))
    return zerodefect.load(object=name, references=good or None, vocabulary=words)


def seen(inspector: Inspector, root: Path, image: Path) -> tuple[Seen, tuple[int, ...]] | None:
    picture, mask = open_image(image), read_mask(root, image)
    areas = regions_of(mask)
    if not areas:
        return None
    told = inspector.inspect(picture)
    shown = inspector.snapshot()
    (scored,) = inspector.scorer.score([picture], [None], shown.known)
    size, names = (picture.height, picture.width), inspector.detector.kinds(shown.known)
    words = by_words(areas[:1], scored.type_map, names, size)[0].kind
    values, widths = describe_regions(inspector.scorer, picture, None, areas)
    limit, found = inspector.active_policy().region_limit, told.regions[:1]
    if not found:
        between = (float(told.map.max()) + float(np.median(told.map))) / 2
        found = find_regions(told.map, between)[:1]
    own = describe_regions(inspector.scorer, picture, None, found)[0] if found else None
    named = by_words(found, scored.type_map, names, size)[0].kind if found else None
    labels, _ = ndimage.label(mask, TOUCHING)
    true = int((np.bincount(labels.ravel())[1:] >= 4).sum())
    plain = len(find_regions(told.map, limit))
    counts = [sum(getattr(one, name) for one in told.counts) for name in ("count", "low", "high")]
    return Seen(image.parent.name, values, own, words, named, (true, plain, *counts)), widths


def told_kinds(pictures: list[Seen], widths, names: list[str], examples: int, draws: int) -> None:
    """Print how many are right, by examples and by words, and the confusion of the last draw."""
    right: dict[str, list[float]] = defaultdict(list)
    confusion: Counter[tuple[str, str]] = Counter()
    generator = np.random.default_rng(0)
    for draw in range(draws):
        taught, rest = drawn(pictures, names, examples, generator)
        learned = examples_of(taught, names, widths)
        own = [p for p in rest]
        said = [kind for kind, _ in learned.decide(np.stack([p.areas[0] for p in own]))]
        best = forced(learned, np.stack([p.areas[0] for p in own]))
        truth = [p.kind for p in own]
        right["area known, examples"].append(share(best, truth))
        right["area known, examples, mean of kinds"].append(mean_share(best, truth))
        right["area known, words"].append(share([p.words for p in own], truth))
        right["area known, words, mean of kinds"].append(mean_share([p.words for p in own], truth))
        found = [p for p in own if p.found is not None]
        if found:
            values = np.concatenate([p.found for p in found])
            right["region found, examples"].append(
                share(forced(learned, values), [p.kind for p in found])
            )
            right["region found, words"].append(
                share([p.found_words for p in found], [p.kind for p in found])
            )
        right["taught kind, called unknown"].append(sum(kind is None for kind in said) / len(said))
        if len(names) > 1:
            hidden = names[draw % len(names)]
            others = [name for name in names if name != hidden]
            fewer = examples_of([p for p in taught if p.kind != hidden], others, widths)
            new = np.stack([p.areas[0] for p in own if p.kind == hidden])
            right["kind not taught, called unknown"].append(
                sum(kind is None for kind, _ in fewer.decide(new)) / len(new)
            )
        confusion.update(zip(truth, best, strict=True))
    for name, values in right.items():
        print(f"| {name} | {100 * np.mean(values):.1f} % |")
    print("\n| is \\ called | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    for name in names:
        print(f"| {name} | " + " | ".join(
            f"{confusion[name, other] / draws:.1f}" for other in names) + " |")  # fmt: skip


def drawn(pictures, names, examples, generator) -> tuple[list[Seen], list[Seen]]:
    taught: list[Seen] = []
    rest: list[Seen] = []
    for name in names:
        own = [p for p in pictures if p.kind == name]
        order = generator.permutation(len(own))
        count = examples if len(own) >= 2 * examples else min(examples, len(own) // 2)
        taught += [own[i] for i in order[:count]]
        rest += [own[i] for i in order[count:]]
    return taught, rest


def examples_of(taught: list[Seen], names: list[str], widths) -> KindExamples:
    values = np.concatenate([p.areas for p in taught])
    kinds = np.concatenate([np.full(len(p.areas), names.index(p.kind)) for p in taught])
    pictures = np.concatenate([np.full(len(p.areas), i) for i, p in enumerate(taught)])
    return KindExamples(tuple(names), values, kinds, pictures, widths)


def forced(learned: KindExamples, values: np.ndarray) -> list[str]:
    return [learned.names[row.argmin()] for row in learned.distances(values)]


def share(said: list, truth: list[str]) -> float:
    return float(np.mean([a == b for a, b in zip(said, truth, strict=True)]))


def mean_share(said: list, truth: list[str]) -> float:
    kinds = sorted(set(truth))
    return float(
        np.mean(
            [np.mean([a == b for a, b in zip(said, truth, strict=True) if b == k]) for k in kinds]
        )
    )


def told_counts(pictures: list[Seen]) -> None:
    """Print how far counts lie from the truth."""
    print(
        "\n| counts of | true, mean | plain error | error | of always 1 | interval holds | width |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in ["all", *sorted({p.kind for p in pictures})]:
        rows = np.array([p.counts for p in pictures if name in ("all", p.kind)])
        true, plain, told, low, high = rows.T
        held = ((low <= true) & (true <= high)).mean()
        print(f"| {name} | {true.mean():.2f} | {abs(plain - true).mean():.2f} | "
              f"{abs(told - true).mean():.2f} | {abs(1 - true).mean():.2f} | {100 * held:.0f} % | "
              f"{(high - low).mean():.2f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", metavar="FOLDER:NAME")
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--examples", type=int, default=10)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--most", type=int, default=100)
    parser.add_argument("--fewest", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for entry in given.sets:
        folder, _, name = entry.partition(":")
        root = Path(folder)
        files = {k.name: sorted(k.glob("*"))[: given.most]
                 for k in sorted((root / "test").iterdir()) if k.name != "good"}  # fmt: skip
        files = {kind: some for kind, some in files.items() if len(some) >= given.fewest}
        names = list(files)
        inspector = opened(root, name or root.name, given.shots, names)
        both = [seen(inspector, root, file) for some in files.values() for file in some]
        pictures, widths = [one[0] for one in both if one], next(one[1] for one in both if one)
        print(f"\n## {root.name}: {len(pictures)} pictures\n\n| | right |\n|---|---|")
        if len(names) > 1:
            told_kinds(pictures, widths, names, given.examples, given.draws)
        told_counts(pictures)


if __name__ == "__main__":
    main()
