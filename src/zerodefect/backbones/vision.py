"""Vision-only encoders through timm: patch tokens of DINO, DINOv2 and other plain ViTs.

timm is imported where an encoder is built. Weights come from a local file or from the hub's cache;
nothing is downloaded unasked, and nothing is unpickled (``backbones/weight_files.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerodefect.backbones.backbone import check_layers, patch_grid
from zerodefect.backbones.weight_files import (
    WeightsError,
    file_hash,
    in_hub_cache,
    misfits,
    read_state,
)
from zerodefect.images import Preprocess, normalised

DINOV2_BASE_REGISTERS = "vit_base_patch14_reg4_dinov2"
DINOV2_SMALL = "vit_small_patch14_dinov2"


class VisionEncoder(nn.Module):
    """A plain ViT of timm's with its weights, reduced to its patch tokens: a ``Backbone``.

    Raises:
        ValueError: another kind of network.
    """

    activation = None  # no file of learned values hangs on it
    licence: str | None = None  # of the weights, where timm tells it
    file: Path | None = None

    def __init__(self, model: Any, name: str, fingerprint: str) -> None:
        from timm.models.vision_transformer import VisionTransformer

        super().__init__()
        plain = isinstance(model, VisionTransformer)
        if not plain or model.pos_embed is None or model.cls_token is None:
            raise ValueError(
                f"{name}: not a plain ViT with a class token and learned positions; choose one "
                f"such as {DINOV2_BASE_REGISTERS}"
            )
        self.model: Any = model
        self.name, self.fingerprint = name, fingerprint
        self.stride = int(model.patch_embed.patch_size[0])
        self.width = int(model.embed_dim)
        facts, size = model.pretrained_cfg, tuple(model.patch_embed.img_size)
        self.preprocess = Preprocess(size, mean=tuple(facts["mean"]), std=tuple(facts["std"]))

    @property
    def precision(self) -> str:
        """Of the weights."""
        return str(self.model.pos_embed.dtype).removeprefix("torch.")

    def forward(self, images: Tensor, blocks: Sequence[int] | None = None) -> list[Tensor]:
        """Patch tokens after the final LayerNorm.

        Args:
            images: ``(B, 3, H, W)``, prepared as ``preprocess`` says; the stride divides H
                and W.
            blocks: whose outputs ``(B, C, H / patch, W / patch)`` are wanted, from 1; None for the
                last one.

        Raises:
            ValueError: a size that patches do not divide, or a block that is not there.
        """
        model, last = self.model, len(self.model.blocks)
        wanted = [last] if blocks is None else list(blocks)
        if not all(1 <= number <= last for number in wanted):
            raise ValueError(f"blocks {wanted}: {self.name} has 1..{last}")
        x, grid = self._embedded(images)
        states = {}
        for number, block in enumerate(model.blocks[: max(wanted)], start=1):
            x = block(x)
            if number in wanted:
                tokens = model.norm(x)[:, model.num_prefix_tokens :]
                states[number] = tokens.transpose(1, 2).unflatten(2, grid)
        return [states[number] for number in wanted]

    @property
    def layers(self) -> dict[str, int]:
        """Blocks, as timm names them: from ``blocks.0``."""
        return dict.fromkeys((f"blocks.{i}" for i in range(len(self.model.blocks))), self.stride)

    def maps(self, pixels: Tensor, names: Sequence[str]) -> list[Tensor]:
        """See ``LayeredBackbone``; every block's tokens pass the final LayerNorm."""
        check_layers(self, names)
        numbers = [int(name.removeprefix("blocks.")) + 1 for name in names]
        return [each.float() for each in self(pixels.to(self.model.pos_embed.dtype), numbers)]

    def like(
        self, images: Tensor, mean: Sequence[float], std: Sequence[float], grid: tuple[int, int]
    ) -> Tensor:
        """Last tokens ``(B, C, *grid)`` of pictures that were prepared for another network.

        They are ``(B, 3, H, W)``, normalised with that network's ``mean`` and ``std``; those that
        do not give the rows and columns wanted are resized (bicubic, antialiased).
        """
        size = (grid[0] * self.stride, grid[1] * self.stride)
        dtype = self.model.pos_embed.dtype
        pixels = images.float() * _channels(std, images) + _channels(mean, images)
        if pixels.shape[-2:] != size:
            pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True)
        own = self.preprocess
        return self(normalised(pixels, own.mean, own.std).to(dtype))[0]

    def _embedded(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens that enter the first block ``(B, P + N, C)``, and their grid."""
        model, grid = self.model, patch_grid(images, self.stride)
        tokens = model.patch_embed.proj(images).flatten(2).transpose(1, 2)
        positions = self._positions(grid)
        parts = [part for part in (model.cls_token, model.reg_token) if part is not None]
        first = torch.cat([part.expand(len(images), -1, -1) for part in parts], dim=1)
        if positions.shape[1] == tokens.shape[1]:  # class token and registers have none
            x = torch.cat([first, tokens + positions], dim=1)
        else:
            x = torch.cat([first, tokens], dim=1) + positions
        return model.norm_pre(x), grid

    def _positions(self, grid: tuple[int, int]) -> Tensor:
        """Positions of the patches, behind the class token's where it has one: ``(1, ., C)``.

        DINO and DINOv2 without registers are resized by a factor that is a tenth of a patch too
        large, which shifts the samples; those with registers to the size, antialiased.
        """
        stored = self.model.pos_embed
        first = 0 if self.model.no_embed_class else self.model.num_prefix_tokens
        side = round((stored.shape[1] - first) ** 0.5)
        if grid == (side, side):
            return stored
        square = stored[:, first:].transpose(1, 2).unflatten(2, (side, side)).float()
        if self.model.reg_token is None:
            factors = [(length + 0.1) / side for length in grid]
            resized = F.interpolate(square, scale_factor=factors, mode="bicubic")
        else:
            resized = F.interpolate(square, size=grid, mode="bicubic", antialias=True)
        resized = resized.flatten(2).transpose(1, 2).to(stored.dtype)
        return torch.cat([stored[:, :first], resized], dim=1)


def _channels(values: Sequence[float], images: Tensor) -> Tensor:
    return torch.tensor(values, device=images.device).view(1, -1, 1, 1)


def load_vision(
    name: str = DINOV2_BASE_REGISTERS,
    *,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    **shape: Any,
) -> VisionEncoder:
    """Load a vision-only encoder, frozen and in eval mode.

    Args:
        name: timm's name of a plain ViT, with or without a tag of pretrained weights.
        weights: local ``.safetensors`` or ``.pth`` file, in timm's layout or as DINO's authors
            released it; None for the hub's cache.
        device: where it goes.
        dtype: its precision.
        shape: what differs from the named architecture (``img_size``, ``depth``, ...).

    Raises:
        WeightsError: unknown name, or a file that is absent, damaged or of another shape.
    """
    model, path = timm_network(name, weights, dtype, **shape)
    encoder = VisionEncoder(model, name, file_hash(path))
    encoder.file = path.absolute()
    encoder.licence = None if weights else model.pretrained_cfg.get("license")
    return encoder.to(device).eval().requires_grad_(False)


def timm_network(
    name: str, weights: str | Path | None, dtype: torch.dtype, **shape: Any
) -> tuple[Any, Path]:
    """Any network of timm's, without its classifier, filled from a local file.

    Arguments and errors as of ``load_vision``. Returns the network and the file.
    """
    model = _built(name, "meta", shape)  # no memory for values that are replaced
    state = model.state_dict()
    if any(buffer not in state for buffer, _ in model.named_buffers()):  # computed, in no file
        model = _built(name, "cpu", shape)
    path = Path(weights) if weights is not None else _cached(name)
    given = _in_timms_names(read_state(path), model)
    faults = misfits(state, given)
    if faults:
        raise WeightsError(
            f"{path}: does not fit {name}: {faults}. Name the architecture that the file is for"
        )
    fill_network(model, given, dtype)
    return model, path


def fill_network(model: Any, state: Mapping[str, Tensor], dtype: torch.dtype) -> None:
    """Put weights that fit into a network, which has this precision afterwards."""
    cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    model.load_state_dict(cast, assign=True)
    model.to(dtype)


def _built(name: str, device: str, shape: Mapping[str, Any]) -> Any:
    import timm

    try:
        with torch.device(device):
            return timm.create_model(name, pretrained=False, num_classes=0, **shape)
    except (RuntimeError, TypeError) as error:
        raise WeightsError(
            f"{name}: timm cannot build it ({str(error).splitlines()[0]}). "
            f"Give one of its names, such as {DINOV2_BASE_REGISTERS}"
        ) from None


def _in_timms_names(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """A file of the authors' as timm names it, without the classifier."""
    family = sys.modules[type(model).__module__]  # where timm keeps what it knows of their files
    if hasattr(family, "checkpoint_filter_fn"):
        state = family.checkpoint_filter_fn(state, model)
    given = model.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([given] if isinstance(given, str) else given))
    kept = {name: value for name, value in state.items() if not name.startswith(heads)}
    counters = [n for n in model.state_dict() if n.endswith("num_batches_tracked")]
    return {**{n: torch.zeros((), dtype=torch.long) for n in counters}, **kept}


def _cached(name: str) -> Path:
    """File of timm's pretrained weights in the local caches."""
    from timm.models import get_pretrained_cfg

    facts = get_pretrained_cfg(name)
    hub, url = (str(facts.hf_hub_id or ""), str(facts.url or "")) if facts else ("", "")
    found = in_hub_cache(hub, ["model.safetensors", "pytorch_model.bin"])
    if found:
        return found
    local = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if url and local.is_file():
        return local
    if not hub and not url:
        raise WeightsError(f"{name}: timm has no pretrained weights for it. Give a local file")
    fetch = f"With a network: hf download {hub} model.safetensors. Without: b" if hub else "B"
    raise WeightsError(
        f"{name}: the weights are not on this machine, and nothing is downloaded unasked. "
        f"{fetch}ring the file from {url or f'https://huggingface.co/{hub}'} and give its path"
    )
