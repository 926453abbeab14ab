"""Several detectors as one: knowledge nested, scales learned from good pictures, one joint map."""

from __future__ import annotations

import pickle

import pytest
import torch
from models import tiny_backbone
from small_detectors import images, remembered, small_cnn

from zerodefect.detector.combined import Combined, CombinedConfig, bent
from zerodefect.detector.knowledge import Knowledge, KnowledgeError, Product
from zerodefect.layers.similarity import upsample
from zerodefect.methods import create, facts_of, load_detector
from zerodefect.methods.dense import DenseCLIP


def made(other="patchcore", **config):
    parts = {"dense": create("dense", tiny_backbone()), other: create(other, small_cnn())}
    combined = Combined(parts, CombinedConfig(**config)).eval()
    combined.resize_inputs((64, 64))
    return combined


def given(combined, count, seed=0):
    return dict.fromkeys(combined.inputs, images(count, 64, 64, seed=seed))


def named(combined):
    return combined.describe(combined.empty(), Product("nut"))


def test_its_facts_are_those_of_its_parts():
    combined = made()
    assert combined.info == facts_of("dense+patchcore")
    assert combined.info.name == "dense+patchcore"
    assert combined.info.needs == ("words",)  # patchcore is silent until it is shown something
    assert set(combined.info.knows_from) == {"words", "references"}
    assert list(combined.info.backbones) == ["dense.clip", "patchcore.features"]
    assert set(combined.facts()["parts"]) == {"dense", "patchcore"}


def test_without_references_the_words_speak_alone():
    combined = made()
    shown = given(combined, 2)
    alone = combined.parts["dense"]
    own = alone(shown["dense"], alone.describe(alone.empty(), Product("nut")))
    got = combined(shown, named(combined))
    mean, deviation = alone.usual_scale(alone.empty())
    torch.testing.assert_close(got.map, bent((own.map - mean) / deviation))
    torch.testing.assert_close(got.score, bent((own.score - mean) / deviation))
    assert combined.neutral_score(named(combined)) == pytest.approx(
        float(bent(torch.tensor((0.5 - mean) / deviation)))
    )


def test_a_part_that_is_not_heard_costs_nothing(monkeypatch):
    combined, ran = made(), []
    encode = combined.parts["patchcore"].encode
    monkeypatch.setattr(
        combined.parts["patchcore"], "encode", lambda images: ran.append(1) or encode(images)
    )
    combined(given(combined, 2), named(combined))
    assert not ran
    known = remembered(combined, named(combined), given(combined, 2))
    combined(given(combined, 1), known)
    assert len(ran) == 2
    seen = pickle.loads(pickle.dumps(combined.encode(given(combined, 1))))  # as spools keep it
    torch.testing.assert_close(
        combined.predict(seen, known).map, combined(given(combined, 1), known).map
    )


def test_the_joint_map_is_the_formula_by_hand():
    """Each part's map centred and scaled by what it says of references left out in turn."""
    combined = made(shares=(1.0, 3.0), top=0.0)
    good, new = given(combined, 4, seed=3), given(combined, 2)
    got = combined(new, remembered(combined, named(combined), good))
    z = []
    for name, part in combined.each():
        known = part.describe(part.empty(), Product("nut"))
        known = remembered(part, known, good[name])
        with torch.no_grad():
            left_out = part.predict(part.encode(good[name]), known, torch.arange(4)).map
        map = part(new[name], known).map
        z.append((map - left_out.mean()) / left_out.std())
    joint = 0.25 * z[0] + 0.75 * upsample(z[1], z[0].shape[-2:])
    torch.testing.assert_close(got.map, bent(joint), atol=1e-5, rtol=0)
    torch.testing.assert_close(got.score, bent(joint.amax((1, 2))), atol=1e-5, rtol=0)


