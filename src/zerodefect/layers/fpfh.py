"""Fast Point Feature Histograms (Rusu, Blodow and Beetz, ICRA 2009): how the surface bends around.

Symbols: p a point and n its normal, of unit length; s and t the two ends of a pair; u, v, w the
Darboux frame at s; alpha, phi, theta the angles of section III; SPFH the histograms of a point with
its neighbours, FPFH those with its neighbours' ones; omega the distance to a neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree
from torch import Tensor

BINS = 11  # of each angle, as in the paper
WIDTH = 3 * BINS
_SMALL = 1e-12
_TIE = 1e-5  # cosines that are the same but for rounding
_PAIRS = 2**16  # that are held at once: few enough for a processor's cache


def neighbours_within(points: Tensor, radius: float, most: int) -> Tensor:
    """Rows of the nearest other points, the nearest first.

    Args:
        points: ``(N, 3)``, finite.
        radius: how far they may lie, in the unit of the points.
        most: K, how many are wanted at most.

    Returns:
        ``(N, K)`` int64, -1 where there are no more.
    """
    if not len(points):
        return torch.zeros(0, most, dtype=torch.int64, device=points.device)
    known = points.detach().double().cpu().numpy()
    found = cKDTree(known).query(known, k=range(1, most + 2), distance_upper_bound=radius)[1]
    rows = torch.from_numpy(found)
    rows = rows.where(rows < len(points), -1)  # what is not found has the number of points
    own = torch.arange(len(points))[:, None]
    behind = torch.where(rows == own, 2, (rows < 0).long())  # copies of a point stay in order
    order = behind.argsort(dim=1, stable=True)[:, :most]
    rows = rows.gather(1, order)
    return rows.where(rows != own, -1).to(points.device)


def surface_normals(points: Tensor, neighbours: Tensor, viewpoint: Tensor | None = None) -> Tensor:
    """Normals by the least spread of a point and its neighbours, turned to who looks.

    Args:
        points: ``(N, 3)``.
        neighbours: ``(N, K)`` rows, -1 for none.
        viewpoint: ``(3,)``; by default the origin, where the camera stands.

    Returns:
        ``(N, 3)`` of unit length; of a point with fewer than two neighbours, the direction to the
        viewpoint.
    """
    there = (neighbours >= 0).to(points.dtype)[..., None]
    near = points[neighbours.clamp(min=0)] - points[:, None]  # (N, K, 3), from the point itself
    count = there.sum(1) + 1
    mean = (near * there).sum(1) / count
    spread = ((near - mean[:, None]) * there).mT @ (near - mean[:, None])
    spread = spread + mean[:, :, None] * mean[:, None]
    scale = spread.diagonal(dim1=1, dim2=2).sum(1).clamp(min=_SMALL)[:, None, None]
    normals = torch.linalg.eigh((spread / scale).double())[1][..., 0].to(points.dtype)
    look = -points if viewpoint is None else viewpoint - points
    look = look / look.norm(dim=1, keepdim=True).clamp(min=_SMALL)
    normals = torch.where((normals * look).sum(1, keepdim=True) < 0, -normals, normals)
    return torch.where(count < 3, look, normals)


def darboux_angles(p: Tensor, n: Tensor, q: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The angles between two points ``p``, ``q`` and their normals ``n``, ``m``: ``(..., 3)``.

    The source s is the end whose normal makes the smaller angle with the line through both; where
    both make the same, it is ``p``.

    Returns:
        alpha = v . n_t and phi = u . (p_t - p_s) / omega in [-1, 1], theta = arctan(w . n_t,
        u . n_t) in [-pi, pi]. Of two points at one place, and where the normal lies on the line,
        so that there is no frame, all are 0.
    """
    line = [b - a for a, b in zip(p.unbind(-1), q.unbind(-1), strict=True)]
    omega = _dot(line, line).sqrt()
    d = [each / omega.clamp(min=_SMALL) for each in line]
    ends = n.unbind(-1), m.unbind(-1)
    first, second = (_dot(end, d) for end in ends)
    swapped = first.abs() < second.abs() - _TIE
    u, n_t = (
        [torch.where(swapped, b, a) for a, b in zip(*each, strict=True)]
        for each in (ends, ends[::-1])
    )
    d = [torch.where(swapped, -each, each) for each in d]
    v = [d[1] * u[2] - d[2] * u[1], d[2] * u[0] - d[0] * u[2], d[0] * u[1] - d[1] * u[0]]
    length = _dot(v, v).sqrt()
    phi, along = torch.where(swapped, -second, first), _dot(u, n_t)
    # w = u x v, where v = d x u: its product with n_t needs no further vector
    across = _dot(d, n_t) - phi * along
    there = (omega > _SMALL) & (length > 1e-6)
    alpha = _dot(v, n_t) / length.clamp(min=_SMALL) * there
    theta = torch.atan2(across / length.clamp(min=_SMALL), along) * there
    return alpha.clamp(-1, 1), (phi * there).clamp(-1, 1), theta


