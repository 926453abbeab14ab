"""CLIP's two towers (Radford et al. 2021, arXiv 2103.00020), with the paths the field needs.

Weights come from elsewhere and are filled in by name (``backbones/clip_weights.py``); the block
loop is ours (``backbones/transformer.py``), so that a method chooses taps, second streams and deep
prompts by option instead of editing a transformer. Conventions that hold throughout:

- Tensors are batch first. ``W`` is a tower's width, ``D`` the joint embedding dimension, ``N`` the
  number of patches, ``L`` a sequence length.
- Blocks are numbered from 1, as in the papers.
- Nothing here is normalised to unit length and nothing is detached: that is the method's business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerodefect.backbones import open_clip_names
from zerodefect.backbones.backbone import patch_grid
from zerodefect.backbones.stem import Stem
from zerodefect.backbones.transformer import Activation, Edits, States, Transformer
from zerodefect.backbones.weight_files import misfits

PositionResize = Literal["bicubic", "bicubic_antialias", "bilinear"]

END_OF_TEXT = 49407  # CLIP's byte-pair vocabulary: the last entry ends every text

# Constants that OpenAI's and open_clip's files carry beside the weights.
_IGNORED = frozenset({"input_resolution", "context_length", "vocab_size", "attn_mask"})
_NOT_TEXT = ("visual.", "fine.", "logit_scale")
_Shape = TypeVar("_Shape", "VisionConfig", "TextConfig")


@dataclass(frozen=True)
class VisionConfig:
    """Shape of the image tower; sizes in pixels.

    ``stem`` names a frozen convolutional network (``backbones/stem.py``) that makes the patches
    in place of the patch convolution.
    """

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0
    stem: str | None = None


@dataclass(frozen=True)
class TextConfig:
    """Shape of the text tower."""

    context_length: int
    vocab_size: int
    width: int
    heads: int
    layers: int
    mlp_ratio: float = 4.0


@dataclass(frozen=True)
class CLIPConfig:
    """Shape and activation of the towers.

    ``fine`` is the shape of a second image tower into the same joint space; only methods that ask
    for it run it.
    """

    embed_dim: int
    vision: VisionConfig
    text: TextConfig
    activation: Activation = "gelu"
    fine: VisionConfig | None = None

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any]) -> CLIPConfig:
        """Read open_clip's model configuration (``model_configs/*.json``).

        Raises:
            ValueError: the configuration is not a plain ViT CLIP (ResNet, timm or Hugging Face
                towers, attentional pooling, no class token).
        """
        vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
        foreign = [k for k in vision if k.startswith(("timm_", "attentional_pool", "no_ln_pre"))]
        foreign += [k for k in text if k.startswith(("hf_", "no_causal_mask"))]
        foreign = sorted(k for k in foreign if vision.get(k) or text.get(k))
        if not isinstance(vision.get("layers"), int):
            foreign.append("ResNet image tower")
        if vision.get("pool_type", "tok") != "tok" or text.get("pool_type", "argmax") != "argmax":
            foreign.append("pooling other than the class and end-of-text token")
        if foreign:
            raise ValueError(
                "not a plain ViT CLIP, which the towers here run: " + ", ".join(foreign)
            )
        fine = config.get("fine_cfg")
        return cls(
            config["embed_dim"],
            _vision(vision),
            _picked(TextConfig, {"context_length": 77, "vocab_size": 49408, **text}),
            "quick_gelu" if config.get("quick_gelu") else "gelu",
            _vision(fine) if fine else None,
        )

    def to_open_clip(self) -> dict[str, Any]:
        """Write the configuration as open_clip reads it; ``fine_cfg`` and ``stem`` are ours."""
        written: dict[str, Any] = {
            "embed_dim": self.embed_dim,
            "quick_gelu": self.activation == "quick_gelu",
            "vision_cfg": _written(self.vision),
            "text_cfg": asdict(self.text),
        }
        return written | ({"fine_cfg": _written(self.fine)} if self.fine else {})


def _vision(facts: Mapping[str, Any]) -> VisionConfig:
    heads = facts["width"] // facts.get("head_width", 64)
    return _picked(VisionConfig, {**facts, "heads": heads})


def _written(shape: VisionConfig) -> dict[str, Any]:
    facts = {name: value for name, value in asdict(shape).items() if value is not None}
    facts["head_width"] = facts["width"] // facts.pop("heads")
    return facts


def _picked(shape: type[_Shape], facts: Mapping[str, Any]) -> _Shape:
    return shape(
        **{field.name: facts[field.name] for field in fields(shape) if field.name in facts}
    )


class VisionTower(nn.Module):
    """CLIP's image tower. ``(B, 3, H, W)`` normalised pixels, any H and W that patches divide."""

    def __init__(self, config: VisionConfig, embed_dim: int, activation: Activation) -> None:
        super().__init__()
        self.config = config
        width, side = config.width, config.image_size // config.patch_size
        self.native_grid = (side, side)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(side * side + 1, width))
        if config.stem is None:
            self.conv1 = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        else:
            self.stem = Stem(config.stem, width)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(
            width, config.layers, config.heads, config.mlp_ratio, activation
        )
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, embed_dim))

    def grid(self, pixels: Tensor) -> tuple[int, int]:
        """Rows and columns of patches for ``(B, 3, H, W)``; ValueError if none would be whole."""
        return patch_grid(pixels, self.config.patch_size)

    def positions(self, grid: tuple[int, int], resize: PositionResize = "bicubic") -> Tensor:
        """Positional embedding ``(1 + N, W)`` for a grid, resized from the stored one.

        The class row is kept; the grid is interpolated with ``align_corners=False``. Bicubic with
        and without antialiasing use different kernels (a = -0.5 and -0.75) and differ even when
        enlarging.
        """
        if grid == self.native_grid:
            return self.positional_embedding
        stored = self.positional_embedding[1:].T.reshape(1, -1, *self.native_grid)
        resized = F.interpolate(
            stored.float(),
            size=grid,
            mode="bilinear" if resize == "bilinear" else "bicubic",
            antialias=resize == "bicubic_antialias",
            align_corners=False,
        ).to(stored.dtype)
        return torch.cat([self.positional_embedding[:1], resized[0].flatten(1).T])

    def embed(self, pixels: Tensor, *, resize: PositionResize = "bicubic") -> Tensor:
        """Class token and patch embeddings plus positions, before ``ln_pre``: ``(B, 1+N, W)``."""
        grid = self.grid(pixels)
        if self.config.stem is None:
            patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        else:
            patches = self.stem(pixels)
        return self.with_class(patches, grid, resize)

    def with_class(
        self, patches: Tensor, grid: tuple[int, int], resize: PositionResize = "bicubic"
    ) -> Tensor:
        """The class token before patches ``(B, N, W)``, and the positions of their grid on both."""
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        return torch.cat([first, patches], dim=1) + self.positions(grid, resize)

    def encode(self, tokens: Tensor, *, class_only: bool = False, **options: Any) -> States:
        """``ln_pre`` and the blocks over any sequence of embedded tokens ``(B, L, W)``.

        The tokens may be a window of the picture (rows gathered from ``embed``). Options (taps,
        second, edits) as of ``Transformer.forward``; ``class_only`` is its ``first_only``.
        """
        return self.transformer(self.ln_pre(tokens), first_only=class_only, **options)

    def project(self, tokens: Tensor, *, norm: bool = True, projection: bool = True) -> Tensor:
        """``ln_post`` and the projection, each or not, on any tokens ``(..., W) -> (..., D)``."""
        if norm:
            tokens = self.ln_post(tokens)
        return tokens @ self.proj if projection else tokens

    def forward(self, pixels: Tensor) -> Tensor:
        """Image embedding ``(B, D)``, not normalised; equal to open_clip's ``encode_image``."""
        states = self.encode(self.embed(pixels), class_only=True)
        return self.project(states.tokens[:, 0])


