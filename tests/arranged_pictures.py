"""Pictures of a product whose parts go together, and of the same parts put together wrongly."""

from __future__ import annotations

import torch

RED, BLUE = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.9])


def pair(above: torch.Tensor, below: torch.Tensor, seed: int, gap: int = 0) -> torch.Tensor:
    """``(3, 64, 64)`` in [0, 1]: two squares on grey with a little noise."""
    draws = torch.Generator().manual_seed(seed)
    image = torch.full((3, 64, 64), 0.5)
    image[:, 8:24, 16:48] = above[:, None, None]
    image[:, 40 - gap : 56 - gap, 16:48] = below[:, None, None]
    return image + 0.02 * torch.randn(image.shape, generator=draws)


def good(count: int = 8) -> torch.Tensor:
    """Both squares of one colour: red or blue in turn."""
    return torch.stack([pair(*2 * [(RED, BLUE)[seed % 2]], seed) for seed in range(count)])
