"""Product files of methods on points: what they keep, learn again, and how they fail."""

import zipfile

import numpy as np
import pytest
from small_clouds import tilted

import zerodefect
from zerodefect import Inspector
from zerodefect.images import ImageError, Picture
from zerodefect.images.clouds import open_cloud
from zerodefect.images.point_input import PartCloud
from zerodefect.inspection.archive import ProductError
from zerodefect.inspection.part_pictures import PolicyError
from zerodefect.methods.bt_points import BTPoints, BTPointsConfig

SIDE = 40


def part(number: int, *, dent: float = 0.0, kept: float = 1.0, cloud: bool = True) -> Picture:
    """A dome on a table, in metres, of which a share was measured."""
    points = tilted(SIDE, SIDE, (0, 0))
    rows, columns = np.mgrid[-20:20, -20:20] / 15
    points[..., 2] -= 0.008 * np.sqrt(np.maximum(1 - rows**2 - columns**2, 0))
    points[..., 2] += dent * np.exp(-((rows - 0.2) ** 2 + columns**2) * 40)
    draws = np.random.default_rng(number)
    points[..., 2] += draws.normal(0, 1e-5, (SIDE, SIDE))
    points[draws.random((SIDE, SIDE)) > kept] = 0
    grey = draws.integers(90, 100, (SIDE, SIDE, 3)).astype(np.uint8)
    return Picture(f"{number:03d}.png", grey, cloud=open_cloud(points) if cloud else None)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A product of three references and of limits from six further good parts."""
    inspector = zerodefect.load("bt_points", radius=4.0, neighbours=40)
    inspector.remember([part(n) for n in range(3)])
    inspector.calibrate([part(n) for n in range(3, 9)])
    path = tmp_path_factory.mktemp("products") / "dome.zd"
    inspector.save(path)
    return path


def test_the_points_of_good_parts_are_kept_as_they_were(file):
    loaded = zerodefect.load(file)
    for one, source in zip(loaded.file.references(), range(3), strict=True):
        whole = part(source).cloud
        assert isinstance(one.cloud, PartCloud) and one.points == int(one.cloud.valid.sum())
        seen = one.cloud.valid
        assert 0 < seen.sum() < whole.valid.sum()  # the part without its table
        np.testing.assert_array_equal(one.cloud.points[seen], whole.points[seen])


def test_limits_learned_again_from_the_file_are_the_same(file, tmp_path):
    loaded = zerodefect.load(file)
    before = loaded.policy
    good = loaded.good_pictures()
    again = loaded.calibrate(good)
    assert again.limits == before.limits and again.frames == before.frames
    assert again.frames.points is not None


def test_references_can_be_added_to_a_product(file, tmp_path):
    loaded = zerodefect.load(file)
    assert loaded.remember([part(20)]) == 1
    assert loaded.shots == 4
    loaded.calibrate(loaded.good_pictures())
    assert loaded.inspect(part(32, dent=0.004)).verdict == "defect"
    with pytest.raises(ImageError, match="needs its points, and there are none"):
        zerodefect.load(file).remember([part(21, cloud=False)])


def test_a_part_of_few_points_is_unsure_and_one_without_any_fails(file):
    loaded = zerodefect.load(file)
    few = loaded.inspect(part(30, kept=0.3))
    assert few.verdict == "unsure" and "too few of its points were measured" in few.reason
    assert few.reason in few.explanation and few.reason in few.notes
    assert loaded.inspect(part(31)).reason is None
    assert loaded.inspect(part(32, dent=0.004)).verdict == "defect"
    with pytest.raises(ImageError, match="needs its points, and there are none"):
        loaded.inspect(part(33, cloud=False))


def test_damaged_points_in_a_file_are_told(file, tmp_path):
    broken = tmp_path / "broken.zd"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(broken, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, data[:60] if name == "references/00001.xyz.tif" else data)
    loaded = zerodefect.load(broken)  # inspecting needs no pictures
    assert loaded.inspect(part(31)).verdict in ("good", "unsure")
    with pytest.raises(ProductError, match=r"00001\.xyz\.tif in it is no cloud"):
        loaded.file.references()


def test_a_policy_of_points_refuses_another_method(file):
    policy = zerodefect.load(file).policy
    other = Inspector(BTPoints(BTPointsConfig(radius=5.0)).eval(), policy=policy)
    other.remember([part(n) for n in range(3)])
    with pytest.raises(PolicyError, match="does not fit"):
        other.inspect(part(31))
