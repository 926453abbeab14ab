"""Does training help: prompt methods trained on one real data set, measured on another.

Each method learns from the labelled pictures of the first data set and from procedural good ones,
by its own recipe for so many steps, and is measured zero-shot on the second, which it never saw,
beside WinCLIP and Dense CLIP with the same backbone. Maps and masks meet at 128 x 128. Prints
Markdown; runs and predictions are kept under --output, and the same command goes on.

    python benchmarks/trained_methods.py [METHOD[:OPTION=VALUE,...] ...] [--steps 300]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
UNTRAINED = ("winclip", "dense")
METHODS = (
    "anomalyclip:attention=plain",
    "glocalclip:attention=plain",
    "crane:attention=plain",
    "adaclip",
    "vcp_clip",
    "cops",
    "afr_clip",
    "april_gan",
    "adaptclip",
)
METRICS = ("auroc", "aupro", "ap", "image auroc")


def zerodefect(*arguments: object, threads: int) -> str:
    """Run a verb; gives what it printed."""
    command = [sys.executable, "-m", "zerodefect", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def parted(entry: str) -> tuple[str, list[str]]:
    """``METHOD:a=1,b=2`` as the method and its ``--set`` arguments."""
    method, _, options = entry.partition(":")
    return method, [x for option in options.split(",") if option for x in ("--set", option)]


def trained(entry: str, arguments: argparse.Namespace) -> tuple[Path, float]:
    """Checkpoint of a method and the seconds that its training took."""
    method, options = parted(entry)
    folder = arguments.output / entry.replace(":", "-").replace("=", "-").replace(",", "-")
    begun = time.perf_counter()
    zerodefect(
        *("train", method, "--data", f"source={arguments.source}"),
        *("--data", f"procedural-good:{arguments.good}", "--object", arguments.source_object),
        *("--max-steps", arguments.steps, "--batch-size", arguments.batch_size),
        *("--output", folder, *options),
        threads=arguments.threads,
    )
    return folder / f"{method}.safetensors", time.perf_counter() - begun


def measured(arguments: argparse.Namespace, *options: object) -> dict[str, Any]:
    """What ``evaluate`` says of one method on the target."""
    text = zerodefect(
        *("evaluate", "--data", f"target={arguments.target}", "--object", arguments.target_object),
        *("--resolution", "128", "--output", arguments.output / "evaluation", "--json", *options),
        threads=arguments.threads,
    )
    return json.loads(text)[0]


def row(label: str, result: dict[str, Any], seconds: float | None) -> str:
    """One line of the table: all defects together, then each kind's pixel AUROC."""
    values = flat(result)
    kinds = sorted({key[0] for key in values} - {"all"})
    cells = [f"{100 * values['all', metric]:.1f}" for metric in METRICS]
    mean = sum(values[kind, "auroc"] for kind in kinds) / len(kinds)
    cells += [f"{100 * mean:.1f}", *(f"{100 * values[kind, 'auroc']:.1f}" for kind in kinds)]
    taken = "" if seconds is None else f"{seconds / 60:.1f}"
    return f"| {label} | {' | '.join(cells)} | {taken} |"


def flat(result: dict[str, Any]) -> dict[tuple[str, str], float]:
    """``(kind, metric) -> value`` of the pixel metrics, and of the image AUROC of all."""
    values = {}
    for cell in result["summary"]:
        level, name = cell["metric"].split(":")[0].split(" ")
        values[cell["group"], name if level == "pixel" else f"image {name}"] = cell["mean"]
    return values


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--source", type=Path, default=SHARED / "neu_steel")
    parser.add_argument("--source-object", default="steel plate")
    parser.add_argument("--target", type=Path, default=SHARED / "magnetic_tile")
    parser.add_argument("--target-object", default="magnetic tile")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--good", type=int, default=300, help="procedural good pictures")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("trained-methods"))
    arguments = parser.parse_args(argv)
    for folder in (arguments.source, arguments.target):
        if not folder.is_dir():
            raise SystemExit(f"{folder}: no such folder; name one with --source and --target")
    rows, kinds = [], []
    for entry in (*UNTRAINED, *arguments.methods):
        method, options = parted(entry)
        print(f"{entry} ...", file=sys.stderr)
        if entry in UNTRAINED:
            result, seconds = measured(arguments, "--method", method, *options), None
        else:
            checkpoint, seconds = trained(entry, arguments)
            result = measured(arguments, "--checkpoint", checkpoint)
        kinds = sorted({kind for kind, _ in flat(result)} - {"all"})
        rows.append(row(entry, result, seconds))
    head = ["method", "AUROC", "AUPRO", "AP", "image AUROC", "mean of kinds", *kinds, "minutes"]
    print(
        f"Trained on {arguments.source.name} ({arguments.steps} steps of {arguments.batch_size}),"
    )
    print(f"measured on {arguments.target.name}; pixels of all defects together, then AUROC.\n")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
