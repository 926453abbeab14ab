"""Tiny random networks of transformers' own classes, in folders as users have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def sam_folder(folder: Path) -> Path:
    """A SAM for inputs of 64 pixels."""
    from transformers import SamConfig, SamModel

    torch.manual_seed(0)
    vision = {
        "hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 64, "patch_size": 8, "mlp_dim": 32, "window_size": 4,
        "global_attn_indexes": [1], "num_pos_feats": 16,
    }  # fmt: skip
    prompts = {"hidden_size": 32, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
    decoder = {"hidden_size": 32, "mlp_dim": 32, "iou_head_hidden_dim": 32}
    config = SamConfig(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
    )
    SamModel(config).save_pretrained(folder)
    return folder


def sam2_folder(folder: Path) -> Path:
    """A SAM 2 for inputs of 128 pixels."""
    from transformers import Sam2Config, Sam2HieraDetConfig, Sam2Model, Sam2VisionConfig

    torch.manual_seed(0)
    widths = [12, 24, 48, 96]
    trunk = Sam2HieraDetConfig(
        hidden_size=12, image_size=[128, 128], embed_dim_per_stage=widths,
        blocks_per_stage=[1, 1, 2, 1], num_attention_heads_per_stage=[1, 2, 4, 8],
        global_attention_blocks=[3],
    )  # fmt: skip
    vision = Sam2VisionConfig(
        backbone_config=trunk, backbone_channel_list=widths[::-1], fpn_hidden_size=32,
        backbone_feature_sizes=[[32, 32], [16, 16], [8, 8]],
    )  # fmt: skip
    prompts = {"hidden_size": 32, "image_size": 128, "patch_size": 16, "mask_input_channels": 4}
    decoder = {"hidden_size": 32, "mlp_dim": 32, "iou_head_hidden_dim": 32}
    config = Sam2Config(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder
    )
    Sam2Model(config).save_pretrained(folder)
    return folder


def grounding_dino_folder(folder: Path) -> Path:
    """A Grounding DINO with two queries, and a tokeniser of a few words."""
    from transformers import (
        BertTokenizerFast,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        SwinConfig,
    )

    torch.manual_seed(0)
    shape: dict[str, Any] = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4}
    swin = SwinConfig(
        window_size=7, image_size=64, out_features=["stage2", "stage3", "stage4"], **shape
    )
    text = {
        "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 8, "max_position_embeddings": 32, "vocab_size": 1040,
    }  # fmt: skip
    config = GroundingDinoConfig(
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=16, decoder_ffn_dim=4, num_queries=2,
        max_text_len=24, use_timm_backbone=False, backbone_config=swin, text_config=text,
    )  # fmt: skip
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    # the network itself knows these four by their numbers
    fixed = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 1012: ".", 1029: "?"}
    fixed |= {1030: "scratch", 1031: "hole", 1032: "white"}
    words = [fixed.get(number, f"[unused{number}]") for number in range(1040)]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words), "utf-8")
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    return folder
