"""Where a product's components lie: patches that are nearest to a component's own prototypes.

The features of patches that the detector computed anyway, and the patch's colour, are brought onto
one scale; k-means over good pictures gives many small clusters. A cluster belongs to a component
where a fair share of its patches lies in boxes of it, or where a user named it; all others are the
rest. A patch is of the component whose prototype is nearest, and the margin to the nearest of
another is how surely. Connected patches are one part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save
from scipy import ndimage
from torch import Tensor

from zerodefect.detector.contract import PatchFeatures
from zerodefect.images import Picture
from zerodefect.inspection.rules.component_sources import ComponentError
from zerodefect.layers.component_maps import cluster_centres, nearest_centre

VERSION: Final = 1
SMALL_CLUSTERS = 64
"""Clusters that boxes claim; small enough that one holds one thing."""
CLAIMED = 0.15
"""Share of a cluster's patches that must lie in a component's boxes; the boxes need not cover all
of it."""

_SEED = 0  # of the start of k-means
_EDGE, _MOSTLY = 2, 0.8  # cells beside a component that may be its edge; share of a cluster there
_EXAMPLES = 6  # pictures whose patches a file of clusters keeps
_OWN_PROTOTYPES = 12  # of the patches in a component's boxes
_COLOUR_WEIGHT = 2.0  # of the colour beside each layer; chosen on good bottles
_LEARNED = b"zerodefect-components"


@dataclass(frozen=True)
class PatchScale:
    """Brings the features of a picture onto one scale.

    Attributes:
        centre: ``(D,)`` mean over good pictures.
        factor: ``(D,)`` by which deviations are multiplied, so that every layer counts alike.
        widths: of the layers' columns, colour last.
    """

    centre: Tensor
    factor: Tensor
    widths: tuple[int, ...]

    @classmethod
    def of(cls, rows: Tensor, widths: Sequence[int]) -> PatchScale:
        """Learn it from patches ``(N, D)`` of good pictures."""
        centre = rows.mean(0)
        spread = [b.pow(2).sum(1).mean().sqrt() for b in (rows - centre).split(tuple(widths), 1)]
        weights = [1.0] * (len(widths) - 1) + [_COLOUR_WEIGHT]
        parts = [
            torch.full((width,), weight / max(float(own), 1e-6))
            for width, weight, own in zip(widths, weights, spread, strict=True)
        ]
        return cls(centre, torch.cat(parts), tuple(widths))

    def __call__(self, rows: Tensor) -> Tensor:
        """Patches ``(N, D)`` on the scale.

        Raises:
            ComponentError: they are another detector's.
        """
        if rows.shape[1] != len(self.centre):
            raise ComponentError(
                "the components were learned by another detector: give their boxes or clusters anew"
            )
        return (rows - self.centre) * self.factor


@dataclass(frozen=True)
class PatchRows:
    """The patches of one picture, row by row.

    Attributes:
        values: ``(h * w, D)`` float32: the features with the finest grid, and the colour.
        widths: of the columns of each.
        shape: ``(h, w)``.
    """

    values: Tensor
    widths: tuple[int, ...]
    shape: tuple[int, int]


def patch_rows(features: Sequence[PatchFeatures], picture: Picture) -> PatchRows:
    """The patches of a picture, by what the detector computed and by colour.

    Args:
        features: of the whole picture, a batch of one.
        picture: as it was shown.

    Raises:
        ComponentError: the method gives no features of patches.
    """
    if not features:
        raise ComponentError(
            "the method gives no features of patches to find components by: take another method, "
            "or name components by words"
        )
    finest = max((one.grid.shape for one in features), key=lambda shape: shape[0] * shape[1])
    kept = [one.values[0].float().cpu() for one in features if one.grid.shape == finest]
    blocks = [*kept, _colours(picture, finest)]
    return PatchRows(torch.cat(blocks, 1), tuple(b.shape[1] for b in blocks), finest)


def _colours(picture: Picture, shape: tuple[int, int]) -> Tensor:
    """Mean colour of each patch in CIE L*a*b* (D65), ``(h * w, 3)``."""
    small = Image.fromarray(picture.to_uint8()).resize(shape[::-1], Image.Resampling.BOX)
    srgb = np.asarray(small, np.float64) / 255
    linear = np.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    lab = [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])]
    return torch.from_numpy(np.stack(lab, -1).reshape(-1, 3)).float()


@dataclass(frozen=True)
class Clusters:
    """Clusters of the patches of good pictures, which a user names.

    Attributes:
        scale: of the features.
        centres: ``(k, D)``; cluster 1 is the first.
        digests: of the pictures that they were learned from.
        examples: patches of a few of them, to tell what is usual of a component.
    """

    scale: PatchScale
    centres: Tensor
    digests: tuple[str, ...] = ()
    examples: tuple[PatchRows, ...] = ()

    @classmethod
    def of(cls, pictures: Sequence[PatchRows], count: int, digests: Sequence[str]) -> Clusters:
        """Learn them from the patches of good pictures."""
        rows = torch.cat([one.values for one in pictures])
        scale = PatchScale.of(rows, pictures[0].widths)
        centres = cluster_centres(scale(rows), count, _SEED)
        common = nearest_centre(scale(rows), centres).bincount(minlength=len(centres))
        order = common.argsort(descending=True, stable=True)  # the largest is number 1
        return cls(scale, centres[order], tuple(digests), tuple(pictures[:_EXAMPLES]))

    def numbers(self, picture: PatchRows) -> np.ndarray:
        """Number of each patch's cluster, ``(h, w)`` from 1."""
        nearest = nearest_centre(self.scale(picture.values), self.centres) + 1
        return nearest.reshape(picture.shape).numpy()

    def to_bytes(self) -> bytes:
        """As safetensors."""
        shapes = [one.shape for one in self.examples]
        facts = {"digests": self.digests, "widths": self.scale.widths, "shapes": shapes}
        tensors = {
            "centre": self.scale.centre,
            "factor": self.scale.factor,
            "centres": self.centres,
        }
        rows = {f"example{n}": one.values.half() for n, one in enumerate(self.examples)}
        return _written({**tensors, **rows}, {"kind": "clusters", **facts})

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> Clusters:
        """Read what ``to_bytes`` gave; ``path`` is for the error.

        Raises:
            ComponentError: another kind of file, a newer version, or damaged.
        """
        tensors, told = _read(data, path, "clusters")
        try:
            widths = tuple(told["widths"])
            scale = PatchScale(tensors["centre"], tensors["factor"], widths)
            examples = tuple(
                PatchRows(tensors[f"example{n}"].float(), widths, (shape[0], shape[1]))
                for n, shape in enumerate(told["shapes"])
            )
            return cls(scale, tensors["centres"], tuple(told["digests"]), examples)
        except (KeyError, TypeError) as error:
            raise ComponentError(f"{path}: damaged ({error}). Make it again") from None


