"""The prompt-query head (AdaptCLIP, arXiv 2505.09926): a picture beside normal ones.

Each patch of the picture asked about, the query, is put beside the nearest patch of normal pictures
of the same product, the prompts. A small head learns which differences are damage; as it sees
differences and no product, it serves products that it never saw.

Symbols: q a query's patches, r the nearest of the prompts, z the joint feature, N = h*w the number
of patches, M that of the prompts, C their width, K the number of layers that patches are read at.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zerodefect.layers.adapters import BatchNorm, initialised, linear
from zerodefect.layers.similarity import inner_products

_HIGHEST = 10  # values of each channel that stand for what is small


def nearest_prompts(q: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest prompt patch to each query patch, by cosine.

    Args:
        q: ``(B, N, C)`` of unit length.
        prompts: ``(B, M, C)`` of unit length, those of each query's own normal pictures.

    Returns:
        Patches ``(B, N, C)``, and cosine distances ``1 - cos`` in [0, 2], ``(B, N)``.
    """
    cosines, rows = inner_products(q, prompts).max(dim=-1)
    found = prompts.gather(1, rows[..., None].expand(-1, -1, prompts.shape[-1]))
    return found, (1 - cosines).clamp(min=0)


class PromptQueryHead(nn.Module):
    """Map and image logits from patches and the normal patches nearest to them.

    Each layer has a normalisation of its own; the two heads are shared by all layers.

    Args:
        width: C.
        layers: K.
        hidden: channels of the first hidden layer, those of the second are half of it.
        context: whether the head sees the patch itself besides its difference (``q + |q - r|``).
        generator: source of the initial values, which are torch's default ones.
    """

    def __init__(
        self, width: int, layers: int, hidden: int, *, context: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.context = context
        half, skip = max(1, hidden // 2), nn.utils.skip_init

        def drawn(kind: type, *shape: int, **how: object) -> nn.Module:
            layer: nn.Module = initialised(skip(kind, *shape, **how), generator)
            return layer

        self.norms = nn.ModuleList(BatchNorm(width) for _ in range(layers))
        self.local_head = nn.Sequential(
            drawn(nn.Conv2d, width, hidden, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            drawn(nn.ConvTranspose2d, hidden, hidden, kernel_size=2, stride=2),
            drawn(nn.Conv2d, hidden, half, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
            drawn(nn.ConvTranspose2d, half, half, kernel_size=2, stride=2),
            drawn(nn.Conv2d, half, 2, kernel_size=1),
        )
        self.global_head = nn.Sequential(
            linear(width, hidden, generator, bias=False),
            BatchNorm(hidden),
            nn.ReLU(),
            linear(hidden, half, generator, bias=False),
            BatchNorm(half),
            nn.ReLU(),
            linear(half, 2, generator, bias=False),
        )

    def forward(
        self, q: Sequence[Tensor], r: Sequence[Tensor], shape: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Logits of normal and anomalous.

        Args:
            q: per layer ``(B, N, C)`` patches of unit length.
            r: per layer the nearest prompt patch of each, likewise.
            shape: ``(h, w)`` of the grid.

        Returns:
            Of the map ``(K, B, 2, 4h, 4w)`` and of the image ``(K, B, 2)``, per layer.
        """
        maps, images = [], []
        for norm, q_l, r_l in zip(self.norms, q, r, strict=True):
            difference = (q_l - r_l).abs()
            z = norm((q_l + difference if self.context else difference).mT)  # (B, C, N)
            highest = z.topk(min(_HIGHEST, z.shape[-1]), dim=-1).values
            maps.append(self.local_head(z.unflatten(-1, shape)))
            images.append(self.global_head((z.mean(dim=-1) + highest.mean(dim=-1)) / 2))
        return torch.stack(maps), torch.stack(images)
