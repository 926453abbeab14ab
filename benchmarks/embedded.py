"""The embedded model on real and procedural pictures, beside floors and its own first version.

Contenders: the model; the same network untrained; the first version that was packaged, with WinCLIP
as it recommends; and local contrast, max |G(k/3) - G(k)| over k = 4 and 12 px of the grey 128-pixel
picture, G a Gaussian, which learned nothing. Each picture goes through a network once and is judged
under all memories. Maps and masks meet at 128 x 128 for all. Prints Markdown.

    python benchmarks/embedded.py [NAME=PATH:OBJECT ...] [--shots 0,1,2,4] [--seeds 5] [--limit N]
    python benchmarks/embedded.py --choose [NAME=PATH:OBJECT ...]   # a grid over dense's options
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from embedded_options import choose
from embedded_pictures import (
    BATCH,
    SIDE,
    Source,
    batches,
    centre,
    centred,
    folder,
    procedural,
    small,
    spread_out,
)
from embedded_tally import Tally, Values, replaced, table

from zerodefect.backbones.clip import CLIP
from zerodefect.backbones.clip_weights import CLIPBackbone, load_clip
from zerodefect.cli.options import parse_settings
from zerodefect.detector.combined import Combined
from zerodefect.detector.contract import Detector
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.images import open_image
from zerodefect.inspection.calibration import calibrate
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.methods import create, load_detector
from zerodefect.scoring.scorer import Scorer
from zerodefect.types import Prediction

BRIEF = (
    "image AUROC",
    "image AUROC, cropped alike",
    "pixel AUROC",
    "pixel AUPRO, with the good pictures",
    "damaged pictures with a region on the damage",
    "kind right, damaged area known",
)
SHARE = 0.8  # side of the square that is cut out of every picture, in its shorter sides

ROOT = Path(__file__).resolve().parents[1]
DATA = {"magnetic_tile": "magnetic tile", "neu_steel": "steel plate"}
WEIGHTS = "src/zerodefect/backbones/weights/embedded.safetensors"

# --- contenders ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoConfig:
    pass


class LocalContrast(Detector):
    """How much a place differs from its surroundings; knows nothing and needs nothing."""

    info = MethodInfo("local-contrast", "", "floor", (), "", "", "")
    Config = NoConfig

    def __init__(self, backbone: CLIPBackbone) -> None:
        plain = dataclasses.replace(
            backbone.preprocess, size=(SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3
        )
        super().__init__(NoConfig(), (backbone,), plain)

    def encode(self, inputs: torch.Tensor) -> torch.Tensor:
        return local_contrast(inputs.mean(1))

    def predict(
        self, encoded: torch.Tensor, knowledge: Knowledge, left_out: torch.Tensor | None = None
    ) -> Prediction:
        return Prediction(score=encoded.amax((1, 2)), map=encoded)


def local_contrast(grey: torch.Tensor) -> torch.Tensor:
    """``(B, H, W)``: max |G(k/3) - G(k)| over k = 4 and 12 px."""
    differences = [gaussian_smooth(grey, k / 3) - gaussian_smooth(grey, k) for k in (4.0, 12.0)]
    return torch.stack(differences).abs().amax(0)


def untrained(trained: CLIPBackbone) -> CLIPBackbone:
    """The same shape with random weights of a fixed seed; nothing of it is kept on disk."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        clip = CLIP(trained.clip.config).eval().requires_grad_(False)
    # without ``reload``: it would bring the trained text tower back
    return dataclasses.replace(trained, clip=clip, fingerprint=None, reload=None)


def first_version(scratch: Path) -> Detector | None:
    """The first packaged weights, from this repository's history, as they say to be used."""
    git = ["git", "-C", str(ROOT)]
    added = [*git, "log", "--diff-filter=A", "--format=%H", "--", WEIGHTS]
    try:
        listed = subprocess.run(added, check=True, capture_output=True, text=True)
        commit = listed.stdout.split()[-1]
        for suffix in (".safetensors", ".json"):
            blob = f"{commit}:{Path(WEIGHTS).with_suffix(suffix).as_posix()}"
            shown = subprocess.run([*git, "show", blob], check=True, capture_output=True)
            (scratch / f"first{suffix}").write_bytes(shown.stdout)
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        print(f"first version left out: no history of {WEIGHTS} here ({error})", file=sys.stderr)
        return None
    return load_detector("winclip", backbone=str(scratch / "first.safetensors"), device="cpu")


