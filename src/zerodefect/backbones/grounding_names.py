"""Grounding DINO under the names that its authors' files have.

The authors' files (Liu et al., arXiv 2303.05499), and those tuned from them, hold the tensors of
transformers' ``GroundingDinoForObjectDetection`` under other names; query, key and value of an
attention lie in one tensor there, and what layers share stands once for each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from torch import Tensor

_SWIN = "model.backbone.conv_encoder.model."
_ENCODER, _DECODER = r"transformer\.encoder\.", r"transformer\.decoder\."
_LAYER, _OWN = r"layers\.(\d+)\.", r"model.encoder.layers.\1."
_THREE = ("query", "key", "value")  # stand for @
_FULL = {"linear1": "fc1", "linear2": "fc2"}
_ATTENTION = {
    "self_attn.in_proj_weight": "self_attn.@.weight",
    "self_attn.in_proj_bias": "self_attn.@.bias",
}
_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.qkv": "attention.self.@",
    "attn.proj": "attention.output.dense",
    "attn.relative_position_bias_table": "attention.self.relative_position_bias_table",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_FUSION = {
    "gamma_v": "vision_param",
    "gamma_l": "text_param",
    "layer_norm_v": "layer_norm_vision",
    "layer_norm_l": "layer_norm_text",
    "attn.v_proj": "attn.vision_proj",
    "attn.l_proj": "attn.text_proj",
    "attn.values_v_proj": "attn.values_vision_proj",
    "attn.values_l_proj": "attn.values_text_proj",
    "attn.out_v_proj": "attn.out_vision_proj",
    "attn.out_l_proj": "attn.out_text_proj",
}
_DECODING = {
    **_FULL,
    **_ATTENTION,
    "norm1": "encoder_attn_layer_norm",
    "norm2": "self_attn_layer_norm",
    "norm3": "final_layer_norm",
    "cross_attn": "encoder_attn",
    "ca_text.in_proj_weight": "encoder_attn_text.@.weight",
    "ca_text.in_proj_bias": "encoder_attn_text.@.bias",
    "ca_text": "encoder_attn_text",
    "catext_norm": "encoder_attn_text_layer_norm",
}
_TEXT = {**_FULL, **_ATTENTION, "norm1": "layer_norm_before", "norm2": "layer_norm_after"}
_SEEN = {**_FULL, "norm1": "self_attn_layer_norm", "norm2": "final_layer_norm"}
_PLACES: tuple[tuple[str, str, Mapping[str, str]], ...] = (
    (r"backbone\.0\.patch_embed\.proj\.", f"{_SWIN}embeddings.patch_embeddings.projection.", {}),
    (r"backbone\.0\.patch_embed\.norm\.", f"{_SWIN}embeddings.norm.", {}),
    (rf"backbone\.0\.{_LAYER}(blocks\.\d+\.)", rf"{_SWIN}encoder.layers.\1.\2", _BLOCK),
    (rf"backbone\.0\.{_LAYER}downsample\.", rf"{_SWIN}encoder.layers.\1.downsample.", {}),
    *(
        (rf"backbone\.0\.norm{n}\.", f"{_SWIN}hidden_states_norms.stage{n + 1}.", {})
        for n in range(4)
    ),
    (r"input_proj\.", "model.input_proj_vision.", {}),
    (r"bert\.", "model.text_backbone.", {}),
    (r"feat_map\.", "model.text_projection.", {}),
    (r"(?:transformer\.decoder\.)?bbox_embed\.", "bbox_embed.", {}),
    (r"transformer\.level_embed$", "model.level_embed", {}),
    (r"transformer\.tgt_embed\.", "model.query_position_embeddings.", {}),
    (r"transformer\.enc_output\.", "model.enc_output.", {}),
    (r"transformer\.enc_output_norm\.", "model.enc_output_norm.", {}),
    (r"transformer\.enc_out_bbox_embed\.", "model.encoder_output_bbox_embed.", {}),
    (rf"{_ENCODER}text_{_LAYER}", f"{_OWN}text_enhancer_layer.", _TEXT),
    (rf"{_ENCODER}fusion_{_LAYER}", f"{_OWN}fusion_layer.", _FUSION),
    (rf"{_ENCODER}{_LAYER}", f"{_OWN}deformable_layer.", _SEEN),
    (rf"{_DECODER}{_LAYER}", r"model.decoder.layers.\1.", _DECODING),
    (rf"{_DECODER}norm\.", "model.decoder.layer_norm.", {}),
    (rf"{_DECODER}ref_point_head\.", "model.decoder.reference_points_head.", {}),
)
"""How names begin there and here, and what then stands for what; the first that fits counts."""

_UNREAD = (
    "label_enc.weight",  # of their training
    "bert.embeddings.position_ids",  # counted, not learned
    "bert.pooler.*",
    "*.relative_position_index",
)


def is_published(names: Iterable[str]) -> bool:
    """Whether values with such names are a Grounding DINO of the authors'."""
    return any(name.endswith("transformer.level_embed") for name in names)


def under_own_names(published: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of an authors' file by the names of transformers' files.

    All layers of the decoder read boxes by one head, which a file may hold several times.

    Args:
        published: by the authors' names.

    Returns:
        The tensors, and what is wrong: names that are unknown, three in one that cannot be parted,
        heads that should be one and differ.
    """
    state: dict[str, Tensor] = {}
    faults = []
    for name, value in published.items():
        if any(fnmatchcase(name, pattern) for pattern in _UNREAD):
            continue
        own = _own_name(name)
        if own is None:
            faults.append(f"unknown {name}")
            continue
        own = re.sub(r"^bbox_embed\.\d+\.", "bbox_embed.0.", own)
        for each, part in _parted(own, value):
            if each in state and not state[each].equal(part):
                faults.append(f"{name} differs from what the network shares with it, {each}")
            state[each] = part
        if "@" in own and len(value) % 3:
            faults.append(f"{name} is {tuple(value.shape)}, which is not three in one")
    return state, faults


def _own_name(name: str) -> str | None:
    for theirs, ours, parts in _PLACES:
        found = re.match(theirs, name)
        if found is None:
            continue
        rest = name[found.end() :]
        for part, own in parts.items():
            if rest == part or rest.startswith(f"{part}."):
                rest = own + rest[len(part) :]
                break
        return found.expand(ours) + rest
    return None


def _parted(own: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if "@" not in own:
        yield own, value
    elif len(value) % 3 == 0:
        for which, part in zip(_THREE, value.chunk(3), strict=True):
            yield own.replace("@", which), part.clone()
