"""Weights that a small image tower begins with, so that it learns from few pictures.

A vision transformer that begins with plain random numbers first has to find out which patches lie
side by side, and from some ten thousand pictures it hardly does.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zerodefect.backbones.clip import VisionTower
from zerodefect.procedural.camera import cosines


@torch.no_grad()
def prepare(tower: VisionTower, seed: int) -> None:
    """Overwrite patch embedding, positions and attention of a tower by what they can begin with."""
    generator = torch.Generator().manual_seed(seed)
    whiten(tower.conv1.weight)
    positions = tower.positional_embedding
    positions[1:] = waves(tower.native_grid, positions.shape[1]).to(positions)
    for block in tower.transformer.blocks:
        attention = block.attn
        weights = attention.in_proj_weight, attention.out_proj.weight
        attend_alike(*weights, attention.heads, generator)


@torch.no_grad()
def whiten(filters: Tensor) -> None:
    """Let patch embedding begin as a cosine transform whose gain rises with frequency.

    In pictures of surfaces nearly all energy is in the patch mean; a fine crack is a thousandth
    of it. Filters in proportion to frequency show both to the first block alike. ``filters`` are
    ``(W, 3, P, P)``, overwritten; those beyond ``3 P^2`` keep their values.
    """
    transform = cosines(filters.shape[-1])
    n = torch.arange(len(transform), dtype=torch.float64)
    basis = torch.einsum("ux,vy->uvxy", transform, transform)
    gain = 0.1 + 0.5 * torch.hypot(n[:, None], n[None]).clamp(max=3.0)
    colours = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    colours = colours / colours.norm(dim=1, keepdim=True)
    full = torch.einsum("uvxy,uv,kc->uvkcxy", basis, gain, colours)
    # Low frequencies first, so that a narrow tower keeps what matters most.
    order = (n[:, None] + n[None]).flatten().argsort(stable=True)
    full = full.flatten(0, 1)[order].flatten(0, 1)
    count = min(len(filters), len(full))
    filters[:count] = full[:count].to(filters)


def waves(grid: tuple[int, int], width: int, length: float = 4.0) -> Tensor:
    """Positions as sines and cosines of row and column, alike where patches lie close together.

    As in Vaswani et al. 2017 (section 3.5), in two dimensions. Periods run from four patches, which
    resizing to another grid keeps, to four times the grid. Result ``(N, W)``, each of norm
    ``length``; what remains of ``width`` after division by four is zero.
    """
    count = width // 4
    found = torch.zeros(grid[0] * grid[1], width, dtype=torch.float64)
    if not count:
        return found
    rank = torch.arange(count, dtype=torch.float64) / max(1, count - 1)
    periods = 4.0 * max(grid) ** rank
    parts = []
    for side in grid:
        angle = (torch.arange(side, dtype=torch.float64) + 0.5)[:, None] * (2 * math.pi / periods)
        parts.append(torch.cat([angle.sin(), angle.cos()], 1))  # (side, 2 count)
    rows, columns = parts
    both = [rows[:, None].expand(-1, grid[1], -1), columns[None].expand(grid[0], -1, -1)]
    found[:, : 4 * count] = torch.cat(both, 2).flatten(0, 1) * (length / (2 * count) ** 0.5)
    return found


@torch.no_grad()
def attend_alike(in_proj: Tensor, out_proj: Tensor, heads: int, generator: torch.Generator) -> None:
    """Let each head begin by looking at what is like the token itself, above all its neighbours.

    Mimetic initialisation (Trockman and Kolter, ICML 2023, section 4): per head
    ``W_q^T W_k = 0.7 Z + 0.7 I``, over all heads ``W_v^T W_o = 0.4 Z - 0.4 I``, Z Gaussian of
    variance 1 / W, each factored by singular values. Overwrites ``in_proj (3 W, W)`` and
    ``out_proj (W, W)``.
    """
    width = in_proj.shape[1]
    size = width // heads

    def factors(noise: float, own: float) -> tuple[Tensor, Tensor]:
        Z = torch.randn(width, width, generator=generator) / width**0.5
        U, S, Vt = torch.linalg.svd(noise * Z + own * torch.eye(width))
        return U * S.sqrt(), Vt.T * S.sqrt()

    for head in range(heads):
        q, k = factors(0.7, 0.7)
        rows = slice(head * size, (head + 1) * size)
        in_proj[:width][rows] = q[:, :size].T.to(in_proj)
        in_proj[width : 2 * width][rows] = k[:, :size].T.to(in_proj)
    o, v = factors(0.4, -0.4)
    in_proj[2 * width :] = v.T.to(in_proj)
    out_proj.copy_(o.to(out_proj))
