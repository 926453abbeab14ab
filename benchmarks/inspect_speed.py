"""Speed of `zerodefect inspect` against a plain loop over the same detector.

The plain loop is what research code does: one picture at a time, the texts encoded again for each,
every window run through the whole tower. Same weights, same pictures, same scores. Prints a table;
asserts that the scores agree and never a time.

    python benchmarks/inspect_speed.py [FOLDER] [--images 48] [--threads 2]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

from zerodefect.backbones.clip_weights import load_clip
from zerodefect.engines.local import inspect_files
from zerodefect.images import encode_png, find_images, open_image
from zerodefect.inspection.load_inspector import load
from zerodefect.layers.similarity import anomaly_probability, harmonic_mean, upsample
from zerodefect.layers.windows import window_patches
from zerodefect.procedural import PRODUCTS, draw_product
from zerodefect.prompts.ensemble import PromptEnsemble
from zerodefect.prompts.features import embed_texts

PRODUCT = "metal plate"


def draw(folder: Path, count: int) -> None:
    for index in range(count):
        image, _ = draw_product(PRODUCTS[index % len(PRODUCTS)], 0, index, None)
        (folder / f"{index:04d}.png").write_bytes(encode_png(image))


@torch.no_grad()
def plain_score(backbone, picture, name: str) -> float:
    """WinCLIP for one picture, with nothing shared, batched or cut short."""
    clip, prompts = backbone.clip, PromptEnsemble()
    texts = torch.stack(
        [
            torch.cat([embed_texts(clip, [p]) for p in some]).mean(0)
            for some in (prompts.normal_prompts(name), prompts.anomalous_prompts(name))
        ]
    )
    pixels = backbone.preprocess(picture)[None]
    grid = clip.visual.grid(pixels)
    embedded = clip.visual.embed(pixels)
    tokens = clip.visual.encode(embedded).tokens
    s_0 = anomaly_probability(clip.visual.project(tokens[:, 0]), texts, 0.07)
    maps = [s_0[:, None, None].expand(1, *grid)]
    for side in (2, 3):
        windows = window_patches(grid, side)
        scores = torch.cat(
            [
                anomaly_probability(
                    clip.visual.project(
                        clip.visual.encode(
                            torch.cat([embedded[:, :1], embedded[:, w + 1]], 1)
                        ).tokens[:, 0]
                    ),
                    texts,
                    0.07,
                )
                for w in windows
            ]
        )
        total = torch.zeros(grid[0] * grid[1])
        cover = torch.zeros(grid[0] * grid[1])
        for w, score in zip(windows, scores, strict=True):
            total[w] += 1 / score
            cover[w] += 1
        maps.append((cover / total).reshape(1, *grid))
    # the map's peak, which the embedded model's side-car recommends as image score
    return float(upsample(harmonic_mean(maps), backbone.preprocess.size).max())


def timed(label: str, count: int, run) -> tuple[str, float, object]:
    start = time.perf_counter()
    result = run()
    return label, count / (time.perf_counter() - start), result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--plain", type=int, default=4, help="pictures for the plain loop")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch) / "pictures"
        if not arguments.folder:
            folder.mkdir()
            draw(folder, arguments.images)
        files = find_images([folder])
        inspector = load("winclip", object=PRODUCT, device="cpu")
        rows = []
        for batch in (1, 8):
            for report in (False, True):
                label = f"inspect, batch {batch}, {'with' if report else 'without'} report"
                target = Path(scratch) / f"run-{batch}-{report}"

                def run(target=target, batch=batch, report=report):
                    return inspect_files(inspector, files, target, batch_size=batch, report=report)

                rows.append(timed(label, len(files), run)[:2])
        backbone = load_clip()
        some = [open_image(path) for path in files[: arguments.plain]]
        label, rate, scores = timed(
            "plain loop", len(some), lambda: [plain_score(backbone, p, PRODUCT) for p in some]
        )
        for picture, score in zip(some, scores, strict=True):
            assert abs(inspector.inspect(picture).score - score) < 1e-5, picture.path
        rows.append((label, rate))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(files)} pictures, {arguments.threads} threads, embedded model")
    for label, found in rows:
        print(f"{label:36s} {found:8.2f} images/s {found / rate:8.1f} x plain")
    print(f"peak resident memory {peak:.0f} MiB; scores equal to 1e-5")


if __name__ == "__main__":
    main()
