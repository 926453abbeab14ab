"""open_clip's weights by name: their facts, where they lie, and how to get them."""

from __future__ import annotations

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from zerodefect.backbones import open_clip_names
from zerodefect.backbones.clip_weights import load_clip
from zerodefect.backbones.open_clip_weights import (
    cached_file,
    fetch,
    named_facts,
    runnable_models,
    weights_origin,
)
from zerodefect.backbones.weight_files import WeightsError


def test_openai_weights_are_known_by_their_tag_alone(monkeypatch):
    """Early versions of open_clip (2.24) do not state their activation."""
    monkeypatch.setattr(open_clip_names, "weights_facts", lambda model, tag: {"url": "there"})
    assert named_facts("ViT-B-32/openai")[0].activation == "quick_gelu"
    assert named_facts("ViT-B-32/other")[0].activation == "gelu"


def test_absent_weights_by_name_say_where_to_get_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        load_clip("ViT-B-16-plus-240/laion400m_e32")
    message = str(error.value)
    assert "not on this machine" in message
    assert "backbones --fetch ViT-B-16-plus-240/laion400m_e32" in message
    assert "https://" in message
    assert "--weights FILE" in message


def test_unknown_names_suggest_others():
    with pytest.raises(WeightsError, match=r"did you mean .*ViT-B-16"):
        load_clip("ViT-B-16x/openai")
    with pytest.raises(WeightsError, match="no weights 'nonsense' for ViT-B-16; it has: openai"):
        load_clip("ViT-B-16/nonsense")
    with pytest.raises(WeightsError, match="architecture without weights"):
        load_clip("ViT-B-16")
    with pytest.raises(WeightsError, match="plain ViT CLIP"):
        load_clip("RN50/openai")


@pytest.mark.slow
def test_names_are_found_in_the_hubs_cache(tmp_path, monkeypatch):
    """The layout that huggingface_hub keeps: blobs, refs and snapshots."""
    state = open_clip.create_model("ViT-B-32").state_dict()
    facts = open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")
    repository = facts["hf_hub"].strip("/")
    root = tmp_path / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    save_file(state, snapshot / "open_clip_model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    backbone = load_clip("ViT-B-32/laion2b_s34b_b79k")
    assert torch.equal(backbone.clip.visual.proj, state["visual.proj"])
    assert cached_file("ViT-B-32/laion2b_s34b_b79k") is not None


def test_openai_weights_run_with_their_own_activation():
    config, preprocess = named_facts("ViT-B-16/openai")
    assert config.activation == "quick_gelu"
    assert preprocess.size == (224, 224)
    config, _ = named_facts("ViT-B-16/laion2b_s34b_b88k")
    assert config.activation == "gelu"


def test_fetching_needs_a_network_and_says_so():
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE switches the network off"):
        fetch("ViT-B-16/openai")
    with pytest.raises(WeightsError, match="MODEL/TAG"):
        fetch("ViT-B-16")


def test_where_weights_are_published():
    assert weights_origin("ViT-B-32/laion2b_s34b_b79k").startswith("https://huggingface.co/laion/")
    with pytest.raises(WeightsError, match="name the weights as MODEL/TAG"):
        weights_origin("ViT-B-32")
    with pytest.raises(WeightsError, match="no weights 'nonsense'"):
        weights_origin("ViT-B-32/nonsense")


def test_models_that_can_be_run_are_plain_vits():
    found = runnable_models()
    assert ("ViT-B-16", "openai") in found
    assert ("ViT-L-14-336", "openai") in found
    assert set(found) < set(open_clip.list_pretrained())
    assert not any(model.startswith(("RN50", "coca_")) for model, _ in found)
