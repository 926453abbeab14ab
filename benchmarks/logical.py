"""Logical anomalies: what detectors and their combinations find, with few and many good pictures.

A folder in MVTec's layout with one product. First, what is chosen is chosen without a defective
picture: parts of ``train/good`` are removed, moved, doubled, resized or taken from another good
picture (``procedural/part_edits.py``), and detectors that were shown other good ones are asked to
tell them from undamaged ones. Then, unless ``--drawn`` is given, ``test`` is read. Scores are
standardised by those of references that were left out in thirds, and combined by the p-values that
follow: the smallest one of a normal distribution (``min``), what such a one comes from, added
(``sum``), and the product of conformal ones (``Fisher``). Prints image AUROC, asserts nothing.

    python benchmarks/logical.py /data/juice_logical [--shots 4,40] [--draws 2] [--edits 60]
        [--methods patchcore,csad,logsad,arrangement,default] [--drawn] [--subtle] [--keep-aspect]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from subtle_edits import halved, subtle_edits
from torch import Tensor

from zerodefect import methods
from zerodefect.data.synthesis import to_pixels
from zerodefect.detector.contract import Detector
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.load_detector import load_detector
from zerodefect.images import Picture, open_image
from zerodefect.layers.component_maps import finer_tokens, nearest_centre
from zerodefect.layers.component_measures import component_measures, measured_oddness
from zerodefect.procedural.draws import Draws
from zerodefect.procedural.part_edits import edit_picture
from zerodefect.scoring.viewing import Viewing

METHODS: dict[str, dict[str, Any]] = {
    "patchcore": {"minimum": 1_000_000, "image_size": 256},  # the plain nearest patch of all
    "csad": {"size": 64},
    "logsad": {},
    "arrangement": {},
    "default": {},
}
MEASURES = "measures"  # of csad's components
TOGETHER = (
    ("arrangement", MEASURES),
    ("arrangement", "patchcore"),
    ("arrangement", "csad"),
    ("arrangement", "logsad"),
    ("arrangement", "csad", MEASURES),
    ("patchcore", "csad", "logsad", "arrangement", MEASURES),
)


class Method:
    """A detector, what it made of each picture, and what it says of some with others as good."""

    def __init__(self, name: str, viewing: Viewing) -> None:
        self.viewing = viewing
        chosen = None if name == "default" else methods.get(name).info.name
        self.detector: Detector = load_detector(chosen, device="cpu", **METHODS[name])
        self.seen: dict[str, Any] = {}

    @torch.no_grad()
    def look(self, key: str, picture: Picture) -> None:
        if key not in self.seen:
            several = {
                n: self.viewing.preprocess(own, picture)(picture)[None]
                for n, own in self.detector.inputs.items()
            }
            encoded = self.detector.encode(
                several["image"] if several.keys() == {"image"} else several
            )
            for later in encoded.values() if isinstance(encoded, dict) else ():
                _ = later.value
            self.seen[key] = encoded

    @torch.no_grad()
    def learn(self, good: Sequence[str]) -> Knowledge:
        known = self.detector.describe(self.detector.empty(), Product("juice bottle"))
        return self.detector.settle(self.detector.remember(known, (self.seen[key] for key in good)))

    @torch.no_grad()
    def says(self, keys: Sequence[str], known: Knowledge) -> Tensor:
        return torch.cat([self.detector.predict(self.seen[key], known).score for key in keys])


class Measured:
    """Learned measurements of the components that csad's clusters are."""

    def __init__(self, csad: Method) -> None:
        self.csad = csad

    def learn(self, good: Sequence[str]) -> tuple[Tensor, Tensor]:
        centres = self.csad.learn(good)["learned/centres"]
        return centres, self.measures(good, centres)

    def measures(self, keys: Sequence[str], centres: Tensor) -> Tensor:
        labels = []
        for key in keys:
            own = self.csad.seen[key]
            fine = finer_tokens(own.values, own.grid.shape, (64, 64))
            labels.append(nearest_centre(fine, centres).view(-1, 64, 64))
        return component_measures(torch.cat(labels), len(centres))

    def says(self, keys: Sequence[str], known: tuple[Tensor, Tensor]) -> Tensor:
        return measured_oddness(self.measures(keys, known[0]), known[1])


def thirds(good: Sequence[str]) -> list[list[str]]:
    return [list(good[first :: min(3, len(good))]) for first in range(min(3, len(good)))]


def scored(
    method: Any, good: Sequence[str], asked: Sequence[str], usual: bool
) -> tuple[Tensor, Tensor]:
    """Scores of references that were left out in thirds, and of those asked about."""
    out = [] if usual else [torch.zeros(1)]
    for part in thirds(good) if usual else []:
        out.append(method.says(part, method.learn([key for key in good if key not in part])))
    return torch.cat(out).double(), method.says(asked, method.learn(good)).double()


def combined(
    parts: Sequence[tuple[Tensor, Tensor]],
) -> dict[str, Tensor]:
    z = torch.stack([(s - u.mean()) / u.std().clamp(min=1e-6) for u, s in parts])
    p = torch.stack([((u >= s[:, None]).sum(1) + 1) / (len(u) + 1) for u, s in parts])
    return {"min": z.amax(0), "sum": z.sum(0), "Fisher": -p.log().sum(0)}


def auroc(good: Tensor, bad: Tensor) -> float:
    pairs = bad[:, None] - good
    return 100 * float((pairs > 0).double().mean() + (pairs == 0).double().mean() / 2)