def own_detector(arguments: argparse.Namespace) -> Detector:
    options = parse_settings(arguments.option)
    size, name = arguments.size, arguments.backbone
    return load_detector(arguments.method, backbone=name, image_size=size, device="cpu", **options)


def of_words(detector: Detector) -> Detector:
    """The detector, or of several parts the first, which is on the CLIP."""
    return next(detector.each())[1] if isinstance(detector, Combined) else detector


def contenders(arguments: argparse.Namespace, scratch: Path, ours: Detector) -> dict[str, Detector]:
    trained, worded = load_clip(arguments.backbone), of_words(ours)
    blank = dataclasses.replace(untrained(trained), preprocess=worded.preprocess)
    options = {f.name: getattr(worded.config, f.name) for f in dataclasses.fields(worded.config)}
    makers: dict[str, Callable[[], Detector | None]] = {
        "local contrast": lambda: LocalContrast(trained),
        "untrained": lambda: create(worded.info.name, blank, **options).eval(),
        "first version": lambda: first_version(scratch),
        "embedded": lambda: ours,
    }
    chosen = arguments.only.split(",") if arguments.only else list(makers)
    if unknown := [name for name in chosen if name not in makers]:
        raise SystemExit(f"no contender {unknown[0]!r}; known are {', '.join(makers)}")
    found = {name: make() for name, make in makers.items() if name in chosen}
    return {name: detector for name, detector in found.items() if detector is not None}


# --- the benchmark ------------------------------------------------------------------------------


def region_limit(
    source: Source, scorer: Scorer, knowledge: Knowledge, limit: int | None
) -> float | None:
    """Map value above which the product marks a region, zero-shot: calibrated on the good
    training pictures where there are some, else the undecided point."""
    normal = spread_out(source.normal, limit)
    if not normal:
        return scorer.detector.neutral_score(knowledge)
    pictures = (open_image(sample.image) for sample in normal)
    scored = [one for some in batches(pictures) for one in scorer.score(some, None, knowledge)]
    scores, peaks = [s.score for s in scored], [s.highest for s in scored]
    facts = {"method": scorer.detector.info.name, "fingerprint": "", "object": source.object}
    return calibrate(scores, peaks, **facts).region_limit


def measure(
    source: Source,
    detector: Detector,
    settings: Sequence[tuple[int, int]],
    *,
    share: float | None = None,
    limit: int | None = None,
) -> list[Tally]:
    """One tally per ``(shots, seed)``; the first is zero-shot and tells kinds, too."""
    scorer = Scorer(detector, map_size=(SIDE, SIDE))
    words = detector.describe(detector.empty(), Product(source.object, source.vocabulary))
    known = []
    for shots, seed in settings:
        drawn = source.references(shots, seed, share)
        known.append(scorer.remember(words, drawn, [None] * len(drawn), BATCH) if drawn else words)
    above = None if share else region_limit(source, scorer, known[0], limit)
    tallies = [Tally() for _ in settings]
    for items in batches(make() for make in source.test):
        shown = [(kind, centred(p, share), centre(m, share)) for kind, p, m in items]
        # a defect that lies outside the square is none there
        shown = [s for s in shown if not share or s[0] == "good" or s[2].any()]
        found = scorer.score_under([p for _, p, _ in shown], None, known, BATCH)
        for tally, scored in zip(tallies, found, strict=True):
            for (kind, _, mask), one in zip(shown, scored, strict=True):
                tally.add(kind, one, small(mask))
                if tally is tallies[0] and not share:
                    tally.add_kinds(kind, one, small(mask), detector.kinds(words), above)
    return tallies


