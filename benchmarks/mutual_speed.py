"""MuSc's scoring of a batch against the plain loop over pairs of pictures, on the same features.

Each side runs in a process of its own on features drawn once: neighbourhood means, distances of
every patch to every other picture, mean of the nearest. The plain loop takes them one layer and
window after the other, too, and each pair of pictures as it comes, in both directions. Prints CPU
seconds, resident memory beyond that of the loaded features at its peak, and how far scores differ;
asserts no time.

    python benchmarks/mutual_speed.py [--pictures 24] [--grid 37] [--width 1024] [--layers 4]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.layers.mutual import Remade, mean_of_nearest, mutual_distances
from zerodefect.layers.smoothing import neighbourhood_mean

BATCH = 4
SIDES = (1, 3, 5)


def draw(folder: Path, asked: argparse.Namespace) -> None:
    """What pictures of one product share at each place, and what is their own."""
    random = np.random.default_rng(0)
    g, C = asked.grid, asked.width
    for layer in range(asked.layers):
        common = random.standard_normal((C, g, g), dtype=np.float32)
        own = random.standard_normal((asked.pictures, C, g, g), dtype=np.float32)
        own += common
        np.save(folder / f"{layer}.npy", own)


def aggregated(X: Tensor, r: int) -> Tensor:
    X = F.layer_norm(X, X.shape[1:])
    return F.normalize(neighbourhood_mean(X, r, "zeros").flatten(2).mT, dim=-1)


def plain(X: Tensor, r: int) -> list[Tensor]:
    z = aggregated(X, r)
    scores = []
    for i in range(len(z)):
        others = [torch.cdist(z[i], z[j]).amin(1) for j in range(len(z)) if j != i]
        d = torch.stack(others, dim=1)
        K = max(1, int(0.3 * d.shape[1]))
        scores.append(d.topk(K, dim=1, largest=False).values.double().mean(1))
    return scores


def ours(X: Tensor, r: int, half: bool = False) -> list[Tensor]:
    z = Remade(X.split(BATCH), lambda batch: aggregated(batch, r))
    return [mean_of_nearest(d, 0.3) for d in mutual_distances(z, count=len(X), half=half)]


ROLES = {"plain": plain, "float32": ours, "bfloat16": lambda X, r: ours(X, r, half=True)}


def _ways(folder: Path, asked: argparse.Namespace) -> Iterator[tuple[Tensor, int]]:
    for layer in range(asked.layers):
        X = torch.from_numpy(np.load(folder / f"{layer}.npy"))
        for r in SIDES:
            yield X, r
        del X


@torch.inference_mode()
def measure(folder: Path, asked: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(asked.threads)
    total, spent, loaded = None, 0.0, 0
    for X, r in _ways(folder, asked):
        loaded = loaded or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.process_time()
        s = torch.stack(ROLES[asked.role](X, r))
        spent += time.process_time() - begun
        total = s if total is None else total + s
    assert total is not None
    np.save(folder / f"{asked.role}.npy", (total / asked.layers / len(SIDES)).numpy())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": spent, "megabytes": (peak - loaded) / 1024}


def child(role: str, folder: Path, asked: argparse.Namespace) -> dict[str, float]:
    threads = str(asked.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, __file__, "--role", role, "--folder", str(folder)]
    for name in ("pictures", "grid", "width", "layers", "threads"):
        command += [f"--{name}", str(getattr(asked, name))]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, usual in (("pictures", 24), ("grid", 37), ("width", 1024), ("layers", 4)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--role", choices=list(ROLES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.role:
        print(json.dumps(measure(asked.folder, asked)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw(folder, asked)
        print(f"load {os.getloadavg()[0]:.1f}; {asked.threads} thread(s)")
        print(
            "| | CPU s | ratio | memory, MB | largest difference of scores |\n|---|---|---|---|---|"
        )
        first = None
        for role in ROLES:
            got = child(role, folder, asked)
            first = first or got
            off = np.abs(np.load(folder / f"{role}.npy") - np.load(folder / "plain.npy")).max()
            row = (got["seconds"], first["seconds"] / got["seconds"], got["megabytes"], off)
            print("| {} | {:.1f} | {:.2f} | {:.0f} | {:.0e} |".format(role, *row), flush=True)


if __name__ == "__main__":
    main()
