"""What is known of a product: a frozen record that travels."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from zerodefect.detector.knowledge import FORMAT, VERSION, Knowledge, KnowledgeError, Product
from zerodefect.prompts.vocabulary import Vocabulary

FACTS = {"method": "x", "config": {"taps": [1, 2], "sigma": 4.0}, "weights": None}


def knowledge() -> Knowledge:
    words = Vocabulary.of({"rust": ["rusty {}", "{} with rust"], "dent": "{} with a dent"})
    return Knowledge(
        FACTS,
        Product("metal nut", words, ("it is round", "it shines"), (("screw", 2), ("nut", 1))),
        shots=3,
        tensors={
            "texts": torch.randn(2, 5, generator=torch.Generator().manual_seed(0)),
            "memory/patches": torch.arange(12.0).reshape(4, 3)[::2],  # with gaps in memory
            "pictures/patches": torch.tensor([0, 2]),
            "none": torch.zeros(0, 5),
            "half": torch.ones(2, dtype=torch.bfloat16),
        },
        facts={"thinned": True, "scale": 0.5},
    )


# --- products ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "  ", "\n\t"])
def test_a_product_needs_a_name(name):
    with pytest.raises(ValueError, match="needs a name, such as 'magnetic tile'"):
        Product(name)


def test_runs_of_blanks_in_a_name_become_one():
    assert Product("  magnetic \t tile\n").name == "magnetic tile"
    assert Product("metal_nut-2").name == "metal_nut-2"


# --- the record ----------------------------------------------------------------------------------


def test_nothing_in_it_is_changed_but_new_ones_are_made():
    first = Knowledge(FACTS)
    second = first.having({"a/1": torch.zeros(2), "b": torch.ones(3)}, shots=2)
    third = second.having({"b": torch.zeros(1)}, product=Product("nut"))
    assert (first.shots, first.product, dict(first.tensors)) == (0, None, {})
    assert (third.shots, third.product.name) == (2, "nut")
    assert torch.equal(second["b"], torch.ones(3)) and torch.equal(third["b"], torch.zeros(1))
    assert third["a/1"] is second["a/1"]
    assert "b" in second and "b" not in first and "a/2" not in third
    assert second.tensors.keys() == {"a/1", "b"}
    assert second.bytes == 20
    for name in ("shots", "product", "tensors"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(first, name, None)
    with pytest.raises(KeyError):
        first["a/1"]


def test_it_moves_between_devices():
    known = knowledge()
    moved = known.to("meta")
    assert {tensor.device.type for tensor in moved.tensors.values()} == {"meta"}
    assert (moved.product, moved.shots, moved.facts) == (known.product, 3, known.facts)
    assert known["texts"].device.type == "cpu"


# --- on disk -------------------------------------------------------------------------------------


def test_there_and_back(tmp_path):
    known, path = knowledge(), tmp_path / "nut.safetensors"
    known.save(path)
    found = Knowledge.load(path)
    for name in ("detector", "product", "shots", "facts"):
        assert getattr(found, name) == getattr(known, name), name
    assert found.tensors.keys() == known.tensors.keys()
    for name, tensor in known.tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert found.product.vocabulary.names == ("rust", "dent")


def test_the_same_knowledge_gives_the_same_bytes(tmp_path):
    for name in "ab":
        knowledge().save(tmp_path / name)
    Knowledge.load(tmp_path / "a").save(tmp_path / "c")
    contents = {(tmp_path / name).read_bytes() for name in "abc"}
    assert len(contents) == 1


def test_knowledge_of_nothing_travels_too(tmp_path):
    Knowledge(FACTS).save(tmp_path / "empty")
    found = Knowledge.load(tmp_path / "empty")
    assert (found.product, found.shots, dict(found.tensors)) == (None, 0, {})
    Knowledge(FACTS, Product("nut")).save(tmp_path / "nut")
    assert Knowledge.load(tmp_path / "nut").product == Product("nut")


def test_files_that_are_none_are_refused(tmp_path):
    path = tmp_path / "nut.safetensors"
    with pytest.raises(KnowledgeError, match="cannot be read as knowledge"):
        Knowledge.load(path)
    save_file({"texts": torch.zeros(2)}, path)
    with pytest.raises(KnowledgeError, match="not a file of ZeroDefect's knowledge"):
        Knowledge.load(path)
    knowledge().save(path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(KnowledgeError, match=r"nut\.safetensors: .* let the detector learn anew"):
        Knowledge.load(path)
    with pytest.raises(KnowledgeError, match="cannot be read as knowledge"):
        Knowledge.load(tmp_path)


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"version": VERSION + 1}, "written by a newer ZeroDefect .*Update the package"),
        ({"version": "one"}, "cannot be read as knowledge"),
        ({"product": {"name": "nut"}}, "cannot be read as knowledge"),
        ({"product": "nut"}, "cannot be read as knowledge"),
    ],
)
def test_headers_that_cannot_be_read(tmp_path, about, reason):
    whole = {"version": VERSION, "detector": FACTS, "product": None, "shots": 0, "facts": {}}
    save_file({"a": torch.zeros(1)}, tmp_path / "fine", {FORMAT: json.dumps(whole)})
    assert Knowledge.load(tmp_path / "fine").detector == FACTS
    texts = ["{", "[1]", "{}", json.dumps({**whole, **about})]
    for text, told in zip(texts, ["cannot be read"] * 3 + [reason], strict=True):
        save_file({"a": torch.zeros(1)}, tmp_path / "odd", {FORMAT: text})
        with pytest.raises(KnowledgeError, match=told):
            Knowledge.load(tmp_path / "odd")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "needs a name"),
        (" \n", "needs a name"),
        (None, "is text, such as 'screw', and not a NoneType"),
        (12, "and not a int"),
        (["screw", "nut"], "and not a list"),
        ("screw" * 1000, "has 5,000 characters, at most 1000"),
        ("screw\x1b[31m", r"control character '\\x1b'"),
        ("bell\x07", r"control character '\\x07'"),
        ("\udcff", r"control character '\\udcff'"),
    ],
)
def test_a_name_that_is_no_name_is_one_line_that_says_what_helps(name, told):
    with pytest.raises(ValueError, match=told) as caught:
        Product(name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["4711", "🔩", "👩\u200d🔧 tool", "螺丝", 'Ø 12 - ½"'])
def test_other_names_are_accepted(name):
    assert Product(name).name == name
