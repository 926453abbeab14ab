"""``zerodefect.load`` does what the command line does with the same options."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from models import picture, write_tiny_weights

import zerodefect
from zerodefect import Policy, PolicyMismatch, cli
from zerodefect.detector.checkpoint_file import CheckpointError
from zerodefect.images import encode_png, open_image
from zerodefect.inspection import load_inspector
from zerodefect.inspection.conformal import CalibrationError


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    shelf = tmp_path_factory.mktemp("shelf")
    write_tiny_weights(shelf)
    for folder, seeds in (("parts", range(3)), ("good", range(10, 14))):
        (shelf / folder).mkdir()
        for seed in seeds:
            (shelf / folder / f"{seed}.png").write_bytes(encode_png(picture(seed, 60, 90)))
    for name, columns in (("roi", slice(10, 80)), ("ignore", slice(40, 50))):
        mask = np.zeros((60, 90, 3), np.uint8)
        mask[:, columns] = 255
        (shelf / f"{name}.png").write_bytes(encode_png(mask))
    (shelf / "kinds.txt").write_text("rust\nburr\n")
    return shelf


OPTIONS = {
    "object": (["--object", "screw"], {"object": "screw"}),
    "tiles": (["--tile", "40", "--overlap", "0.3"], {"tile": 40, "overlap": 0.3}),
    "aspect": (["--keep-aspect"], {"keep_aspect": True}),
    "areas": (["--roi", "roi.png", "--ignore", "ignore.png"], {"roi": "+", "ignore": "+"}),
    "references": (["--reference", "good"], {"references": "good"}),
    "depth": (["--bit-depth", "12"], {"bit_depth": 12}),
    "words": (["--vocabulary", "kinds.txt"], {"vocabulary": "kinds.txt"}),
    "method": (["--method", "dense", "--set", "sizes=[1]"], {"method": "dense", "sizes": [1]}),
    "size": (["--image-size", "48"], {"image_size": 48}),
    "half": (["--precision", "bfloat16"], {"precision": "bfloat16"}),
    "budget": (
        ["--reference", "good", "--memory-budget", "1"],
        {"references": ["good"], "memory_budget": 10**6},
    ),
}
OPTIONS["everything"] = (
    [word for words, _ in OPTIONS.values() for word in words if words != OPTIONS["half"][0]],
    {name: value for _, some in OPTIONS.values() for name, value in some.items()}
    | {"precision": "float32", "references": ["good"]},
)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", OPTIONS)
def test_the_same_options_give_the_same_detector_and_results(
    shelf, tmp_path, monkeypatch, capsys, chosen
):
    words, keywords = OPTIONS[chosen]
    monkeypatch.chdir(shelf)
    if "--object" not in words:
        words, keywords = [*words, "--object", "nut"], {**keywords, "object": "nut"}
    keywords = {name: f"{name}.png" if value == "+" else value for name, value in keywords.items()}
    command = ["zerodefect", "inspect", "parts", "-b", "tiny.safetensors", *words]
    monkeypatch.setattr(sys, "argv", [*command, "-o", str(tmp_path / "run"), "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code, capsys.readouterr().err
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()

    inspector = zerodefect.load(backbone="tiny.safetensors", device="cpu", **keywords)
    assert json.loads(json.dumps(inspector.facts())) == run["detector"]
    assert inspector.fingerprint() == run["detector"]["fingerprint"]
    for line in map(json.loads, lines):
        found = inspector.inspect(line["image"])
        assert found.score == pytest.approx(line["score"], abs=1e-5)
        assert found.object == line["object"]
        if "references" in keywords:  # else the command line compares the pictures with each other
            assert found.verdict == line["verdict"]


def test_every_option_of_the_command_line_is_a_keyword(shelf):
    """The groups of options say what they are in Python; ``load`` must take all of that."""
    from zerodefect.cli.options import DetectorOptions, ProductOptions
    from zerodefect.cli.picture_options import PictureOptions

    groups = (ProductOptions(object="screw"), DetectorOptions(), PictureOptions())
    keywords = {name: value for group in groups for name, value in group.keywords().items()}
    keywords["backbone"] = str(shelf / "tiny.safetensors")
    assert zerodefect.load(**keywords).inspect(picture(0)).object == "screw"


def test_masks_and_references_may_be_pictures_or_arrays(shelf):
    by_path = zerodefect.load(
        backbone=str(shelf / "tiny.safetensors"),
        object="screw",
        roi=shelf / "roi.png",
        references=[shelf / "good" / "10.png", shelf / "good" / "11.png"],
    )
    by_value = zerodefect.load(
        backbone=str(shelf / "tiny.safetensors"),
        object="screw",
        roi=np.asarray(open_image(shelf / "roi.png").pixels),
        references=[picture(10, 60, 90), picture(11, 60, 90)],
    )
    assert by_path.fingerprint() == by_value.fingerprint()


# --- when the detector is built ------------------------------------------------------------------


@pytest.fixture
def built(monkeypatch, shelf):
    """Counts what is built; nothing said of it means the embedded model, here the tiny one."""
    calls = []
    load_detector = load_inspector.load_detector

    def counting(method=None, **loading):
        calls.append((method, loading))
        return load_detector(method, **{"backbone": str(shelf / "tiny.safetensors"), **loading})

    monkeypatch.setattr(load_inspector, "load_detector", counting)
    return calls


def test_where_nothing_was_said_of_the_detector_it_is_built_at_first_use(built, shelf):
    inspector = zerodefect.load(
        object="screw", references=shelf / "good", tile=80, memory_budget=5 * 10**6
    )
    inspector.describe("nut")
    inspector.remember(picture(3))
    assert (inspector.object, inspector.shots) == ("nut", 5)
    assert not built
    outcome = inspector.inspect(picture(0))
    assert outcome.object == "nut" and outcome.calibrated
    assert built == [(None, {})]
    assert inspector.detector.memory.budget == 5 * 10**6
    inspector.inspect(picture(1))
    assert len(built) == 1


@pytest.mark.parametrize("said", [{"method": "winclip"}, {"device": "cpu"}, {"temperature": 0.1}])
def test_what_was_said_of_the_detector_is_checked_at_once(built, said):
    zerodefect.load(**said)
    assert len(built) == 1


def test_what_cannot_be_is_an_error_of_load(built, shelf):
    with pytest.raises(ValueError, match="unknown method"):
        zerodefect.load("winclop")
    with pytest.raises(ValueError, match="no option 'tau'"):
        zerodefect.load("winclip", tau=1)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        zerodefect.load(checkpoint=shelf / "none.safetensors")
    with pytest.raises(FileNotFoundError):
        zerodefect.load(references=shelf / "none")
    with pytest.raises(ValueError, match=r"none\.txt"):
        zerodefect.load(vocabulary=shelf / "none.txt")
    with pytest.raises(ValueError, match=r"none\.png"):
        zerodefect.load(roi=shelf / "none.png")


# --- names and policies --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_not_taken_for_an_absent_one(built, name):
    with pytest.raises(ValueError, match="needs a name"):
        zerodefect.load(object=name)
    with pytest.raises(ValueError, match="needs a name"):
        zerodefect.load().inspect(picture(0), object=name)


def test_a_policy_names_the_product_and_holds(built, tmp_path):
    first = zerodefect.load(object="screw")
    policy = first.calibrate([picture(seed) for seed in range(6)])
    policy.save(tmp_path / "policy.json")
    for given in (policy, tmp_path / "policy.json", str(tmp_path / "policy.json")):
        inspector = zerodefect.load(policy=given)
        assert inspector.object == "screw"
        assert inspector.inspect(picture(9)).calibrated
    other = zerodefect.load(policy=policy, object="nut")
    with pytest.raises(PolicyMismatch, match="'screw' when calibrated, 'nut' now"):
        other.inspect(picture(9))
    nameless = policy.model_copy(update={"object": None})
    assert isinstance(nameless, Policy) and zerodefect.load(policy=nameless).object is None


def test_limits_of_a_method_that_knows_no_good_parts_are_refused_with_the_ways_out() -> None:
    inspector = zerodefect.load("patchcore")
    good = [np.full((32, 32, 3), 10 * number, np.uint8) for number in range(20)]
    with pytest.raises(CalibrationError, match=r"knows none.*--reference.*--leave-one-out"):
        inspector.calibrate(good)