class TextTower(nn.Module):
    """CLIP's text tower over token ids or over embeddings given from outside."""

    def __init__(self, config: TextConfig, embed_dim: int, activation: Activation) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positional_embedding = nn.Parameter(torch.empty(config.context_length, config.width))
        self.transformer = Transformer(
            config.width, config.layers, config.heads, config.mlp_ratio, activation
        )
        self.ln_final = nn.LayerNorm(config.width)
        self.text_projection = nn.Parameter(torch.empty(config.width, embed_dim))

    @staticmethod
    def ends(ids: Tensor) -> Tensor:
        """Index of the first end-of-text token in each row, ``(..., L) -> (...)``.

        Raises:
            ValueError: a row has none.
        """
        is_end = ids == END_OF_TEXT
        if not is_end.any(dim=-1).all():
            raise ValueError("a text without end-of-text token; use the tokenizer of CLIP")
        return is_end.int().argmax(dim=-1)

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings without positions, cut after the last end-of-text token of the batch.

        Under the causal mask nothing behind that token can reach it, so the cut is exact.
        """
        return self.token_embedding(ids[..., : int(self.ends(ids).max()) + 1])

    def encode(
        self,
        embeddings: Tensor,
        ends: Tensor,
        *,
        edits: Edits | None = None,
        projection: bool = True,
    ) -> Tensor:
        """Text embeddings from token embeddings.

        Args:
            embeddings: ``(..., L, W)`` without positions, L at most the context length; leading
                dimensions are free (one text set for all images, or one per image).
            ends: ``(...)`` index of the token to read, counted after all edits.
            edits: deep prompts, applied to the flattened ``(B, L, W)``.
            projection: whether they are brought into the joint space.

        Returns:
            ``(..., D)``, or ``(..., W)`` without the projection; not normalised.

        Raises:
            ValueError: the sequence is longer than the context.
        """
        lead, length = embeddings.shape[:-2], embeddings.shape[-2]
        if length > self.config.context_length:
            raise ValueError(
                f"{length} tokens, but the text tower reads {self.config.context_length}"
            )
        x = (embeddings + self.positional_embedding[:length]).flatten(0, -3)
        x = self.transformer(x, causal=True, edits=edits).tokens
        return self.pool(x, ends.flatten(), projection=projection).unflatten(0, lead)

    def pool(self, tokens: Tensor, ends: Tensor, *, projection: bool = True) -> Tensor:
        """``ln_final``, the token at ``ends (B,)`` of ``(B, L, W)``, the projection or not."""
        picked = tokens[torch.arange(len(tokens), device=tokens.device), ends]
        normed = self.ln_final(picked)
        return normed @ self.text_projection if projection else normed

    def forward(self, ids: Tensor) -> Tensor:
        """Text embeddings ``(..., D)`` of token ids ``(..., L)``; open_clip's ``encode_text``."""
        return self.encode(self.embed(ids), self.ends(ids))


