"""Grounding DINO from a file of its authors' making, tiny and random."""

from __future__ import annotations

import re

import pytest
import torch

pytest.importorskip("transformers", reason="the extra 'sam' is not installed")

from safetensors.torch import load_file

from zerodefect.backbones.grounder import load_grounder
from zerodefect.backbones.grounding_names import is_published, under_own_names
from zerodefect.backbones.tiny_networks import grounding_dino_folder
from zerodefect.backbones.weight_files import WeightsError

_RENAMED = [  # ours to theirs, for whole names; written down apart from what is tested
    (r"^model\.backbone\.conv_encoder\.model\.(encoder\.)?", "backbone.0."),
    (r"^backbone\.0\.embeddings\.patch_embeddings\.projection", "backbone.0.patch_embed.proj"),
    (r"^backbone\.0\.embeddings\.norm", "backbone.0.patch_embed.norm"),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"(blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"(blocks\.\d+)\.attention\.output\.dense\.", r"\1.attn.proj."),
    (r"(blocks\.\d+)\.attention\.self\.relative", r"\1.attn.relative"),
    (r"(blocks\.\d+)\.attention\.self\.(query|key|value)\.", r"\1.attn.\2."),
    (r"^model\.input_proj_vision", "input_proj"),
    (r"^model\.text_backbone", "bert"),
    (r"^model\.text_projection", "feat_map"),
    (r"^model\.level_embed", "transformer.level_embed"),
    (r"^model\.query_position_embeddings", "transformer.tgt_embed"),
    (r"^model\.enc_output", "transformer.enc_output"),
    (r"^model\.encoder_output_bbox_embed", "transformer.enc_out_bbox_embed"),
    (r"^model\.encoder\.layers\.(\d+)\.text_enhancer_layer", r"transformer.encoder.text_layers.\1"),
    (r"^model\.encoder\.layers\.(\d+)\.fusion_layer", r"transformer.encoder.fusion_layers.\1"),
    (r"^model\.encoder\.layers\.(\d+)\.deformable_layer", r"transformer.encoder.layers.\1"),
    (r"(text_layers\.\d+)\.layer_norm_before", r"\1.norm1"),
    (r"(text_layers\.\d+)\.layer_norm_after", r"\1.norm2"),
    (r"vision_param", "gamma_v"), (r"text_param", "gamma_l"),
    (r"layer_norm_vision", "layer_norm_v"), (r"layer_norm_text", "layer_norm_l"),
    (r"attn\.(values_|out_)?vision_proj", lambda m: f"attn.{m[1] or ''}v_proj"),
    (r"attn\.(values_|out_)?text_proj", lambda m: f"attn.{m[1] or ''}l_proj"),
    (r"(encoder\.layers\.\d+)\.self_attn_layer_norm", r"\1.norm1"),
    (r"(encoder\.layers\.\d+)\.final_layer_norm", r"\1.norm2"),
    (r"^model\.decoder\.layer_norm", "transformer.decoder.norm"),
    (r"^model\.decoder\.reference_points_head", "transformer.decoder.ref_point_head"),
    (r"^model\.decoder\.", "transformer.decoder."),
    (r"(decoder\.layers\.\d+)\.encoder_attn_text_layer_norm", r"\1.catext_norm"),
    (r"(decoder\.layers\.\d+)\.encoder_attn_layer_norm", r"\1.norm1"),
    (r"(decoder\.layers\.\d+)\.self_attn_layer_norm", r"\1.norm2"),
    (r"(decoder\.layers\.\d+)\.final_layer_norm", r"\1.norm3"),
    (r"(decoder\.layers\.\d+)\.encoder_attn_text\.", r"\1.ca_text."),
    (r"(decoder\.layers\.\d+)\.encoder_attn\.", r"\1.cross_attn."),
    (r"(transformer\..*layers\.\d+)\.fc([12])\.", r"\1.linear\2."),
]  # fmt: skip


def theirs_of(name):
    """A name as the authors' files have it; parts of an attention still apart."""
    if stage := re.search(r"hidden_states_norms\.stage(\d)", name):
        return f"backbone.0.norm{int(stage[1]) - 1}.{name.rpartition('.')[2]}"
    for pattern, theirs in _RENAMED:
        name = re.sub(pattern, theirs, name)
    return name


