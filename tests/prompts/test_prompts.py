"""Ensembles, vocabularies and the cache of text features."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import tiny_backbone

from zerodefect.paths import cache_folder
from zerodefect.procedural import DEFECT_KINDS
from zerodefect.prompts import features
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, PromptEnsemble
from zerodefect.prompts.features import TextFeatures, embed_texts
from zerodefect.prompts.vocabulary import Vocabulary


def test_the_ensemble_of_the_paper():
    ensemble = PromptEnsemble()
    normal, anomalous = (
        ensemble.normal_prompts("metal_nut"),
        ensemble.anomalous_prompts("metal_nut"),
    )
    assert len(normal) == 147
    assert len(anomalous) == 84
    assert normal[0] == "a cropped photo of the metal_nut."
    assert "a photo of a flawless metal_nut for visual inspection." in normal
    assert anomalous[0] == "a cropped photo of the damaged metal_nut."
    assert len(set(normal)) == 140  # one template stands twice and counts twice


@given(st.text(min_size=1).filter(lambda s: s.strip()))
def test_any_name_enters_as_it_is(name):
    """Braces, backslashes, quotes: nothing in a name is taken for formatting."""
    plain = " ".join(name.split())
    for prompt in PromptEnsemble().normal_prompts(name):
        assert plain in prompt


@pytest.mark.parametrize("name", ["", "   ", "\n"])
def test_an_empty_name_is_an_error(name):
    with pytest.raises(ValueError, match="needs a name"):
        PromptEnsemble().normal_prompts(name)


def test_the_users_own_words():
    ensemble = PromptEnsemble(anomalous=(*ANOMALOUS_STATES, "{} with burr"))
    assert "a photo of the screw with burr." in ensemble.anomalous_prompts("screw")
    assert len(ensemble.anomalous_prompts("screw")) == 84 + 21
    with pytest.raises(ValueError, match="exactly once"):
        PromptEnsemble(normal=("shiny",))
    with pytest.raises(ValueError, match="no templates"):
        PromptEnsemble(templates=())


def test_default_kinds_are_those_that_the_embedded_model_was_taught():
    assert set(Vocabulary.default().names) == set(DEFECT_KINDS)


def test_vocabulary_from_names_mappings_and_files(tmp_path):
    assert Vocabulary.of(["burr", "rust"]).kinds == (
        ("burr", ("{} with burr",)),
        ("rust", ("{} with rust",)),
    )
    mapping = {"rust": ["rusty {}", "{} with rust"], "burr": "{} with a burr"}
    assert Vocabulary.of(mapping).names == ("rust", "burr")
    (tmp_path / "kinds.json").write_text(json.dumps(mapping))
    assert Vocabulary.load(tmp_path / "kinds.json") == Vocabulary.of(mapping)
    (tmp_path / "kinds.txt").write_text("# ours\nburr\n\n  rust \n", encoding="utf-8")
    assert Vocabulary.load(tmp_path / "kinds.txt").names == ("burr", "rust")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b"{", "not a defect vocabulary"),
        ("a.json", b"3", "neither an object nor a list"),
        ("a.json", b'{"rust": []}', "at least one phrase"),
        ("a.json", b'{"rust": ["rusty"]}', "exactly once"),
        ("a.json", b'{"rust": [3]}', "not a defect vocabulary"),
        ("a.json", b"{}", "empty"),
        ("a.txt", b"# nothing\n", "empty"),
        ("a.txt", b"rust\nrust\n", "named twice"),
        ("a.txt", b"\xff\xfe\x00", "cannot be read"),
        ("absent.txt", None, "cannot be read"),
    ],
)
def test_broken_vocabularies_name_file_and_remedy(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=reason) as error:
        Vocabulary.load(path)
    assert str(path) in str(error.value)
    assert "kind a line" in str(error.value)


# --- features --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip():
    return tiny_backbone().clip


PROMPTS = ["a photo of a screw.", "x", "a photo of a screw.", "a damaged screw with a long scratch"]


def test_embeddings_come_in_the_order_given_whatever_the_batch(clip):
    expected = torch.cat([embed_texts(clip, [p]) for p in PROMPTS])
    for batch in (1, 2, 64):
        torch.testing.assert_close(embed_texts(clip, PROMPTS, batch), expected, atol=1e-5, rtol=0)


class Counting(TextFeatures):
    """Counts the sets of prompts that really went through the tower."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.written = 0

    def _write(self, key, feature):
        self.written += 1
        super()._write(key, feature)


def test_features_are_computed_once_in_memory_and_on_disk(clip, tmp_path):
    first = Counting(clip, "weights", tmp_path)
    mean = first.means([PROMPTS])[0]
    torch.testing.assert_close(mean, embed_texts(clip, PROMPTS).mean(0))
    assert torch.equal(first.means([PROMPTS])[0], mean)
    assert first.written == 1
    again = Counting(clip, "weights", tmp_path)
    assert torch.equal(again.means([PROMPTS])[0], mean)
    assert again.written == 0


@pytest.mark.parametrize("change", ["weights", "prompts", "order", "activation", "precision"])
def test_whatever_changes_the_feature_changes_the_key(clip, tmp_path, change):
    TextFeatures(clip, "weights", tmp_path).means([PROMPTS])
    other, fingerprint, prompts = clip, "weights", list(PROMPTS)
    if change == "weights":
        fingerprint = "others"
    elif change == "prompts":
        prompts[1] = "y"
    elif change == "order":
        prompts.reverse()  # the mean is the same up to rounding; the key is not, and that is fine
    elif change == "activation":
        other = tiny_backbone().clip
        other.config = replace(other.config, activation="quick_gelu")
    else:
        other = tiny_backbone().clip.to(torch.bfloat16)
    cache = Counting(other, fingerprint, tmp_path)
    cache.means([prompts])
    assert cache.written == 1


def test_a_damaged_cache_costs_time_but_no_job(clip, tmp_path):
    mean = TextFeatures(clip, "weights", tmp_path).means([PROMPTS])[0]
    (file,) = tmp_path.glob("*.safetensors")
    for damage in (b"", b"rubbish", file.read_bytes()[:-4]):
        file.write_bytes(damage)
        assert torch.equal(TextFeatures(clip, "weights", tmp_path).means([PROMPTS])[0], mean)
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_full_disk_costs_no_job(clip, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(features, "save", full)
    mean = TextFeatures(clip, "weights", tmp_path).means([PROMPTS])[0]
    torch.testing.assert_close(mean, embed_texts(clip, PROMPTS).mean(0))
    assert list(tmp_path.iterdir()) == []


def test_without_a_fingerprint_nothing_is_kept_on_disk(clip, tmp_path):
    TextFeatures(clip, None, tmp_path).means([PROMPTS])
    assert list(tmp_path.iterdir()) == []


def test_no_prompt_is_an_error(clip):
    with pytest.raises(ValueError, match="no prompt"):
        TextFeatures(clip).means([[]])


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ZERODEFECT_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("ZERODEFECT_CACHE")
    assert isinstance(cache_folder(), Path)
    assert "zerodefect" in str(cache_folder())
