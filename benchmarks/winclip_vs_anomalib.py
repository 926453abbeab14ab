"""WinCLIP here against anomalib's, same random weights and pictures, in one run.

The peer runs in a Python environment of its own with anomalib 2.7 and open_clip 2.24: its window
path is silently wrong on batch-first versions of open_clip.

    python -m venv peer && peer/bin/pip install "anomalib==2.7.*" "open_clip_torch==2.24.0"
    python benchmarks/winclip_vs_anomalib.py --peer peer/bin/python [--images 8] [--threads 2]

Each contender is a process of its own, so that peak memory is its own. Prints one table; times are
wall clock, and no time is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MODEL = "ViT-B-16-plus-240"
PRODUCT = "bottle"


def seconds(run) -> tuple[float, object]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def peak_mebibytes() -> float:
    """Peak resident memory of this process; Linux only.

    Not getrusage's: that one starts with the peak of the process that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def prepare(folder: Path, count: int) -> None:
    """Random weights in the OpenAI layout, and pictures, half of them damaged."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from zerodefect.backbones.clip import CLIP, CLIPConfig
    from zerodefect.images import Preprocess
    from zerodefect.procedural import generate

    torch.manual_seed(0)
    clip = CLIP(CLIPConfig.from_open_clip(open_clip.get_model_config(MODEL)))
    save_file({k: v.contiguous() for k, v in clip.openai_state().items()}, folder / "w.safetensors")
    batch = generate(7, 0, count, 240)
    plain = Preprocess(size=(240, 240))
    mean, std = (torch.tensor(v)[:, None, None] for v in (plain.mean, plain.std))
    np.save(folder / "images.npy", ((batch.images - mean) / std).numpy())
    np.save(folder / "labels.npy", batch.masks.flatten(1).any(1).numpy())


def ours(folder: Path, precision: str, batch: int) -> dict:
    import torch

    from zerodefect.detector.knowledge import Product
    from zerodefect.methods import load_detector

    images = torch.from_numpy(np.load(folder / "images.npy"))

    def load():
        return load_detector(
            "winclip",
            backbone=MODEL,
            weights=folder / "w.safetensors",
            device="cpu",
            precision=precision,
        )

    def told(detector):
        return detector.describe(detector.empty(), Product(PRODUCT))

    detector = load()
    first, words = seconds(lambda: told(detector))
    detector(images[:1], words)
    rates, scores, maps = {}, [], []
    for size in (1, batch):
        parts = images.split(size)
        spent, found = seconds(lambda parts=parts: [detector(part, words) for part in parts])
        rates[size] = spent / len(images)
        scores = [float(s) for p in found for s in p.score]
        maps = [m.numpy() for p in found for m in p.map]
    first_peak = peak_mebibytes()
    again = load()
    second, _ = seconds(lambda: told(again))
    np.save(folder / f"maps-{precision}.npy", np.stack(maps))
    return {
        "text": first,
        "text_again": second,
        "image": min(rates.values()),
        "image_batch_1": rates[1],
        "scores": scores,
        "peak": first_peak,
    }


def peer(folder: Path) -> dict:
    import open_clip
    import torch
    from safetensors.torch import load_file

    plain = open_clip.create_model_and_transforms

    def with_our_weights(name, *args, pretrained=None, **kwargs):
        made = plain(name, *args, **kwargs)
        made[0].load_state_dict(load_file(folder / "w.safetensors"), strict=False)
        return made

    open_clip.create_model_and_transforms = with_our_weights
    from anomalib.models.image.winclip.torch_model import WinClipModel

    images = torch.from_numpy(np.load(folder / "images.npy"))
    model = WinClipModel().eval()
    with torch.no_grad():
        text, _ = seconds(lambda: model.setup(PRODUCT))
        model(images[:1])
        scores, maps, spent = [], [], []
        for image in images:
            took, found = seconds(lambda image=image: model(image[None]))
            spent.append(took)
            scores.append(float(found.pred_score))
            maps.append(found.anomaly_map.squeeze().numpy())
    np.save(folder / "maps-peer.npy", np.stack(maps))
    return {
        "text": text,
        "text_again": text,
        "image": float(np.mean(spent)),
        "image_batch_1": float(np.mean(spent)),
        "scores": scores,
        "peak": peak_mebibytes(),
    }


def matmul_peak(dtype_name: str) -> float:
    """Floating-point operations per second of a large matrix product."""
    import torch

    a = torch.randn(3072, 3072).to(getattr(torch, dtype_name))
    a @ a
    best = min(seconds(lambda: a @ a)[0] for _ in range(8))
    return 2 * 3072**3 / best


def operations() -> float:
    """Multiply-adds times two of the image side: linear layers and attention of every window."""
    width, blocks, total = 896, 12, 0.0
    for sequences, length in ((1, 226), (196, 5), (169, 10)):
        tokens = sequences * length
        total += blocks * (24 * tokens * width**2 + 4 * sequences * length**2 * width)
    return total + 2 * 225 * width * 3 * 16 * 16


def child(python: str, role: list[str], folder: Path, arguments) -> dict:
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(arguments.threads),
        "MKL_NUM_THREADS": str(arguments.threads),
        "ZERODEFECT_CACHE": str(folder / f"cache-{role[-1]}"),
    }
    command = [python, __file__, "--folder", str(folder), "--role", *role]
    command += ["--batch", str(arguments.batch), "--threads", str(arguments.threads)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(arguments) -> None:
    from zerodefect.backbones.precision import computes_bfloat16
    from zerodefect.evaluation.metrics import image_metrics

    precisions = ["float32", "bfloat16"] if computes_bfloat16("cpu") else ["float32"]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, arguments.images)
        found = {"anomalib, float32": child(arguments.peer, ["peer"], folder, arguments)}
        for precision in precisions:
            role = ["ours", precision]
            found[f"zerodefect, {precision}"] = child(sys.executable, role, folder, arguments)
        labels = np.load(folder / "labels.npy")
        maps = {
            name: np.load(folder / f"maps-{part}.npy")
            for name, part in zip(found, ("peer", *precisions), strict=True)
        }
        peaks = {name: matmul_peak(name) for name in precisions}
    base = found["anomalib, float32"]
    print(f"WinCLIP zero-shot, {MODEL}, {arguments.images} pictures, {arguments.threads} threads")
    print(
        f"{'':22s}{'s/image':>9s}{'ratio':>7s}{'text s':>8s}{'ratio':>7s}{'again s':>9s}"
        f"{'peak MiB':>10s}{'ratio':>7s}{'score diff':>12s}{'map diff':>10s}"
        f"{'AUROC':>8s}{'of peak':>9s}"
    )
    for name, one in found.items():
        precision = name.split(", ")[1]
        share = operations() / one["image"] / peaks[precision]
        score = np.abs(np.subtract(one["scores"], base["scores"])).max()
        field = np.abs(maps[name] - maps["anomalib, float32"]).max()
        print(
            f"{name:22s}{one['image']:9.3f}{base['image'] / one['image']:7.2f}{one['text']:8.2f}"
            f"{base['text'] / one['text']:7.1f}{one['text_again']:9.3f}{one['peak']:10.0f}"
            f"{one['peak'] / base['peak']:7.2f}{score:12.1e}{field:10.1e}"
            f"{image_metrics(one['scores'], labels, ['auroc'])[0].value:8.3f}{share:9.0%}"
        )
    for name, value in peaks.items():
        print(f"matrix product peak, {name}: {value / 1e9:.0f} GFLOP/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", help="Python with anomalib 2.7 and open_clip 2.24")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    if not arguments.role:
        if not arguments.peer:
            parser.error("name the peer's Python with --peer; see the head of this file")
        compare(arguments)
    elif arguments.role[0] == "peer":
        print(json.dumps(peer(arguments.folder)))
    else:
        print(json.dumps(ours(arguments.folder, arguments.role[1], arguments.batch)))


if __name__ == "__main__":
    main()
