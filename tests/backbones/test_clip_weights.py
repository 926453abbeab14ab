"""CLIP weights from a file, by name, and from the package; every fault says file and remedy."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from models import tiny_state, write_tiny_weights
from safetensors.torch import save_file

from zerodefect.backbones import open_clip_weights
from zerodefect.backbones.clip import tokenize
from zerodefect.backbones.clip_weights import embedded_file, load_clip
from zerodefect.backbones.weight_files import WeightsError
from zerodefect.methods import load_detector
from zerodefect.prompts.features import TextFeatures, embed_texts


def test_a_local_file_with_its_side_car(tmp_path):
    backbone = load_clip(str(write_tiny_weights(tmp_path)))
    assert backbone.preprocess.size == (64, 64)
    assert backbone.clip.config.vision.layers == 3
    assert len(backbone.fingerprint) == 64
    assert torch.equal(backbone.clip.visual.proj, tiny_state()["visual.proj"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_facts_of_a_backbone(tmp_path, dtype):
    backbone = load_clip(weights=write_tiny_weights(tmp_path), dtype=dtype)
    assert (backbone.stride, backbone.width) == (8, 64)
    assert backbone.precision == str(dtype).removeprefix("torch.")
    assert backbone.activation == "gelu"
    assert backbone.name == "tiny.safetensors"
    assert backbone.licence == "see source"


def test_the_side_car_decides_preprocessing_and_activation(tmp_path):
    path = write_tiny_weights(tmp_path)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    sidecar["model_cfg"]["quick_gelu"] = True
    sidecar["preprocess_cfg"] = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    backbone = load_clip(weights=path)
    assert backbone.clip.config.activation == "quick_gelu"
    assert backbone.preprocess.mean == (0.5, 0.5, 0.5)
    assert backbone.preprocess.interpolation == "bilinear"


def test_a_side_car_says_whether_patches_match_texts(tmp_path):
    path = write_tiny_weights(tmp_path)
    assert not load_clip(weights=path).patches_match_texts  # as OpenAI's, whose file says nothing
    sidecar = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**sidecar, "patches_match_texts": True}))
    backbone = load_clip(weights=path)
    assert backbone.patches_match_texts
    assert backbone.with_activation("quick_gelu").patches_match_texts
    assert load_clip().patches_match_texts


def test_what_the_side_car_recommends_yields_to_what_the_user_asks(tmp_path):
    path = write_tiny_weights(tmp_path)
    sidecar = json.loads(path.with_suffix(".json").read_text())
    sidecar["recommended"] = {"winclip": {"image_score": "map"}}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    assert load_detector("winclip", backbone=str(path)).config.image_score == "map"
    asked = load_detector("winclip", backbone=str(path), image_score="text")
    assert asked.config.image_score == "text"


def test_weights_may_recommend_a_method(tmp_path):
    path = write_tiny_weights(tmp_path)
    assert load_detector(backbone=str(path)).info.name == "winclip"
    sidecar = json.loads(path.with_suffix(".json").read_text())
    sidecar["recommended_method"] = "dense"
    sidecar["recommended"] = {"dense": {"image_size": 96, "sizes": [0.5, 1.0]}}
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    advised = load_detector(backbone=str(path))
    assert advised.info.name == "dense"
    assert advised.preprocess.size == (96, 96)
    assert advised.config.sizes == (0.5, 1.0)
    assert load_detector(backbone=str(path), image_size=32).preprocess.size == (32, 32)
    assert load_detector("winclip", backbone=str(path)).info.name == "winclip"


def test_the_same_weights_run_with_another_activation(tmp_path):
    path = write_tiny_weights(tmp_path)
    backbone = load_clip(weights=path)
    assert backbone.with_activation("weights") is backbone
    assert backbone.with_activation("gelu") is backbone
    changed = backbone.with_activation("quick_gelu")
    sidecar = json.loads(path.with_suffix(".json").read_text())
    sidecar["model_cfg"]["quick_gelu"] = True
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    foreign = load_clip(weights=path)
    assert changed.clip.config == foreign.clip.config
    assert (changed.activation, backbone.activation) == ("quick_gelu", "gelu")
    assert backbone.clip.config.activation == "gelu"
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(changed.clip.visual(pixels), foreign.clip.visual(pixels))
    assert not torch.allclose(changed.clip.visual(pixels), backbone.clip.visual(pixels), atol=1e-4)
    pairs = zip(changed.clip.parameters(), backbone.clip.parameters(), strict=True)
    assert all(one is other for one, other in pairs)  # in memory once
    assert changed.reload is not None
    assert changed.reload().config.activation == "quick_gelu"
    assert changed.fingerprint == backbone.fingerprint


def test_cached_texts_of_two_activations_never_mix(tmp_path):
    backbone = load_clip(weights=write_tiny_weights(tmp_path))
    for chosen in ("gelu", "quick_gelu"):
        made = backbone.with_activation(chosen)
        texts = TextFeatures(made.clip, made.fingerprint, tmp_path / "text", made.reload)
        again = TextFeatures(made.clip, made.fingerprint, tmp_path / "text")
        expected = embed_texts(made.clip, ["a photo of a screw."])
        assert torch.equal(texts.rows(["a photo of a screw."]), expected)
        assert torch.equal(again.rows(["a photo of a screw."]), expected)
    assert len(list((tmp_path / "text").glob("*.safetensors"))) == 2


def test_a_bare_file_is_refused_with_the_two_remedies(tmp_path):
    path = tmp_path / "bare.safetensors"
    save_file(tiny_state(), path)
    with pytest.raises(WeightsError, match=r"nothing says its activation.*--backbone.*bare.json"):
        load_clip(weights=path)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".pt", ".bin", ".safetensors"])
def test_a_named_architecture_filled_from_a_file(tmp_path, ending):
    """What an air-gapped plant does: the name says the shape, the file brings the weights."""
    state = open_clip.create_model("ViT-B-32").state_dict()
    path = tmp_path / f"weights{ending}"
    if ending == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    backbone = load_clip("ViT-B-32", weights=path)
    assert backbone.preprocess.size == (224, 224)
    assert torch.equal(backbone.clip.visual.proj, state["visual.proj"])
    assert backbone.clip.config.activation == "gelu"


@pytest.mark.slow
def test_a_file_of_named_weights_keeps_what_the_tag_says(tmp_path, monkeypatch):
    """OpenAI's weights from a file: their tag says their activation, the bare name does not."""
    path = tmp_path / "weights.safetensors"
    save_file(open_clip.create_model("ViT-B-32").state_dict(), path)
    backbone = load_clip("ViT-B-32/openai", weights=path)
    assert backbone.clip.config.activation == "quick_gelu"
    assert backbone.name == "ViT-B-32/openai (weights.safetensors)"
    monkeypatch.setattr(open_clip_weights, "cached_file", lambda name: None)
    with pytest.raises(WeightsError, match=r"--backbone ViT-B-32/openai --weights FILE"):
        load_clip("ViT-B-32/openai")


