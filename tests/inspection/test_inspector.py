import io
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from models import picture, write_tiny_weights
from PIL import Image

import zerodefect
from zerodefect import (
    CalibrationError,
    Failure,
    ImageError,
    Inspection,
    Inspector,
    Policy,
    PolicyMismatch,
    Vocabulary,
    WeightsError,
)
from zerodefect.detector.contract import UnsupportedError
from zerodefect.images import encode_png, open_image
from zerodefect.inspection import shown
from zerodefect.types import Prediction


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def detector(weights, tmp_path_factory):
    """One detector for all tests: its texts are computed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZERODEFECT_CACHE", str(tmp_path_factory.mktemp("texts")))
        inspector = zerodefect.load(backbone=str(weights), device="cpu")
        inspector.describe("screw")
    return inspector.detector


@pytest.fixture
def inspector(detector):
    made = Inspector(detector)
    made.describe("screw", Vocabulary.default())
    return made


def save(path, seed=0, height=80, width=96):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(picture(seed, height, width)))
    return path


def folder_of(folder, count, first=0):
    for seed in range(first, first + count):
        save(folder / f"{seed:03d}.png", seed)
    return folder


def broken(path):
    path.write_bytes(encode_png(picture(0))[:200])
    return path


def loose(inspector):
    """A policy by which everything has regions: all limits at the bottom of the scale."""
    policy = inspector.active_policy()
    limits = policy.limits.model_copy(update={"unsure": 0.0, "defect": 0.0})
    return policy.model_copy(update={"limits": limits, "region_limit": 0.0})


def same(one, other):
    """Equal up to rounding, map and regions included."""
    assert (one.verdict, one.count, one.width, one.height) == (
        other.verdict,
        other.count,
        other.width,
        other.height,
    )
    assert one.score == pytest.approx(other.score, abs=1e-5)
    np.testing.assert_allclose(one.map, other.map, atol=1e-5)


# --- what can be inspected ---------------------------------------------------------------------


def test_every_kind_of_source_gives_the_same_outcome(inspector, tmp_path):
    path = save(tmp_path / "part.png")
    pixels = picture(0)
    sources = [
        path,
        str(path),
        path.read_bytes(),
        Image.open(path),
        Image.open(io.BytesIO(path.read_bytes())),
        pixels,
        open_image(path),
    ]
    outcomes = [inspector.inspect(source) for source in sources]
    for outcome in outcomes:
        same(outcome, outcomes[0])
    assert [o.image for o in outcomes[:3]] == [str(path), str(path), "<bytes>"]
    assert 0 < outcomes[0].score < 1
    assert outcomes[0].object == "screw"


@pytest.mark.parametrize(("height", "width"), [(80, 96), (33, 200), (64, 64), (1, 1), (1, 300)])
def test_the_map_has_the_size_of_the_picture(inspector, height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    outcome = inspector.inspect(pixels)
    assert outcome.map.shape == (height, width) == (outcome.height, outcome.width)
    assert outcome.map.dtype == np.float32


def test_regions_lie_in_the_picture_not_in_the_networks_input(inspector):
    inspector.policy = loose(inspector)
    outcome = inspector.inspect(picture(0, 150, 300))
    assert outcome.regions[0].box == (0, 0, 300, 150)
    assert outcome.regions[0].area_percent == pytest.approx(100)


def test_a_grey_picture_and_a_16_bit_one(inspector):
    grey = picture(0).mean(axis=2).astype(np.uint8)
    eight = inspector.inspect(grey)
    sixteen = inspector.inspect(grey.astype(np.uint16) * 257)
    same(eight, sixteen)


def test_bit_depth_reaches_the_decoder(detector):
    grey = picture(0).mean(axis=2).astype(np.uint16) * 16
    twelve = Inspector(detector, bit_depth=12)
    twelve.describe("screw")
    plain = Inspector(detector, bit_depth=16)
    plain.describe("screw")
    assert twelve.inspect(grey).score != plain.inspect(grey).score
    assert twelve.facts()["bit_depth"] == 12


def test_bit_depth_is_inferred_once_told_and_kept_in_the_policy(detector, caplog):
    """Twelve bits in 16, one of them hot, score as their 8-bit twins do, now and later."""

    def twelve(seed, hot=0):
        values = (picture(seed).mean(axis=2).astype(np.uint32) * 4095 // 255).astype(np.uint16)
        values[0, 0] = hot
        return values

    inspector = Inspector(detector)
    inspector.describe("screw")
    inspector.remember([twelve(seed, hot=65535) for seed in (20, 21)])
    policy = inspector.calibrate([twelve(seed) for seed in range(4)])
    assert (inspector.bit_depth, policy.bit_depth) == (12, 12)
    told = [r.getMessage() for r in caplog.records if "--bit-depth 12" in r.getMessage()]
    assert len(told) == 1
    dark = twelve(30) // 8  # by itself it would look like 9 bits
    assert inspector.inspect(dark).score == inspector.inspect(dark).score
    eight = Inspector(detector)
    eight.describe("screw")
    eight.remember([picture(seed).mean(axis=2).astype(np.uint8) for seed in (20, 21)])
    twin = eight.inspect(picture(31).mean(axis=2).astype(np.uint8))
    assert inspector.inspect(twelve(31)).score == pytest.approx(twin.score, abs=5e-3)
    later = Inspector(detector, policy=policy)
    later.describe("screw")
    later.remember([twelve(seed, hot=65535) for seed in (20, 21)])
    assert later.bit_depth == 12
    assert later.inspect(dark).score == inspector.inspect(dark).score
    other = Inspector(detector, policy=policy, bit_depth=14)
    other.describe("screw")
    with pytest.raises(PolicyMismatch, match="bit depth"):
        other.inspect(dark)


def test_a_batch_of_one_equals_a_batch_of_eight(inspector):
    pictures = [picture(seed, 60 + seed, 100 - seed) for seed in range(8)]
    inspector.remember([picture(20), picture(21)])
    single = list(inspector.inspect_many(pictures, batch_size=1))
    for batch_size in (3, 8):
        batched = list(inspector.inspect_many(pictures, batch_size=batch_size))
        for one, other in zip(single, batched, strict=True):
            same(one, other)


def test_an_unreadable_picture_is_an_error_with_remedy(inspector, tmp_path):
    with pytest.raises(ImageError) as caught:
        inspector.inspect(broken(tmp_path / "bad.png"))
    assert caught.value.path.endswith("bad.png") and caught.value.reason and caught.value.remedy


def test_what_cannot_be_loaded(weights, tmp_path):
    with pytest.raises(ValueError, match=r"unknown method 'wincilp'.*Did you mean 'winclip'"):
        zerodefect.load("wincilp", backbone=str(weights))
    with pytest.raises(WeightsError, match="no such file"):
        zerodefect.load(backbone=str(tmp_path / "none.safetensors"))
    with pytest.raises(ValueError, match="no multiple of the backbone's patch size 8"):
        zerodefect.load(backbone=str(weights), image_size=30)
    with pytest.raises(ValueError, match="policy"):
        zerodefect.load(backbone=str(weights), policy=tmp_path / "none.json")
    with pytest.raises(ValueError, match="device 'cuda:99' cannot be used"):
        zerodefect.load(backbone=str(weights), device="cuda:99")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("temperature", "hot"),
        ("temperature", None),
        ("temperature", 0.0),
        ("scales", 3),
        ("scales", (2, "x")),
        ("patch_norm", "maybe"),
        ("image_score", "best"),
        ("tau", 1.0),
    ],
)
def test_an_option_that_does_not_fit_is_a_value_error(weights, option, value):
    with pytest.raises(ValueError, match=option):
        zerodefect.load(backbone=str(weights), **{option: value})


def test_options_reach_the_method(weights):
    loaded = zerodefect.load(backbone=str(weights), temperature="0.5", scales=[2])
    assert loaded.detector.config.temperature == 0.5
    assert loaded.detector.config.scales == (2,)


# --- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["{}", "{0} {x}", "<b>&\"'", "Schraube Größe M4", "螺丝 🔩", "../../etc", "%s %d \\n"]
)
def test_names_with_odd_characters(inspector, name):
    outcome = inspector.inspect(picture(0), name)
    assert outcome.object == name
    assert 0 < outcome.score < 1


def test_the_name_decides_the_score(inspector):
    assert inspector.inspect(picture(0), "screw").score != (
        inspector.inspect(picture(0), "woven fabric").score
    )


def test_white_space_in_a_name_does_not_count(inspector):
    one = inspector.inspect(picture(0), "metal nut")
    other = inspector.inspect(picture(0), "  metal\n nut ")
    assert other.score == one.score
    assert other.object == "metal nut"


def test_without_a_name_the_texts_say_object(detector):
    inspector = Inspector(detector)
    outcome = inspector.inspect(picture(0))
    assert outcome.object == "object"
    assert inspector.inspect(picture(0), "object").score == outcome.score


@pytest.mark.parametrize("name", ["", "  ", "\n\t"])
def test_an_empty_name_is_an_error(inspector, name):
    with pytest.raises(ValueError, match="needs a name"):
        inspector.inspect(picture(0), name)
    assert inspector.object == "screw"


def test_a_name_that_the_text_tower_cannot_read_is_an_error(inspector):
    before = inspector.inspect(picture(0))
    with pytest.raises(ValueError, match="the text tower reads 77"):
        inspector.inspect(picture(0), "very long screw " * 40)
    same(inspector.inspect(picture(0)), before)


# --- vocabulary --------------------------------------------------------------------------------


def test_kinds_come_from_the_vocabulary(inspector):
    inspector.policy = loose(inspector)
    assert inspector.inspect(picture(0)).regions[0].kind in Vocabulary.default().names
    inspector.describe("screw", Vocabulary.of(["rust", "burr"]))
    region = inspector.inspect(picture(0)).regions[0]
    assert region.kind in ("rust", "burr")
    assert 0.5 <= region.kind_score <= 1


def test_a_vocabulary_stays_when_the_product_changes(inspector):
    inspector.describe("screw", Vocabulary.of(["rust"]))
    inspector.policy = None
    inspector.describe("bolt")
    inspector.policy = loose(inspector)
    assert inspector.inspect(picture(0)).regions[0].kind == "rust"


def test_a_vocabulary_that_cannot_be_read_changes_nothing(inspector):
    before = inspector.vocabulary
    with pytest.raises(ValueError, match="text tower reads"):
        inspector.describe("screw", Vocabulary.of(["rust " * 100]))
    assert inspector.vocabulary == before


def test_replacing_the_vocabulary_keeps_the_policy_valid(inspector):
    policy = inspector.calibrate([picture(seed) for seed in range(6)])
    inspector.describe("screw", Vocabulary.of(["rust"]))
    assert inspector.active_policy() is policy
    assert inspector.inspect(picture(9)).calibrated


# --- references --------------------------------------------------------------------------------


def test_without_references_the_policy_is_provisional(inspector):
    outcome = inspector.inspect(picture(0))
    assert not outcome.calibrated and outcome.p_value is None
    assert outcome.verdict == ("defect" if outcome.score > 0.5 else "good")
    assert inspector.active_policy().form == "none"


def test_one_reference_gives_a_provisional_policy(inspector):
    assert inspector.remember(picture(0)) == 1
    itself = inspector.inspect(picture(0))
    assert itself.verdict == "good" and not itself.calibrated and itself.p_value is None
    assert itself.regions == ()


def test_one_reference_is_enough_for_maps_without_ends(inspector, monkeypatch):
    ends = (-math.inf, math.inf)  # of the methods that count in standard deviations
    monkeypatch.setattr(inspector.detector, "map_range", lambda knowledge: ends)
    inspector.remember(picture(0))
    itself, policy = inspector.inspect(picture(0)), inspector.active_policy()
    assert itself.verdict == "good" and itself.regions == ()
    low, high = policy.colour_range
    assert low < policy.region_limit < high


def test_two_references_calibrate_by_leaving_one_out(inspector):
    assert inspector.remember([picture(0), picture(1)]) == 2
    outcome = inspector.inspect(picture(2))
    assert outcome.calibrated and outcome.p_value in (
        pytest.approx(1 / 3),
        pytest.approx(2 / 3),
        pytest.approx(1.0),
    )
    policy = inspector.active_policy()
    assert policy.form == "leave-one-out" and policy.guaranteed and len(policy.scores) == 2


def test_the_automatic_policy_follows_the_references(inspector):
    inspector.remember([picture(0), picture(1)])
    first = inspector.active_policy()
    assert inspector.active_policy() is first
    inspector.remember(picture(2))
    assert len(inspector.active_policy().scores) == 3
    inspector.forget()
    assert inspector.active_policy().form == "none"


def test_leaving_one_out_equals_scoring_it_against_the_others(inspector):
    pictures = [picture(seed) for seed in range(4)]
    inspector.remember(pictures)
    left_out = inspector.active_policy().scores
    direct = []
    for index, own in enumerate(pictures):
        inspector.forget()
        inspector.remember([p for i, p in enumerate(pictures) if i != index])
        direct.append(inspector.inspect(own).score)
    assert left_out == pytest.approx(sorted(direct), abs=1e-5)


def test_references_from_a_folder_and_one_by_one_agree(inspector, tmp_path):
    folder = folder_of(tmp_path / "good", 3)
    assert inspector.remember(folder) == 3
    policy = inspector.active_policy()
    inspector.forget()
    for path in sorted(folder.iterdir(), reverse=True):
        inspector.remember(str(path))
    again = inspector.active_policy()
    assert again.fingerprint == policy.fingerprint
    assert again.scores == pytest.approx(policy.scores, abs=1e-5)


def test_a_picture_is_remembered_once(inspector, tmp_path):
    folder = folder_of(tmp_path / "good", 3)
    assert inspector.remember([folder, folder / "001.png"]) == 3
    assert inspector.remember(picture(2)) == 0
    assert inspector.shots == 3
    assert min(inspector.active_policy().scores) > inspector.inspect(picture(0)).score


def test_a_broken_reference_is_an_error_and_nothing_is_remembered(inspector, tmp_path):
    folder = folder_of(tmp_path / "good", 2)
    broken(folder / "bad.png")
    with pytest.raises(ImageError, match=r"bad\.png"):
        inspector.remember(folder)
    assert inspector.shots == 0
    assert inspector.active_policy().form == "none"


def test_references_that_are_not_there(inspector, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        inspector.remember(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="no pictures"):
        inspector.remember(tmp_path / "empty")
    with pytest.raises(ValueError, match="no image was given"):
        inspector.remember([])


def test_a_method_that_takes_no_references_says_so(inspector, monkeypatch):
    monkeypatch.setattr(inspector.detector, "memory", None)
    with pytest.raises(
        UnsupportedError, match="takes no references; it learns normality from words"
    ):
        inspector.remember(picture(0))


def test_the_area_is_hashed_once_and_follows_what_is_set(inspector, monkeypatch):
    hashed = []
    digest = shown.digest
    monkeypatch.setattr(shown, "digest", lambda p: hashed.append(p) or digest(p))
    before = inspector.fingerprint()
    white = np.full((40, 48, 3), 255, np.uint8)
    inspector.roi = open_image(white)
    with_roi = inspector.fingerprint()
    list(inspector.inspect_many([picture(seed) for seed in range(4)], batch_size=1))
    assert len(hashed) == 1
    inspector.ignore = open_image(255 - white)
    assert len({before, with_roi, inspector.fingerprint()}) == 3
    inspector.roi = inspector.ignore = None
    assert inspector.fingerprint() == before and inspector.roi is None


def test_a_picture_of_too_many_tiles_is_a_failure_of_its_own(weights):
    inspector = zerodefect.load("winclip", backbone=str(weights), tile=4)
    few, many = picture(0, 20, 20), picture(1, 400, 400)
    first, second = inspector.inspect_many([few, many], object="screw")
    assert isinstance(first, Inspection) and isinstance(second, Failure)
    assert "more than the 4096" in second.reason and "larger tiles" in second.remedy
    with pytest.raises(ImageError, match="more than the 4096"):
        inspector.inspect(many)


# --- calibration -------------------------------------------------------------------------------


def test_calibrating_on_good_pictures(inspector, tmp_path):
    folder = folder_of(tmp_path / "good", 9)
    counted = []
    policy = inspector.calibrate(folder, batch_size=4, on_scored=counted.append)
    assert counted == [1] * 9
    assert inspector.policy is policy and policy.form == "split" and policy.guaranteed
    assert policy.false_alarms == pytest.approx(0.1) and len(policy.scores) == 9
    scores = [r.score for r in inspector.inspect_many(folder)]
    assert sorted(scores) == pytest.approx(policy.scores, abs=1e-5)
    # Learned at the network's size; a map at the picture's size never exceeds it.
    highest = max(r.map.max() for r in inspector.inspect_many(folder))
    assert highest <= policy.map_maxima[-1] + 1e-6
    assert highest == pytest.approx(policy.map_maxima[-1], abs=1e-3)


def test_calibrating_with_references_of_their_own(inspector):
    inspector.remember([picture(0), picture(1)])
    policy = inspector.calibrate([picture(seed) for seed in range(2, 8)])
    assert policy.form == "split" and len(policy.scores) == 6
    assert inspector.inspect(picture(9)).calibrated


def test_calibrating_the_references_themselves(inspector):
    pictures = [picture(seed) for seed in range(5)]
    inspector.remember(picture(30))  # replaced by the good pictures
    counted = []
    policy = inspector.calibrate(pictures, leave_one_out=True, on_scored=counted.append)
    assert policy.form == "leave-one-out" and inspector.shots == 5 == sum(counted)
    inspector.policy = None
    assert inspector.active_policy().scores == policy.scores


def test_leave_one_out_of_one_is_an_error(inspector):
    with pytest.raises(ValueError, match="at least two"):
        inspector.calibrate(picture(0), leave_one_out=True)


def test_a_calibration_picture_that_is_a_reference_is_an_error(inspector, tmp_path):
    inspector.remember(save(tmp_path / "reference.png", 3))
    with pytest.raises(ValueError, match="also a reference"):
        inspector.calibrate([picture(seed) for seed in range(6)])
    assert inspector.policy is None


def test_copies_of_a_picture_prove_nothing(inspector):
    pictures = [picture(seed) for seed in range(4)]
    policy = inspector.calibrate([*pictures, *pictures, pictures[0]], batch_size=3)
    assert len(policy.scores) == 4 and policy.false_alarms == pytest.approx(0.2)
    assert "not counted: 5" in policy.notes[0]
    with pytest.raises(CalibrationError, match=r"smallest provable rate is 0\.2"):
        inspector.calibrate(pictures * 30, false_alarms=0.01)


def test_a_rate_that_cannot_be_proven_says_what_can(inspector):
    before = inspector.calibrate([picture(seed) for seed in range(4)])
    with pytest.raises(CalibrationError, match=r"smallest provable rate is 0\.25.*99 good images"):
        inspector.calibrate([picture(seed) for seed in range(3)], false_alarms=0.01)
    assert inspector.policy is before


def test_a_broken_calibration_picture_is_an_error(inspector, tmp_path):
    folder = folder_of(tmp_path / "good", 3)
    broken(folder / "bad.png")
    with pytest.raises(ImageError, match=r"bad\.png"):
        inspector.calibrate(folder)
    assert inspector.policy is None


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_broken_calibration_pictures_are_told_and_left_out(inspector, tmp_path, leave_one_out):
    folder = folder_of(tmp_path / "good", 5)
    for name in ("1a.png", "3a.png", "9.png"):
        broken(folder / name)
    told = []
    policy = inspector.calibrate(
        folder, leave_one_out=leave_one_out, batch_size=2, on_failure=told.append
    )
    assert [Path(failure.image).name for failure in told] == ["1a.png", "3a.png", "9.png"]
    assert len(policy.scores) == 5
    assert policy.notes[0] == "Files that could not be used, not counted: 3."
    alone = inspector.calibrate([picture(seed) for seed in range(5)], leave_one_out=leave_one_out)
    assert policy.scores == pytest.approx(alone.scores, abs=1e-5)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_without_a_readable_picture_nothing_is_calibrated(inspector, tmp_path, leave_one_out):
    broken(tmp_path / "bad.png")
    told = []
    with pytest.raises(CalibrationError, match="no good image"):
        inspector.calibrate(tmp_path, leave_one_out=leave_one_out, on_failure=told.append)
    assert len(told) == 1 and inspector.policy is None


def test_a_policy_comes_back_from_its_file(inspector, weights, tmp_path):
    policy = inspector.calibrate([picture(seed) for seed in range(6)])
    policy.save(tmp_path / "policy.json")
    loaded = zerodefect.load(backbone=str(weights), policy=tmp_path / "policy.json")
    outcome = loaded.inspect(picture(9), "screw")
    assert outcome.calibrated
    same(outcome, inspector.inspect(picture(9)))
    assert outcome.p_value == inspector.inspect(picture(9)).p_value


def test_the_policy_is_bound_to_what_decides_the_scores(inspector, weights, tmp_path):
    policy = inspector.calibrate([picture(seed) for seed in range(4)])
    (tmp_path / "other").mkdir()
    other = write_tiny_weights(tmp_path / "other", seed=1)
    moved = write_tiny_weights(tmp_path)  # the same weights under another name

    def judged(object="screw", references=(), **options):
        made = zerodefect.load(
            policy=policy, vocabulary=Vocabulary.of(["rust"]), **{"backbone": str(moved), **options}
        )
        if references:
            made.remember(references)
        return made.inspect(picture(9), object)

    assert judged().calibrated
    for changed, part in [
        ({"object": "bolt"}, r"object: 'screw' when calibrated, 'bolt' now"),
        ({"backbone": str(other)}, "detector"),
        ({"temperature": 0.1}, "detector"),
        ({"image_size": 72}, "detector"),
        ({"references": [picture(30)]}, "detector"),
    ]:
        with pytest.raises(PolicyMismatch, match=part):
            judged(**changed)


def test_other_references_than_those_calibrated_with_are_a_mismatch(inspector):
    inspector.remember(picture(0))
    inspector.calibrate([picture(seed) for seed in range(2, 6)])
    inspector.forget()
    inspector.remember(picture(1))
    with pytest.raises(PolicyMismatch):
        inspector.inspect(picture(9))
    with pytest.raises(PolicyMismatch):
        next(inspector.inspect_many([picture(9)]))


def test_limits_replaced_by_hand_are_followed(inspector, weights, tmp_path):
    path = tmp_path / "policy.json"
    inspector.calibrate([picture(seed) for seed in range(6)]).save(path)
    score = inspector.inspect(picture(9)).score
    verdicts = []
    for unsure, defect in [(0.0, 0.0), (0.0, 1.0), (1.0, 1.0), (None, None)]:
        content = json.loads(path.read_text())
        content["limits"] = {"unsure": unsure, "defect": defect}
        path.write_text(json.dumps(content))
        inspector.policy = Policy.load(path)
        outcome = inspector.inspect(picture(9))
        verdicts.append(outcome.verdict)
        assert outcome.score == pytest.approx(score)
    assert verdicts == ["defect", "unsure", "good", "unsure"]
    inspector.policy = inspector.policy.with_threshold(str(score - 0.01))
    assert inspector.inspect(picture(9)).verdict == "defect"


def test_a_region_limit_replaced_by_hand_is_followed(inspector):
    policy = inspector.calibrate([picture(seed) for seed in range(6)])
    inspector.policy = policy.model_copy(update={"region_limit": 0.0})
    (region,) = inspector.inspect(picture(9)).regions
    assert region.area_percent == pytest.approx(100)
    inspector.policy = policy.model_copy(update={"region_limit": 1.0})
    assert inspector.inspect(picture(9)).regions == ()


def noise(generator, count):
    """Exchangeable pictures: smooth noise of random strength."""
    for _ in range(count):
        coarse = generator.normal(128, generator.uniform(5, 60), (8, 8, 3)).clip(0, 255)
        yield np.asarray(Image.fromarray(coarse.astype(np.uint8)).resize((32, 32)))


@pytest.mark.slow
@pytest.mark.parametrize(("leave_one_out", "n", "draws"), [(False, 19, 16), (True, 9, 12)])
def test_the_stated_false_alarm_rate_holds_on_new_good_pictures(inspector, leave_one_out, n, draws):
    """Over many draws of calibration and new pictures; the rates are those of every alarm kind."""
    rate, review, new = 0.2, 0.4, 20
    generator = np.random.default_rng(7)
    alarms, reviews, regions = [], [], []
    for _ in range(draws):
        good = list(noise(generator, n))
        inspector.calibrate(
            good, false_alarms=rate, review_rate=review, leave_one_out=leave_one_out, batch_size=32
        )
        assert inspector.policy.guaranteed
        outcomes = list(inspector.inspect_many(noise(generator, new), batch_size=32))
        alarms.append(np.mean([o.verdict == "defect" for o in outcomes]))
        reviews.append(np.mean([o.verdict != "good" for o in outcomes]))
        regions.append(np.mean([o.count > 0 for o in outcomes]))
    for found, promised in ((alarms, rate), (reviews, review), (regions, review)):
        # Given one calibration the rate is Beta distributed (k, n + 1 - k); new pictures add the
        # binomial part.
        spread = promised * (1 - promised) * (1 / (n + 2) + 1 / new)
        assert np.mean(found) <= promised + 3 * math.sqrt(spread / draws)
    assert np.mean(alarms) > 0  # a limit that no score ever exceeds would prove nothing


# --- many pictures -----------------------------------------------------------------------------


def test_failures_come_in_order_and_the_rest_goes_on(inspector, tmp_path):
    sources = [
        save(tmp_path / "a.png", 0),
        broken(tmp_path / "b.png"),
        picture(2),
        b"not a picture",
        save(tmp_path / "c.png", 3),
    ]
    (tmp_path / "empty.jpg").write_bytes(b"")
    sources.append(tmp_path / "empty.jpg")
    for batch_size in (1, 2, 8):
        results = list(inspector.inspect_many(sources, batch_size=batch_size))
        assert [type(r) for r in results] == [
            Inspection,
            Failure,
            Inspection,
            Failure,
            Inspection,
            Failure,
        ]
        assert [r.image for r in results] == [
            str(tmp_path / "a.png"),
            str(tmp_path / "b.png"),
            "<array>",
            "<bytes>",
            str(tmp_path / "c.png"),
            str(tmp_path / "empty.jpg"),
        ]
        assert all(r.reason and r.remedy for r in results if isinstance(r, Failure))


def test_a_missing_file_among_many_is_an_error_before_any_work(inspector, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        inspector.inspect_many([picture(0), tmp_path / "none.png"], batch_size=1)


def test_a_stream_is_read_only_as_far_as_it_is_needed(inspector):
    def camera():
        for seed in itertools.count():
            assert seed < 10, "read too far ahead"
            yield picture(seed)

    results = itertools.islice(inspector.inspect_many(camera(), batch_size=2), 5)
    assert [type(r) for r in results] == [Inspection] * 5


def test_nothing_to_inspect_is_an_error(inspector):
    with pytest.raises(ValueError, match="no image was given"):
        next(inspector.inspect_many([]))
    with pytest.raises(ValueError, match="batch size"):
        next(inspector.inspect_many([picture(0)], batch_size=0))


def spoil(monkeypatch, detector, spoiled):
    """Let ``spoiled(prediction, images)`` stand for what the detector itself says of images."""
    encode, predict = detector.encode, detector.predict
    monkeypatch.setattr(detector, "encode", lambda images: (images, encode(images)))
    monkeypatch.setattr(
        detector, "predict", lambda both, known: spoiled(predict(both[1], known), both[0])
    )


WHITE = np.full((40, 40, 3), 255, np.uint8)


def is_white(images):
    return (images.flatten(1).amin(dim=1) > 1.5).tolist()


@pytest.mark.parametrize("error", [RuntimeError("out of memory\ndetails"), MemoryError()])
def test_a_picture_that_breaks_its_batch_costs_itself_alone(inspector, monkeypatch, error):
    def fall(prediction, images):
        if any(is_white(images)):
            raise error
        return prediction

    expected = [inspector.inspect(picture(seed)) for seed in range(3)]
    spoil(monkeypatch, inspector.detector, fall)
    results = list(inspector.inspect_many([picture(0), picture(1), WHITE, picture(2)]))
    assert isinstance(results[2], Failure)
    assert "could not be scored" in results[2].reason and "\n" not in results[2].reason
    for one, other in zip([*results[:2], results[3]], expected, strict=True):
        same(one, other)


@pytest.mark.parametrize("spoilt", ["score", "map"])
def test_a_number_that_is_none_costs_its_picture_alone(inspector, monkeypatch, spoilt):
    def nan(prediction, images):
        score, map = prediction.score.clone(), prediction.map.clone()
        for row, white in enumerate(is_white(images)):
            if white:
                (score if spoilt == "score" else map[row, 0])[row] = torch.nan
        return Prediction(score, map, prediction.type_map)

    spoil(monkeypatch, inspector.detector, nan)
    results = list(inspector.inspect_many([WHITE, picture(1), picture(2)]))
    assert [type(r) for r in results] == [Failure, Inspection, Inspection]


def test_a_fault_of_the_program_is_not_hidden(inspector, monkeypatch):
    def fault(prediction, images):
        raise TypeError("a fault")

    spoil(monkeypatch, inspector.detector, fault)
    with pytest.raises(TypeError, match="a fault"):
        list(inspector.inspect_many([picture(0)]))


def test_facts_are_plain_data(inspector):
    inspector.remember(picture(0))
    facts = inspector.facts()
    assert json.loads(json.dumps(facts)) == json.loads(json.dumps(facts, sort_keys=True))
    assert facts["fingerprint"] == inspector.fingerprint()
    assert facts["object"] == "screw" and len(facts["references"]) == 1