class Bench:
    """Pictures by key, methods, and the tables."""

    def __init__(self, root: Path, edits: int, subtle: bool, viewing: Viewing) -> None:
        self.viewing = viewing
        self.pictures: dict[str, Picture] = {}
        self.good = self.read(root / "train" / "good", "good")
        self.tested = self.read(root / "test" / "good", "fine")
        bad = [folder for folder in sorted((root / "test").iterdir()) if folder.name != "good"]
        self.bad = [key for folder in bad for key in self.read(folder, folder.name)]
        self.edited = self.draw_subtle(edits) if subtle else self.draw(edits)
        self.methods: dict[str, Any] = {}

    def read(self, folder: Path, name: str) -> list[str]:
        keys = []
        for file in sorted(folder.glob("*")):
            keys.append(f"{name}/{file.stem}")
            self.pictures[keys[-1]] = open_image(file)
        return keys

    def draw(self, count: int) -> dict[str, str]:
        """Keys of edited pictures, with that of the good one that each is made of."""
        made = {}
        for number in range(count):
            key, other = (self.good[k * number % len(self.good)] for k in (1, 7))
            image, source = (self.pictures[k].to_tensor() for k in (key, other))
            draws = Draws(5, np.array([number], np.uint64), torch.device("cpu"))
            edit = edit_picture(image, draws, source if other != key else None)
            made[f"edited/{number}"] = key
            edited = Picture(f"edited {number}", to_pixels(edit.image))
            self.pictures[f"edited/{number}"] = edited
        return made

    def draw_subtle(self, count: int) -> dict[str, str]:
        """The same, of edits that are harder to see, at half the size."""
        small = halved([self.pictures[key].to_tensor() for key in self.good] if count else [])
        made = {}
        for number, (edited, source) in enumerate(subtle_edits(small, count)):
            made[f"edited/{number}"] = self.good[source]
            self.pictures[f"edited/{number}"] = Picture(f"edited {number}", to_pixels(edited))
        for key, image in zip(self.good, small, strict=False):
            # edits must not be known by their sharpness
            self.pictures[key] = Picture(key, to_pixels(image))
        return made

    def open(self, name: str, keys: Sequence[str]) -> None:
        began = time.perf_counter()
        if name == MEASURES:
            self.methods[name] = Measured(self.methods["csad"])
            return
        method = self.methods.setdefault(name, Method(name, self.viewing))
        for key in keys:
            method.look(key, self.pictures[key])
        took = (time.perf_counter() - began) / max(1, len(keys))
        print(f"  {name}: {len(keys)} pictures encoded, {took:.2f} s each", flush=True)

    def drawn(self, shots: int, draws: int) -> dict[str, list[float]]:
        """AUROC of edited pictures against good ones that were held out with them."""
        found: dict[str, list[float]] = {}
        for seed in range(draws):
            order = torch.randperm(
                len(self.good), generator=torch.Generator().manual_seed(seed)
            ).tolist()
            held = max(8, len(self.good) // 4)
            out = [self.good[k] for k in order[:held]]
            known = [self.good[k] for k in order[held:]][:shots]
            bad = [key for key, source in self.edited.items() if source in out]
            self.tally(found, known, out, bad)
        return found

    def tests(self, shots: int, draws: int) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for seed in range(draws if shots < len(self.good) else 1):
            order = torch.randperm(
                len(self.good), generator=torch.Generator().manual_seed(seed)
            ).tolist()
            known = [self.good[k] for k in order[:shots]]
            self.tally(found, known, self.tested, self.bad)
        return found

    def tally(
        self,
        found: dict[str, list[float]],
        known: Sequence[str],
        fine: Sequence[str],
        bad: Sequence[str],
    ) -> None:
        joined = {name for names in TOGETHER for name in names}
        said = {
            n: scored(m, known, [*fine, *bad], usual=n in joined) for n, m in self.methods.items()
        }
        rows = {name: scores for name, (_, scores) in said.items()}
        for names in TOGETHER:
            if set(names) <= said.keys():
                for how, scores in combined([said[n] for n in names]).items():  # p-values
                    rows[f"{' + '.join(names)} ({how})"] = scores
        for name, scores in rows.items():
            found.setdefault(name, []).append(auroc(scores[: len(fine)], scores[len(fine) :]))


def show(title: str, tables: dict[int, dict[str, list[float]]]) -> None:
    print(f"\n{title}, image AUROC in percent")
    print(" " * 62 + "".join(f"{shots:>14}" for shots in tables))
    for name in next(iter(tables.values())):
        cells = (tables[shots][name] for shots in tables)
        told = (
            f"{np.mean(c):.1f} +- {np.std(c):.1f}" if len(c) > 1 else f"{c[0]:.1f}" for c in cells
        )
        print(f"{name:62s}" + "".join(f"{cell:>14}" for cell in told), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shots", default="4,40")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--edits", type=int, default=60)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--drawn", action="store_true", help="do not read the test pictures")
    parser.add_argument("--subtle", action="store_true", help="edits that are harder to see")
    parser.add_argument("--keep-aspect", action="store_true", help="as of zerodefect inspect")
    args = parser.parse_args()
    if args.subtle and args.edits and not args.drawn:
        parser.error("--subtle shrinks the good pictures: add --drawn, and read the test apart")
    bench = Bench(args.folder, args.edits, args.subtle, Viewing(keep_aspect=args.keep_aspect))
    keys = [*bench.good, *bench.edited, *([] if args.drawn else [*bench.tested, *bench.bad])]
    names = args.methods.split(",")
    for name in [*names, *([MEASURES] if "csad" in names else [])]:
        bench.open(name, keys)
    shots = [int(each) for each in args.shots.split(",")]
    if args.edits:
        show("Drawn edits", {n: bench.drawn(n, args.draws) for n in shots})
    if not args.drawn:
        show("Test pictures", {n: bench.tests(n, args.draws) for n in shots})


if __name__ == "__main__":
    main()
