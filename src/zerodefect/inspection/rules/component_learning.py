"""Components learned from a user's boxes or named clusters, with good pictures beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zerodefect.files import atomic_write
from zerodefect.images import Picture
from zerodefect.inspection.rules.component_model import (
    Clusters,
    ComponentModel,
    PatchRows,
    PatchScale,
    boxed,
    claimed,
    named_clusters,
)
from zerodefect.inspection.rules.component_parts import strengths
from zerodefect.inspection.rules.component_sources import ComponentError, ComponentSource
from zerodefect.inspection.sources import digest, evenly

MOST_PICTURES = 16
"""Good pictures, at most, that components are learned from, besides those with boxes."""

_SIZE = (256, 256)  # strengths are shares, whatever the size


def learn_components(
    sources: Sequence[ComponentSource],
    clusters: Clusters | None,
    references: Sequence[Picture],
    rows: Callable[[Picture], PatchRows],
    opened: Callable[[str], Picture],
) -> ComponentModel | None:
    """What the components look like; None where words name all of them.

    Args:
        sources: how each was told.
        clusters: those that numbers mean.
        references: good pictures.
        rows: patches of a picture; the network runs.
        opened: a picture by its file.

    Raises:
        ComponentError: boxes and clusters are mixed, or something that a source names is not there.
        ImageError: a picture cannot be read.
    """
    by_box = [one for one in sources if one.box]
    by_number = [one for one in sources if one.clusters]
    if by_box and by_number:
        raise ComponentError(
            "components by boxes and by clusters cannot be mixed: give boxes for all, or name "
            "clusters for all"
        )
    some = references if len(references) <= MOST_PICTURES else evenly(references, MOST_PICTURES)
    if by_box:
        return _by_boxes(by_box, list(some), rows, opened)
    if by_number:
        if clusters is None:
            raise ComponentError(
                "components by clusters take the file of them: make it with 'zerodefect components "
                "good/', and give it as --clusters FILE"
            )
        return _by_clusters(by_number, clusters, [rows(picture) for picture in some])
    return None


def _by_boxes(
    sources: Sequence[ComponentSource],
    pictures: list[Picture],
    rows: Callable[[Picture], PatchRows],
    opened: Callable[[str], Picture],
) -> ComponentModel:
    names = [digest(picture) for picture in pictures]
    boxes: dict[str, dict[int, list[tuple[int, int, int, int]]]] = {}
    for one in sources:
        assert one.file is not None and one.box is not None
        picture = opened(one.file)
        own = digest(picture)
        if own not in names:
            names.append(own)
            pictures.append(picture)
        boxes.setdefault(one.name, {}).setdefault(names.index(own), []).append(one.box)
    seen = [rows(picture) for picture in pictures]
    masks = {
        name: {
            i: np.any([boxed(seen[i].shape, pictures[i], box) for box in some], axis=0)
            for i, some in each.items()
        }
        for name, each in boxes.items()
    }
    return _modelled(tuple(boxes), *claimed(seen, masks), seen, names)


def _by_clusters(
    sources: Sequence[ComponentSource], clusters: Clusters, seen: Sequence[PatchRows]
) -> ComponentModel:
    numbers: dict[str, list[int]] = {}
    for one in sources:
        numbers.setdefault(one.name, []).extend(one.clusters)
    looks = named_clusters(clusters, numbers)
    return _modelled(tuple(numbers), *looks, [*clusters.examples, *seen], clusters.digests)


def _modelled(
    names: tuple[str, ...],
    scale: PatchScale,
    prototypes: Tensor,
    owners: Tensor,
    seen: Sequence[PatchRows],
    digests: Sequence[str],
) -> ComponentModel:
    """The model, with what is the usual strength of a component's strongest part."""
    made = ComponentModel(names, scale, prototypes, owners, torch.ones(len(names)), tuple(digests))
    strongest: list[list[float]] = [[] for _ in names]
    for one in seen:
        for found, margin in zip(strongest, made.margins(one), strict=True):
            found.extend(strengths(margin, _SIZE, None)[:1])
    usual = []
    for name, own in zip(names, strongest, strict=True):
        if not own:
            raise ComponentError(
                f"component {name!r} is found in no good picture, not even in its own boxes: draw "
                "them within the component, or name other clusters"
            )
        usual.append(float(np.median(own)))
    return ComponentModel(names, scale, prototypes, owners, torch.tensor(usual), tuple(digests))


def save_clusters(clusters: Clusters, path: Path) -> None:
    """Write the file of clusters.

    Raises:
        StoreError: the operating system refused to write.
    """
    with atomic_write(path) as file:
        file.write(clusters.to_bytes())


def load_clusters(path: str | Path) -> Clusters:
    """Read the file of clusters.

    Raises:
        ComponentError: it cannot be read; the message names file and remedy.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ComponentError(
            f"{path}: cannot be read ({error.strerror}). Make it with 'zerodefect components good/'"
        ) from None
    return Clusters.from_bytes(data, str(path))
