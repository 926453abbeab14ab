"""Nearest neighbours, coreset and PaDiM here against faiss and anomalib, or a plain run of each.

Every part draws its arrays once, and each side times them in a process of its own. With --peer, a
Python with `anomalib==2.7.*` and `faiss-cpu`, the peers are those; without, a plain implementation.
Prints CPU seconds, the least of the repetitions, and asserts no time.

    python benchmarks/memory_speed.py [--peer peer/bin/python] [--size full|medium|small]
    python benchmarks/memory_speed.py --peer peer/bin/python --only search  # faiss alone
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SEARCHES = {  # queries, stored, width
    "full": ((1369, 20_000, 768), (3136, 6272, 24), (3136, 6272, 40), (784, 6272, 112)),
    "small": ((300, 2000, 64), (300, 2000, 24)),
}
SEARCHES["medium"] = SEARCHES["full"]
# stored, width; a tenth is chosen
CORESETS = {"full": (50_000, 1024), "medium": (10_000, 1024), "small": (3000, 64)}
# pictures, places, channels
GAUSSIANS = {"full": (32, 784, 100), "medium": (32, 784, 100), "small": (8, 49, 20)}
Side = dict[str, Callable[[], Any]]


def draw(folder: Path, size: str) -> None:
    """Rectified features with a few strong directions, as networks give."""
    random = np.random.default_rng(0)

    def features(*shape: int) -> np.ndarray:
        axes = random.standard_normal((8, shape[-1]), dtype=np.float32)
        common = random.standard_normal((*shape[:-1], 8), dtype=np.float32) @ axes
        return np.maximum(common + random.standard_normal(shape, dtype=np.float32), 0)

    for number, (queries, stored, width) in enumerate(SEARCHES[size]):
        both = features(queries + stored, width)
        np.save(folder / f"search-{number}.npy", both)
    np.save(folder / "coreset.npy", projected(features(*CORESETS[size])))
    np.save(folder / "gaussian.npy", features(*GAUSSIANS[size]))


def projected(features: np.ndarray) -> np.ndarray:
    """In the width in which PatchCore selects."""
    import torch

    from zerodefect.methods.patchcore import sparse_projection

    values = torch.from_numpy(features)
    R = sparse_projection(*features.shape, torch.Generator().manual_seed(0))
    return (values @ R.to(values).T).numpy()


def ours(arrays: dict[str, Any], only: str) -> Side:
    import torch

    from zerodefect.detector.knowledge import Knowledge
    from zerodefect.layers.coreset import farthest_points
    from zerodefect.layers.memory import MemoryBank
    from zerodefect.methods.padim import GaussianMemory, PaDiMConfig

    def search(name: str) -> Callable[[], Any]:
        queries, stored = arrays[name]
        bank = MemoryBank(stored, torch.zeros(len(stored), dtype=torch.long), "euclidean")
        return lambda: bank.nearest(queries)[1]

    e = arrays["gaussian"]
    grid = torch.tensor([[[1, e.shape[1]]]] * len(e))
    memory = GaussianMemory(PaDiMConfig(channels=e.shape[2]))

    def fitted() -> Knowledge:
        shown = [{"patches": e, "grid": grid}]
        return memory.settle(memory.remember(Knowledge({"method": "padim"}), shown))

    known = fitted()
    side: Side = {name: search(name) for name in arrays if name.startswith("search")}
    x, start = arrays["coreset"], arrays.get("start", 0)
    side["coreset"] = lambda: farthest_points(x, len(x) // 10, start)
    side["padim fit"] = lambda: fitted()["gaussian/mean"]
    side["padim predict"] = lambda: memory.distance(known, e)
    return side


def plain(arrays: dict[str, Any], only: str) -> Side:
    """As one would write it down: all distances, their lowest, one difference for each choice."""
    import torch

    def coreset() -> Any:
        x, chosen = arrays["coreset"], [0]
        nearest = (x - x[0]).norm(dim=1)
        while len(chosen) < len(x) // 10:
            chosen.append(int(nearest.argmax()))
            nearest = torch.minimum(nearest, (x - x[chosen[-1]]).norm(dim=1))
        return torch.tensor(chosen)

    def fit() -> tuple[Any, Any]:
        e = arrays["gaussian"]
        covariances = torch.stack([place.T.cov() for place in e.unbind(1)])
        return e.mean(0), torch.linalg.inv(covariances + 0.01001 * torch.eye(e.shape[2]))

    mean, inverse = fit()

    def predict() -> Any:
        x = arrays["gaussian"] - mean
        return torch.einsum("bnc,ncd,bnd->bn", x, inverse, x).sqrt()

    side: Side = {
        name: lambda name=name: torch.cdist(*arrays[name]).argmin(1)  # type: ignore[misc]
        for name in arrays
        if name.startswith("search")
    }
    return {**side, "coreset": coreset, "padim fit": lambda: fit()[0], "padim predict": predict}


def peers(arrays: dict[str, Any], only: str) -> Side:
    import faiss
    import torch

    faiss.omp_set_num_threads(torch.get_num_threads())
    side = plain(arrays, only)

    def search(name: str) -> Callable[[], Any]:
        queries, stored = (values.numpy() for values in arrays[name])
        index = faiss.IndexFlatL2(stored.shape[1])
        index.add(stored)
        return lambda: torch.from_numpy(index.search(queries, 1)[1][:, 0])

    def coreset() -> Any:
        torch.manual_seed(0)
        sampler = KCenterGreedy(arrays["coreset"], 0.1)
        rows = [int(row) for row in sampler.select_coreset_idxs()]
        arrays["coreset"] = sampler.features  # it has projected them: we choose among the same
        return torch.tensor(rows)

    side.update({name: search(name) for name in arrays if name.startswith("search")})
    if only == "search":
        return side
    from anomalib.models.components.sampling import KCenterGreedy
    from anomalib.models.components.stats import MultiVariateGaussian

    gaussian = MultiVariateGaussian()
    e = arrays["gaussian"].permute(0, 2, 1)[..., None]  # (B, C, N, 1)
    return {**side, "coreset": coreset, "padim fit": lambda: gaussian.fit(e)[0].T}


SIDES = {"ours": ours, "plain": plain, "peers": peers}


def read(folder: Path, size: str) -> dict[str, Any]:
    import torch

    arrays: dict[str, Any] = {
        name: torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("coreset", "gaussian")
    }
    for number, (queries, stored, width) in enumerate(SEARCHES[size]):
        both = torch.from_numpy(np.load(folder / f"search-{number}.npy"))
        arrays[f"search {queries} x {stored} x {width}"] = both.tensor_split([queries])
    for found in folder.glob("p* coreset.npy"):  # the other side draws where it begins
        arrays["start"] = int(np.load(found)[0])
    return arrays


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of every part; what each found lies in the folder."""
    import torch

    torch.set_num_threads(arguments.threads)
    spent = {}
    with torch.no_grad():
        arrays = read(folder, arguments.size)
        for name, run in SIDES[arguments.role](arrays, arguments.only).items():
            if not name.startswith(arguments.only):
                continue
            times = []
            for _ in range(1 if name == "coreset" else arguments.repeat):
                begun = time.process_time()
                found = run()
                times.append(time.process_time() - begun)
            spent[name] = min(times)
            np.save(folder / f"{arguments.role} {name}.npy", found.numpy())
    np.save(folder / "coreset.npy", arrays["coreset"].numpy())
    return spent


