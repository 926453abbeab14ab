"""What a second network costs a picture: seconds and memory, at published sizes.

Time and memory do not hang on the values of weights: the networks are of the real classes and the
published sizes, with random weights, and what they say of the picture means nothing. Each stands in
a process of its own; seconds are those of the processor on so many threads, the best of a few
passes, so that other work on the machine counts little. Needs the extra ``sam``. Prints Markdown.

    python benchmarks/second_network.py [--repeats 2] [--only default --only sam-vit-base ...]
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
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zerodefect.images import Picture
from zerodefect.procedural import draw_product

PRODUCT = "metal plate"
REGIONS = (1, 4, 16)  # of a picture, each a box and points
SENTENCES = (22, 142)  # FiLo's with fifteen descriptions and seven of a good part: one place, nine
CAPTIONS = 4  # SAA+'s: the object, and three of defects
Measured = dict[str, Any]


def picture(number: int = 0, kind: str | None = "scratch") -> Picture:
    """A drawn plate of 512 pixels."""
    return Picture("<drawn>", draw_product(PRODUCT, 0, number, kind, 512)[0])


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Processor time of the fastest pass."""
    taken = []
    for _ in range(repeats):
        begun = time.process_time()
        with torch.inference_mode():
            work()
        taken.append(time.process_time() - begun)
    return min(taken)


def millions(network: nn.Module) -> float:
    """Parameters in millions; shared ones once."""
    return sum(each.numel() for each in network.parameters()) / 1e6


def nothing(repeats: int) -> Measured:
    """Python and its packages, without a network."""
    import_module("transformers")  # is part of what every process here has in memory
    return {"seconds": {}}


def default(repeats: int) -> Measured:
    """The default method with four good pictures."""
    from zerodefect.inspection.load_inspector import load

    good = [picture(number, None) for number in range(1, 5)]
    inspector = load(object=PRODUCT, references=good, device="cpu")
    shown = picture()
    detector = inspector.detector
    return {
        "seconds": {"a picture": seconds(lambda: inspector.inspect(shown), max(3, repeats))},
        "millions": millions(detector),
        "input": "512 x 512",
    }


def segmenter(config: Any, kind: str) -> Callable[[int], Measured]:
    """A SAM: once a picture, and for each of its regions."""

    def measure(repeats: int) -> Measured:
        import transformers

        from zerodefect.backbones.segmenter import Prompts, SAMSegmenter

        facts = {"name": kind, "fingerprint": "0" * 64}
        network = getattr(transformers, kind)(config()).eval()
        sam = SAMSegmenter(network, facts).eval()
        pixels = sam.preprocess(picture())[None]
        made: list[Any] = []
        taken = {"a picture": seconds(lambda: made.append(sam.embed(pixels)), repeats)}
        for count in REGIONS:
            corners = torch.tensor([[0.2, 0.2, 0.5, 0.6]]).repeat(count, 1)
            asked = Prompts(boxes=corners, points=torch.full((count, 3, 2), 0.3))
            work = partial(sam.masks, made[0], 0, asked, several=True)
            taken[f"{count} regions"] = seconds(work, repeats)
        side = sam.preprocess.size[0]
        return {"seconds": taken, "millions": millions(sam), "input": f"{side} x {side}"}

    return measure


def sam() -> Any:
    """ViT-B: the defaults of transformers."""
    from transformers import SamConfig

    return SamConfig()


def sam2_tiny() -> Any:
    """Hiera tiny: the defaults of transformers."""
    from transformers import Sam2Config

    return Sam2Config()


def sam2_base() -> Any:
    """Hiera base plus."""
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2VisionConfig

    widths = [112, 224, 448, 896]
    trunk = Sam2HieraDetConfig(
        hidden_size=112, embed_dim_per_stage=widths, blocks_per_stage=[2, 3, 16, 3],
        num_attention_heads_per_stage=[2, 4, 8, 16], global_attention_blocks=[12, 16, 20],
        window_positional_embedding_background_size=[14, 14],
    )  # fmt: skip
    return Sam2Config(
        vision_config=Sam2VisionConfig(backbone_config=trunk, backbone_channel_list=widths[::-1])
    )


