"""What the embedded model finds zero-shot (WinCLIP): on procedural pictures, and on folders.

Pixel AUROC is over all pixels of all pictures of a kind; image AUROC compares the kind's pictures
with the good ones. Folders have the layout ``test/KIND/*`` and ``ground_truth/KIND/STEM_mask.png``,
with ``good`` as one of the kinds or none. "Kind right" is the share of pictures whose damaged area,
taken as known, gets its own kind as the likeliest of the vocabulary. Prints a table.

    python benchmarks/embedded_accuracy.py [--backbone FILE] [--limit 100] [FOLDER=OBJECT ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from zerodefect.backbones.loading import load_clip
from zerodefect.data.procedural import DEFECT_KINDS, generate
from zerodefect.evaluation.metrics import image_metrics
from zerodefect.images import find_images, open_image
from zerodefect.methods import create
from zerodefect.methods.detector import Detector
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import Prediction

SERIES = 1_000_003  # a series of pictures that no training draws from
Sample = tuple[str, torch.Tensor, np.ndarray]  # kind, network input (3, H, W), mask


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve; NaN where one class is missing."""
    return image_metrics(scores, positive, ["auroc"])[0].value


def procedural(preprocess, count: int) -> Iterator[Sample]:
    side = preprocess.size[0]
    mean = torch.tensor(preprocess.mean)[:, None, None]
    std = torch.tensor(preprocess.std)[:, None, None]
    batch = generate(SERIES, 0, count, side)
    for image, mask, kind in zip(batch.images, batch.masks, batch.kinds.tolist(), strict=True):
        yield "good" if kind < 0 else DEFECT_KINDS[kind], (image - mean) / std, mask.numpy()


def folder(preprocess, root: Path, limit: int) -> Iterator[Sample]:
    height, width = preprocess.size
    for kind in sorted(p for p in (root / "test").iterdir() if p.is_dir()):
        files = find_images([kind])
        for path in files[:: max(1, len(files) // limit)][:limit]:
            truth = root / "ground_truth" / kind.name / f"{path.stem}_mask.png"
            mask = np.zeros((height, width), bool)
            if truth.exists():
                with Image.open(truth) as stored:
                    mask = np.asarray(stored.convert("L").resize((width, height), 0)) > 127
            yield kind.name, preprocess(open_image(path)), mask


def guesses(detector: Detector, found: Prediction, masks: np.ndarray) -> list[str]:
    """Likeliest kind of each picture's damaged area, or nothing where there is none."""
    if found.type_map is None:
        return [""] * len(masks)
    size = found.type_map.shape[-2:]
    area = F.interpolate(torch.from_numpy(masks)[:, None].float(), size=size, mode="area")
    likely = (found.type_map * area).sum((2, 3)).argmax(1).tolist()
    return [
        detector.kinds[kind] if mask.any() else "" for kind, mask in zip(likely, masks, strict=True)
    ]


@torch.no_grad()
def measure(detector: Detector, samples: Iterable[Sample]) -> None:
    kinds, inputs, masks = zip(*samples, strict=True)
    found = [detector(torch.stack(inputs[i : i + 8])) for i in range(0, len(inputs), 8)]
    scores = torch.cat([p.score for p in found]).numpy()
    maps = torch.cat([p.map for p in found]).numpy()
    masks, names = np.stack(masks), np.array(kinds)
    peaks = maps.max((1, 2))
    named = [
        guess
        for p, m in zip(found, np.split(masks, range(8, len(masks), 8)), strict=True)
        for guess in guesses(detector, p, m)
    ]
    right = np.array([guess == kind for guess, kind in zip(named, kinds, strict=True)])
    print(
        f"{'kind':<18}{'pictures':>9}{'pixel AUROC':>13}{'image AUROC':>13}{'by map peak':>13}"
        f"{'kind right':>12}"
    )
    for kind in [*dict.fromkeys(k for k in kinds if k != "good"), "all"]:
        rows = (names != "good") if kind == "all" else (names == kind)
        pixel = auroc(maps[rows].ravel(), masks[rows].ravel())
        both = rows | (names == "good")
        image = auroc(scores[both], rows[both])
        peak = auroc(peaks[both], rows[both])
        known = set(names[rows]) <= set(detector.kinds)
        share = right[rows].mean() if known else float("nan")
        print(f"{kind:<18}{rows.sum():>9}{pixel:>13.3f}{image:>13.3f}{peak:>13.3f}{share:>12.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folders", nargs="*", metavar="FOLDER=OBJECT")
    parser.add_argument("--backbone", help="weights file or name; default: the embedded model")
    parser.add_argument("--limit", type=int, default=100, help="pictures a kind")
    parser.add_argument("--procedural", type=int, default=400, help="pictures drawn; 0 for none")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    backbone = load_clip(arguments.backbone)
    detector = create("winclip", backbone)
    if arguments.procedural:
        print(f"procedural pictures, series {SERIES}, object 'product'")
        detector.describe("product", Vocabulary.default())
        measure(detector, procedural(backbone.preprocess, arguments.procedural))
    for entry in arguments.folders:
        root, _, name = entry.partition("=")
        print(f"\n{Path(root).name}, object {name or 'object'!r}")
        detector.describe(name or "object")
        measure(detector, folder(backbone.preprocess, Path(root), arguments.limit))


if __name__ == "__main__":
    main()
