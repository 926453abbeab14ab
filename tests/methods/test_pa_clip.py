"""What is PA-CLIP's own: banks, the discount, sets of any size."""

import dataclasses

import pytest
import torch
from small_detectors import images, small_clip, taught
from torch.nn.functional import normalize

from zerodefect.detector.contract import TooFewError
from zerodefect.methods.pa_clip import Bank, PAClip, _Alike, _chosen
from zerodefect.types import Prediction


@pytest.fixture(scope="module")
def detector():
    return PAClip(small_clip())


@pytest.mark.parametrize("count", [2, 3, 8])
def test_any_set_from_two_pictures(detector, count):
    with torch.no_grad():
        encoded = detector.encode(images(count))
    (one,) = detector.score_set([encoded], taught(detector))
    assert one.map.isfinite().all() and one.map.min() >= 0 and one.map.max() <= 1
    assert one.score.isfinite().all() and one.score.min() >= 0 and one.score.max() <= 1


def test_a_picture_alone_is_refused(detector):
    with torch.no_grad():
        encoded = detector.encode(images(1))
    with pytest.raises(TooFewError, match="there is one"):
        next(detector.score_set([encoded], taught(detector)))


def test_copies_alone_are_as_normal_as_each_other(detector):
    with torch.no_grad():
        encoded = detector.encode(images(1).expand(4, -1, -1, -1))
    (one,) = detector.score_set([encoded], taught(detector))
    assert one.map.isfinite().all()
    torch.testing.assert_close(one.map, one.map[:1].expand_as(one.map), atol=1e-4, rtol=0)


def test_banks_come_from_the_trusted_half():
    a = [torch.full((20,), 0.9), torch.linspace(0, 0.19, 20), torch.linspace(0, 0.2, 20)]
    a.append(torch.full((20,), 0.8))
    chosen = _chosen(a, None)
    counts = [(int(normal.sum()), int(pseudo.sum())) for normal, pseudo in chosen]
    assert counts[0] == counts[3] == (0, 0)
    # of 40 trusted patches the lower half, and the two that look worst
    assert counts[1][0] + counts[2][0] == 20 and counts[1][1] + counts[2][1] == 2
    kept = [torch.ones(20, dtype=torch.bool)] * 2 + [torch.zeros(20, dtype=torch.bool)] * 2
    assert not any(bool(part.any()) for part in _chosen(a, kept)[2])


def test_a_look_alike_is_discounted_by_half_at_most(detector):
    E = torch.eye(4)
    normal, pseudo = Bank(E[:1], torch.tensor([0])), Bank(E[1:2], torch.tensor([1]))
    F = normalize(torch.stack([E[0], E[1], E[2], E[0] + E[1]]), dim=-1)
    # d_n = 0, 1, 1, 1 - 0.707; d_p = 1, 0, 1, the same
    got = detector.decision(F, 2, normal, pseudo)
    torch.testing.assert_close(got, torch.tensor([0.0, 0.5, 1.0, 1 - 0.5**0.5]))
    # its own entries do not count: without another normal one the other bank stands in
    assert detector.decision(F[1:2], 0, normal, pseudo).item() == 0
    assert detector.decision(F[:1], 0, normal, normal).item() == 0


def test_a_bank_keeps_a_coreset():
    parts = [torch.randn(400, 3), torch.randn(200, 3)]
    bank = Bank.of(parts, 20_000)
    assert len(bank.entries) == len(bank.pictures) == 256 and set(bank.pictures.tolist()) == {0, 1}
    assert len(Bank.of(parts, 30).entries) == 30


def test_scores_of_alike_pictures_by_hand():
    E = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    step = _Alike(1)
    one = Prediction(torch.tensor([1.0, 3.0, 5.0]), None, embedding=E)
    step.see(one)
    got = step.apply(one).score
    assert got[:2].tolist() == [2.0, 2.0]  # two with the same token
    # e / (e + 1) of its own score, the rest of one of two that are equally far
    own = torch.tensor([1.0, 0.0]).softmax(0)[0].item()
    assert min(abs(got[2].item() - 5 * own - s * (1 - own)) for s in (1, 3)) < 1e-5


def test_words_alone_decide_nothing_of_the_distance(detector):
    with torch.no_grad():
        encoded = [detector.encode(images(4))]
    plain = PAClip(small_clip(), dataclasses.replace(detector.config, words=0.0))
    known = taught(plain)
    (one,) = plain.score_set(encoded, known)
    assert 0 <= one.score.min() <= one.score.max() <= 1
    with_words = next(detector.score_set(encoded, taught(detector)))
    assert not torch.equal(one.map, with_words.map)
