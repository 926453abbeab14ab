"""Tiny random networks of transformers' own classes, in folders as users have them.

They say nothing of a picture; they show that what is built on such networks runs.
"""

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


def grounding_dino_folder(folder: Path, length: int = 24) -> Path:
    """A Grounding DINO of two queries, with a tokeniser of a few words.

    ``length`` is the most tokens of a caption.
    """
    import transformers

    of: Any = transformers  # whose stubs lack what it has

    torch.manual_seed(0)
    shape: dict[str, Any] = {"embed_dim": 8, "depths": [1] * 4, "num_heads": [1] * 4}
    swin = of.SwinConfig(
        window_size=7, image_size=64, out_features=["stage2", "stage3", "stage4"], **shape
    )
    text = {
        "model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 8, "max_position_embeddings": length + 8, "vocab_size": 1040,
    }  # fmt: skip
    config = of.GroundingDinoConfig(
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=8,
        decoder_attention_heads=8, encoder_ffn_dim=16, decoder_ffn_dim=4, num_queries=2,
        max_text_len=length, use_timm_backbone=False, backbone_config=swin, text_config=text,
    )  # fmt: skip
    of.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    # the network itself knows these four by their numbers
    fixed = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 1012: ".", 1029: "?"}
    fixed |= {1030: "scratch", 1031: "hole", 1032: "white"}
    words = [fixed.get(number, f"[unused{number}]") for number in range(1040)]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words), "utf-8")
    of.BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    return folder


_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}IMAGE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = (
    *("<pad>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
)


def _byte_tokenizer() -> Any:
    """A tokeniser of single bytes: it reads and writes any text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: number for number, word in enumerate([*_SPECIAL, *alphabet])}
    bytewise = Tokenizer(models.BPE(vocab=words, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bytewise, pad_token="<pad>", eos_token="<|im_end|>",
        additional_special_tokens=list(_SPECIAL), padding_side="left",
    )  # fmt: skip


def llava_folder(folder: Path) -> Path:
    """A LLaVA-OneVision for pictures of 28 pixels, with random words to say."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer = _byte_tokenizer()
    number = tokenizer.convert_tokens_to_ids
    text = {
        "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": len(tokenizer),
        "max_position_embeddings": 4096, "eos_token_id": number("<|im_end|>"),
        "pad_token_id": number("<pad>"),
    }  # fmt: skip
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
        "vision_use_head": False,
    }  # fmt: skip
    config = LlavaOnevisionConfig(
        text_config=text, vision_config=vision, image_token_index=number("<image>"),
        video_token_index=number("<video>"), image_grid_pinpoints=[[28, 28], [28, 56]],
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 28, "width": 28}
    LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(
            size=size, image_grid_pinpoints=[[28, 28], [28, 56]]
        ),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=4,
        vision_feature_select_strategy="full",
        chat_template=_TEMPLATE.replace("IMAGE", "<image>"),
    ).save_pretrained(folder)
    return folder


def qwen2_vl_folder(folder: Path, shards: bool = True) -> Path:
    """A Qwen2-VL: larger pictures have more tokens; its weights are in several files."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )

    torch.manual_seed(0)
    tokenizer = _byte_tokenizer()
    number = tokenizer.convert_tokens_to_ids
    text = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": len(tokenizer),
        "max_position_embeddings": 4096, "eos_token_id": number("<|im_end|>"),
        "bos_token_id": None, "pad_token_id": number("<pad>"),
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {
        "depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2,
        "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    config = Qwen2VLConfig(
        text_config=text, vision_config=vision, image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"), vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )  # fmt: skip
    network = Qwen2VLForConditionalGeneration(config)
    network.save_pretrained(folder, max_shard_size="60KB" if shards else "1GB")
    pixels = {"min_pixels": 56 * 56, "max_pixels": 112 * 112}
    Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(**pixels),
        chat_template=_TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    ).save_pretrained(folder)
    return folder
