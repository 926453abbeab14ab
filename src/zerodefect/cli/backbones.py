"""``zerodefect backbones``: which weights can be used, which are at hand, and fetching them."""

from __future__ import annotations

import json
from typing import Any

from zerodefect.cli.options import AsJson, option
from zerodefect.cli.telling import say, tell


def backbones(
    fetch: str | None = option(
        None, "Download MODEL/TAG now; nothing else downloads weights.", "--fetch"
    ),
    at_hand: bool = option(False, "Only those on this machine.", "--at-hand"),
    as_json: AsJson = False,
) -> None:
    """List the weights that methods run on, or fetch some.

    Says of each CLIP, segmenter, grounder and chat model whether it is on this machine.
    """
    from zerodefect.backbones import open_clip_weights
    from zerodefect.backbones.clip_weights import EMBEDDED, embedded_file
    from zerodefect.backbones.hub_models import EXTRAS, bringing

    if fetch:
        say(f"source: {open_clip_weights.weights_origin(fetch)} (licence: see there)")
        path, digest = open_clip_weights.fetch(fetch)
        size = path.stat().st_size
        facts = {"name": fetch, "file": str(path), "bytes": size, "sha256": digest}
        text = f"file: {path}\nsize: {size / 2**20:.1f} MiB\nsha256: {digest}"
        tell(json.dumps(facts) if as_json else text, lines=not as_json)
        return
    rows: list[dict[str, Any]] = [{"name": EMBEDDED, "file": str(embedded_file())}]
    for model, tag in open_clip_weights.runnable_models():
        found = open_clip_weights.cached_file(f"{model}/{tag}")
        rows.append({"name": f"{model}/{tag}", "file": str(found) if found else None})
    rows += _from_the_hub()
    if at_hand:
        rows = [row for row in rows if row["file"]]
    if as_json:
        tell(json.dumps(rows, indent=2), lines=True)
        return
    for row in rows:
        told = f"{'at hand' if row['file'] else '       '}  {row['name']}"
        if "part" in row:
            told += f"  ({row['part']}, about {row['megabytes']} MB, {row['licence']})"
        tell(told)
    if not at_hand:
        for extra in dict.fromkeys(EXTRAS.values()):
            these = " and ".join(f"{part}s" for part, its in EXTRAS.items() if its == extra)
            say(f"{these} come with: pip install 'zerodefect[{extra}]' and {bringing('NAME')}")


def _from_the_hub() -> list[dict[str, Any]]:
    """Segmenters, grounders and chat models: they need an extra."""
    from zerodefect.backbones.hub_models import HUB_MODELS, bringing

    return [
        {
            "name": each.name,
            "file": str(each.file) if each.file else None,
            "part": each.part,
            "megabytes": each.megabytes,
            "licence": each.licence,
            "extra": each.extra,
            "bring": bringing(each.name),
        }
        for each in HUB_MODELS
    ]
