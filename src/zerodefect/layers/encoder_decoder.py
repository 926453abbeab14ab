"""The two convolutional networks of DRAEM (Zavrtanik et al., ICCV 2021), named as in its files.

Both halve the grid with max pooling and double it bilinearly with aligned corners; w is the width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_DEVIATION = 0.02  # of initial convolution weights, and of norm scales about one


def convolution(channels: int, out: int) -> list[nn.Module]:
    """3 x 3 convolution, batch norm and ReLU, without initial values."""
    conv = nn.utils.skip_init(nn.Conv2d, channels, out, 3, padding=1)
    return [conv, nn.BatchNorm2d(out), nn.ReLU()]


def block(channels: int, out: int, inner: int | None = None) -> nn.Sequential:
    """Two of ``convolution``; between them ``inner`` channels, by default as many as come out."""
    inner = inner or out
    return nn.Sequential(*convolution(channels, inner), *convolution(inner, out))


def up(channels: int, out: int) -> nn.Sequential:
    """Twice the grid, then a ``convolution``."""
    grow = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    return nn.Sequential(grow, *convolution(channels, out))


def last(channels: int, out: int) -> nn.Sequential:
    """The 3 x 3 convolution that gives the output."""
    return nn.Sequential(nn.utils.skip_init(nn.Conv2d, channels, out, 3, padding=1))


class Encoder(nn.Module):
    """Blocks of w, 2w, 4w and 8w channels, then further ones of 8w; pooling between them."""

    def __init__(self, channels: int, w: int, blocks: int) -> None:
        super().__init__()
        widths = [channels, w, 2 * w, 4 * w, *[8 * w] * (blocks - 3)]
        for number in range(blocks):
            made = block(widths[number], widths[number + 1])
            self.add_module(f"block{number + 1}", made)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The output of each block."""
        outputs: list[Tensor] = []
        for layer in self.children():
            x = layer(F.max_pool2d(x, 2) if outputs else x)
            outputs.append(x)
        return outputs


class PlainDecoder(nn.Module):
    """Back to the input's size from the innermost block alone."""

    def __init__(self, w: int, out: int) -> None:
        super().__init__()
        widths = [8 * w, 4 * w, 2 * w, w, w]
        for number in range(4):
            here = widths[number]
            self.add_module(f"up{number + 1}", up(here, here))
            self.add_module(f"db{number + 1}", block(here, widths[number + 1], here))
        self.fin_out = last(w, out)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, out, H, W)``, no activation."""
        for layer in self.children():
            x = layer(x)
        return x


class SkipDecoder(nn.Module):
    """Back to the input's size, at each grid with the encoder's output there."""

    def __init__(self, w: int, out: int) -> None:
        super().__init__()
        names, widths = ("b", "1", "2", "3", "4"), [8 * w, 8 * w, 4 * w, 2 * w, w, w]
        skips = [8 * w, 8 * w, 4 * w, 2 * w, w]
        for number, name in enumerate(names):
            here, then = widths[number], widths[number + 1]
            # names of the published files: up_b, db_b, then up1, db1, ...
            suffix = f"_{name}" if name == "b" else name
            self.add_module(f"up{suffix}", up(here, then))
            self.add_module(f"db{suffix}", block(then + skips[number], then))
        self.fin_out = last(w, out)

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """``(B, out, H, W)`` from what the encoder's blocks gave, no activation."""
        *layers, final = self.children()
        *skips, x = outputs
        for grow, mix, skip in zip(layers[::2], layers[1::2], reversed(skips), strict=True):
            x = mix(torch.cat([grow(x), skip], 1))
        output: Tensor = final(x)
        return output


class ReconstructiveNetwork(nn.Module):
    """Five blocks without skips: ``(B, 3, H, W)`` to the same; sides are multiples of 16."""

    def __init__(self, w: int) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(3, w, 5), PlainDecoder(w, 3)

    def forward(self, images: Tensor) -> Tensor:
        """The images anew."""
        made: Tensor = self.decoder(self.encoder(images)[-1])
        return made


class DiscriminativeNetwork(nn.Module):
    """A U-Net of six blocks: ``(B, channels, H, W)`` to ``(B, out, H, W)``; multiples of 32."""

    def __init__(self, w: int, channels: int, out: int) -> None:
        super().__init__()
        self.encoder_segment = Encoder(channels, w, 6)
        self.decoder_segment = SkipDecoder(w, out)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or images."""
        made: Tensor = self.decoder_segment(self.encoder_segment(x))
        return made


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw convolution weights from N(0, 0.02), norm scales from N(1, 0.02); biases are zero."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)):
            mean = float(isinstance(layer, nn.BatchNorm2d))
            layer.weight.normal_(mean, _DEVIATION, generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()
