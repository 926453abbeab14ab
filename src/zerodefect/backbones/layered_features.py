"""Pretrained features by name: convolutional networks, ViTs, and the image towers of CLIPs.

All are read alike, see ``backbone.LayeredBackbone``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zerodefect.backbones.backbone import LayeredBackbone, check_layers
from zerodefect.backbones.clip import Activation
from zerodefect.backbones.clip_weights import EMBEDDED, CLIPBackbone, load_clip
from zerodefect.backbones.efficientnet import LITE, LiteFeatures
from zerodefect.backbones.efficientnet_weights import EFFICIENTNET, lite_network
from zerodefect.backbones.vision import VisionEncoder, timm_network
from zerodefect.backbones.weight_files import WeightsError, file_hash
from zerodefect.images import Preprocess


class TimmFeatures(nn.Module):
    """Any network of timm's that gives its intermediate layers: a ``LayeredBackbone``.

    ResNets and their kin, EfficientNets, ConvNeXts, DINOv3's ViTs. Layers are named as timm's
    modules are: ``layer2`` of a ResNet, ``blocks.4`` of an EfficientNet.

    Args:
        model: the network, with weights.
        name: as the user would name it again.
        fingerprint: SHA-256 of the weights file, hexadecimal.

    Raises:
        ValueError: a network that does not give its layers.
    """

    activation = None  # no file of learned values hangs on it
    licence: str | None = None
    file: Path | None = None

    def __init__(self, model: Any, name: str, fingerprint: str) -> None:
        super().__init__()
        told = getattr(model, "feature_info", None)
        if not told or not hasattr(model, "forward_intermediates"):
            raise ValueError(f"{name}: timm does not give its intermediate layers; choose another")
        self.model: Any = model
        self.name, self.fingerprint = name, fingerprint
        self.layers = {str(layer["module"]): int(layer["reduction"]) for layer in told}
        self.stride, self.width = max(self.layers.values()), int(told[-1]["num_chs"])
        facts = model.pretrained_cfg
        how: Any = "bilinear" if facts.get("interpolation") == "bilinear" else "bicubic"
        height, width = facts["input_size"][1:]
        self.preprocess = Preprocess(
            (height, width), tuple(facts["mean"]), tuple(facts["std"]), interpolation=how
        )

    @property
    def precision(self) -> str:
        """Of the weights."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def maps(self, pixels: Tensor, names: Sequence[str]) -> list[Tensor]:
        """See ``LayeredBackbone``; nothing behind the last layer wanted is computed."""
        check_layers(self, names)
        order = list(self.layers)
        wanted = sorted({order.index(name) for name in names})
        found = self.model.forward_intermediates(
            pixels.to(self._dtype), indices=wanted, intermediates_only=True, stop_early=True
        )
        maps = {order[index]: each.float() for index, each in zip(wanted, found, strict=True)}
        return [maps[name] for name in names]


class CLIPFeatures(nn.Module):
    """The image tower of a CLIP: a ``LayeredBackbone`` whose blocks pass ``ln_post``.

    Args:
        clip: towers and what travels with them.
    """

    activation = None  # the tower's own; no file of learned values hangs on it

    def __init__(self, clip: CLIPBackbone) -> None:
        super().__init__()
        self.visual, self._clip = clip.clip.visual, clip
        self.name, self.fingerprint, self.preprocess = clip.name, clip.fingerprint, clip.preprocess
        self.licence, self.file = clip.licence, clip.file
        self.stride, self.width, self.precision = clip.stride, clip.width, clip.precision
        blocks = clip.clip.config.vision.layers
        self.layers = dict.fromkeys((f"blocks.{i}" for i in range(blocks)), clip.stride)

    def maps(self, pixels: Tensor, names: Sequence[str]) -> list[Tensor]:
        """See ``LayeredBackbone``."""
        check_layers(self, names)
        visual, grid = self.visual, self.visual.grid(pixels)
        taps = [int(name.removeprefix("blocks.")) + 1 for name in names]
        tokens = visual.embed(pixels.to(visual.proj.dtype))
        states = visual.encode(tokens, taps=sorted(set(taps))).taps
        return [
            visual.project(states[tap], projection=False)[:, 1:].float().mT.unflatten(2, grid)
            for tap in taps
        ]

    def residual(self, pixels: Tensor, names: Sequence[str]) -> tuple[list[Tensor], Tensor]:
        """``maps`` of the residual stream as it is, without ``ln_post``, and image embeddings.

        Returns:
            The maps, and ``(B, D)`` float32: the projected class token, not normalised.
        """
        check_layers(self, names)
        visual, grid = self.visual, self.visual.grid(pixels)
        taps = [int(name.removeprefix("blocks.")) + 1 for name in names]
        states = visual.encode(visual.embed(pixels.to(visual.proj.dtype)), taps=sorted(set(taps)))
        maps = [states.taps[tap][:, 1:].float().mT.unflatten(2, grid) for tap in taps]
        return maps, visual.project(states.tokens[:, 0]).float()

    def with_activation(self, activation: Activation | Literal["weights"]) -> CLIPFeatures:
        """The same weights in a tower that runs with another activation."""
        return CLIPFeatures(self._clip.with_activation(activation)).eval().requires_grad_(False)


def load_features(
    name: str | None = None,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **shape: Any,
) -> LayeredBackbone:
    """Load pretrained features, frozen and in eval mode; nothing is downloaded.

    Args:
        name: None or ``efficientnet_lite0`` (``1``, ``2``): the weights of that pip package.
            ``"embedded"`` or open_clip's ``"MODEL/TAG"``: the image tower of a CLIP. Else timm's
            name of a network.
        weights: local file for it, in timm's layout or as its authors released it; None for the
            caches of Hugging Face and PyTorch.
        device: where it goes.
        dtype: its precision.
        shape: what differs from timm's architecture of that name (``img_size``, ``depth``, ...).

    Raises:
        WeightsError: unknown name, or a file that is absent, damaged or of another shape.
    """
    name = name or EFFICIENTNET
    made: Any
    if name == EMBEDDED or "/" in name:
        made = CLIPFeatures(load_clip(name, weights=weights, dtype=dtype))
    elif name in LITE:
        network, path = lite_network(name, weights)
        made = LiteFeatures(network.to(dtype), _told(name, weights), file_hash(path))
        made.file = path.absolute()
        made.licence = None if weights else "Apache-2.0"
    else:
        made = _from_timm(name, weights, dtype, **shape)
    return made.to(device).eval().requires_grad_(False)


def _told(name: str, weights: str | Path | None) -> str:
    return name if weights is None else f"{name} ({Path(weights).name})"


def _from_timm(
    name: str, weights: str | Path | None, dtype: torch.dtype, **shape: Any
) -> VisionEncoder | TimmFeatures:
    from timm.models.vision_transformer import VisionTransformer

    model, path = timm_network(name, weights, dtype, **shape)
    kind = VisionEncoder if isinstance(model, VisionTransformer) else TimmFeatures
    try:
        made: VisionEncoder | TimmFeatures = kind(model, _told(name, weights), file_hash(path))
    except ValueError as error:
        raise WeightsError(str(error)) from None
    made.file = path.absolute()
    made.licence = None if weights else model.pretrained_cfg.get("license")
    return made
