"""What the methods whose learned sentences say "object" have in common."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from models import tiny_backbone
from official_samples import MAKERS, official_file
from small_detectors import images, small_clip

from zerodefect import methods
from zerodefect.detector.learned_sentences import LearnedSentencesDetector

NAMES = [n for n in methods.names() if issubclass(methods.get(n), LearnedSentencesDetector)]
each_name = pytest.mark.parametrize("name", NAMES)
with_files = pytest.mark.parametrize("name", [name for name in NAMES if name in MAKERS])


def build(name: str, backbone=None, **options) -> LearnedSentencesDetector:
    return methods.create(name, backbone or small_clip(), **options).eval()


def test_the_known_ones_are_among_them():
    assert {"anomalyclip", "crane", "glocalclip", "leclip"} <= set(NAMES)


@each_name
def test_texts_are_computed_once(name, monkeypatch):
    detector, calls = build(name, tiny_backbone()), []
    encode = detector.clip.text.encode
    monkeypatch.setattr(
        detector.clip.text, "encode", lambda *a, **k: calls.append(1) or encode(*a, **k)
    )
    detector(images(2))
    first = len(calls)
    for _ in range(2):
        detector(images(2))
    assert len(calls) == first > 0
    detector.after_learning()  # the learned ones anew, fixed ones stay
    detector(images(2))
    assert len(calls) == first + 1


@each_name
def test_plain_reads_the_patches_that_clip_itself_has(name):
    visual, seen = small_clip().clip.visual, images(2)
    got = build(name, attention="plain").encode(seen)
    tokens = visual.encode(visual.embed(seen, resize="bilinear")).tokens
    torch.testing.assert_close(got.patches[-1], visual.project(tokens[:, 1:]))
    other = build(name).encode(seen)
    torch.testing.assert_close(got.image, other.image, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got.patches[-1], other.patches[-1], atol=0.01)


def test_the_class_token_passes_the_last_norm_in_crane_alone():
    visual, seen = small_clip().clip.visual, images(2)
    token = visual.encode(visual.embed(seen, resize="bilinear")).tokens[:, 0]
    norms = {"anomalyclip": False, "glocalclip": False, "leclip": False, "crane": True}
    for name, norm in norms.items():
        got = build(name, attention="plain").encode(seen)
        torch.testing.assert_close(got.image, visual.project(token, norm=norm))


@each_name
def test_weights_whose_patches_match_texts_are_read_as_they_are(name):
    rule = methods.get(name).rule
    matching = replace(small_clip(), patches_match_texts=True)
    assert build(name).config.attention == rule != "plain"
    made = build(name, matching)
    assert (made.config.attention, made.stream) == ("plain", None)
    assert build(name, matching, attention=rule).stream is not None
    assert build(name).stream is not None


@with_files
def test_a_file_for_another_clip_is_refused(name):
    published = official_file(build(name, small_clip(seed=1)))
    with pytest.raises(ValueError, match="not this backbone's token embedding"):
        build(name).official_state(published)


@with_files
def test_a_file_of_other_sentences_is_refused(name):
    published = official_file(build(name))
    learner = published[methods.get(name).learner]
    tokens = next(key for key in learner if key.startswith("tokenized_prompts_"))
    learner[tokens] += 1
    with pytest.raises(ValueError, match=f"{tokens} are not the tokens of "):
        build(name).official_state(published)
