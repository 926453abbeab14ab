"""Parts to inspect, and what a run leaves of them."""

import csv
import json

from models import picture

from zerodefect.images import encode_jpeg, encode_png

EVERYTHING = {"maps": True, "report": True}


def save(path, seed=0, height=48, width=64):
    path.parent.mkdir(parents=True, exist_ok=True)
    encode = encode_jpeg if path.suffix == ".jpg" else encode_png
    path.write_bytes(encode(picture(seed, height, width)))
    return path


def parts_in(folder, count):
    return [save(folder / f"part{seed}.png", seed) for seed in range(count)]


def lines_of(folder):
    lines = (folder / "results.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