@dataclass(frozen=True)
class ComponentModel:
    """What a product's components look like.

    Attributes:
        names: of the components.
        scale: of the features.
        prototypes: ``(P, D)``.
        owners: ``(P,)`` int64: 0 the rest, 1 the first component, ...
        usual: ``(n,)`` strength of the strongest part of each component on a usual good picture,
            see ``component_parts``.
        digests: of the pictures that it was learned from.
    """

    names: tuple[str, ...]
    scale: PatchScale
    prototypes: Tensor
    owners: Tensor
    usual: Tensor
    digests: tuple[str, ...] = field(default=())

    def margins(self, picture: PatchRows) -> np.ndarray:
        """How much nearer each patch is to a component than to anything else, ``(n, h, w)``."""
        x = self.scale(picture.values)
        near = torch.stack(
            [
                torch.cdist(x, self.prototypes[self.owners == k]).amin(1)
                for k in range(len(self.names) + 1)
            ]
        )
        margins = []
        for k in range(1, len(near)):
            others = torch.cat([near[:k], near[k + 1 :]]).amin(0)
            margins.append(others - near[k])
        return torch.stack(margins).reshape(-1, *picture.shape).numpy()

    def to_bytes(self) -> bytes:
        """As safetensors."""
        tensors = {
            **{"centre": self.scale.centre, "factor": self.scale.factor, "usual": self.usual},
            **{"prototypes": self.prototypes, "owners": self.owners},
        }
        facts = {"names": self.names, "widths": self.scale.widths, "digests": self.digests}
        return _written(tensors, {"kind": "components", **facts})

    @classmethod
    def from_bytes(cls, data: bytes, path: str) -> ComponentModel:
        """Read what ``to_bytes`` gave; errors as of ``Clusters.from_bytes``."""
        tensors, told = _read(data, path, "components")
        try:
            scale = PatchScale(tensors["centre"], tensors["factor"], tuple(told["widths"]))
            names = tuple(map(str, told["names"]))
            made = cls(
                *(names, scale, tensors["prototypes"], tensors["owners"], tensors["usual"]),
                tuple(told["digests"]),
            )
        except (KeyError, TypeError) as error:
            raise ComponentError(f"{path}: damaged ({error}). Make it again") from None
        if set(made.owners.tolist()) != set(range(len(names) + 1)) or len(made.usual) != len(names):
            raise ComponentError(f"{path}: damaged (components without prototypes). Make it again")
        return made


