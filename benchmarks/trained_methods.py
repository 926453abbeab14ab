"""Does training help: all trained methods in one table, measured on what they never saw.

Each method of the registry that learns from labelled defects does so from the first data set and
from procedural good pictures, by its own recipe for so many steps a stage, and is measured on
products that it never saw: zero-shot, with few references where it can remember them, and, with the
most of them, together with the default's reference part (METHOD+pyramid). Beside them stand methods
that learn nothing. A method that learns to compare, and finds no good pictures of the first data
set's product to compare with, learns from as many drawn pictures instead, which is said. Maps and
masks meet at 128 x 128. Prints Markdown; runs and predictions are kept under --output, and the same
command, killed, goes on.

    python benchmarks/trained_methods.py [METHOD[:OPTION=VALUE,...] ...] [--steps 300] [--seeds 3]
    python benchmarks/trained_methods.py af_clip --limit 4 --steps 2   # does it run?
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zerodefect.methods import get, names

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SOURCE = f"neu_steel={SHARED / 'neu_steel'}:steel plate"
TARGETS = (f"fryum={SHARED / 'fryum'}:fryum", f"fabric={SHARED / 'fabric'}:fabric")
UNTRAINED = ("winclip", "dense", "pyramid")
BESIDE = "pyramid"  # the default's part that knows references
METRICS = {
    "image auroc": "image AUROC",
    "pixel auroc": "pixel AUROC",
    "pixel aupro": "AUPRO",
    "pixel ap": "pixel AP",
}

Cells = dict[tuple[str, int, str], list[float]]
"""By target, number of references and metric: a value of every run and draw."""


@dataclass(frozen=True)
class Source:
    """A folder of labelled pictures, and what is on them."""

    name: str
    folder: Path
    words: str

    @classmethod
    def of(cls, entry: str) -> Source:
        """Read ``NAME=FOLDER:WORDS``."""
        name, _, rest = entry.partition("=")
        folder, _, words = rest.rpartition(":")
        if not Path(folder).is_dir():
            raise SystemExit(f"{entry}: no such folder; write NAME=FOLDER:WORDS")
        return cls(name, Path(folder), words)

    def limited(self, count: int | None, below: Path) -> Source:
        """The same with so many pictures of each kind, copied."""
        if count is None:
            return self
        copy = below / f"{self.name}-{count}"
        for folder in (path for path in self.folder.rglob("*") if path.is_dir()):
            for file in sorted(path for path in folder.iterdir() if path.is_file())[:count]:
                to = copy / file.relative_to(self.folder)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, to)
        return Source(self.name, copy, self.words)

    def labelled(self) -> list[Path]:
        """Pictures that are learned from."""
        kinds = (kind for kind in (self.folder / "test").iterdir() if kind.is_dir())
        return [path for kind in kinds for path in kind.iterdir() if path.is_file()]

    def comparable(self) -> bool:
        """Whether there are two good pictures, so that each has another to be compared with."""
        shown = list((self.folder / "train" / "good").glob("*"))
        good = [path for path in self.labelled() if path.parent.name == "good"]
        return bool(shown) or len(good) > 1


@dataclass
class Row:
    """What was found of a method."""

    label: str
    cells: Cells = field(default_factory=lambda: defaultdict(list))
    minutes: float | None = None  # of one training

    def shots(self) -> list[int]:
        return sorted({shots for _, shots, _ in self.cells})


class Bench:
    """One run of the benchmark."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments, self.output = arguments, arguments.output
        self.remarks: list[str] = []
        small = self.output / "pictures"
        self.source = Source.of(arguments.source).limited(arguments.limit, small)
        given = arguments.target or TARGETS
        most = arguments.limit or arguments.pictures
        self.targets = [Source.of(entry).limited(most, small) for entry in given]

    def zerodefect(self, *options: object) -> str:
        """Run a verb; gives what it printed."""
        command = [sys.executable, "-m", "zerodefect", *map(str, options)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.arguments.threads)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
        return done.stdout

    def network(self, method: str) -> list[str]:
        """What names the CLIP of a method, if that was said and it has one."""
        named = self.arguments.backbone and "clip" in get(method).info.backbones.values()
        return ["--backbone", self.arguments.backbone] if named else []

    def lessons(self, method: str) -> list[str]:
        """What a method learns from, as options of ``train``."""
        recipe = get(method).recipe
        if recipe and recipe.references and not self.source.comparable():
            drawn = f"procedural:{len(self.source.labelled()) + self.arguments.good}"
            self.remarks.append(
                f"{method} learns to compare with good pictures, and {self.source.name} has none: "
                f"it learned from {drawn}, good and damaged products that are drawn."
            )
            return ["--data", drawn]
        own = f"{self.source.name}={self.source.folder}"
        good = f"procedural-good:{self.arguments.good}"
        return ["--data", own, "--data", good, "--object", self.source.words]

    def trained(self, entry: str, seed: int) -> tuple[Path, float]:
        """Checkpoint of a method, and the minutes that its training took."""
        method, options = parted(entry)
        place = "-".join([entry.translate(str.maketrans(":=,", "---")), f"seed{seed}"])
        folder, begun = self.output / "runs" / place, time.perf_counter()
        self.zerodefect(
            *("train", method, *self.lessons(method)),
            *("--max-steps", self.arguments.steps, "--batch-size", self.arguments.batch_size),
            *("--seed", seed, "--output", folder, *self.network(method), *options),
        )
        return folder / f"{method}.safetensors", (time.perf_counter() - begun) / 60

    def measured(self, row: Row, method: str, shots: Sequence[int], *options: object) -> None:
        """Add what ``evaluate`` says of a method to its row."""
        for target in self.targets:
            text = self.zerodefect(
                *("evaluate", "--method", method, "--data", f"{target.name}={target.folder}"),
                *("--object", target.words, "--resolution", "128", "--json", "--overwrite"),
                *("--k-shot", ",".join(map(str, shots)), "--seeds", self.arguments.seeds),
                *("--output", self.output / "evaluation", *options),
            )
            for found in json.loads(text)[0]["rows"]:
                metric, value = found["metric"], found["metric"]["value"]
                name = f"{metric['level']} {metric['name']}"
                if name in METRICS and found["group"] == "all" and value is not None:
                    row.cells[target.name, found["shots"], name].append(value)

    def rows(self, entry: str) -> list[Row]:
        """A method by itself, and together with the reference part."""
        method, options = parted(entry)
        alone, both = Row(entry), Row(f"{entry}+{BESIDE}")
        few = [shots for shots in self.arguments.shots if shots]
        own = self.arguments.shots if "references" in get(method).info.knows_from else [0]
        if "references" in get(method).info.needs:
            own = few
        joint = method != BESIDE and few and not self.arguments.alone
        clip = self.network(method)
        for seed in range(self.arguments.trainings if get(method).info.trained else 1):
            if get(method).info.trained:
                checkpoint, alone.minutes = self.trained(entry, seed)
                said = said_jointly = ["--checkpoint", checkpoint]
            else:
                said, said_jointly = options, of_part(method, options)
            self.measured(alone, method, own, *said, *clip)
            if joint:
                self.measured(both, f"{method}+{BESIDE}", few[-1:], *said_jointly, *clip)
        return [alone, both] if joint else [alone]