class CLIP(nn.Module):
    """The towers and ``logit_scale``, the log of the inverse temperature; all random.

    The initial values are drawn as CLIP prescribes. ``fine`` is the second image tower, where the
    configuration has one.
    """

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = VisionTower(config.vision, config.embed_dim, config.activation)
        self.fine: VisionTower | None = None
        if config.fine is not None:
            self.fine = VisionTower(config.fine, config.embed_dim, config.activation)
        self.text = TextTower(config.text, config.embed_dim, config.activation)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Standard deviations of the CLIP paper's published code (section 2.5 there)."""
        text, images = self.text, [tower for tower in (self.visual, self.fine) if tower]
        for vision in images:
            scale = vision.config.width**-0.5
            for parameter in (vision.class_embedding, vision.positional_embedding, vision.proj):
                nn.init.normal_(parameter, std=scale)
        nn.init.normal_(text.token_embedding.weight, std=0.02)
        nn.init.normal_(text.positional_embedding, std=0.01)
        nn.init.normal_(text.text_projection, std=text.config.width**-0.5)
        for transformer in (*(tower.transformer for tower in images), text.transformer):
            width, layers = transformer.width, transformer.layers
            residual = width**-0.5 * (2 * layers) ** -0.5
            for block in transformer.blocks:
                nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
                nn.init.normal_(block.attn.out_proj.weight, std=residual)
                nn.init.zeros_(block.attn.out_proj.bias)
                nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
                nn.init.normal_(block.mlp.c_proj.weight, std=residual)

    def openai_state(self) -> dict[str, Tensor]:
        """Weights under the names of the OpenAI layout (open_clip's native one)."""
        return {name.removeprefix("text."): value for name, value in self.state_dict().items()}

    def load_openai_state(
        self, state: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
    ) -> None:
        """Fill the towers from weights in the OpenAI layout; every name and shape is checked.

        The tensors are taken over, not copied, where their type is right already.

        Raises:
            ValueError: names are missing or unknown, or shapes differ; the message lists them.
        """
        given = {name: value for name, value in state.items() if name not in _IGNORED}
        faults = misfits(self.openai_state(), given)
        if faults:
            raise ValueError(f"weights do not fit the towers: {faults}")
        renamed = {
            name if name.startswith(_NOT_TEXT) else f"text.{name}": value
            for name, value in given.items()
        }
        self.load_state_dict({k: v.to(dtype) for k, v in renamed.items()}, assign=True)


def tokenize(texts: Sequence[str], context_length: int = 77) -> Tensor:
    """CLIP's byte-pair ids, ``(len(texts), context_length)`` int64, zero padded.

    Raises:
        ValueError: a text does not fit the context (it is never cut silently).
    """
    rows = []
    for text in texts:
        tokens = [END_OF_TEXT - 1, *open_clip_names.encode(text), END_OF_TEXT]
        if len(tokens) > context_length:
            raise ValueError(
                f"{len(tokens)} tokens, but the text tower reads {context_length}; use a shorter "
                f"name or phrase: {text if len(text) <= 100 else text[:97] + '...'!r}"
            )
        rows.append(tokens + [0] * (context_length - len(tokens)))
    return torch.tensor(rows, dtype=torch.long).reshape(len(texts), context_length)
