"""Shapes of CLIP's towers, as open_clip's files and OpenAI's weights tell them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from zerodefect.backbones.transformer import Activation


@dataclass(frozen=True)
class VisionConfig:
    """Shape of the image tower; sizes in pixels."""

    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0


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
    """Shape and activation of both towers."""

    embed_dim: int
    vision: VisionConfig
    text: TextConfig
    activation: Activation = "gelu"

    @classmethod
    def from_open_clip(cls, config: Mapping[str, Any]) -> CLIPConfig:
        """Read open_clip's model configuration (``model_configs/*.json``).

        Raises:
            ValueError: the configuration is not a plain ViT CLIP (ResNet, timm or Hugging Face
                towers, attentional pooling, no class token).
        """
        vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
        foreign = sorted(
            {k for k in vision if k.startswith("timm_") or k in ("attentional_pool", "no_ln_pre")}
            | {k for k in text if k.startswith("hf_") or k == "no_causal_mask"}
        )
        foreign = [k for k in foreign if vision.get(k) or text.get(k)]
        if not isinstance(vision.get("layers"), int):
            foreign.append("ResNet image tower")
        if vision.get("pool_type", "tok") != "tok" or text.get("pool_type", "argmax") != "argmax":
            foreign.append("pooling other than the class and end-of-text token")
        if foreign:
            raise ValueError(
                "not a plain ViT CLIP, which the towers here run: " + ", ".join(foreign)
            )
        return cls(
            embed_dim=config["embed_dim"],
            vision=VisionConfig(
                image_size=vision["image_size"],
                patch_size=vision["patch_size"],
                width=vision["width"],
                layers=vision["layers"],
                heads=vision["width"] // vision.get("head_width", 64),
                mlp_ratio=vision.get("mlp_ratio", 4.0),
            ),
            text=TextConfig(
                context_length=text.get("context_length", 77),
                vocab_size=text.get("vocab_size", 49408),
                width=text["width"],
                heads=text["heads"],
                layers=text["layers"],
                mlp_ratio=text.get("mlp_ratio", 4.0),
            ),
            activation="quick_gelu" if config.get("quick_gelu") else "gelu",
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], activation: Activation) -> CLIPConfig:
        """Derive the shape from weights in the OpenAI layout, whose heads are 64 wide.

        Raises:
            ValueError: a tensor that the layout needs is absent.
        """
        try:
            conv, text = state["visual.conv1.weight"], state["token_embedding.weight"]
            patches = state["visual.positional_embedding"].shape[0] - 1
            context = state["positional_embedding"].shape[0]
            embed_dim = state["text_projection"].shape[1]
            vision_mlp = state["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
            text_mlp = state["transformer.resblocks.0.mlp.c_fc.weight"].shape[0]
        except KeyError as error:
            raise ValueError(
                f"not weights of a ViT CLIP in the OpenAI layout: no {error}"
            ) from None
        width, patch = conv.shape[0], conv.shape[2]
        grid = round(patches**0.5)
        if grid * grid != patches:
            raise ValueError(f"{patches} patch positions do not form a square grid")
        return cls(
            embed_dim=embed_dim,
            vision=VisionConfig(
                image_size=grid * patch,
                patch_size=patch,
                width=width,
                layers=_count_blocks(state, "visual.transformer"),
                heads=width // 64,
                mlp_ratio=vision_mlp / width,
            ),
            text=TextConfig(
                context_length=context,
                vocab_size=text.shape[0],
                width=text.shape[1],
                heads=text.shape[1] // 64,
                layers=_count_blocks(state, "transformer"),
                mlp_ratio=text_mlp / text.shape[1],
            ),
            activation=activation,
        )

    def to_open_clip(self) -> dict[str, Any]:
        """Write the configuration as open_clip reads it."""
        vision, text = self.vision, self.text
        return {
            "embed_dim": self.embed_dim,
            "quick_gelu": self.activation == "quick_gelu",
            "vision_cfg": {
                "image_size": vision.image_size,
                "layers": vision.layers,
                "width": vision.width,
                "head_width": vision.width // vision.heads,
                "patch_size": vision.patch_size,
                "mlp_ratio": vision.mlp_ratio,
            },
            "text_cfg": {
                "context_length": text.context_length,
                "vocab_size": text.vocab_size,
                "width": text.width,
                "heads": text.heads,
                "layers": text.layers,
                "mlp_ratio": text.mlp_ratio,
            },
        }

    def with_activation(self, activation: Activation) -> CLIPConfig:
        """Return the same shape with another activation."""
        return replace(self, activation=activation)


def _count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    start = f"{prefix}.resblocks."
    return len({name[len(start) :].split(".")[0] for name in state if name.startswith(start)})
