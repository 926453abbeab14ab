"""EfficientNet-Lite: a convolutional network whose stages are read as features.

Tan and Le, "EfficientNet", ICML 2019 (arXiv 1905.11946), table 1; the Lite variants are Google's
for small devices: ReLU6, no squeeze-and-excitation, a first layer and a first and last stage that
do not grow. Not timm's, whose import takes longer than an inspection. Weights are frozen, so that
the convolutions do the normalisation behind them (Jacob et al., CVPR 2018, section 3.2) and the
padding before them, equal but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerodefect.backbones.backbone import check_layers
from zerodefect.images import Preprocess

_STAGES = (  # side of the kernels, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_VARIANTS = {  # width, depth, pixels of the input
    "efficientnet_lite0": (1.0, 1.0, 224),
    "efficientnet_lite1": (1.0, 1.1, 240),
    "efficientnet_lite2": (1.1, 1.2, 260),
}
LITE = tuple(_VARIANTS)
_FIRST = 32  # channels of the first layer, at stride 2
STRIDES = {0: 2, 1: 4, 2: 8, 4: 16, 6: 32}
"""Stages that end at a stride, and their strides."""


class StridedSame(nn.Conv2d):
    """Convolution of stride 2 with TensorFlow's "same" padding, without a padded copy of its input.

    That padding adds zeros behind the last pixel alone; a kernel that begins with zeros needs as
    many before the first one, and a convolution adds those by itself. Kernels are square with an
    odd side of three or more; inputs are of any size.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to half the size, rounded up."""
        even = [1 - side % 2 for side in x.shape[-2:]]  # there zeros only follow the last pixel
        weight = F.pad(self.weight, (even[1], 0, even[0], 0))
        reach = self.kernel_size[0] // 2
        return F.conv2d(x, weight, self.bias, 2, reach, 1, self.groups)


class _Block(nn.Module):
    """Inverted residual; without expansion its first convolution is absent."""

    def __init__(self, given: int, expanded: int, channels: int, side: int, stride: int) -> None:
        super().__init__()
        kind = nn.Conv2d if stride == 1 else StridedSame
        depthwise = kind(expanded, expanded, side, stride, side // 2, groups=expanded)
        self.adds = stride == 1 and given == channels
        self.expands = expanded != given
        if self.expands:
            self.conv_pw = nn.Conv2d(given, expanded, 1)
            self.conv_dw = depthwise
            self.conv_pwl = nn.Conv2d(expanded, channels, 1)
        else:
            self.conv_dw = depthwise
            self.conv_pw = nn.Conv2d(expanded, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.conv_pw(x)) if self.expands else x
        y = F.relu6(self.conv_dw(y))
        y = self.conv_pwl(y) if self.expands else self.conv_pw(y)
        return x + y if self.adds else y


class EfficientNetLite(nn.Module):
    """Seven stages of inverted residuals, without head and classifier.

    Modules have timm's names of them, normalisation lies in the convolutions.

    Args:
        name: one of ``LITE``.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        width, depth, self.side = _VARIANTS[name]
        self.conv_stem = StridedSame(3, _FIRST, 3, 2)
        self.blocks = nn.ModuleList()
        self.channels: list[int] = []  # of the stages
        given = _FIRST
        for number, (side, stride, expansion, published, count) in enumerate(_STAGES):
            channels = int(published * width + 4) // 8 * 8  # the nearest multiple of 8
            grows = 0 < number < len(_STAGES) - 1
            stage = nn.Sequential()
            for block in range(ceil(count * depth) if grows else count):
                step = 1 if block else stride
                stage.append(_Block(given, given * expansion, channels, side, step))
                given = channels
            self.blocks.append(stage)
            self.channels.append(channels)

    def forward(self, x: Tensor, stages: Sequence[int]) -> list[Tensor]:
        """Outputs of stages.

        Args:
            x: ``(B, 3, H, W)`` in [-1, 1].
            stages: their numbers from 0, ascending; nothing behind the last is computed.

        Returns:
            ``(B, C, ceil(H / stride), ceil(W / stride))`` for each.
        """
        # channels of a pixel side by side: convolutions then take two thirds of the time
        x = F.relu6(self.conv_stem(x.contiguous(memory_format=torch.channels_last)))
        found = []
        for number, stage in enumerate(self.blocks[: stages[-1] + 1]):
            x = stage(x)
            if number in stages:
                found.append(x)
        return found


class LiteFeatures(nn.Module):
    """EfficientNet-Lite as a ``LayeredBackbone``; layers are ``blocks.0`` to ``blocks.6``.

    Args:
        network: with weights.
        name: as the user would name it again.
        fingerprint: SHA-256 of the weights file, hexadecimal.
    """

    activation = None  # no file of learned values hangs on it
    licence: str | None = None
    file: Path | None = None

    def __init__(self, network: EfficientNetLite, name: str, fingerprint: str) -> None:
        super().__init__()
        self.network, self.name, self.fingerprint = network, name, fingerprint
        self.layers = {f"blocks.{stage}": stride for stage, stride in STRIDES.items()}
        self.stride, self.width = max(STRIDES.values()), network.channels[-1]
        self.preprocess = Preprocess((network.side,) * 2, (0.5,) * 3, (0.5,) * 3)

    @property
    def precision(self) -> str:
        """Of the weights."""
        return str(self.network.conv_stem.weight.dtype).removeprefix("torch.")

    def maps(self, pixels: Tensor, names: Sequence[str]) -> list[Tensor]:
        """See ``LayeredBackbone``; nothing behind the last layer wanted is computed."""
        check_layers(self, names)
        stages = sorted({int(name.removeprefix("blocks.")) for name in names})
        found = self.network(pixels.to(self.network.conv_stem.weight.dtype), stages)
        maps = {f"blocks.{stage}": each.float() for stage, each in zip(stages, found, strict=True)}
        return [maps[name] for name in names]
