"""The products that a batch is of, in the report of a run and as a file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from zerodefect.files import StoreError, atomic_write
from zerodefect.inspection.picture_sets import PictureSets
from zerodefect.reports.example_list import STYLE, Address, Example, examples, thumbs_of
from zerodefect.types import printable, told_score

FILE = "products.json"
_EXAMPLES = 6  # pictures of each product
_VERDICTS = ("defect", "unsure", "good", "failed")

Records = Callable[[], Iterable[Mapping[str, Any]]]


def write_products(sets: PictureSets | None, folder: Path) -> None:
    """Write ``products.json``: each product with its pictures; removed where none was asked for."""
    path = folder / FILE
    if sets is None or sets.by == "all":
        path.unlink(missing_ok=True)
        return
    told = []
    for number, group in enumerate(sets.groups):
        lists = {"images": group.files, "good": group.good, "strange": group.strange}
        one: dict[str, Any] = {"name": group.name}
        one |= {name: list(map(str, files)) for name, files in lists.items()}
        if sets.policies:
            policy = sets.policies[number]
            one |= {"calibrated": policy.calibrated, "limits": policy.limits.model_dump()}
        told.append(one)
    with atomic_write(path) as file:
        file.write(json.dumps(told, indent=2).encode("ascii"))


def read_products(folder: Path) -> list[dict[str, Any]]:
    """What ``write_products`` wrote; none where it wrote nothing.

    Raises:
        StoreError: damaged.
    """
    path = folder / FILE
    if not path.exists():
        return []
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise StoreError(path, f"not valid JSON ({error})", "Inspect the pictures again.") from None
    return found


def products_section(folder: Path, records: Records, address: Address) -> str:
    """HTML of the products of a run, with examples; empty where it has no ``products.json``."""
    products = read_products(folder)
    if not products:
        return ""
    verdicts = {one["image"]: one.get("verdict", "failed") for one in records()}
    shown = [[*one["images"][:_EXAMPLES], *one["strange"][:_EXAMPLES]] for one in products]
    thumbs = thumbs_of({image for some in shown for image in some}, records())

    def row(images: list[str]) -> str:
        some = (Example(i, Path(i).name, verdicts.get(i, "")) for i in images[:_EXAMPLES])
        return examples(some, thumbs, address)

    parts = [
        f"<p>{escape(printable(_told(one, verdicts)))}</p>{row(one['images'])}"
        + (f"<p>{_strange(len(one['strange']))}</p>{row(one['strange'])}" if one["strange"] else "")
        for one in products
    ]
    return (
        f'{STYLE}<details class="panel" id="products" open>'
        f"<summary>Products of this batch</summary>{''.join(parts)}</details>"
    )


def _told(product: Mapping[str, Any], verdicts: Mapping[str, str]) -> str:
    """How many pictures it has, what they are called, and by which limits."""
    images, counts = product["images"], Counter(verdicts.get(one) for one in product["images"])
    called = ", ".join(f"{counts[name]} {name}" for name in _VERDICTS if counts[name])
    told = f"{product['name']}: {len(images)} picture{'s' * (len(images) != 1)} ({called})"
    if "limits" not in product:
        return f"{told}."
    defect = product["limits"]["defect"]
    if defect is None:
        return f"{told}; ranked, without a limit."
    kind = f"from {len(product['good'])} good parts" if product["calibrated"] else "provisional"
    return f"{told}; defect above {told_score(defect)} ({kind})."


def _strange(count: int) -> str:
    one = count == 1
    return (
        f"{count} of them resemble{'s' * one} no product of this batch, and "
        f"{'is' if one else 'are'} compared with this one, the nearest:"
    )