def test_pictures_left_out_are_named_where_the_weights_lie(monkeypatch):
    """On a GPU their numbers are compared with those of the memory there."""
    combined, asked = made(), []

    def noting(predict):
        def noted(encoded, knowledge, left_out=None):
            asked.append(left_out.device.type)
            return predict(encoded, knowledge, torch.arange(4))

        return noted

    for _, part in combined.each():
        monkeypatch.setattr(part, "predict", noting(part.predict))
    monkeypatch.setattr(type(combined), "device", torch.device("meta"))
    remembered(combined, named(combined), given(combined, 4))
    assert asked == ["meta", "meta"]


def test_knowledge_travels_and_is_refused_by_others(tmp_path):
    combined = made("pyramid")
    known = remembered(combined, named(combined), given(combined, 3))
    known.save(tmp_path / "nut.safetensors")
    again = Knowledge.load(tmp_path / "nut.safetensors")
    new = given(combined, 1, seed=8)
    torch.testing.assert_close(combined(new, again).map, combined(new, known).map)
    with pytest.raises(KnowledgeError, match="made by"):
        made("patchcore")(new, again)
    torch.testing.assert_close(
        pickle.loads(pickle.dumps(combined))(new, known).map, combined(new, known).map
    )


def test_words_come_first():
    combined = made()
    known = remembered(combined, named(combined), given(combined, 2))
    with pytest.raises(RuntimeError, match="comes before"):
        combined.describe(known, Product("bolt"))


def test_the_scale_bends_without_ties_and_ends():
    z = torch.tensor([-1e4, -3.0, -1e-3, 0.0, 1e-3, 3.0, 60.0, 61.0, 1e4])
    values = bent(z)
    assert (values.diff() > 0).all() and values.min() > 0 and values.max() < 1
    assert bent(torch.tensor(4.0)) == 0.75


def test_a_budget_is_shared():
    combined = made()
    combined.memory.budget = 1000
    assert [part.memory.budget for part in combined.parts.values()] == [500, 500]


def test_parts_by_name_with_their_own_options():
    combined = load_detector(
        "dense+pyramid", **{"dense.smoothing": 2.0, "pyramid.items": 99, "top": 0.5}
    )
    assert combined.parts["dense"].config.smoothing == 2
    assert combined.parts["pyramid"].config.items == 99
    assert combined.config.top == 0.5
    assert isinstance(combined.parts["dense"], DenseCLIP)


def test_thorough_parts_see_larger_inputs_more_than_once():
    usual, thorough = load_detector("dense+pyramid"), load_detector("dense+pyramid", thorough=True)
    sides = {name: size[0] for name, size in thorough.sizes.items()}
    assert {name: size[0] for name, size in usual.sizes.items()} == {"dense": 256, "pyramid": 448}
    assert sides == {"dense": 320, "pyramid": 640}
    dense, pyramid = thorough.parts["dense"].config, thorough.parts["pyramid"].config
    assert dense.sizes == (0.8, 1.0) and dense.mirrored == (0.8, 0.4, 0.8)
    assert pyramid.sizes == (0.7, 1.0)
    own = load_detector("dense+pyramid", thorough=True, **{"pyramid.items": 7})
    assert own.parts["pyramid"].config.items == 7  # what is said wins
    beside = load_detector("patchcore+pyramid", thorough=True)  # of the part that has one
    assert beside.parts["patchcore"].sizes != beside.parts["pyramid"].sizes == (640, 640)


@pytest.mark.parametrize("method", ["patchcore", "winclip+patchcore"])
def test_where_no_part_has_a_thorough_setting_it_is_refused(method):
    with pytest.raises(ValueError, match="no thorough setting; dense and pyramid have one"):
        load_detector(method, thorough=True)


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("dense+nothing", {}, "unknown method 'nothing'"),
        ("dense+dense", {}, "each part once"),
        ("dense+pyramid", {"winclip.scales": (2,)}, "winclip.scales"),
        ("dense+pyramid", {"tip": 1}, "no option 'tip'"),
        ("dense+pyramid", {"shares": (1.0,)}, "one for each"),
        ("dense+pyramid", {"pyramid.items": 0}, "items=0"),
    ],
)
def test_what_cannot_be_is_one_line(method, options, said):
    with pytest.raises(ValueError, match=said) as error:
        load_detector(method, **options)
    assert "\n" not in str(error.value)