def test_weights_of_another_shape_are_refused(tmp_path):
    path = write_tiny_weights(tmp_path)
    with pytest.raises(WeightsError, match=r"tiny.safetensors: weights do not fit.*Name the arch"):
        load_clip("ViT-B-32", weights=path)


def test_a_truncated_safetensors_file(tmp_path):
    path = write_tiny_weights(tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="Copy the file again"):
        load_clip(weights=path)


@pytest.mark.parametrize("name", ["/no/such/file", "./file", "a/b/c", "C:\\weights\\file"])
def test_what_looks_like_a_path_is_called_a_missing_file(name):
    with pytest.raises(WeightsError, match="no such file"):
        load_clip(name)


def test_the_embedded_model_loads_like_any_other_and_is_small():
    backbone = load_clip()
    assert backbone.name == "embedded"
    assert embedded_file().stat().st_size <= 30 * 10**6
    again = load_clip(str(embedded_file()))
    assert again.fingerprint == backbone.fingerprint
    pixels = torch.randn(1, 3, *backbone.preprocess.size)
    assert torch.equal(again.clip.visual(pixels), backbone.clip.visual(pixels))


def test_open_clip_itself_can_run_the_plain_towers_of_the_embedded_model():
    """They are in the field's own layout, not in one of ours."""
    backbone = load_clip()
    from safetensors.torch import load_file

    config = backbone.clip.config.to_open_clip()
    model = open_clip.CLIP(config["embed_dim"], config["fine_cfg"], config["text_cfg"]).eval()
    stored = load_file(embedded_file())
    state = {k: v.float() for k, v in stored.items() if not k.startswith("visual.")}
    state = {k.replace("fine.", "visual."): v for k, v in state.items()}
    missing, unknown = model.load_state_dict(state, strict=False)
    assert not unknown
    assert set(missing) <= {"attn_mask"}
    pixels, ids = torch.randn(2, 3, 128, 128), tokenize(["a scratched screw"])
    ours = backbone.clip
    assert ours.fine is not None
    torch.testing.assert_close(model.encode_image(pixels), ours.fine(pixels), atol=1e-4, rtol=0)
    torch.testing.assert_close(model.encode_text(ids), ours.text(ids), atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_only_towers_of_the_files_own_precision_are_to_be_had_again(tmp_path, dtype):
    """Those are mapped; others would be converted, and copied, a second time."""
    path = write_tiny_weights(tmp_path)
    backbone = load_clip(str(path), dtype=dtype)
    for name, value in backbone.clip.openai_state().items():
        assert torch.equal(value, tiny_state()[name].to(dtype)), name
    assert (backbone.reload is not None) == (dtype == torch.float32)
    if backbone.reload:
        again = backbone.reload().openai_state()
        assert all(torch.equal(again[k], v) for k, v in backbone.clip.openai_state().items())
