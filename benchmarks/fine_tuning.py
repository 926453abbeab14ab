"""What twenty labelled defects of one's own product gain: a method trained on them, held-out data.

Of each folder in MVTec's layout so many defective and as many good test pictures are drawn to
learn from (of every kind in turn); all others are measured on, by the untrained default and by the
trained method, zero-shot and with references. Trees and runs are kept under --output, and the same
command goes on.

    python benchmarks/fine_tuning.py fabric=DATA/fabric fryum=DATA/fryum [--count 20] [--most 0]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

METRICS = ("image auroc", "pixel auroc")


def zerodefect(*arguments: object) -> str:
    """Run a verb; gives what it printed."""
    command = [sys.executable, "-m", "zerodefect", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def parted(root: Path, count: int, most: int, seed: int) -> tuple[list[Path], list[Path]]:
    """Test pictures to learn from, and to measure on: at most so many of either label."""
    draws = random.Random(seed)
    kinds = {folder.name: sorted(folder.iterdir()) for folder in (root / "test").iterdir()}
    for name in sorted(kinds):
        draws.shuffle(kinds[name])
    good = kinds.pop("good")
    longest = max(map(len, kinds.values()))
    bad = [kinds[name][i] for i in range(longest) for name in sorted(kinds) if i < len(kinds[name])]
    if min(len(good), len(bad)) <= count:
        raise SystemExit(f"{root}: not more than {count} pictures of either label")
    end = count + most if most else None
    return [*good[:count], *bad[:count]], [*good[count:end], *bad[count:end]]


def tree(root: Path, pictures: Sequence[Path], target: Path) -> Path:
    """A folder in MVTec's layout with these test pictures and all of the training split."""
    if not target.exists():
        shutil.copytree(root / "train", target / "train")
        for picture in pictures:
            kind = picture.parent.name
            (target / "test" / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(picture, target / "test" / kind)
            for mask in (root / "ground_truth" / kind).glob(f"{picture.stem}_mask.*"):
                (target / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
                shutil.copy(mask, target / "ground_truth" / kind)
    return target


def measured(data: str, words: str, shots: str, output: Path, *who: object) -> dict[int, Any]:
    """Image and pixel AUROC by number of references."""
    told = ("evaluate", "--data", data, "--object", words, "--output", output, "--overwrite")
    result = json.loads(zerodefect(*told, "--k-shot", shots, "--json", *who))[0]
    found: dict[int, Any] = {}
    for cell in result["summary"]:
        name = cell["metric"].partition(":")[0]
        if cell["group"] == "all" and name in METRICS:
            found.setdefault(cell["shots"], {})[name] = 100 * cell["mean"]
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--method", default="adaptclip")
    parser.add_argument("--count", type=int, default=20, help="of either label, to learn from")
    parser.add_argument(
        "--most", type=int, default=0, help="of either label, to measure on; 0: all"
    )
    parser.add_argument("--shots", default="0,4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--training", default="--few", help="options of 'train', in one string")
    parser.add_argument("--output", type=Path, default=Path("fine-tuning"))
    arguments = parser.parse_args(argv)
    print("| product | method | shots | image AUROC | pixel AUROC | minutes of training |")
    print("|---|---|---|---|---|---|")
    for entry in arguments.data:
        name, _, folder = entry.partition("=")
        root, place = Path(folder), arguments.output / name
        learn, held = parted(root, arguments.count, arguments.most, arguments.seed)
        learned, unseen = tree(root, learn, place / "learn"), tree(root, held, place / "held")
        begun = time.perf_counter()
        run = (*arguments.training.split(), "--output", place / "run")
        zerodefect("train", arguments.method, "--data", f"{name}={learned}", "--object", name, *run)
        minutes = (time.perf_counter() - begun) / 60
        checkpoint = place / "run" / f"{arguments.method}.safetensors"
        rows = {"untrained default": (), arguments.method: ("--checkpoint", checkpoint)}
        for label, who in rows.items():
            data, folder = f"{name}={unseen}", place / label.split()[0]
            for shots, values in measured(data, name, arguments.shots, folder, *who).items():
                cells = " | ".join(f"{values[metric]:.1f}" for metric in METRICS)
                taken = f"{minutes:.1f}" if who else ""
                print(f"| {name} | {label} | {shots} | {cells} | {taken} |", flush=True)


if __name__ == "__main__":
    main()