def _dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Axis by axis, which is much faster than along a last dimension of three."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def spfh(points: Tensor, normals: Tensor, neighbours: Tensor) -> Tensor:
    """Histograms ``(N, 33)`` of alpha, phi and theta over a point's neighbours.

    Each of the three sums to 1, or to 0 of a point without neighbours. A value is shared between
    the two bins whose middles it lies between, so that nothing jumps where a pair passes the border
    of a bin.
    """
    step = max(1, _PAIRS // max(1, neighbours.shape[1]))
    rows = torch.arange(len(points), device=points.device)
    parts = [_histograms(points, normals, neighbours, some) for some in rows.split(step)]
    return torch.cat(parts) if parts else points.new_zeros(0, WIDTH)


def _histograms(points: Tensor, normals: Tensor, neighbours: Tensor, rows: Tensor) -> Tensor:
    near = neighbours[rows]
    at = near.clamp(min=0)
    p, n = (each[rows][:, None].expand(*at.shape, 3) for each in (points, normals))
    there = (near >= 0).to(points.dtype)
    share = there / there.sum(1, keepdim=True).clamp(min=1)
    histograms = []
    angles = darboux_angles(p, n, points[at], normals[at])
    for angle, end in zip(angles, (1.0, 1.0, math.pi), strict=True):
        place = ((angle / end + 1) / 2 * BINS - 0.5).clamp(0, BINS - 1)  # in bins, from a middle
        low = place.floor().clamp(max=BINS - 2)
        own = points.new_zeros(len(rows), BINS)
        own.scatter_add_(1, low.long(), share * (1 - (place - low)))
        own.scatter_add_(1, low.long() + 1, share * (place - low))
        histograms.append(own)
    return torch.cat(histograms, dim=1)


def fpfh(points: Tensor, normals: Tensor, neighbours: Tensor) -> Tensor:
    """Fast Point Feature Histograms ``(N, 33)``: equation 2 of the paper.

    FPFH(p) = SPFH(p) + 1/k sum of SPFH(p_i) / omega_i, where omega is taken in units of the mean
    distance to the neighbours, so that the feature knows no unit; each of the three histograms is
    then brought to the sum 1.

    Args:
        points: ``(N, 3)``.
        normals: ``(N, 3)`` of unit length.
        neighbours: ``(N, K)`` rows, -1 for none.

    Returns:
        ``(N, 33)`` in [0, 1]: alpha, phi, theta, eleven bins each; 0 without neighbours.
    """
    own = spfh(points, normals, neighbours)
    at, there = neighbours.clamp(min=0), (neighbours >= 0).to(points.dtype)
    omega = (points[at] - points[:, None]).norm(dim=-1)
    k = there.sum(1, keepdim=True).clamp(min=1)
    mean = (omega * there).sum(1, keepdim=True) / k
    weight = there * mean / omega.clamp(min=1e-3 * mean.clamp(min=_SMALL)) / k
    both = own + F.embedding_bag(at, own, per_sample_weights=weight, mode="sum")
    three = both.unflatten(1, (3, BINS))
    return (three / three.sum(2, keepdim=True).clamp(min=_SMALL)).flatten(1)
