"""What a frozen EfficientNet does beside its convolutions, done by them: fewer passes over maps.

Batch normalisation is a factor and an offset per channel in eval mode, which a convolution does
along with its own (Jacob et al., CVPR 2018, section 3.2), equal but for rounding. Where
TensorFlow's padding adds zeros behind the last pixel alone, a kernel that begins with zeros needs
as many before the first one, and a convolution adds those by itself.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class StridedSame(nn.Conv2d):
    """Convolution of stride 2 with TensorFlow's "same" padding, without a padded copy of its input.

    Kernels are square with an odd side of three or more; inputs are of any size.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` to half the size, rounded up."""
        even = [1 - side % 2 for side in x.shape[-2:]]  # there zeros only follow the last pixel
        weight = F.pad(self.weight, (even[1], 0, even[0], 0))
        reach = self.kernel_size[0] // 2
        return F.conv2d(x, weight, self.bias, 2, reach, 1, self.groups)


def fold(network: nn.Module) -> None:
    """Let convolutions do the normalisation behind them and the padding before them.

    For networks whose modules call their parts in the order in which they hold them, such as timm's
    EfficientNets; names of what stays are as they were. A normalisation that follows something else
    than a plain convolution (one of mixed kernels, say) stays.
    """
    for module in list(network.modules()):
        before: Any = None
        for place, child in list(module.named_children()):
            if isinstance(child, nn.Conv2d):
                before = _strided(child)
                setattr(module, place, before)
                continue
            if isinstance(child, nn.BatchNorm2d) and before is not None:
                _fold_norm(before, child)
                setattr(module, place, getattr(child, "act", nn.Identity()))
            before = None


def _strided(convolution: nn.Conv2d) -> nn.Conv2d:
    """The same convolution without a padded copy, where it makes one."""
    from timm.layers import Conv2dSame

    if not isinstance(convolution, Conv2dSame) or convolution.stride != (2, 2):
        return convolution
    if min(convolution.kernel_size) < 3 or convolution.dilation != (1, 1):
        return convolution
    side, groups, bias = convolution.kernel_size[0], convolution.groups, convolution.bias
    made = StridedSame(
        convolution.in_channels, convolution.out_channels, side, 2, groups=groups, bias=False
    )
    made.weight, made.bias = convolution.weight, bias
    return made


def _fold_norm(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    from torch.nn.utils.fusion import fuse_conv_bn_weights  # its import takes long

    assert norm.running_mean is not None
    assert norm.running_var is not None
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
