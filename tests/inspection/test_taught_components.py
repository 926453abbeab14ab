"""Components by boxes, clusters and words, on trays whose parts are known by construction."""

import numpy as np
import pytest
import torch
from drawn_trays import BOTTLE_BOX, BOXES, SIDE, Colours, Tray, good_tray

from zerodefect.images import ImageError, Picture
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.rules.component_learning import load_clusters, save_clusters
from zerodefect.inspection.rules.component_model import Clusters, ComponentModel, boxed
from zerodefect.inspection.rules.component_parts import seen_component, seen_words
from zerodefect.inspection.rules.component_sources import (
    ComponentError,
    ComponentSource,
    parsed_sources,
)


@pytest.fixture
def trays(tmp_path):
    """An inspector and the components of a drawn tray, told by boxes."""
    file = Tray().save(tmp_path / "tray.png")
    inspector = Inspector(Colours())
    inspector.describe("tray")
    return inspector, [f"{name}={file}:{box}" for name, box in BOXES.items()]


def found(inspector, tray):
    return inspector.see_components(Picture("tray", tray.draw()), None)


def test_boxes_find_every_part_where_it_was_drawn(trays):
    inspector, told = trays
    inspector.teach_rules([], told)
    seen = found(inspector, Tray(screws=((12, 12), (40, 12), (12, 44)), noise=7))
    assert {name: len(one.parts) for name, one in seen.items()} == {
        **{"screw": 3, "label": 1, "bottle": 1, "liquid": 1}
    }
    (label,) = seen["label"].parts
    assert label.box == pytest.approx((16, 84, 40, 20), abs=4)
    assert label.area == pytest.approx(100 * 40 * 20 / SIDE**2, rel=0.15)
    assert label.centre == pytest.approx((36 / SIDE, 94 / SIDE), abs=0.01)
    assert label.sure and label.confidence > 0.8
    corners = sorted(part.box[:2] for part in seen["screw"].parts)
    assert np.allclose(corners, [(12, 12), (12, 44), (40, 12)], atol=4)


def test_one_box_finds_the_other_ones_of_its_kind(trays):
    inspector, told = trays
    inspector.teach_rules([], told[:1])  # a box on one of two screws
    assert len(found(inspector, Tray(noise=3))["screw"].parts) == 2
    assert found(inspector, Tray(screws=(), noise=3))["screw"].parts == ()


def test_a_weak_part_is_doubtful_and_a_speck_is_none():
    margin = np.full((40, 40), -1.0, np.float32)
    margin[4:12, 4:12] = 1.0  # 64 patches
    margin[20:23, 20:23] = 0.8  # 9
    margin[30, 30] = 0.2
    usual = (64 / 1600) ** 0.5
    seen = seen_component("nut", margin, usual, size=(200, 200))
    assert [part.sure for part in seen.parts] == [True, False]
    assert seen.parts[0].confidence == pytest.approx(0.8, abs=0.2)
    area = np.zeros((200, 200), bool)
    area[:80] = True
    inside = seen_component("nut", margin, usual, (200, 200), area)
    assert len(inside.parts) == 1
    assert inside.parts[0].area == pytest.approx(2.5 * seen.parts[0].area)


def test_words_that_the_model_does_not_see_say_so():
    flat = seen_words("cap", np.full((8, 8), 0.52), (64, 64))
    assert flat.parts == () and "no place for cap" in flat.unseen
    map = np.full((8, 8), 0.3)
    map[2:4, 2:4] = 0.8
    (part,) = seen_words("cap", map, (64, 64)).parts
    assert part.sure and part.centre == pytest.approx((3 / 8, 3 / 8), abs=0.02)


