"""What `inspect` says of a folder without a good part: verdicts on good and damaged pictures.

Draws test pictures into a folder, inspects it from words alone, and counts defect / unsure / good.
Data sets are folders in MVTec's layout. Prints a table and asserts nothing.

    python benchmarks/folder_alone.py DATA/fryum:snack DATA/fabric:fabric [--draws 3]
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

MIXES = ((8, 8), (16, 8), (24, 0))
"""Good and damaged pictures of a folder."""
VERDICTS = ("defect", "unsure", "good")


def said(pictures: Sequence[Path], words: str) -> list[str]:
    """Verdicts on these pictures, which lie in a folder of their own."""
    with tempfile.TemporaryDirectory() as place:
        folder, run = Path(place) / "parts", Path(place) / "run"
        folder.mkdir()
        for number, picture in enumerate(pictures):
            (folder / f"{number:03d}{picture.suffix}").symlink_to(picture.resolve())
        verb = [sys.executable, "-m", "zerodefect", "inspect", folder, "--object", words, "-o", run]
        subprocess.run(verb, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    return [row["verdict"] for row in sorted(rows, key=lambda row: row["image"])]


def counted(verdicts: Sequence[str]) -> str:
    counts = Counter(verdicts)
    return " / ".join(str(counts[verdict]) for verdict in VERDICTS) if verdicts else ""


def row(root: Path, words: str, mix: tuple[int, int], draws: int) -> str:
    good, damaged = mix
    kinds = [path for path in sorted((root / "test").iterdir()) if path.is_dir()]
    sound = sorted((root / "test" / "good").iterdir())
    bad = [path for kind in kinds if kind.name != "good" for path in sorted(kind.iterdir())]
    found: tuple[list[str], list[str]] = ([], [])
    for draw in range(draws):
        some = random.Random(draw)
        verdicts = said([*some.sample(sound, good), *some.sample(bad, damaged)], words)
        found[0].extend(verdicts[:good])
        found[1].extend(verdicts[good:])
    label = f"{good} good + {damaged} damaged" if damaged else f"{good} good alone"
    return f"| {root.name}, {label} | {counted(found[0])} | {counted(found[1])} |"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", metavar="FOLDER:WORDS")
    parser.add_argument("--draws", type=int, default=3)
    arguments = parser.parse_args(argv)
    print("| folder | good pictures | damaged pictures |\n|---|---|---|")
    for entry in arguments.data:
        folder, _, words = entry.rpartition(":")
        for mix in MIXES:
            print(row(Path(folder), words, mix, arguments.draws), flush=True)


if __name__ == "__main__":
    main()
