"""Weights from a file, by name, and from the package; every fault says file, reason, remedy."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from models import tiny_state, write_tiny_weights
from safetensors.torch import save_file

from zerodefect.backbones import clip_weights as loading
from zerodefect.backbones.clip_weights import WeightsError, fetch, load_clip, read_state
from zerodefect.methods import load_detector
from zerodefect.prompts.features import TextFeatures, embed_texts


def test_a_local_file_with_its_side_car(tmp_path):
    backbone = load_clip(str(write_tiny_weights(tmp_path)))
    assert backbone.preprocess.size == (64, 64)
    assert backbone.clip.config.vision.layers == 3
    assert len(backbone.fingerprint) == 64
    assert torch.equal(backbone.clip.visual.proj, tiny_state()["visual.proj"])


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


def test_another_activation_than_the_weights_is_an_error_unless_asked_for(tmp_path):
    path = write_tiny_weights(tmp_path)
    with pytest.raises(WeightsError, match="trained with gelu, not quick_gelu"):
        load_clip(weights=path, activation="quick_gelu")
    foreign = load_clip(weights=path, activation="quick_gelu", foreign_activation=True)
    assert foreign.clip.config.activation == "quick_gelu"


def test_the_same_weights_run_with_another_activation(tmp_path):
    path = write_tiny_weights(tmp_path)
    backbone = load_clip(weights=path)
    assert backbone.with_activation("weights") is backbone
    assert backbone.with_activation("gelu") is backbone
    changed = backbone.with_activation("quick_gelu")
    foreign = load_clip(weights=path, activation="quick_gelu", foreign_activation=True)
    assert changed.clip.config == foreign.clip.config
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


def test_a_file_of_named_weights_keeps_what_the_tag_says(tmp_path, monkeypatch):
    """OpenAI's weights from a file: their tag says their activation, the bare name does not."""
    path = tmp_path / "weights.safetensors"
    save_file(open_clip.create_model("ViT-B-32").state_dict(), path)
    backbone = load_clip("ViT-B-32/openai", weights=path)
    assert backbone.clip.config.activation == "quick_gelu"
    assert backbone.name == "ViT-B-32/openai (weights.safetensors)"
    monkeypatch.setattr(loading, "cached_file", lambda name: None)
    with pytest.raises(WeightsError, match=r"--backbone ViT-B-32/openai --weights FILE"):
        load_clip("ViT-B-32/openai")


def test_openai_weights_are_known_by_their_tag_alone(monkeypatch):
    """Early versions of open_clip (2.24) do not state their activation."""
    monkeypatch.setattr(loading.catalogue, "weights_facts", lambda model, tag: {"url": "there"})
    assert loading._open_clip_facts("ViT-B-32/openai")[0].activation == "quick_gelu"
    assert loading._open_clip_facts("ViT-B-32/other")[0].activation == "gelu"


def test_weights_of_another_shape_are_refused(tmp_path):
    path = write_tiny_weights(tmp_path)
    with pytest.raises(WeightsError, match=r"tiny.safetensors: weights do not fit.*Name the arch"):
        load_clip("ViT-B-32", weights=path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.safetensors", b"", "cannot be read as weights"),
        ("a.safetensors", b"no weights at all" * 10, "cannot be read as weights"),
        ("a.pt", b"\x80\x04garbage", "cannot be read as weights"),
        ("a.pt", None, "no such file"),
    ],
)
def test_damaged_files_name_file_reason_and_remedy(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=reason) as error:
        read_state(path)
    assert str(path) in str(error.value)


def test_a_truncated_safetensors_file(tmp_path):
    path = write_tiny_weights(tmp_path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="Copy the file again"):
        load_clip(weights=path)


class Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_code_in_a_pickle_is_never_run(tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="only safetensors and plain tensors"):
        read_state(tmp_path / "evil.pt")
    assert "code ran" not in capsys.readouterr().out


def test_a_torchscript_archive_is_refused_by_name(tmp_path):
    traced = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(traced, tmp_path / "jit.pt")
    with pytest.raises(WeightsError, match="TorchScript archive, which carries code"):
        read_state(tmp_path / "jit.pt")


def test_absent_weights_by_name_say_where_to_get_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(WeightsError) as error:
        load_clip("ViT-B-16-plus-240/laion400m_e32")
    message = str(error.value)
    assert "not on this machine" in message
    assert "backbones --fetch ViT-B-16-plus-240/laion400m_e32" in message
    assert "https://" in message
    assert "--weights FILE" in message


@pytest.mark.parametrize("name", ["/no/such/file", "./file", "a/b/c", "C:\\weights\\file"])
def test_what_looks_like_a_path_is_called_a_missing_file(name):
    with pytest.raises(WeightsError, match="no such file"):
        load_clip(name)


def test_unknown_names_suggest_others():
    with pytest.raises(WeightsError, match=r"did you mean .*ViT-B-16"):
        load_clip("ViT-B-16x/openai")
    with pytest.raises(WeightsError, match="no weights 'nonsense' for ViT-B-16; it has: openai"):
        load_clip("ViT-B-16/nonsense")
    with pytest.raises(WeightsError, match="architecture without weights"):
        load_clip("ViT-B-16")
    with pytest.raises(WeightsError, match="plain ViT CLIP"):
        load_clip("RN50/openai")


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
    assert loading.cached_file("ViT-B-32/laion2b_s34b_b79k") is not None


def test_openai_weights_run_with_their_own_activation():
    config, preprocess = loading._open_clip_facts("ViT-B-16/openai")
    assert config.activation == "quick_gelu"
    assert preprocess.size == (224, 224)
    config, _ = loading._open_clip_facts("ViT-B-16/laion2b_s34b_b88k")
    assert config.activation == "gelu"


def test_fetching_needs_a_network_and_says_so():
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE switches the network off"):
        fetch("ViT-B-16/openai")
    with pytest.raises(WeightsError, match="MODEL/TAG"):
        fetch("ViT-B-16")


def test_the_embedded_model_loads_like_any_other_and_is_small():
    backbone = load_clip()
    assert backbone.name == "embedded"
    assert loading.embedded_file().stat().st_size <= 25 * 10**6
    again = load_clip(str(loading.embedded_file()))
    assert again.fingerprint == backbone.fingerprint
    pixels = torch.randn(1, 3, *backbone.preprocess.size)
    assert torch.equal(again.clip.visual(pixels), backbone.clip.visual(pixels))


def test_open_clip_itself_can_run_the_embedded_model():
    """The package's file is in the field's own layout, not in one of ours."""
    backbone = load_clip()
    from safetensors.torch import load_file

    config = backbone.clip.config.to_open_clip()
    config.pop("quick_gelu")
    model = open_clip.CLIP(**config).eval()
    state = {k: v.float() for k, v in load_file(loading.embedded_file()).items()}
    missing, unknown = model.load_state_dict(state, strict=False)
    assert not unknown
    assert set(missing) <= {"attn_mask"}
    pixels = torch.randn(2, 3, *backbone.preprocess.size)
    torch.testing.assert_close(
        model.encode_image(pixels), backbone.clip.visual(pixels), atol=1e-4, rtol=0
    )


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


def test_whole_numbers_in_a_file_keep_their_type(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"context_length": torch.tensor(77), "x": torch.ones(3)}, path)
    state = read_state(path, torch.bfloat16)
    assert state["context_length"].dtype == torch.int64
    assert state["x"].dtype == torch.bfloat16
