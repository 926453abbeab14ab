"""What FiLo and FiLo++ share, and what is their own; their numbers are held by tests/parity."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from models import write_tiny_weights
from small_assemblies import ShadeGrounder
from small_detectors import (
    images,
    inputs,
    small_clip,
    taught,
)

from zerodefect.backbones.grounder import Queries, load_grounder
from zerodefect.backbones.tiny_networks import grounding_dino_folder
from zerodefect.backbones.weight_files import WeightsError
from zerodefect.detector.fine_descriptions import DETAILS, PLACES, Boxes
from zerodefect.detector.knowledge import Product
from zerodefect.methods import load_detector
from zerodefect.methods.filo import FiLo, FiLoConfig, _third
from zerodefect.methods.filo_plus_plus import FiLoPlusPlus
from zerodefect.prompts.vocabulary import Vocabulary

SCREW = Product("metal_screw")


def build(kind: Any = FiLo, grounder: Any = None, **options: Any) -> Any:
    return kind.build(small_clip(), grounder, **{"details": ["rust"], **options}).eval()


both = pytest.mark.parametrize("kind", [FiLo, FiLoPlusPlus])


# --- descriptions --------------------------------------------------------------------------------


def test_sentences_name_each_state_at_every_place():
    normal, abnormal = build(details=["rust", "a bent {}"]).states(SCREW)
    assert normal[:2] == ["metal screw", "flawless metal screw"] and len(normal) == 7
    assert abnormal[0] == "abnormal metal screw with rust at top left"
    assert abnormal[9] == "a bent metal screw at top left"
    assert abnormal[-1] == "metal screw with damage at bottom right"
    assert len(abnormal) == 9 * (2 + 5)


def test_descriptions_come_from_files_by_product_or_for_all(tmp_path):
    lines, table = tmp_path / "screw.txt", tmp_path / "all.json"
    lines.write_text("# from a chat model\n- a worn thread\n\n* rust on the head\n")
    table.write_text(json.dumps({"metal screw": ["a worn thread"], "bolt": ["rust"]}))
    assert FiLoConfig(details=str(lines)).details == ("a worn thread", "rust on the head")
    by_name = build(details=str(table))
    assert by_name.details(SCREW) == ("a worn thread",)
    assert by_name.details(Product("tile")) == DETAILS
    with pytest.raises(ValueError, match=r"option details=.*none.txt: no descriptions of defects"):
        build(details=str(tmp_path / "none.txt"))


def test_a_products_kinds_can_be_its_descriptions():
    kinds = Vocabulary.of({"rust": ["{} with rust", "rusty {}"]})
    told = build(own_words=True, details=["dents"])
    assert told.details(Product("screw", kinds)) == ("rust", "rusty {}")
    assert told.details(SCREW) == ("dents",)


# --- boxes and places ----------------------------------------------------------------------------


@settings(max_examples=50)
@given(side=st.integers(3, 600), at=st.integers(0, 599))
def test_whole_pixels_lie_in_one_third_each(side, at):
    third = _third(at % side, side)
    expected = (at % side > side // 3) + (at % side >= 2 * side // 3)
    if side >= 4:  # the middle third is not empty
        assert third == (2 if at % side >= 2 * side // 3 else expected)


def test_a_point_between_two_thirds_has_no_place():
    assert _third(172.5, 518) is None and _third(172.0, 518) == 0 and _third(173.0, 518) == 1
    assert build().place(Boxes(torch.zeros(0, 4), (172.5, 10.0)), (518, 518)) is None


@pytest.mark.parametrize(("side", "fixed", "place"), [(518, 4, 4), (800, 0, 4), (112, None, 4)])
def test_without_a_box_the_middle_is_named(side, fixed, place):
    none = Boxes(torch.zeros(0, 4), None)
    assert build().place(none, (side, side)) == place
    assert build(fixed_centre=True).place(none, (side, side)) == fixed
    assert build(FiLoPlusPlus).place(none, (side, side)) is None
    assert build().place(None, (side, side)) is None  # no grounder: nothing is known


def test_boxes_count_by_their_words_and_the_last_of_the_strongest_says_where():
    class Words(ShadeGrounder):
        def words(self, ids):
            return " ".join(("[CLS]", "damage", "rust", "sky", "[SEP]")[one] for one in ids)

    detector = build(grounder=Words())
    p = torch.zeros(5, 5)
    p[0, 1], p[1, 2], p[2, 3], p[3, 2], p[4, 0] = 0.421, 0.429, 0.9, 0.2, 0.8
    middle = torch.tensor([[0.5, 0.5], [0.9, 0.2], [0.1, 0.1], [0.5, 0.5], [0.5, 0.5]])
    boxes = torch.cat([middle, torch.full((5, 2), 0.2)], dim=1)
    boxes[4, 2:] = 0.9  # too large
    queries = Queries(boxes[None], p[None], tuple(range(5)))
    found = detector.counting(queries, 0, ("damage", "rust"), (100, 200))
    expected = torch.tensor([[80.0, 40.0, 120.0, 60.0], [160.0, 10.0, 200.0, 30.0]])
    torch.testing.assert_close(found.corners, expected)
    assert found.centre == pytest.approx((180.0, 20.0))  # 0.42 both
    assert PLACES[detector.place(found, (100, 200))] == "top right"


def test_the_map_counts_less_outside_of_boxes():
    detector, M = build(), torch.full((3, 4, 6), 0.5)
    M[0, 3, 5] = 1.0
    inside = Boxes(torch.tensor([[-1.5, 1.0, 2.9, 9.0]]), None)
    got = detector.weighed(M, [inside, Boxes(torch.zeros(0, 4), None), None])
    expected = torch.full((4, 6), 0.35)
    expected[1:, :2] = 0.5
    expected[3, 5] = 1.0
    torch.testing.assert_close(got[0], expected)
    assert torch.equal(got[2], M[2]) and (got[1] == 0.35).all()


@both
def test_it_runs_with_a_grounder_of_the_real_class_and_without_one(kind, tmp_path):
    plain = build(kind)
    assert list(plain.inputs) == ["image"] and plain.facts()["grounder"] is None
    given_pictures = images(2)
    assert plain(given_pictures, taught(plain)).map.shape == (2, 64, 64)
    pytest.importorskip("transformers", reason="the extra sam")
    grounder = load_grounder(str(grounding_dino_folder(tmp_path / "dino")))
    sees = kind.build(small_clip(), grounder, details=["scratch"], box_threshold=0.0).eval()
    assert list(sees.inputs) == ["image", "grounder"]
    got = sees(inputs(sees, 2, 64, 64), taught(sees))
    assert got.map.shape == (2, 64, 64) and got.score.isfinite().all()
    with pytest.raises(ValueError, match=r"has .* tokens, .* reads 24"):
        taught(kind.build(small_clip(), grounder, details=["scratch " * 30]).eval())


@both
def test_a_grounder_is_used_where_one_is_named(kind, tmp_path):
    clip = str(write_tiny_weights(tmp_path))
    name = kind.info.name
    first = load_detector(name, untrained=True, backbone=clip, details=["scratch"])
    assert first.grounder is None
    with pytest.raises(WeightsError, match=r"transformers|not on this machine"):
        load_detector(name, untrained=True, backbone={"clip": clip, "grounder": "no-such/dino"})
    pytest.importorskip("transformers", reason="the extra sam")
    dino = str(grounding_dino_folder(tmp_path / "dino"))
    networks = {"clip": clip, "grounder": dino}
    second = load_detector(name, untrained=True, backbone=networks, details=["scratch"])
    assert [facts["name"] for facts in second.networks] == [first.backbone, second.grounder.name]
    with pytest.raises(ValueError, match="made by"):
        second(inputs(second, 1), taught(first))


# --- FiLo's own ----------------------------------------------------------------------------------


def test_tokens_are_those_that_the_published_code_sees_or_those_of_the_paper():
    given_pictures, tower = images(1), small_clip(vision_layers=8)
    taps = (2, 4, 6, 8)
    aliased, true = (
        FiLo.build(tower, None, taps=taps, stream_start=3, aliased=a).eval() for a in (True, False)
    )
    with torch.no_grad():
        one, other = aliased.encode(given_pictures), true.encode(given_pictures)
    assert len(one.patches) == 4 and len(one.convolved) == len(other.convolved) == 3
    assert all(torch.equal(v, other.convolved[-1]) for v in (*one.convolved, one.patches[0]))
    assert not torch.equal(other.convolved[0], other.convolved[1])
    assert torch.equal(one.patches[3], other.patches[3])
    for a, b in zip(one.patches[:3], other.patches[:3], strict=True):
        assert not torch.allclose(a, b, atol=1e-3)


def test_only_the_named_place_is_read():
    detector = build()
    known, f = taught(detector), F.normalize(torch.randn(2, 64), dim=-1)
    everywhere = detector.texts(f, [known] * 2, [None, None])
    here = detector.texts(f, [known] * 2, [2, None])
    torch.testing.assert_close(here[1], everywhere[1])
    assert not torch.allclose(here[0, 1], everywhere[0, 1], atol=1e-4)
    torch.testing.assert_close(here.square().sum(-1), torch.full((2, 2), 0.5))


# --- FiLo++'s own --------------------------------------------------------------------------------


def test_sentences_that_could_be_of_either_side_are_left_out():
    detector = build(FiLoPlusPlus)
    N = F.normalize(torch.tensor([[1.0, 0.1], [0.1, 1.0]]), dim=-1)
    A = F.normalize(torch.tensor([[0.2, 1.0], [0.0, 1.0], [1.0, 1.0]]), dim=-1)
    normal, abnormal = detector.margins(N, A)
    assert detector.staying(normal).tolist() == [True, False]
    assert detector.staying(abnormal).tolist() == [True, True, False]
    strict = build(FiLoPlusPlus, margin=1.9)
    assert strict.staying(normal).tolist() == [True, False]  # the surest always stays


def test_references_count_near_the_same_place_only():
    """A patch whose likeness lies elsewhere on the reference is far from it."""
    near, all_over = (build(FiLoPlusPlus, window=w, taps=(3,)) for w in (1, None))
    encoded = near.encode(images(1))
    known = {}
    for detector in (near, all_over):
        known[detector] = detector.remember(taught(detector), [encoded])
    moved = replace(encoded, patches=tuple(x.flip(1) for x in encoded.patches))
    assert all_over.distances(moved, known[all_over]).abs().max() < 1e-6
    d = near.distances(moved, known[near])[0, 0]
    x = F.normalize(encoded.patches[0][0], dim=-1).unflatten(0, (8, 8))
    y = x.flatten(0, 1).flip(0).unflatten(0, (8, 8))
    expected = (1 - (x[:2, :2] * y[0, 0]).sum(-1).max()) / 2
    torch.testing.assert_close(d[0], expected, atol=1e-5, rtol=0)
    assert d[0] > 1e-3


def test_offsets_move_what_a_convolution_reads():
    """One patch down and to the right: an ordinary convolution of the moved map."""
    detector = build(FiLoPlusPlus, kernels=[3], taps=(3,))
    G = torch.randn(1, 64, 6, 6)
    layer = detector.mdci.deform.get_submodule("0.3")
    torch.testing.assert_close(
        detector.mdci(G, 0), F.conv2d(G, layer.weight, layer.bias, padding=1), atol=1e-4, rtol=1e-4
    )
    torch.nn.init.ones_(detector.mdci.offset.get_submodule("0.3").bias)
    ordinary = F.conv2d(F.pad(G, (0, 1, 0, 1)), layer.weight, layer.bias, padding=1)
    got = detector.mdci(G, 0)[..., :-1, :-1]
    torch.testing.assert_close(got[..., :-1, :-1], ordinary[..., 1:5, 1:5], atol=1e-4, rtol=1e-4)