def test_named_clusters(trays, tmp_path):
    inspector, _ = trays
    pictures = [Picture(f"{n}", good_tray(n).draw()) for n in range(4)]
    rows = [inspector.rows_of(picture) for picture in pictures]
    clusters = Clusters.of(rows, 10, ["a", "b"])
    save_clusters(clusters, tmp_path / "tray.clusters")
    again = load_clusters(tmp_path / "tray.clusters")
    assert again.digests == ("a", "b") and torch.equal(again.centres, clusters.centres)
    numbers = clusters.numbers(rows[0])
    assert numbers.min() >= 1 and numbers.max() <= len(clusters.centres)
    label, screw = {numbers[23, 8], numbers[24, 9]}, {numbers[5, 4], numbers[4, 11]}
    told = [f"{n}=cluster {'+'.join(map(str, s))}" for n, s in (("label", label), ("bolt", screw))]
    inspector.teach_rules(["exactly 2 bolts"], told, tmp_path / "tray.clusters")
    seen = found(inspector, Tray(noise=5))
    assert len(seen["bolt"].parts) == 2 and len(seen["label"].parts) == 1
    with pytest.raises(ComponentError, match="there is no cluster 99, but 1 to"):
        inspector.teach_rules(["none"], ["label=cluster 99"], clusters)
    with pytest.raises(ComponentError, match="named twice"):
        inspector.teach_rules(["none"], ["label=cluster 1", "bolt=cluster 1"], clusters)
    with pytest.raises(ComponentError, match="zerodefect components"):
        inspector.teach_rules(["none"], ["label=cluster 1"])


def test_files_that_are_damaged_are_refused(trays, tmp_path):
    inspector, told = trays
    rules = inspector.teach_rules([], told)
    data = rules.model.to_bytes()
    again = ComponentModel.from_bytes(data, "x")
    assert again.names == rules.model.names and torch.equal(again.usual, rules.model.usual)
    for broken in (data[:-5], b"", b"PK\x03\x04", data.replace(b"prototypes", b"prototypez")):
        with pytest.raises(ComponentError, match=r"^x: "):
            ComponentModel.from_bytes(broken, "x")
    with pytest.raises(ComponentError, match="no file of clusters"):
        Clusters.from_bytes(data, "x")
    with pytest.raises(ComponentError, match="cannot be read"):
        load_clusters(tmp_path / "none.clusters")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("label", "is not understood"),
        ("label=", "is not understood"),
        ("label=good.png", "is not understood"),
        ("label=good.png:1,2,3", "is not understood"),
        ("label=good.png:1,2,0,4", "the box is empty"),
        ("level=good.png:1,2,3,4", "'level' has a meaning of its own"),
        ("label=cluster 0", "counted from 1"),
    ],
)
def test_sources_that_are_not_understood(text, part):
    with pytest.raises(ComponentError, match=part):
        ComponentSource.parse(text)


def test_sources_print_back():
    texts = ["label=a:b.png:1,2,3,4", "liquid=cluster 3+5", "cap=words bottle cap"]
    assert [str(ComponentSource.parse(text)) for text in texts] == texts
    assert ComponentSource.parse("The Caps = word").words == "cap"
    with pytest.raises(ComponentError, match="two ways"):
        parsed_sources(["cap=words cap", "cap=cluster 2"])


def test_what_cannot_be_learned(trays, tmp_path):
    inspector, told = trays
    with pytest.raises(ComponentError, match="does not lie within its 128 x 128"):
        inspector.teach_rules([], [told[0].rpartition(":")[0] + ":100,100,40,40"])
    with pytest.raises(ComponentError, match="cannot be mixed"):
        inspector.teach_rules([], [told[0], "nut=cluster 1"])
    with pytest.raises(ImageError, match="no such file"):
        inspector.teach_rules([], [f"nut={tmp_path / 'none.png'}:1,1,9,9"])
    blind = Inspector(Colours(patches=False))
    blind.describe("tray")
    with pytest.raises(ComponentError, match="no features of patches"):
        blind.teach_rules([], told)
    with pytest.raises(ComponentError, match=r"'nut', which is not known \(known: screw"):
        inspector.teach_rules(["exactly 2 nuts"], told)
    assert inspector.rule_set is None


def test_boxes_on_the_grid():
    picture = Picture("x", np.zeros((100, 200, 3), np.uint8))
    inside = boxed((10, 20), picture, (20, 10, 35, 30))  # cells of 10 x 10 pixels
    assert np.argwhere(inside).min(0).tolist() == [1, 2] and inside.sum() == 3 * 3
    assert np.argwhere(boxed((10, 20), picture, (31, 41, 4, 4))).tolist() == [[4, 3]]


def test_the_liquid_reaches_as_high_as_it_was_drawn(trays):
    inspector, told = trays
    inspector.teach_rules(["liquid level in bottle as usual"], told)
    for level in (0.4, 0.6, 0.7):
        seen = found(inspector, Tray(level=level, noise=11))
        (value,) = inspector.rule_set.usual_values(seen)
        assert value == pytest.approx((level,), abs=0.06)
    assert BOTTLE_BOX[3] > 90