def boxed(shape: tuple[int, int], picture: Picture, box: tuple[int, int, int, int]) -> np.ndarray:
    """The patches that lie within a box, ``(h, w)`` bool; of a small one that in its middle.

    Raises:
        ComponentError: the box does not lie within the picture.
    """
    x, y, width, height = box
    if x + width > picture.width or y + height > picture.height:
        raise ComponentError(
            f"{picture.path}: the box {x},{y},{width},{height} does not lie within its "
            f"{picture.width} x {picture.height} pixels"
        )
    found = np.zeros(shape, bool)
    sides = []
    for low, length, side, cells in (
        (y, height, picture.height, shape[0]),
        (x, width, picture.width, shape[1]),
    ):
        first, last = -(-low * cells // side), (low + length) * cells // side
        middle = int((low + length / 2) * cells / side)
        sides.append(slice(first, last) if last > first else slice(middle, middle + 1))
    found[sides[0], sides[1]] = True
    return found


def claimed(
    pictures: Sequence[PatchRows], boxes: Mapping[str, Mapping[int, np.ndarray]]
) -> tuple[PatchScale, Tensor, Tensor]:
    """Prototypes by boxes.

    Args:
        pictures: patches of good pictures.
        boxes: by component, and by number of the picture: ``(h, w)`` bool, what lies in boxes.

    Returns:
        The scale, prototypes ``(P, D)`` and their owners ``(P,)``.

    Raises:
        ComponentError: all that there is lies in boxes, or nothing in those of a component.
    """
    rows = torch.cat([one.values for one in pictures])
    scale = PatchScale.of(rows, pictures[0].widths)
    centres = cluster_centres(scale(rows), SMALL_CLUSTERS, _SEED)
    counts = torch.zeros(len(boxes) + 1, len(centres))
    own: list[list[Tensor]] = [[] for _ in boxes]
    for number in sorted({number for each in boxes.values() for number in each}):
        values = scale(pictures[number].values)
        where = torch.from_numpy(_owners(pictures[number].shape, boxes, number).ravel())
        nearest = nearest_centre(values, centres)
        for k in range(len(counts)):
            counts[k] += nearest[where == k].bincount(minlength=len(centres))
        for k, some in enumerate(own):
            some.append(values[where == k + 1])
    share, owner = (counts[1:] / counts.sum(0).clamp(min=1)).max(0)
    owners = torch.where(share > CLAIMED, owner + 1, 0)
    if not (owners == 0).any():
        raise ComponentError("the boxes cover all that there is: draw them within the components")
    edges = _edges(pictures, scale, centres, owners)
    if not (edges | (owners > 0)).all():
        centres, owners = centres[~edges], owners[~edges]
    looks = []
    for name, some in zip(boxes, own, strict=True):
        if not sum(map(len, some)):
            raise ComponentError(f"the boxes of {name!r} hold nothing but smaller boxes of others")
        looks.append(cluster_centres(torch.cat(some), _OWN_PROTOTYPES, _SEED))
    numbers = [torch.full((len(one),), k + 1) for k, one in enumerate(looks)]
    return scale, torch.cat([centres, *looks]), torch.cat([owners, *numbers])


def _owners(
    shape: tuple[int, int], boxes: Mapping[str, Mapping[int, np.ndarray]], number: int
) -> np.ndarray:
    """Whose box each patch of a picture lies in, ``(h, w)``: the smaller one wins, 0 for none."""
    found = np.zeros(shape, int)
    masks = [(k + 1, each[number]) for k, each in enumerate(boxes.values()) if number in each]
    for k, mask in sorted(masks, key=lambda one: -int(one[1].sum())):
        found[mask] = k
    return found


def _edges(
    pictures: Sequence[PatchRows], scale: PatchScale, centres: Tensor, owners: Tensor
) -> Tensor:
    """Clusters ``(k,)`` bool of the rest that are but the edges of components.

    Their patches show half of a component; without them the border lies where a patch is as near to
    the component as to what is around it, and not at the inner side of its edge.
    """
    near, every = torch.zeros(len(centres)), torch.zeros(len(centres))
    for one in pictures:
        cluster = nearest_centre(scale(one.values), centres)
        inside = (owners[cluster] > 0).reshape(one.shape).numpy()
        beside = ndimage.binary_dilation(inside, np.ones((3, 3)), iterations=_EDGE)
        near += cluster[torch.from_numpy(beside.ravel())].bincount(minlength=len(centres))
        every += cluster.bincount(minlength=len(centres))
    return (owners == 0) & (near >= _MOSTLY * every)


def named_clusters(
    clusters: Clusters, numbers: Mapping[str, Sequence[int]]
) -> tuple[PatchScale, Tensor, Tensor]:
    """Prototypes by clusters that a user named; as of ``claimed``.

    Raises:
        ComponentError: there is no such cluster, or one has two names.
    """
    owners = torch.zeros(len(clusters.centres), dtype=torch.int64)
    for k, (name, own) in enumerate(numbers.items()):
        for number in own:
            if number > len(owners):
                raise ComponentError(
                    f"component {name!r}: there is no cluster {number}, but 1 to {len(owners)}"
                )
            if owners[number - 1]:
                raise ComponentError(
                    f"cluster {number} is named twice: a patch is of one component"
                )
            owners[number - 1] = k + 1
    if not (owners == 0).any():
        raise ComponentError("every cluster is named: leave the background without a name")
    return clusters.scale, clusters.centres, owners


def _written(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> bytes:
    told = {"format": _LEARNED.decode(), "version": VERSION, **facts}
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    return save(plain, {"zerodefect": json.dumps(told)})


def _read(data: bytes, path: str, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a file that ``_written`` wrote."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])["__metadata__"]["zerodefect"]
        told, tensors = json.loads(header), load(data)
    except (SafetensorError, ValueError, LookupError, TypeError) as error:
        raise ComponentError(f"{path}: no file of {kind}, or damaged ({error})") from None
    if not isinstance(told, dict) or told.get("kind") != kind:
        raise ComponentError(f"{path}: no file of {kind}")
    if told.get("version", 0) > VERSION:
        raise ComponentError(f"{path}: written by a later version. Update ZeroDefect")
    if not all(torch.isfinite(one).all() for one in tensors.values()):
        raise ComponentError(f"{path}: holds values that are not finite. Make it again")
    return tensors, told