def grounder() -> Any:
    """Grounding DINO with Swin-T and BERT, its tokeniser that of a few words."""
    from transformers import (
        AutoTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        SwinConfig,
    )

    from zerodefect.backbones.grounder import GroundingDINO
    from zerodefect.backbones.tiny_networks import grounding_dino_folder

    swin = SwinConfig(
        window_size=7, image_size=224, embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24],
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = GroundingDinoConfig(backbone_config=swin, use_timm_backbone=False)
    network = GroundingDinoForObjectDetection(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = AutoTokenizer.from_pretrained(grounding_dino_folder(Path(folder)))
    facts = {"name": "grounding-dino-tiny", "fingerprint": "0" * 64}
    return GroundingDINO(network, tokenizer, facts).eval()


def grounding(repeats: int) -> Measured:
    """One caption of five phrases."""
    finds = grounder()
    pixels = finds.preprocess(picture())[None]
    caption = "defect on plate . damage on plate . flaw on plate . hole . white scratch"
    taken = seconds(lambda: finds.queries(pixels, caption), repeats)
    side = pixels.shape[-1]
    return {
        "seconds": {"a picture": taken},
        "millions": millions(finds),
        "input": f"{side} x {side}",
    }


def clip_of(name: str) -> Any:
    """A CLIP of open_clip's architecture, its weights random."""
    from zerodefect.backbones.clip import CLIP, CLIPConfig
    from zerodefect.backbones.clip_weights import CLIPBackbone
    from zerodefect.backbones.open_clip_names import model_config
    from zerodefect.images import Preprocess

    config = CLIPConfig.from_open_clip(model_config(name))
    clip, draws = CLIP(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.normal_(0, 0.02, generator=draws)
    side = config.vision.image_size
    return CLIPBackbone(
        name,
        clip.eval().requires_grad_(False),
        Preprocess((side, side)),
        "0" * 64,
        "none",
        "random",
    )


def two_towers(name: str, side: int) -> Callable[[int], Measured]:
    """A CLIP: the picture, and the sentences that hang on it in FiLo."""

    def measure(repeats: int) -> Measured:
        from zerodefect.backbones.clip import tokenize

        backbone = clip_of(name)
        tower, text = backbone.clip.visual, backbone.clip.text
        pixels = replace(backbone.preprocess, size=(side, side))(picture())[None]
        looked = seconds(lambda: tower.encode(tower.embed(pixels)), repeats)
        taken = {"a picture": looked}
        words = "X X X X X X X X X X X X abnormal metal plate with a long scratch at top left."
        for count in SENTENCES:
            ids = tokenize([words] * count, 77)
            ends = text.ends(ids)
            x = text.token_embedding(ids[:, : int(ends.max()) + 1])
            taken[f"{count} sentences"] = seconds(partial(text.encode, x, ends), repeats)
        return {
            "seconds": taken,
            "millions": millions(backbone.clip),
            "input": f"{side} x {side}",
        }

    return measure


PARTS: dict[str, Callable[[int], Measured]] = {
    "nothing": nothing,
    "default": default,
    "sam-vit-base": segmenter(sam, "SamModel"),
    "sam2.1-hiera-tiny": segmenter(sam2_tiny, "Sam2Model"),
    "sam2.1-hiera-base-plus": segmenter(sam2_base, "Sam2Model"),
    "grounding-dino-tiny": grounding,
    "ViT-B-16": two_towers("ViT-B-16", 224),
    "ViT-L-14-336": two_towers("ViT-L-14-336", 518),
}


def alone(name: str, arguments: argparse.Namespace) -> Measured:
    """What a process of its own found out, and the most memory that it had."""
    command = [sys.executable, __file__, "--part", name, "--repeats", str(arguments.repeats)]
    threads = str(arguments.threads)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    found: Measured = json.loads(done.stdout.splitlines()[-1])
    return found


def networks(found: dict[str, Measured]) -> str:
    """A line for each network by itself."""
    base = found["default"]["seconds"]["a picture"]
    rows = [
        "| network | parameters (M) | input | seconds a picture | times the default | peak (MB) |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        taken = one["seconds"].get("a picture")
        told = ["", ""] if taken is None else [f"{taken:.2f}", f"{taken / base:.1f}"]
        size = f"{one['millions']:.0f}" if "millions" in one else ""
        cells = [name, size, one.get("input", ""), *told, f"{one['peak']:.0f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def added(found: dict[str, Measured]) -> str:
    """What methods add to a picture by these parts, by the number of regions."""
    base = found["default"]["seconds"]["a picture"]
    heads = [f"{count} regions" for count in REGIONS]
    dino = found.get("grounding-dino-tiny", {}).get("seconds", {}).get("a picture")
    lines = []  # label, where there is no region, where there are, rounds of prompts
    for name in (name for name in found if name.startswith("sam")):
        once = found[name]["seconds"]["a picture"]
        lines.append((f"`--refine`, {name}", name, 0.0, once, 1))
        lines.append((f"`clipsam` beside its CLIP, {name}", name, 0.0, once, 2))
        if dino:
            both = once + CAPTIONS * dino
            lines.append((f"`saa_plus`, {name}, grounding-dino-tiny", name, both, both, 1))
    rows = [
        f"| seconds that are added | no region | {' | '.join(heads)} | times the default |",
        f"|---|{'---|' * (len(heads) + 2)}",
    ]
    for label, name, none, some, rounds in lines:
        taken = [none, *(some + rounds * found[name]["seconds"][head] for head in heads)]
        cells = " | ".join(f"{each:.2f}" for each in taken)
        rows.append(f"| {label} | {cells} | {min(taken) / base:.0f} to {max(taken) / base:.0f} |")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(PARTS), help="by default all")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="JSON of what was measured, to go on from")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.part:
        torch.manual_seed(0)
        made = PARTS[arguments.part](arguments.repeats)
        made["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps(made))
        return
    kept = arguments.keep
    found = json.loads(kept.read_text()) if kept and kept.exists() else {}
    for name in arguments.only or PARTS:
        if name not in found:
            found[name] = alone(name, arguments)
            print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
            if kept:
                kept.write_text(json.dumps(found))
    print(networks(found))
    print(f"\n{added(found)}")
    for name in (name for name in found if name.startswith("ViT")):
        texts = ", ".join(
            f"{found[name]['seconds'][f'{n} sentences']:.2f} s for {n}" for n in SENTENCES
        )
        print(f"\nSentences that hang on the picture, {name}: {texts}.")


if __name__ == "__main__":
    main()