def published(folder):
    """The folder's weights as the authors' files have them."""
    state, packed = {}, {}
    for own, value in load_file(folder / "model.safetensors").items():
        if ".swin.layernorm." in own:
            continue
        name = theirs_of(own)
        three = re.search(r"(.*)\.(query|key|value)\.(weight|bias)$", name)
        if three and not name.startswith("bert."):
            joined = ".qkv." if "blocks" in name else ".in_proj_"
            packed.setdefault(f"{three[1]}{joined}{three[3]}", {})[three[2]] = value
        else:
            state[name] = value
    for name, parts in packed.items():
        state[name] = torch.cat([parts[each] for each in ("query", "key", "value")])
    heads = [
        (n.removeprefix("bbox_embed.0."), v) for n, v in state.items() if n[:11] == "bbox_embed."
    ]
    for layer in (0, 1):  # shared by all layers, and listed with each of them
        for rest, value in heads:
            state[f"bbox_embed.{layer}.{rest}"] = value
            state[f"transformer.decoder.bbox_embed.{layer}.{rest}"] = value
    state["label_enc.weight"] = torch.ones(3, 2)
    state["bert.embeddings.position_ids"] = torch.arange(4)[None]
    state["backbone.0.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49).long()
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = grounding_dino_folder(tmp_path_factory.mktemp("dino") / "dino")
    import transformers

    network = transformers.GroundingDinoForObjectDetection.from_pretrained(made)
    torch.manual_seed(1)
    with torch.no_grad():  # initial values are often 0 or 1, and would hide what is mixed up
        for name, value in network.named_parameters():
            if ".swin.layernorm." not in name:
                value.add_(0.05 * torch.randn_like(value))
    network.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def theirs(folder):
    return published(folder)


def saved(tmp_path, state, wrapped=lambda state: {"model": state}):
    file = tmp_path / "grounding_train_on_visa.pth"
    torch.save(wrapped(state), file)
    return file


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda s: {"model": s},
        lambda s: s,
        lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
    ],
    ids=["model", "bare", "module"],
)
def test_a_file_of_the_authors_gives_the_same_boxes(folder, theirs, tmp_path, wrapped):
    assert is_published(theirs) and "transformer.decoder.layers.1.ca_text.in_proj_weight" in theirs
    ours = load_grounder(str(folder))
    given = load_grounder(str(folder), weights=saved(tmp_path, theirs, wrapped))
    for name, value in ours.network.state_dict().items():
        assert torch.equal(value, given.network.state_dict()[name]), name
    pixels = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    one, other = (each.queries(pixels, "white scratch. hole") for each in (ours, given))
    assert torch.equal(one.boxes, other.boxes) and torch.equal(
        one.probabilities, other.probabilities
    )
    assert given.name.endswith("dino (grounding_train_on_visa.pth)")
    assert given.fingerprint != ours.fingerprint and not given.network.training
    again = load_grounder(given.name.partition(" (")[0], weights=given.file)
    assert again.fingerprint == given.fingerprint  # as a product file names it


def test_what_stands_behind_the_last_stage_is_not_read(folder):
    grounder = load_grounder(str(folder))
    pixels = torch.randn(1, 3, 64, 96)
    before = grounder.queries(pixels, "hole").boxes
    unused = [p for name, p in grounder.network.named_parameters() if ".swin.layernorm." in name]
    assert unused
    for parameter in unused:
        parameter.fill_(7.0)
    assert torch.equal(grounder.queries(pixels, "hole").boxes, before)


def _without(state, name):
    return {key: value for key, value in state.items() if key != name}


FAULTS = {
    "missing": (
        lambda s: _without(s, "transformer.tgt_embed.weight"),
        "missing model.query_position",
    ),
    "unknown": (
        lambda s: {**s, "transformer.novel.weight": torch.ones(1)},
        "unknown transformer.novel",
    ),
    "shape": (lambda s: {**s, "feat_map.bias": torch.ones(5)}, r"\(5,\), expected \(32,\)"),
    "three": (
        lambda s: {**s, "transformer.decoder.layers.0.self_attn.in_proj_bias": torch.ones(4)},
        "not three in one",
    ),
    "heads": (
        lambda s: {**s, "bbox_embed.1.layers.0.bias": s["bbox_embed.1.layers.0.bias"] + 1},
        "differs from what the network shares",
    ),
    "another's": (lambda s: {f"encoder.{key}": value for key, value in s.items()}, "and .* more"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_listed(folder, theirs, tmp_path, fault):
    changed, told = FAULTS[fault]
    file = saved(tmp_path, changed(theirs))
    with pytest.raises(WeightsError, match=told) as error:
        load_grounder(str(folder), weights=file)
    assert str(file) in str(error.value)


def test_a_file_that_carries_code_or_is_cut_off_is_refused(folder, theirs, tmp_path):
    file = saved(tmp_path, theirs)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_grounder(str(folder), weights=file)
    torch.save({"model": re.compile("x")}, file)
    with pytest.raises(WeightsError, match="weights_only"):
        load_grounder(str(folder), weights=file)
    with pytest.raises(WeightsError, match="no such file"):
        load_grounder(str(folder), weights=tmp_path / "absent.pth")


def test_its_shape_and_tokeniser_come_from_elsewhere(theirs, tmp_path):
    file = saved(tmp_path, theirs)
    for named in ({"name": str(file)}, {"weights": file}, {"name": "a/b", "weights": file}):
        with pytest.raises(
            WeightsError, match=r"configuration and tokeniser .*\(weights are not needed"
        ):
            load_grounder(**named)


def test_values_are_copied_and_never_views_of_one():
    state, faults = under_own_names(
        {"transformer.decoder.layers.3.self_attn.in_proj_weight": torch.arange(6.0).view(3, 2)}
    )
    assert not faults
    names = [
        f"model.decoder.layers.3.self_attn.{part}.weight" for part in ("query", "key", "value")
    ]
    assert [state[name].tolist() for name in names] == [[[0, 1]], [[2, 3]], [[4, 5]]]
