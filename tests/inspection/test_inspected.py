"""What a notebook or script gets of an inspection: a dict, a drawing, a file, HTML."""

import io
import json
import pickle

import numpy as np
import pytest
import torch
from models import picture, write_tiny_weights
from PIL import Image

import zerodefect
from zerodefect import Failure, ImageError, Inspection, Region, Results, open_image
from zerodefect.images import encode_png
from zerodefect.images.overlay import RAMP
from zerodefect.inspection.records import to_record


@pytest.fixture(scope="module")
def inspector(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZERODEFECT_CACHE", str(tmp_path_factory.mktemp("texts")))
        weights = write_tiny_weights(tmp_path_factory.mktemp("weights"))
        made = zerodefect.load("winclip", object="screw", backbone=str(weights), device="cpu")
        made.inspect(picture(0))
    return made


def outcome(**changed) -> Inspection:
    """A grey picture whose map is high in one square."""
    map = np.zeros((40, 60), np.float32)
    map[10:30, 20:45] = 2.0
    mask = np.ones((20, 25), bool)
    outline = (20.0, 10.0, 45.0, 10.0, 45.0, 30.0, 20.0, 30.0)
    fields = {
        "image": "a.png",
        "object": "screw",
        "width": 60,
        "height": 40,
        "verdict": "defect",
        "calibrated": True,
        "score": 0.9,
        "p_value": 0.02,
        "regions": (Region((20, 10, 25, 20), mask, (outline,), 500, 20.8, 2.0, kind="rust"),),
        "explanation": "It stands out.",
        "map": map,
        "picture": open_image(np.full((40, 60, 3), 90, np.uint8)),
        "colour_range": (1.0, 2.0),
    }
    return Inspection(**{**fields, **changed})


def test_colours_are_those_of_the_calibration_and_the_rest_is_untouched():
    drawn = np.asarray(outcome().overlay())
    assert drawn.shape == (40, 60, 3)
    assert (drawn[:6] == 90).all()  # below the lower end nothing is drawn
    expected = 0.2 * 90 + 0.8 * RAMP[255]
    np.testing.assert_allclose(drawn[20, 32], expected, atol=1.5)
    assert (drawn[10, 25] == (255, 255, 255)).all()  # the outline
    # with a scale twice as long, the same map takes the colour of its middle
    half = np.asarray(outcome(colour_range=(0.0, 4.0)).overlay())
    np.testing.assert_allclose(half[20, 32], 0.6 * 90 + 0.4 * RAMP[128], atol=2)


def test_without_a_map_there_are_outlines_alone():
    drawn = np.asarray(outcome(map=None).overlay())
    assert (drawn[20, 32] == 90).all()
    assert (drawn[10, 25] == 255).all()


def test_a_picture_that_was_not_kept_is_asked_for_and_must_be_of_its_size():
    dropped = outcome(picture=None)
    with pytest.raises(ValueError, match=r"a\.png: its picture was not kept\. Pass it"):
        dropped.overlay()
    with pytest.raises(ValueError, match=r"61 x 40 pixels, and .* was inspected with 60 x 40"):
        dropped.overlay(open_image(np.zeros((40, 61), np.uint8)))
    drawn = np.asarray(dropped.overlay(open_image(np.full((40, 60), 90, np.uint8))))
    np.testing.assert_array_equal(drawn, np.asarray(outcome().overlay()))


def test_save_writes_what_the_ending_says(tmp_path):
    one = outcome()
    one.save(tmp_path / "a.png")
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "a.png")), np.asarray(one.overlay())
    )
    one.save(tmp_path / "new" / "a.JPG")
    assert Image.open(tmp_path / "new" / "a.JPG").format == "JPEG"
    one.save(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == one.to_dict()
    for name in ("a.gif", "a"):
        with pytest.raises(ValueError, match=r"Use \.png, \.jpg or \.json"):
            one.save(tmp_path / name)
    with pytest.raises(ValueError, match="was not kept"):
        outcome(picture=None).save(tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_to_dict_is_the_record_without_what_only_a_run_has():
    found = outcome().to_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert to_record(outcome()) == {**found, "map": None, "assets": None, "part": None}
    assert found["regions"][0]["kind"] == "rust"


def test_html_shows_the_picture_and_takes_names_for_text():
    text = outcome(image="<script>alert(1)</script>\u202e.png", answer="a < b")._repr_html_()
    assert "<script" not in text and "\u202e" not in text
    assert "&lt;script&gt;" in text and "a &lt; b" in text
    assert "data:image/jpeg;base64," in text and "rust" in text
    assert "<img" not in outcome(picture=None)._repr_html_()
    assert "provisional" in outcome(calibrated=False)._repr_html_()


def test_html_of_a_large_picture_is_small():
    size = {"width": 3000, "height": 2000, "map": np.zeros((2000, 3000), np.float32)}
    shown = open_image(np.random.default_rng(0).integers(0, 256, (2000, 3000, 3), np.uint8))
    assert len(outcome(**size, picture=shown)._repr_html_()) < 300_000


# --- as the inspector gives them ------------------------------------------------------------------


def test_tensors_files_and_arrays_give_the_same_outcome(inspector):
    pixels = picture(3)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    expected = inspector.inspect(pixels)
    floats = tensor.float() / 255
    given = [tensor, (tensor, 1), {"image": tensor}, tensor[None], io.BytesIO(encode_png(pixels))]
    for source in (*given, floats, floats.double()):
        found = inspector.inspect(source)
        assert found.score == pytest.approx(expected.score, abs=1e-5)
        np.testing.assert_allclose(found.map, expected.map, atol=1e-5)
    with pytest.raises(ImageError, match="so white is unknown"):
        inspector.inspect(tensor.float())


def test_a_data_loader_gives_what_its_pictures_give_one_by_one(inspector):
    tensors = [torch.from_numpy(picture(n)).permute(2, 0, 1) for n in range(5)]
    loader = torch.utils.data.DataLoader([(t, 0) for t in tensors], batch_size=2)
    found = list(inspector.inspect_many(loader))
    assert [one.image for one in found] == [f"<picture {n}>" for n in range(5)]
    for one, tensor in zip(found, tensors, strict=True):
        assert one.score == pytest.approx(inspector.inspect(tensor).score, abs=1e-5)
        np.testing.assert_array_equal(one.picture.pixels, tensor.permute(1, 2, 0))


def test_a_batch_in_another_scale_is_told_for_each_picture_and_the_rest_goes_on(inspector):
    good = torch.from_numpy(picture(0)).permute(2, 0, 1)[None]
    found = list(inspector.inspect_many([good, good.float(), good]))
    assert [type(one) for one in found] == [Inspection, Failure, Inspection]


def test_loaders_teach_as_files_do(inspector, tmp_path):
    (tmp_path / "good").mkdir()
    for number in range(12):
        Image.fromarray(picture(number)).save(tmp_path / "good" / f"{number:02d}.png")
    tensors = [torch.from_numpy(picture(n)).permute(2, 0, 1) for n in range(12)]
    loader = torch.utils.data.DataLoader([(t, 0) for t in tensors], batch_size=5)
    by_files = inspector.calibrate(tmp_path / "good").scores
    by_loader = inspector.calibrate(loader).scores
    inspector.policy = None
    assert by_loader == pytest.approx(by_files, abs=1e-6)


def test_maps_and_pictures_are_kept_unless_told_otherwise(inspector):
    (kept,) = inspector.inspect_many([picture(1)])
    np.testing.assert_array_equal(kept.picture.pixels, picture(1))
    assert kept.colour_range == inspector.active_policy().colour_range
    (dropped,) = inspector.inspect_many([picture(1)], keep_maps=False)
    assert dropped.map is None and dropped.picture is None
    assert (dropped.score, dropped.verdict) == (kept.score, kept.verdict)
    assert dropped.count == kept.count
    (part,) = inspector.inspect_parts({"left": [picture(1)]}, keep_maps=False)
    assert part.pictures[0].map is None
    given = open_image(picture(1))
    assert np.asarray(dropped.overlay(given)).shape == (80, 96, 3)
    drawn = dropped.overlay(Image.fromarray(picture(1)))
    assert drawn.tobytes() == dropped.overlay(given).tobytes()
    assert pickle.loads(pickle.dumps(kept)) == kept


def test_results_are_a_list_with_tables(inspector):
    found = Results(inspector.inspect_many([picture(1), b"none", picture(2)], keep_maps=False))
    assert [type(one) for one in found] == [Inspection, Failure, Inspection]
    assert found.failures == [found[1]]
    assert [one.to_dict()["status"] for one in found] == ["ok", "failed", "ok"]
    text = found._repr_html_()
    assert text.count("<tr>") == 4 and "failed" in text and "&lt;bytes&gt;" in text
    many = Results([found[0]] * 50)
    assert many._repr_html_().count("<tr>") == 21 and "and 30 more" in many._repr_html_()