def parted(entry: str) -> tuple[str, list[str]]:
    """``METHOD:a=1,b=2`` as the method and its ``--set`` arguments."""
    method, _, options = entry.partition(":")
    return method, [x for option in options.split(",") if option for x in ("--set", option)]


def of_part(method: str, options: Sequence[str]) -> list[str]:
    """The ``--set`` arguments of a method that is a part of several."""
    return [option if option == "--set" else f"{method}.{option}" for option in options]


def table(rows: Sequence[Row], targets: Sequence[str]) -> str:
    """Markdown: a line for each method and number of references, the best of a number bold."""
    columns = [(target, metric) for target in targets for metric in METRICS]
    lines = [(row, shots) for row in rows for shots in row.shots()]
    best = {
        (shots, column): max(_mean(row, shots, column) for row, own in lines if own == shots)
        for _, shots in lines
        for column in columns
    }
    head = ["method", "references", *(f"{t} {METRICS[metric]}" for t, metric in columns), "minutes"]
    text = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row, shots in lines:
        cells = []
        for column in columns:
            told = _told(row.cells.get((column[0], shots, column[1]), []))
            top = _mean(row, shots, column) == best[shots, column]
            cells.append(f"**{told}**" if top else told)
        taken = "" if row.minutes is None else f"{row.minutes:.1f}"
        text.append(f"| {row.label} | {shots} | {' | '.join(cells)} | {taken} |")
    return "\n".join(text)


def _mean(row: Row, shots: int, column: tuple[str, str]) -> float:
    values = row.cells.get((column[0], shots, column[1]), [])
    return round(100 * statistics.fmean(values), 1) if values else -math.inf


def _told(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.1f}{spread}"


def learning_from_defects() -> list[str]:
    """Methods of the registry that learn from other products' labelled defects."""
    return [name for name in names() if "training" in get(name).info.knows_from]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", help="by default all of the registry, and without")
    parser.add_argument("--source", default=SOURCE, metavar="NAME=FOLDER:WORDS")
    parser.add_argument("--target", action="append", metavar="NAME=FOLDER:WORDS")
    parser.add_argument("--backbone", default=None, help="by default the embedded model")
    parser.add_argument("--shots", type=lambda t: [int(n) for n in t.split(",")], default="0,1,2,4")
    parser.add_argument("--seeds", type=int, default=3, help="draws of references")
    parser.add_argument("--trainings", type=int, default=1, help="with seeds of their own")
    parser.add_argument("--steps", type=int, default=300, help="of each stage")
    parser.add_argument("--good", type=int, default=300, help="procedural good pictures")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--alone", action="store_true", help=f"not together with {BESIDE}")
    parser.add_argument("--pictures", type=int, help="of each kind of a target, at most")
    parser.add_argument("--limit", type=int, help="also of the source: only to try it out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("trained-methods"))
    arguments = parser.parse_args(argv)
    bench, rows = Bench(arguments), list[Row]()
    for entry in arguments.methods or (*UNTRAINED, *learning_from_defects()):
        begun = time.perf_counter()
        rows += bench.rows(entry)
        print(f"{entry}: {(time.perf_counter() - begun) / 60:.1f} minutes", file=sys.stderr)
    print(
        f"Trained on {bench.source.name} and {arguments.good} procedural good pictures, "
        f"{arguments.steps} steps of {arguments.batch_size} a stage.\n"
    )
    for remark in dict.fromkeys(bench.remarks):
        print(f"{remark}\n")
    print(table(rows, [target.name for target in bench.targets]))


if __name__ == "__main__":
    main()
