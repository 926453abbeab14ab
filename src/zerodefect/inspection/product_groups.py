"""Which pictures of a batch show the same product, found by how they look.

A picture is the mean of its patches at three depths of EfficientNet-Lite0, which comes with the
package: so the distance beyond which two pictures cannot be of one product was measured once, and
does not depend on the method that judges. Pictures that are joined by steps below it are one group
(single linkage): a product that varies gradually stays whole, whatever lies between its ends, and
two products that look alike stay together. Rather one group too few than a product cut in two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist

from zerodefect.backbones.backbone import LayeredBackbone, layers_at
from zerodefect.backbones.layered_features import load_features
from zerodefect.images import Picture
from zerodefect.inspection.sources import evenly
from zerodefect.scoring.scorer import DEFAULT_BATCH
from zerodefect.scoring.stream import stream
from zerodefect.types import Failure

APART = 0.9
"""Distance, in [0, 2], from which on pictures are of different products; see docs/benchmarks.md."""

FEWEST = 3  # pictures of a group: fewer resemble nothing
_STRIDES = (8, 16, 32)
_MOST = 4000  # pictures that are compared in pairs; others go to the nearest of them


@dataclass(frozen=True)
class ProductGroup:
    """Pictures of one product.

    Attributes:
        name: of the group.
        files: that are inspected, in their order.
        good: good parts that are scored with them.
        strange: those of ``files`` that resemble no group; this one is the nearest to them.
    """

    name: str
    files: tuple[Path, ...]
    good: tuple[Path, ...] = ()
    strange: tuple[Path, ...] = ()


def found_groups(
    files: Sequence[Path],
    good: Sequence[Path] = (),
    *,
    open: Callable[[Path], Picture],
    features: LayeredBackbone | None = None,
    batch_size: int = DEFAULT_BATCH,
) -> list[ProductGroup]:
    """Divide pictures by what they look like, the largest group first.

    Good parts without anything to inspect beside them are left out.

    Args:
        files: that are inspected; one that cannot be opened goes to the largest group.
        good: good parts, of whichever product.
        open: gives the picture of a file, or raises ImageError.
        features: instead of EfficientNet-Lite0, on the CPU; ``APART`` was measured on that alone.
        batch_size: pictures that are opened together.
    """
    together = [*files, *good]
    seen = list(described(together, open, features, batch_size))
    there = [place for place, one in enumerate(seen) if one is not None]
    label, strange = np.zeros(len(together), int), np.zeros(len(together), bool)
    if there:
        told = grouped(np.stack([one for one in seen if one is not None]))
        label[there], strange[there] = told
    inspected = np.arange(len(together)) < len(files)
    groups: list[ProductGroup] = []
    for number in range(label.max(initial=0) + 1):
        own = [(together[place], place) for place in np.flatnonzero(label == number)]
        some = tuple(file for file, place in own if inspected[place])
        if some:
            limits = tuple(file for file, place in own if not inspected[place])
            odd = tuple(file for file, place in own if inspected[place] and strange[place])
            groups.append(ProductGroup(f"product {len(groups) + 1}", some, limits, odd))
    return groups


def grouped(descriptions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups of descriptions ``(n, D)`` of unit length, and which of them resemble none.

    Returns:
        ``(n,)`` int64 number of the group, 0 for the largest, of strange ones the nearest; and
        ``(n,)`` bool. All are one group, and none is strange, where nothing is a group.
    """
    n = len(descriptions)
    sample = np.unique(evenly(range(n), _MOST)) if n > _MOST else np.arange(n)
    x = descriptions[sample]
    parts = fcluster(linkage(x, "single"), APART, "distance") if len(x) > 1 else np.ones(len(x))
    names, sizes = np.unique(parts, return_counts=True)
    order = sorted(range(len(names)), key=lambda k: (-sizes[k], np.argmax(parts == names[k])))
    groups = [names[k] for k in order if sizes[k] >= FEWEST]
    if not groups:
        return np.zeros(n, int), np.zeros(n, bool)
    own = np.stack([cdist(descriptions, x[parts == group]).min(1) for group in groups], axis=1)
    return own.argmin(1), own.min(1) > APART


def described(
    files: Sequence[Path],
    open: Callable[[Path], Picture],
    features: LayeredBackbone | None = None,
    batch_size: int = DEFAULT_BATCH,
) -> list[np.ndarray | None]:
    """Descriptions ``(D,)`` of pictures, of unit length; None for what cannot be opened.

    The means of a picture's patches, each depth of the same length. Arguments as of
    ``found_groups``.
    """
    features = features or load_features()
    layers = layers_at(features, _STRIDES)

    @torch.inference_mode()
    def describe(pictures: list[Picture]) -> list[np.ndarray]:
        shown = torch.stack([features.preprocess(one) for one in pictures])
        means = [
            F.normalize(one.float().mean((2, 3)), dim=1) for one in features.maps(shown, layers)
        ]
        return list(F.normalize(torch.cat(means, dim=1), dim=1).double().numpy())

    found = (seen.result for seen in stream(files, open, describe, batch_size))
    return [None if isinstance(one, Failure) else one for one in found]
