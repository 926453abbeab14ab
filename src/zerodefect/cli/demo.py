"""``zerodefect demo``: the whole loop on products that the project draws itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from zerodefect.cli.options import option, output_option
from zerodefect.cli.telling import progress, tell

if TYPE_CHECKING:
    from zerodefect.engines.local import Summary
    from zerodefect.inspection.inspector import Inspector

_PER_KIND = 2
_CHOSEN = {
    "metal plate": ("scratch", "hole", "break"),
    "woven fabric": ("hole", "stain", "contamination"),
    "ceramic tile": ("crack", "stain", "break"),
}


def demo(
    output: Path = output_option(Path("demo-run"), "Folder for everything."),
    good: int = option(40, "Good pieces to learn from, a product.", min=4),
) -> None:
    """Try it all on drawn products.

    Draws three products, learns from good pieces, inspects others, and writes reports and product
    files. Needs no network and no pictures. Run again, it goes on where it stopped.
    """
    from zerodefect.inspection.load_inspector import load

    inspector = load()
    inspector.describe("object")
    with progress("drawing") as bar:
        for product, kinds in _CHOSEN.items():
            folder = output / product.replace(" ", "-")
            pictures = list(_pieces(folder / "parts", product, kinds, good))
            bar(description=f"{product}: drawing", total=len(pictures), completed=0)
            for path, index, kind in pictures:
                _draw(path, product, index, kind)
                bar(advance=1)
            bar(description=f"{product}: inspecting", total=None)
            _show(inspector, product, folder)


def _show(inspector: Inspector, product: str, folder: Path) -> None:
    """Inspect by words, then by comparing with good parts; limits are of good parts both times."""
    from zerodefect.engines.local import inspect_files
    from zerodefect.images import find_images
    from zerodefect.inspection.setting_up import set_up

    good, parts = (find_images([folder / "parts" / split]) for split in ("train", "test"))
    inspector.policy = None
    inspector.forget()
    inspector.describe(product)
    inspector.calibrate(good)
    by_words = inspect_files(inspector, parts, folder / "run-by-words")
    made = set_up(inspector, good)
    inspector.save(folder / f"{folder.name}.zd")
    summary = inspect_files(inspector, parts, folder / "run", maps=True)
    tell(f"{product}: called defective or unsure, by what was drawn")
    tell(f"  from words:               {_called(by_words)}")
    tell(f"  compared with good parts: {_called(summary)}")
    for note in made.policy.notes:
        tell(f"  {note}")
    tell(f"  report: {summary.report}")


def _pieces(
    folder: Path, product: str, kinds: tuple[str, ...], good: int
) -> Iterator[tuple[Path, int, str | None]]:
    """Files of one product in the MVTec layout, with the piece that each shows."""
    for index in range(good):
        yield folder / "train" / "good" / f"{index:03d}.png", index, None
    first = good
    for kind in (None, *kinds):
        count = _PER_KIND * (1 if kind else 3)
        for index in range(first, first + count):
            name = (kind or "good").replace(" ", "-")
            yield folder / "test" / name / f"{index - first:03d}.png", index, kind
        first += count


def _draw(path: Path, product: str, index: int, kind: str | None) -> None:
    """Draw one piece unless it is there, with its mask in the MVTec layout."""
    from zerodefect.files import atomic_write
    from zerodefect.images import encode_png
    from zerodefect.procedural import draw_product

    if path.exists():
        return
    image, mask = draw_product(product, seed=0, index=index, kind=kind)
    if kind:
        parts = path.parents[2]
        target = parts / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as file:
            file.write(encode_png((mask * 255).astype("uint8")))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write(encode_png(image))


def _called(summary: Summary) -> str:
    """How many of each kind were not called good."""
    flagged: dict[str, list[bool]] = {}
    with (summary.folder / "results.jsonl").open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            truth = Path(record["image"]).parent.name
            flagged.setdefault(truth, []).append(record["verdict"] != "good")
    return ", ".join(f"{truth} {sum(v)}/{len(v)}" for truth, v in flagged.items())
