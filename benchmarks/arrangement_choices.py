"""What ``arrangement`` compares, and what else was tried: chosen on drawn edits, no test picture.

Parts of good pictures are exchanged, moved, stretched or removed (``subtle_edits.py``); a picture
is compared with all good ones but the one that it is made of. Prints image AUROC in percent of
edited against good pictures, over all edits and by kind, for ways to compare a picture with whole
references; asserts nothing.

    python benchmarks/arrangement_choices.py /data/juice_logical [--edits 80] [--keep-aspect]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from subtle_edits import WAYS, halved, subtle_edits
from torch import Tensor

from zerodefect.data.synthesis import to_pixels
from zerodefect.detector.load_detector import load_detector
from zerodefect.images import Picture, open_image
from zerodefect.layers.similarity import highest_mean
from zerodefect.methods.arrangement import Arrangement
from zerodefect.scoring.viewing import Viewing

_PRIOR = 0.4  # weight of all places beside a place's own


def encoded(pictures: Sequence[Tensor], detector: Arrangement, viewing: Viewing) -> tuple:
    own, rows = detector.inputs["image"], []
    for image in pictures:
        picture = Picture("drawn", to_pixels(image))
        with torch.no_grad():
            rows.append(detector.encode(viewing.preprocess(own, picture)(picture)[None]))
    return torch.cat([one.values for one in rows]), rows[0].grid.shape


def differences(f: Tensor, shape: tuple[int, int], own: Tensor, reach: float) -> dict[str, Tensor]:
    """Distances ``(n, good, N)`` by way; of a picture to itself they are 0 and left out later."""
    good = int(own.max()) + 1
    y = torch.arange(shape[0]).repeat_interleave(shape[1])
    x = torch.arange(shape[1]).repeat(shape[0])
    apart = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs())
    far = apart > round(reach * max(shape))
    names = ("in place", "too much", "missing", "too much within reach", "missing within reach")
    found = {name: torch.zeros(len(f), good, f.shape[1]) for name in names}
    for i in range(len(f)):
        for j in range(good):
            if int(own[i]) == j:
                continue
            s = f[i] @ f[j].T
            near = s.masked_fill(far, -2.0)
            ways = (s.diagonal(), s.amax(1), s.amax(0), near.amax(1), near.amax(0))
            for name, one in zip(names, ways, strict=True):
                found[name][i, j] = 1 - one
    return found


def highest(d: Tensor, share: float) -> Tensor:
    return highest_mean(d.flatten(0, 1), share).view(d.shape[:2])


def off(d: Tensor, own: Tensor, share: float, weighed: bool) -> Tensor:
    """How far each picture lies off the best of the others; weights without that picture."""
    same = own[:, None] == torch.arange(d.shape[1])
    if weighed:
        best = highest(d, share).masked_fill(same, torch.inf).argmin(1)
        good = torch.stack([d[i, best[i]] for i in range(d.shape[1])])
        rest = len(good) - 1
        mean = (good.sum(0) - good[own]) / rest
        spread = ((good.square().sum(0) - good[own].square()) / rest - mean.square()).clamp(min=0)
        usual = mean + spread.sqrt()
        d = d / (usual + _PRIOR * usual.mean(1, keepdim=True))[:, None]
    return highest(d, share).masked_fill(same, torch.inf).amin(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--edits", type=int, default=80)
    parser.add_argument("--keep-aspect", action="store_true")
    args = parser.parse_args()
    files = sorted((args.folder / "train" / "good").glob("*"))
    images = halved([open_image(file).to_tensor() for file in files])
    edits = subtle_edits(images, args.edits)
    own = torch.tensor([*range(len(images)), *(source for _, source in edits)])
    detector = load_detector("arrangement", device="cpu")
    assert isinstance(detector, Arrangement)
    pictures = [*images, *(edited for edited, _ in edits)]
    f, shape = encoded(pictures, detector, Viewing(keep_aspect=args.keep_aspect))
    found, good = differences(f, shape, own, detector.config.reach), len(images)

    def of(name: str, share: float, weighed: bool = False) -> Tensor:
        score = off(found[name], own, share, weighed)
        return (score - score[:good].mean()) / score[:good].std()

    near = ("too much within reach", "missing within reach")
    rows = {
        "in place (2 %) and anywhere (10 %), the larger": torch.maximum(
            of("in place", 0.02), of("too much", 0.1)
        ),
        "in place": of("in place", 0.02),
        "too much, anywhere": of("too much", 0.02),
        "missing, anywhere": of("missing", 0.02),
        "too much, anywhere, weighed": of("too much", 0.02, True),
        "missing, anywhere, weighed": of("missing", 0.02, True),
        "both, anywhere": of("too much", 0.02) + of("missing", 0.02),
        "both, anywhere, weighed": of("too much", 0.02, True) + of("missing", 0.02, True),
        "both, within reach, weighed": of(near[0], 0.02, True) + of(near[1], 0.02, True),
        "both, within reach, weighed, the larger": torch.maximum(
            of(near[0], 0.02, True), of(near[1], 0.02, True)
        ),
    }
    print(f"{args.edits} edits, {shape[0]}x{shape[1]} places: all, {', '.join(sorted(set(WAYS)))}")
    kinds = [WAYS[k % len(WAYS)] for k in range(len(edits))]
    for title, score in rows.items():
        cells = []
        for wanted in (set(WAYS), *({kind} for kind in sorted(set(WAYS)))):
            bad = score[good:][[kind in wanted for kind in kinds]]
            cells.append(f"{100 * float((bad[:, None] > score[:good]).double().mean()):6.1f}")
        print(f"{title:48s}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
