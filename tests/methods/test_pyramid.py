"""What is the pyramid memory's own: stages, what references say of each other, and its scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from models import picture
from small_detectors import images, remembered, small_cnn

from zerodefect import Inspector
from zerodefect.detector.measured_memory import StageMemory, spread_rows
from zerodefect.images import Picture
from zerodefect.layers.memory import MemoryBank
from zerodefect.layers.similarity import highest_mean, peak_and_spread
from zerodefect.layers.turning import rotated
from zerodefect.methods import create


def made(size=64, **options):
    detector = create("pyramid", small_cnn(), **options)
    detector.resize_inputs((size, size))
    return detector.eval()


def test_stages_finer_than_asked_for_are_averaged_down():
    stages = made(finest=8).encode(images(2, 64, 96))
    assert [stage.grid.shape for stage in stages.patches] == [(8, 12), (8, 12), (4, 6), (2, 3)]
    finer = made(finest=4).encode(images(2, 64, 96))
    assert [stage.grid.shape for stage in finer.patches] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_a_size_is_named_once():
    with pytest.raises(ValueError, match="the same one twice"):
        made(128, sizes=(0.5, 1.0, 0.5))


def test_every_layer_at_every_size_is_a_stage():
    pictures = images(2, 128, 192)
    both = made(128, sizes=(0.5, 1.0))
    seen, whole = both.encode(pictures), made(128).encode(pictures)
    small = made(128).encode(F.interpolate(pictures, (64, 96), mode="bilinear", antialias=True))
    for one, other in zip(seen.patches, (*small.patches, *whole.patches), strict=True):
        assert one.grid.shape == other.grid.shape and one.grid.size == (128, 192)
        torch.testing.assert_close(one.values, other.values)
    assert len(both.references(seen)) == 2 * len(both.layers)
    known = remembered(both, both.empty(), images(3, 128, 192, seed=1))
    assert both(pictures, known).map.shape == (2, 128, 192)
    turned = made(128, sizes=(0.5, 1.0), turned=True)
    known = remembered(turned, turned.empty(), images(3, 128, 192, seed=1))
    assert turned(pictures, known).map.shape == (2, 128, 192)


def test_its_map_is_the_formula_by_hand():
    """One stage of three references: r = d - lambda o(m), standardised over those left out."""
    detector = made(layers=("layer3",), neighbourhood=1, density=0.5)
    good, given = images(3, 64, 64), images(1, 64, 64, seed=5)
    got = detector(given, remembered(detector, detector.empty(), good))
    sets = [one.double() for one in detector.encode(good).patches[0].values]

    def nearest(x, others):
        return torch.cdist(x, torch.cat(others)).min(1)

    def residual(x, kept):
        """d and o among the pictures ``kept``."""
        d, row = nearest(x, kept)
        owns = [nearest(one, kept[:i] + kept[i + 1 :])[0] for i, one in enumerate(kept)]
        return d - 0.5 * torch.cat(owns)[row]

    left_out = torch.cat([residual(one, sets[:i] + sets[i + 1 :]) for i, one in enumerate(sets)])
    r = residual(detector.encode(given).patches[0].values[0].double(), sets)
    z = (r - left_out.mean()) / left_out.std()
    grid = detector.encode(given).patches[0].grid
    torch.testing.assert_close(
        got.map[0].double(), grid.map(z[None].float())[0].double(), atol=1e-3, rtol=0
    )
    assert float(got.score) == pytest.approx(float(z.max()), abs=1e-3)  # of 16 patches, 1 % is one


@pytest.mark.parametrize("count", [1, 2, 5])
def test_good_pictures_lie_around_zero_and_strange_ones_above(count):
    """Noise of one kind is good; noise of another contrast is not."""
    detector = made()
    good = images(count + 4, 64, 64)
    known = remembered(detector, detector.empty(), good[:count])
    new, strange = detector(good[count:], known), detector(3 * good[count:], known)
    assert strange.score.min() > new.score.max() + 1
    if count > 2:
        assert abs(float(new.map.mean())) < 1


def test_a_stage_keeps_so_many_items_at_most_of_every_picture():
    detector = made(items=50)
    known = remembered(detector, detector.empty(), images(3, 64, 64))
    banks = [detector.memory.bank(known, name) for name in detector.layers]
    assert [len(bank.features) for bank in banks] == [50, 50, 48, 12]
    assert banks[0].groups.unique().tolist() == [0, 1, 2]
    assert detector.memory.leaves_out(known)
    two = remembered(detector, detector.empty(), images(2, 64, 64))
    assert not detector.memory.leaves_out(two)
    with torch.no_grad(), pytest.raises(RuntimeError, match="leave"):
        detector.predict(detector.encode(images(1, 64, 64)), two, torch.tensor([0]))


def test_what_references_say_of_each_other():
    """Features on a line: 0 and 10 of one picture, 1 of another, 10.5 of a third."""
    detector = made(layers=("layer3",), density=0.0)
    features = torch.tensor([[0.0], [10.0], [1.0], [10.5]])
    known = detector.empty().having(
        {"memory/x": features, "pictures/x": torch.tensor([0, 0, 1, 2])}, shots=3
    )
    memory: StageMemory = detector.memory
    learned = memory.measured(known, "x", 0.0)
    assert learned["own/x"].tolist() == [[1.0, 10.5], [0.5, 9.0], [1.0, 9.5], [0.5, 9.5]]
    assert learned["whose/x"].tolist() == [1, 2, 0, 0]
    d = torch.tensor([1.0, 0.5, 1.0, 0.5])
    torch.testing.assert_close(learned["scale/x"], torch.stack([d.mean(), d.std()]))


def test_the_highest_and_the_mean_of_the_highest():
    maps = torch.arange(200.0).view(1, 10, 20)
    assert highest_mean(maps, 0.02).tolist() == [197.5]
    assert highest_mean(maps, 0).tolist() == [199]
    assert peak_and_spread(maps, 0.02).tolist() == [198.25]


def test_banks_are_euclidean():
    detector = made()
    known = remembered(detector, detector.empty(), images(2, 64, 64))
    bank: MemoryBank = detector.memory.bank(known, detector.layers[0])
    assert bank.metric == "euclidean"


def bars(count: int, degrees: float, size: int = 256) -> torch.Tensor:
    """Bars that lie in one direction, or, with ``degrees``, each turned by further ones."""
    draw = torch.Generator().manual_seed(3)
    picture = torch.zeros(1, 3, size, size)
    picture[..., size // 2 - 12 : size // 2 + 12, size // 5 : -size // 5] = 2.0
    picture[..., size // 2 - 12 : size // 2, size // 2 :] = 1.0
    turned = [rotated(picture, degrees * number, "border") for number in range(count)]
    return torch.cat(turned) + 0.05 * torch.randn(count, 3, size, size, generator=draw)


def test_references_that_lie_anyhow_are_found_out_and_remembered_turned():
    """Bars in four directions; a bar in one of them that was not shown is then as good."""
    detector = made(256)
    alike = remembered(detector, detector.empty(), bars(4, 0))
    assert alike.facts["turned"] is False
    anyhow = remembered(detector, detector.empty(), bars(4, 90)[:3])
    assert anyhow.facts["turned"] is True
    never = made(256, turned=False)
    plain = remembered(never, never.empty(), bars(4, 90)[:3])
    views = len(anyhow["pictures/layer3"]) / len(plain["pictures/layer3"])
    assert views == 4 and anyhow.shots == 3
    last = bars(4, 90)[3:]
    features = detector.encode(last).patches[2].values
    near, far = (detector.memory.distance(k, "layer3", features).mean() for k in (anyhow, plain))
    assert near < 0.9 * far


def told_anyhow(pictures: torch.Tensor) -> bool | None:
    """What the references say of themselves."""
    with torch.no_grad():
        return made(pictures.shape[-1]).lie_anyhow([(pictures, torch.arange(len(pictures)))])


def thin_bars(directions: list[float], size: int = 448) -> torch.Tensor:
    """Bars with a head on a wide plain background: a hundredth of the picture."""
    draw = torch.Generator().manual_seed(4)
    picture, middle = torch.zeros(1, 3, size, size), size // 2
    picture[..., middle - 4 : middle + 4, size // 4 : -size // 4] = 2.0
    picture[..., middle - 16 : middle + 16, size // 4 : size // 4 + 16] = 2.0
    turned = torch.cat([rotated(picture, degrees, "border") for degrees in directions])
    return turned + 0.05 * torch.randn(turned.shape, generator=draw)


@pytest.mark.parametrize(
    ("directions", "anyhow"),
    [
        ([20, 85, 200, 310], True),
        ([0, 90, 180, 90], True),
        ([130, 10, 250], True),
        ([75, 75, 75, 75], False),
        ([-9, 8, -3, 5], False),
        ([80, 95, 88], False),
    ],
)
def test_thin_parts_tell_how_they_lie_on_a_wide_background(directions, anyhow):
    assert told_anyhow(thin_bars(directions)) is anyhow


def test_parts_that_look_the_same_in_two_directions_lie_alike():
    """Without a head it does not matter which end of a bar is which."""
    draw = torch.Generator().manual_seed(5)
    pictures = 0.05 * torch.randn(4, 3, 256, 256, generator=draw)
    pictures[..., 116:140, 48:-48] += 2.0
    assert told_anyhow(pictures) is False


def test_grain_and_one_picture_several_times_do_not_lie_anyhow():
    grain = torch.randn(4, 3, 256, 256, generator=torch.Generator().manual_seed(6))
    assert told_anyhow(grain) is False
    assert told_anyhow(grain[:1].repeat(4, 1, 1, 1)) is False
    assert told_anyhow(torch.zeros(4, 3, 256, 256)) is False


def test_two_references_do_not_tell_how_parts_lie():
    detector = made(256)
    assert "turned" not in remembered(detector, detector.empty(), bars(2, 90)).facts


def test_only_the_first_references_are_turned():
    detector = made(64, turned=True)
    known = remembered(detector, detector.empty(), images(10, 64, 64))
    per_view = 16  # patches of the third stage
    assert len(known["pictures/layer3"]) == (10 + 8 * 3) * per_view


def test_patches_beyond_what_single_precision_counts_are_spread_as_well():
    many = torch.zeros(2**24 + 4, dtype=torch.uint8)  # the last number is no float32
    many[-1] = 1
    assert spread_rows(many, 3).tolist() == [0, 0, 1]


def test_an_area_may_be_inspected_alone_though_the_scale_has_no_end():
    white = np.zeros((64, 64, 3), np.uint8)
    white[16:48, 16:48] = 255
    inspector = Inspector(made(), roi=Picture("roi.png", white))
    inspector.remember([picture(number, 64, 64) for number in range(4)])
    found = inspector.inspect(picture(9, 64, 64))
    assert np.isfinite(found.map).all()
    assert (found.map[white[..., 0] == 0] == found.map.min()).all()
    assert np.ptp(found.map[16:48, 16:48]) > 0
