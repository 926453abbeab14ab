"""Adding a layout: one registered reader, and data sets are read through it."""

from dataclasses import replace

import pytest
from PIL import Image

from zerodefect.data import (
    CATALOGUE,
    LAYOUTS,
    DatasetError,
    KnownSet,
    expected_layouts,
    find_known,
    layout_registry,
    load_dataset,
)
from zerodefect.data.layout_registry import Layout, layout_names, layouts, register
from zerodefect.data.listing import Listing, pattern

TREE = """\
shift/
└── 1_ok.png, 2_dent.png ...           the word after the number is the kind"""


def _recognises(place, named):
    return (place / "shift.txt").is_file() or (named and place.is_dir())


def _read(root, name):
    files = sorted(root.glob("*_*.png"))
    if not files:
        raise DatasetError(root, "no picture is called NUMBER_KIND.png", "Rename them")
    listing = Listing("names of pictures end in their kind")
    for file in files:
        common = pattern(name, "test", file.stem.partition("_")[2])
        listing.samples.append(replace(common, image=file))
    return listing


@pytest.fixture
def shift(tmp_path, monkeypatch):
    """Register a made-up layout for one test, and draw a tree of it."""
    monkeypatch.setattr(layout_registry, "_LAYOUTS", dict(layout_registry._LAYOUTS))
    known = KnownSet(
        name="night-shift",
        title="Night Shift",
        what="dented cans",
        source="nobody",
        licence="none",
        pictures="1 + 1",
        product="can",
    )
    register(Layout("shift", TREE, _recognises, (known,)))(_read)
    root = tmp_path / "cans"
    root.mkdir()
    for name in ("1_ok", "2_dent"):
        Image.new("L", (8, 6)).save(root / f"{name}.png")
    return root


def kinds(dataset):
    return [(s.product, s.kind, s.anomalous) for s in dataset]


def test_a_made_up_layout_is_read_by_its_name_and_its_data_sets(shift):
    own = load_dataset(shift, layout="shift")
    assert (own.layout, own.reason) == ("shift", "names of pictures end in their kind")
    assert kinds(own) == [("cans", "good", False), ("cans", "dent", True)]
    published = load_dataset(shift, layout="night-shift")
    assert kinds(published) == [("can", "good", False), ("can", "dent", True)]


def test_a_made_up_layout_is_recognised(shift):
    assert load_dataset(shift).layout == "folder"
    (shift / "shift.txt").touch()
    assert load_dataset(shift).layout == "shift"
    (shift / "shift.txt").unlink()
    named = load_dataset(shift, name="Night Shift")
    assert named.reason == "it is called Night Shift; names of pictures end in their kind"


def test_a_made_up_layout_is_listed_and_drawn(shift):
    assert {"shift", "night-shift"} <= set(layout_names())
    assert (find_known("nightshift").layout, find_known("nightshift").count) == ("shift", 1)
    assert TREE in expected_layouts("night-shift")
    assert "mvtec, visa" in expected_layouts() and ", night-shift" in expected_layouts()
    (shift / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no picture is called NUMBER_KIND\.png") as caught:
        load_dataset(shift / "empty", layout="shift")
    assert f"The layout shift:\n\nshift:\n{TREE}" in str(caught.value)


def test_two_layouts_of_one_name_are_refused(shift):
    with pytest.raises(ValueError, match="two layouts are named 'shift'"):
        register(Layout("shift", TREE, _recognises))(_read)


def test_every_layout_has_a_file_of_its_own():
    modules = [read.__module__ for _, read in layouts()]
    assert len(set(modules)) == len(modules)
    assert all(name.startswith("zerodefect.data.layouts.") for name in modules)


def test_the_layouts_are_named_in_a_fixed_order():
    general = ("auto", "folder", "mvtec", "meta", "csv")
    own = (
        "loco",
        "eyecandies",
        "visa",
        "ksdd",
        "ksdd2",
        "dagm",
        "real-iad",
        "headct",
        "yes-no",
        "isic",
    )
    assert LAYOUTS[:16] == (*general, *own, "images-masks")
    assert [known.name for known in CATALOGUE][:3] == ["mvtec", "visa", "mpdd"]
    asked = [layout.name for layout, _ in layouts()]
    tools = ["roboflow", "cvat", "label-studio", "lookout", "coco"]
    assert asked == ["meta", *own, "images-masks", *tools, "mvtec", "csv", "folder"]