def benchmark(
    source: Source, detectors: dict[str, Detector], arguments: argparse.Namespace
) -> Iterator[str]:
    """Markdown lines of one product."""
    found: Values = defaultdict(list)
    left: dict[str, int] = {}
    for name, detector in detectors.items():
        few = "references" in detector.info.knows_from
        shots = [0, *(k for k in arguments.shots if few and 0 < k <= len(source.normal))]
        settings = [(k, seed) for k in shots for seed in range(arguments.seeds if k else 1)]
        for share in (None, SHARE) if source.normal else (None,):
            print(f"{source.name}: {name}{', cropped alike' if share else ''}", file=sys.stderr)
            tallies = measure(source, detector, settings, share=share, limit=arguments.limit)
            left = {kind: scores.images for kind, scores in tallies[0].image.items()}
            for (k, _), tally in zip(settings, tallies, strict=True):
                line = f"{name}, {k}-shot" if len(shots) > 1 else name
                for title, column, value in tally.figures(alike=share is not None):
                    found[title, line, column].append(value)
    yield f"### {source.name} ({len(source.test)} pictures, called {source.object!r})"
    if source.normal:
        counts = ", ".join(f"{kind} {count}" for kind, count in left.items())
        yield from ("", f"Pictures that are left when all are cropped alike: {counts}.")
    for title in dict.fromkeys(title for title, _, _ in found):
        if arguments.brief and title not in BRIEF:
            continue
        chance = f" (by chance {100 / len(source.kinds):.1f})" if title.startswith("kind") else ""
        yield from ("", f"{title}{chance}:", "")
        yield from table(found, title, [*source.kinds, "mean", "all"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folders", nargs="*", metavar="NAME=PATH:OBJECT")
    parser.add_argument("--method", help="default: what the weights recommend, else dense")
    parser.add_argument("--backbone", help="weights file or name; default: the embedded model")
    parser.add_argument("--size", type=int, help="side of the network's input")
    parser.add_argument("--option", action="append", metavar="NAME=VALUE", help="of the method")
    parser.add_argument("--limit", type=int, help="pictures a kind, for a quick look")
    parser.add_argument("--shots", default="0,1,2,4", help="0 is always measured")
    parser.add_argument("--seeds", type=int, default=5, help="draws of references")
    parser.add_argument(
        "--only", metavar="NAME,NAME", help="contenders, by their names in the tables"
    )
    parser.add_argument("--procedural", type=int, default=400, help="pictures drawn; 0 for none")
    parser.add_argument("--choose", action="store_true", help="a grid over dense's options")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--brief", action="store_true", help="the chief tables alone")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the tables into this file")
    arguments = parser.parse_args()
    arguments.shots = [int(part) for part in arguments.shots.split(",")]
    torch.set_num_threads(arguments.threads)
    if arguments.write:  # before the long work
        replaced(arguments.write.read_text(encoding="utf-8"), "")
    sources = named_sources(arguments)
    if arguments.choose:
        choose(arguments, sources)
        return
    with tempfile.TemporaryDirectory() as scratch:
        ours = own_detector(arguments)
        detectors = contenders(arguments, Path(scratch), ours)
        lines = list(heading(arguments, ours))
        print("\n".join(lines), flush=True)
        for source in sources:
            some = ["", *benchmark(source, detectors, arguments)]
            print("\n".join(some), flush=True)
            lines += some
    if arguments.write:
        text = arguments.write.read_text(encoding="utf-8")
        arguments.write.write_text(replaced(text, "\n".join(lines)), encoding="utf-8")


def named_sources(arguments: argparse.Namespace) -> list[Source]:
    """The folders that were named, else those beside the repository; and procedural pictures."""
    beside = ROOT.parent / "shared/data"
    # magnetic_tile is for the verdict alone: nothing is chosen on it
    defaults = {k: v for k, v in DATA.items() if not (arguments.choose and k == "magnetic_tile")}
    entries = arguments.folders or [
        f"{name}={beside / name}:{words}"
        for name, words in defaults.items()
        if (beside / name).is_dir()
    ]
    if not entries:
        print(
            f"no real pictures: {beside} holds none of {', '.join(defaults)}. Name folders in "
            "MVTec's layout: NAME=PATH:OBJECT",
            file=sys.stderr,
        )
    if arguments.choose and any("magnetic_tile" in entry for entry in entries):
        raise SystemExit("nothing is chosen on magnetic_tile; name other folders, or none")
    sources = [folder(entry, arguments.limit) for entry in entries]
    if arguments.procedural:
        sources.append(procedural(arguments.procedural))
    return sources


def heading(arguments: argparse.Namespace, ours: Detector) -> Iterator[str]:
    facts = of_words(ours).facts()
    height, width = of_words(ours).preprocess.size
    options = ", ".join(f"{k} {v}" for k, v in facts["config"].items() if not isinstance(v, list))
    name = ours.info.name
    yield f"Weights `{facts['weights'][:12]}`, {name} at {height} x {width} ({options}),"
    yield f"{arguments.seeds} draws of references, PyTorch {torch.__version__}."
    if arguments.limit:
        yield f"**A quick look at {arguments.limit} pictures a kind, no result.**"


if __name__ == "__main__":
    main()
