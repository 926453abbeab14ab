"""What is PaDiM's own: Gaussians by hand, channels, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from models import picture
from small_detectors import inputs, remembered, small_cnn

from zerodefect.images import Picture
from zerodefect.methods import create
from zerodefect.scoring.scorer import Scorer
from zerodefect.scoring.stream import scored_stream
from zerodefect.scoring.viewing import Viewing
from zerodefect.types import Failure


def made(**options):
    return create("padim", small_cnn(), **options)


def learned(detector, count: int):
    return remembered(detector, detector.empty(), inputs(detector, count))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_the_mahalanobis_distance_by_hand(covariance):
    detector = made(covariance=covariance, channels=6, flavour="paper")
    known, given = learned(detector, 9), inputs(detector, 2, seed=4)
    E = detector.encode(inputs(detector, 9)).values.double()
    e = detector.encode(given).values.double()
    got = detector.memory.distance(known, e)
    for place in (0, 100, 255):
        S = torch.cov(E[:, place].T)
        S = S if covariance == "full" else torch.diag(S.diagonal())
        x = e[:, place] - E[:, place].mean(0)
        expected = (x @ torch.linalg.inv(S + 0.01 * torch.eye(6)) * x).sum(1).sqrt()
        torch.testing.assert_close(got[:, place].double(), expected, rtol=1e-5, atol=1e-5)


def test_gaussians_of_a_former_version_are_made_anew():
    detector = made(channels=6)
    known, given = learned(detector, 9), inputs(detector, 2, seed=4)
    former = known.without("gaussian/").having(
        {"gaussian/mean": known["gaussian/mean"].double(), "gaussian/factor": torch.ones(1)}
    )
    assert torch.equal(detector(given, former).map, detector(given, known).map)


def test_one_picture_has_the_regularisation_alone():
    detector = made(flavour="paper", regularisation=0.25)
    known, given = learned(detector, 1), inputs(detector, 1, seed=4)
    E, e = (detector.encode(x).values for x in (inputs(detector, 1), given))
    torch.testing.assert_close(detector.memory.distance(known, e), (e - E).norm(dim=2) / 0.5)


def test_channels_are_drawn_once_and_hang_on_the_seed():
    first, again, other = (made(seed=seed, channels=9).chosen(28) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len(first.unique()) == 9
    assert len(made().chosen(28)) == 28


def test_its_memory_does_not_grow_and_is_told_before():
    detector = made()
    assert learned(detector, 2).bytes == learned(detector, 8).bytes
    told = []
    from zerodefect.images import open_image

    plain = open_image(torch.zeros(40, 40, 3, dtype=torch.uint8).numpy())
    known = Scorer(detector).remember(detector.empty(), [plain] * 3, [None] * 3, 2, told.append)
    taken = known.bytes - sum(known[n].nbytes for n in ("grid", "sum/count"))
    assert told[0].bytes == taken


def test_other_sizes_are_refused():
    detector = made()
    known = learned(detector, 2)
    with pytest.raises(ValueError, match="learned 16x16 positions and cannot judge 16x32"):
        detector(inputs(detector, 1, 64, 128), known)
    with pytest.raises(ValueError, match=r"learned \[16, 16\] positions"):
        remembered(detector, known, inputs(detector, 1, 64, 128))


@pytest.mark.parametrize("name", ["padim", "arrangement"])
def test_a_picture_of_another_shape_costs_itself_alone(name):
    """With the aspect ratio kept it has other places than those that were learned."""
    detector = create(name, small_cnn())
    detector.resize_inputs((64, 64))
    scorer = Scorer(detector.eval(), Viewing(keep_aspect=True))
    shapes = [(60, 90), (60, 90), (90, 60), (60, 90)]
    parts = [Picture(f"{n}.png", picture(n, *shape)) for n, shape in enumerate(shapes)]
    good = [Picture("good", picture(n, 60, 90)) for n in range(10, 13)]
    known = scorer.remember(detector.empty(), good, [None] * 3)
    seen = list(scored_stream(scorer, known, parts, lambda part: part))
    assert [isinstance(one.result, Failure) for one in seen] == [False, False, True, False]
    assert f"{name} learned" in seen[2].result.reason and seen[2].result.image == "2.png"
