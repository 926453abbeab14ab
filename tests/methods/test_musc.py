"""What is MuSc's own: sets of any size, layers of several strides, the step over the set."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models import backbone_of, tiny_state
from small_detectors import images, small_clip, small_cnn, small_dino

from zerodefect.backbones.layered_features import CLIPFeatures
from zerodefect.detector.contract import TooFewError
from zerodefect.images import open_image
from zerodefect.methods.musc import MuSc, MuScConfig, RsCIN
from zerodefect.scoring.scorer import Scorer
from zerodefect.scoring.stream import scored_stream
from zerodefect.types import Prediction

NETWORKS = {
    "clip": lambda: CLIPFeatures(small_clip()),
    "dino": small_dino,
    "cnn": small_cnn,
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_any_set_from_two_pictures_on_any_network(network, count):
    detector = MuSc(NETWORKS[network]())
    side = detector.inputs["image"].multiple * 4
    with torch.no_grad():
        said = list(detector.score_set([detector.encode(images(count, side, side))], None))
    (one,) = said
    assert one.score.shape == (count,) and one.map.shape == (count, side, side)
    assert one.map.isfinite().all() and one.map.min() >= 0 and one.map.max() <= 2
    assert torch.equal(one.score, one.map.amax((1, 2)))


def test_a_picture_alone_is_refused():
    detector = MuSc(small_cnn())
    with torch.no_grad():
        encoded = detector.encode(images(1))
    with pytest.raises(TooFewError, match=r"there is one\. Give two or more"):
        next(detector.score_set([encoded], None))


def test_a_copy_of_a_picture_is_at_no_distance_and_equal_scores_stay_finite():
    detector = MuSc(small_cnn())
    with torch.no_grad():
        encoded = detector.encode(images(1).expand(4, -1, -1, -1))
    (one,) = detector.score_set([encoded], None)
    assert one.score.max() < 2e-3
    step = detector.set_level("rscin", detector.empty())
    step.see(dataclasses.replace(one, score=torch.ones(4)))
    assert step.apply(one).score.tolist() == [0, 0, 0, 0]


def test_pictures_of_two_shapes_are_one_set():
    detector = MuSc(small_cnn(), MuScConfig(consistency=False))
    with torch.no_grad():
        encoded = [detector.encode(images(2, 64, 96)), detector.encode(images(2, 64, 64, seed=1))]
    wide, square = detector.score_set(encoded, None)
    assert wide.map.shape == (2, 64, 96) and square.map.shape == (2, 64, 64)
    alone = next(detector.score_set(encoded[:1], None))
    assert not torch.equal(alone.score, wide.score)


def test_rescoring_by_hand():
    # two alike pictures and one at a right angle
    E = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    step = RsCIN((1, 2, 9))
    whole = Prediction(torch.tensor([1.0, 3.0, 2.0]), None, embedding=E)
    step.see(whole)
    # scaled: 0, 1, 0.5; pairs: (0 + 1) / 2 for the alike; the third has weight for itself alone
    expected = torch.tensor([(0 + 0.5 + 0.5) / 3, (1 + 0.5 + 0.5) / 3, 0.5])
    torch.testing.assert_close(step.apply(whole).score, expected)
    rows = [Prediction(whole.score[i : i + 1], None, embedding=E[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat([step.apply(row).score for row in rows]), expected)


def test_other_steps_are_refused():
    with pytest.raises(ValueError, match="no set-level step 'minmax'; it has: rscin"):
        MuSc(small_cnn()).set_level("minmax", SimpleNamespace())


def test_the_filter_changes_nothing_where_nothing_repeats():
    given = images(8)
    said = []
    for consistency in (True, False):
        detector = MuSc(small_cnn(), MuScConfig(consistency=consistency))
        with torch.no_grad():
            said += detector.score_set([detector.encode(given)], None)
    assert torch.equal(said[0].score, said[1].score)


def test_the_step_is_applied_to_all_that_was_scored():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (40, 40, 3), np.uint8) for _ in range(5)]
    detector = MuSc(small_cnn(), MuScConfig(layers=("layer2",)))
    detector.resize_inputs((64, 64))
    known, how = detector.empty(), (open_image, lambda picture: None, 2)
    plain = [s.result.score for s in scored_stream(Scorer(detector), known, pictures, *how)]
    step = detector.set_level("rscin", known)
    seen = scored_stream(Scorer(detector), known, pictures, *how, step=step)
    with torch.no_grad():
        E = detector.encode(torch.stack([detector.preprocess(open_image(p)) for p in pictures]))
    again = RsCIN((1, 2, 3))
    whole = Prediction(torch.tensor(plain), None, embedding=E.embedding)
    again.see(whole)
    expected = again.apply(whole).score
    torch.testing.assert_close(
        torch.tensor([s.result.score for s in seen]), expected, atol=1e-4, rtol=0
    )


def test_a_tower_runs_with_gelu_unless_the_weights_own_is_asked_for():
    quick = CLIPFeatures(backbone_of(tiny_state(), "quick", "quick_gelu"))
    exact = CLIPFeatures(backbone_of(tiny_state(), "exact", "gelu"))

    def maps(features, **options):
        detector = MuSc(features, MuScConfig(**options))
        with torch.no_grad():
            (said,) = detector.score_set([detector.encode(images(3))], None)
        return said.map

    assert torch.equal(maps(quick), maps(exact))
    assert not torch.equal(maps(quick, activation="weights"), maps(quick))