def child(python: str, role: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    threads = str(arguments.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [python, __file__, "--folder", str(folder), "--role", role, "--size", arguments.size]
    command += ["--repeat", str(arguments.repeat), "--threads", threads, "--only", arguments.only]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def agreement(ours: np.ndarray, other: np.ndarray) -> str:
    """Share of equal rows, or the largest difference against the largest value."""
    if ours.dtype.kind == "i":
        return f"{(ours == other).mean():.2%} equal"
    return f"{np.abs(ours - other).max() / np.abs(other).max():.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="Python with anomalib 2.7 and faiss-cpu")
    parser.add_argument("--size", choices=list(SEARCHES), default="full")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", choices=["", "search", "coreset", "padim"], default="")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--role", choices=list(SIDES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        print(json.dumps(measure(arguments.folder, arguments)))
        return
    other = "peers" if arguments.peer else "plain"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw(folder, arguments.size)
        theirs = child(arguments.peer or sys.executable, other, folder, arguments)
        mine = child(sys.executable, "ours", folder, arguments)
        print(f"| | ours, CPU s | {other}, CPU s | ratio | same result |\n|---|---|---|---|---|")
        for name, spent in mine.items():
            pair = (np.load(folder / f"{role} {name}.npy") for role in ("ours", other))
            ratio = theirs[name] / spent
            print(
                f"| {name} | {spent:.3f} | {theirs[name]:.3f} | {ratio:.2f} | {agreement(*pair)} |"
            )


if __name__ == "__main__":
    main()
