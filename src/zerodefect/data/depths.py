"""How many bits the 16-bit pictures of each product use."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from zerodefect.data.dataset import Sample
from zerodefect.images import BitDepth, bit_depth_of

_log = logging.getLogger("zerodefect")


def found_depths(samples: Iterable[Sample]) -> dict[str, BitDepth]:
    """Infer them from the pictures of each product; products without such pictures are left out."""
    images: dict[str, list[str]] = {}
    for sample in samples:
        images.setdefault(sample.product, []).append(str(sample.image))
    depths = {product: bit_depth_of(files) for product, files in images.items()}
    return {product: depth for product, depth in depths.items() if depth is not None}


def told_depths(samples: Iterable[Sample], stated: int | None = None) -> dict[str, int | None]:
    """Bits per product: as stated for all, or inferred and told.

    Args:
        samples: of a data set.
        stated: bits of all products; None to infer them.

    Returns:
        Bits by product; products that are missing have no 16-bit pictures.
    """
    samples = list(samples)
    if stated is not None:
        return dict.fromkeys((sample.product for sample in samples), stated)
    found = found_depths(samples)
    for product, depth in found.items():
        _log.warning("%s: %s", product, depth)
    return {product: depth.bits for product, depth in found.items()}
