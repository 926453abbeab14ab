"""What is CLIP Surgery's own; its numbers are held by tests/parity/test_clip_surgery.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small_detectors import images, small_clip, taught

from zerodefect.layers.similarity import cosine
from zerodefect.methods.clip_surgery import (
    CLIPSurgery,
    explanation_map,
    feature_surgery,
    points,
    redundant_surgery,
)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_surgery_is_the_element_wise_formula_of_the_paper():
    f_cls, f, T = drawn(2, 16), drawn(2, 5, 16, seed=1), drawn(3, 16, seed=2)
    f_cls, f, T = (F.normalize(x, dim=-1) for x in (f_cls, f, T))
    w = (2 * f_cls @ T.T).softmax(-1)
    e = (w / w.mean(-1, keepdim=True))[:, None, :, None] * f[:, :, None] * T  # (B, L, n, D)
    expected = (e - e.mean(2, keepdim=True)).sum(-1)
    torch.testing.assert_close(feature_surgery(f_cls, f, T), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(expected.sum(-1), torch.zeros(2, 5), atol=1e-6, rtol=0)


def test_a_picture_in_a_batch_is_explained_as_alone():
    detector = CLIPSurgery.build(small_clip())
    both, T = detector.encode(images(2)), detector.texts(["label", "scratch"])
    alone = detector.encode(images(2)[1:])
    S = feature_surgery(both.image, both.patches[0], T)
    expected = feature_surgery(alone.image, alone.patches[0], T)
    torch.testing.assert_close(S[1:], expected, atol=1e-5, rtol=0)


def test_what_no_word_says_is_taken_away():
    f, T = drawn(1, 4, 8), drawn(2, 8, seed=1)
    r = T[0]
    S = redundant_surgery(f, T, r)
    assert S[..., 0].abs().max() < 1e-6
    torch.testing.assert_close(S[..., 1], cosine(f, T[1:])[..., 0] - cosine(f, r[None])[..., 0])


def test_explanations_reach_from_0_to_1_and_points_lie_at_their_ends():
    S = torch.zeros(64)
    S[[0, 1, 8, 9]] = 1.0  # a corner of 2 x 2 patches
    S[[54, 55, 62, 63]] = -1.0
    map = explanation_map(S.view(1, 64, 1), (8, 8), (80, 160))[0, 0]
    assert map.shape == (80, 160) and (map[0, 0], map[-1, -1]) == (1, 0)
    xy, labels = points(S, (8, 8), (80, 160))
    assert labels.tolist() == [1, 0] and xy.tolist() == [[20, 10], [140, 70]]


def test_evidence_is_a_logit_against_no_word_on_one_scale():
    detector = CLIPSurgery.build(small_clip())
    encoded = detector.encode(images(2, 64, 96))
    evidence = detector.word_evidence(encoded, ["scratch", ""])
    assert evidence.shape == (2, 2, 8, 12) and evidence[:, 1].abs().max() < 1e-5
    f, (t, r) = encoded.patches[0], detector.texts(["scratch", ""])
    pair = (cosine(f, torch.stack([t, r])) / 0.07).softmax(-1)[..., 0]  # word against no word
    torch.testing.assert_close(evidence[:, 0].sigmoid().flatten(1), pair, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("layers", "start"), [(3, 1), (6, 1), (8, 3)])
def test_the_last_six_blocks_have_the_second_stream(layers, start):
    assert CLIPSurgery.build(small_clip(vision_layers=layers)).stream.start == start


def test_patches_that_match_texts_are_read_as_they_are():
    clip = replace(small_clip(), patches_match_texts=True)
    detector, batch = CLIPSurgery.build(clip), images(2)
    expected = detector.clip.visual.project(detector.run(batch).tokens[:, 1:])
    torch.testing.assert_close(detector.encode(batch).patches[0], expected)
    assert CLIPSurgery.build(clip, attention="vv").stream is not None


def test_a_stream_must_start_within_the_tower():
    with pytest.raises(ValueError, match=r"stream_start 4: the image tower has blocks 1\.\.3"):
        CLIPSurgery.build(small_clip(), stream_start=4)


def test_the_other_read_out_is_a_probability():
    detector = CLIPSurgery.build(small_clip(), read_out="probability")
    known = taught(detector)
    encoded, T = detector.encode(images(2)), known["texts"]
    p = (cosine(encoded.patches[0], T) / 0.07).softmax(-1)[..., 1]
    torch.testing.assert_close(detector.patch_anomaly(encoded, T), p)
    assert (detector.map_range(known), detector.neutral_score(known)) == ((0.0, 1.0), 0.5)
    assert CLIPSurgery.build(small_clip()).neutral_score(known) is None


def test_beside_references_both_read_outs_are_joined_as_probabilities():
    surgery = CLIPSurgery.build(small_clip())
    plain = CLIPSurgery.build(small_clip(), read_out="probability")
    values = torch.tensor([0.035, 0.0, -0.035])  # half of a temperature
    expected = torch.tensor([1.0, 0.0, -1.0]).sigmoid()
    torch.testing.assert_close(surgery.map_share(values, surgery.empty()), expected)
    torch.testing.assert_close(plain.map_share(expected, plain.empty()), expected)
    assert plain.neutral_score(taught(plain)) == 0.5
    assert plain.neutral_score(taught(plain, references=1)) is None
