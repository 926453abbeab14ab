"""Files in the official formats, as the authors' programs write them, made of small detectors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch

from zerodefect.detector.contract import Detector
from zerodefect.detector.official_files import LONE_TENSOR

Published = dict[str, Any]


def official_file(detector: Detector) -> Published:
    """What the official trainer would have saved of these learned values, as copies."""
    made = MAKERS[detector.info.name](detector)
    for place, name in leaves(made):
        place[name] = place[name].detach().clone()
    return made


def unused(detector: Detector) -> Published:
    """Entries of the authors' files that nothing reads."""
    maker = UNUSED.get(detector.info.name)
    return maker(detector) if maker else {}


def leaves(published: Published) -> list[tuple[Published, str]]:
    """Every tensor in a file: the dictionary that it stands in, and its name there."""
    found = []
    for name, value in published.items():
        found += leaves(value) if isinstance(value, dict) else [(published, name)]
    return found


def merged(published: Mapping[str, Any], more: Mapping[str, Any]) -> Published:
    """Both, dictionary by dictionary."""
    both = dict(published)
    for name, value in more.items():
        both[name] = merged(both.get(name, {}), value) if isinstance(value, Mapping) else value
    return both


# --- a maker for each format ---------------------------------------------------------------------


def _aa_clip(detector: Any) -> Published:
    """Two files, each a dictionary inside one with the epoch and the optimiser."""
    parts: Published = {"text_adapter": {}, "image_adapter": {}}
    for name, value in detector.learned.items():
        part, _, key = name.partition(".")
        parts[part][key] = value
    return parts


def _af_clip(detector: Any) -> Published:
    """A tensor alone, and the state of a module."""
    made: Published = {LONE_TENSOR: detector.prompts.state_prompt_embedding[0]}
    for name, value in detector.adaptor.named_parameters():
        layer = name.replace("to_out", "to_out.0")
        made[f"attention.{'' if name.startswith('norm') else 'attn.'}{layer}"] = value
    return made


def _adaclip(detector: Any) -> Published:
    """One flat dictionary."""
    return {f"clip_model.{name}": value for name, value in detector.learned.items()}


def _adaptclip(detector: Any) -> Published:
    """Three dictionaries; the heads that all taps share stand in the third of them four times."""
    file = {"textual_learner": _learned_sentences(detector)["prompt_learner"]}
    for name, value in detector.learned_values.items():
        for own, part, theirs in (
            ("local_mlp.", "visual_learner", "local_adater."),
            ("global_mlp.", "visual_learner", "global_adapter."),
            ("comparison.norms.", "pq_learner", "sharebn."),
            ("comparison.local_head.", "pq_learner", "local_adapter.3."),
            ("comparison.global_head.", "pq_learner", "global_adapter.3."),
        ):
            if name.startswith(own):
                file.setdefault(part, {})[name.replace(own, theirs)] = value
    return file


def _repeated_heads(detector: Any) -> Published:
    file = _adaptclip(detector)["pq_learner"]
    shared = [name for name in file if "_adapter.3." in name]
    return {
        "pq_learner": {
            name.replace(".3.", f".{place}.", 1): file[name]
            for name in shared
            for place in range(3)
        }
    }


def _april_gan(detector: Any) -> Published:
    return {"trainable_linearlayer": dict(detector.learned)}


def _cops(detector: Any) -> Published:
    """Everything but the autoencoder's encoder."""
    return {
        "prompt_learner": {
            name.removeprefix("prompts."): value
            for name, value in detector.learned.items()
            if not name.startswith("vae_encoder.")
        }
    }


def _draem(detector: Any) -> Published:
    """The two state dictionaries together, with running statistics."""
    return {name.partition(".")[2]: value for name, value in detector.learned_values.items()}


def _vcp_clip(detector: Any) -> Published:
    """Three dictionaries and some tensors; linear layers over patches are convolutions."""
    parts: Published = defaultdict(dict)
    owners = {
        "trainable_linearlayer": "trainable_linearlayer",
        "pre_vcp": "New_Lan_Embed",
        "post_vcp": "Zero_try",
    }
    for name, value in detector.learned.items():
        part, _, key = name.partition(".")
        if part not in owners:
            parts[name] = value
            continue
        key = key.replace("head.", "fc.").replace("linear1.", "linear1.fc.")
        convolution = part == "post_vcp" and value.ndim == 2
        parts[owners[part]][key] = value[..., None] if convolution else value
    return dict(parts)


def _learned_sentences(detector: Any) -> Published:
    """The family of AnomalyCLIP: with slices of their CLIP's token embedding, and token ids."""
    prompts, table = detector.prompts, detector.clip.text.token_embedding.weight
    state = dict(prompts.named_parameters())
    for sentence, ids in zip(prompts.sentences, prompts.token_ids(), strict=True):
        vectors = sum(prompts.lengths[name] for name in sentence.contexts)
        state[f"token_prefix_{sentence.name}"] = table[ids[:1]][None, None]
        state[f"token_suffix_{sentence.name}"] = table[ids[1 + vectors :]][None, None]
        state[f"tokenized_prompts_{sentence.name}"] = ids[None, None].int()
    return {"prompt_learner": state}


def _unused_projections(detector: Any) -> Published:
    width = detector.clip.config.text.width
    layers: Published = {}
    for i in range(len(detector.prompts.compound_prompts_text)):
        layers[f"compound_prompt_projections.{i}.weight"] = torch.zeros(896, width)
        layers[f"compound_prompt_projections.{i}.bias"] = torch.zeros(896)
    return {"prompt_learner": layers}


MAKERS: dict[str, Callable[[Any], Published]] = {
    "aa_clip": _aa_clip,
    "adaclip": _adaclip,
    "adaptclip": _adaptclip,
    "af_clip": _af_clip,
    "anomalyclip": _learned_sentences,
    "april_gan": _april_gan,
    "cops": _cops,
    "crane": _learned_sentences,
    "draem": _draem,
    "filo": lambda detector: {"filo": dict(detector.learned)},
    "glocalclip": _learned_sentences,
    "leclip": _learned_sentences,
    "multiads": _april_gan,
    "vcp_clip": _vcp_clip,
}
NOT_PUBLISHED = {"cops": ("vae_encoder.",)}  # values that keep what they are, by their beginning
UNUSED: dict[str, Callable[[Any], Published]] = {
    "adaptclip": _repeated_heads,
    "aa_clip": lambda _: {"epoch": 20, "text_optimizer": {"state": {0: torch.ones(2)}}},
    "anomalyclip": _unused_projections,
    "cops": lambda _: {"prompt_learner": {"projector.net.0.weight": torch.ones(2)}},
    "crane": _unused_projections,
    "filo": lambda _: {
        "filo": {"clip_model.logit_scale": torch.ones(()), "text_encoder.x": torch.ones(2)}
    },
    "glocalclip": _unused_projections,
    "leclip": _unused_projections,
    "vcp_clip": lambda _: {"prompt_text_projection": torch.ones(64, 64)},
}
