"""The card of a product: what it knows, what is proven, what it would find, which licences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from zerodefect.backbones.licences import licence_of
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.power_curve import PowerCurve
from zerodefect.inspection.product_sections import Product
from zerodefect.inspection.shown import is_words
from zerodefect.types import told_score

_PLAIN = re.compile(r"[^\S ]+|[\x00-\x1f]")


def card(
    told: Product,
    policy: Policy,
    power: Mapping[str, Any] | None,
    file: str,
    kinds: str | None = None,
    rules: str | None = None,
) -> str:
    """The card in Markdown.

    Args:
        told: ``product.json``.
        policy: its limits.
        power: ``PowerCurve.as_dict``, where it was measured.
        file: name of the product file.
        kinds, rules: what is said of kinds taught by examples, and of rules, where there are any.
    """
    sections = {
        "What it knows": _knows(told, policy, kinds, rules),
        "What is proven": _proven(policy),
        "Which damage it would find": _finds(power),
        "Licences": _licences(told),
        "The file": _file(told),
    }
    lines = [f"# {_flat(told.product.name or 'A product without a name')} ({_flat(file)})"]
    for title, texts in sections.items():
        lines += ["", f"## {title}", "", *(f"- {_flat(text)}" for text in texts)]
    return "\n".join(lines) + "\n"


def _flat(text: str) -> str:
    return _PLAIN.sub(" ", text)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _knows(told: Product, policy: Policy, kinds: str | None, rules: str | None) -> Iterator[str]:
    weights = ", ".join(network.name for network in told.detector.networks.values())
    yield f"Method: {told.detector.method}" + (f", on {weights}" if weights else "")
    if told.detector.checkpoint:
        yield "Learned values of the method travel in the file"
    references = len(told.memory.references)
    apart = len(policy.scores) if policy.form == "split" else 0
    yield f"References, which it compares with: {_count(references, 'good picture')}"
    if apart:
        yield f"Limits learned from {_count(apart, 'further good picture')}"
    elif policy.form == "leave-one-out":
        yield "Limits learned from the references, each left out in turn"
    if kinds:
        yield f"{kinds[0].upper()}{kinds[1:]}"
    elif told.product.kinds:
        names = [name for name, _ in told.product.kinds]
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        yield f"Kinds of defects: {', '.join(names[:6])}{more}"
    if rules:
        yield f"{rules[0].upper()}{rules[1:]}"
    seen = told.viewing
    if seen.tile:
        yield f"Pictures are cut into tiles of {seen.tile} pixels (overlap {seen.overlap:g})"
    if seen.keep_aspect:
        yield "Pictures keep their aspect ratio"
    if seen.view:
        yield f"Parts are seen as the {seen.view} of their point clouds"
    if seen.within:
        high, wide = seen.within
        size = f"{wide} x {high} pixels"
        yield f"Pictures are shrunk to what the file keeps of the good ones ({size})"
    areas = [
        area if is_words(area) else f"{name} mask"
        for name, area in zip(("roi", "ignore"), seen.areas, strict=True)
        if area
    ]
    if areas:
        yield f"Only part of a picture is inspected ({' and '.join(areas)})"
    if seen.bit_depth:
        yield f"16-bit pictures use {seen.bit_depth} bits"


def _proven(policy: Policy) -> Iterator[str]:
    if not policy.calibrated:
        yield "Nothing: not calibrated, verdicts are provisional"
    else:
        if not policy.guaranteed:
            yield "No rate is guaranteed"
        yield from policy.notes
    if policy.allowances:
        yield policy.allowances.sentence()
    for name, limit in (("defect", policy.limits.defect), ("unsure", policy.limits.unsure)):
        yield (
            f"{name} above a score of {told_score(limit)}"
            if limit is not None
            else (f"No limit for {name}: too few pictures")
        )


def _finds(power: Mapping[str, Any] | None) -> Iterator[str]:
    if power is None:
        yield "Not measured. That defects are found is not guaranteed"
        return
    yield from _sentences(power)


def _sentences(power: Mapping[str, Any]) -> list[str]:
    try:
        return list(PowerCurve.from_dict(power).sentences())
    except ValueError as error:
        return [f"Measured, but what was found cannot be read ({str(error).splitlines()[0]})"]


def _licences(told: Product) -> Iterator[str]:
    for network in told.detector.networks.values():
        yield f"Weights {licence_of(network.model_dump())}"
    if not told.detector.networks:
        yield "No pretrained weights"
    if told.detector.checkpoint:
        yield "Learned values: as whoever trained them and their pictures allow"
    if told.detector.licence not in ("", "ours"):
        yield f"Authors' code of the method: {told.detector.licence} (none of it is in ZeroDefect)"
    yield "ZeroDefect: Apache-2.0, commercial use allowed"


def _file(told: Product) -> Iterator[str]:
    pictures = told.pictures
    if pictures.kept:
        kept, (high, wide) = len(pictures.references) + len(pictures.good), pictures.within
        yield f"{_count(kept, 'good picture')} inside, lossless at {wide} x {high} pixels or fewer"
    else:
        yield "No pictures inside: nothing can be added to it"
    yield f"Written {told.provenance.created} by ZeroDefect {told.provenance.zerodefect}"
