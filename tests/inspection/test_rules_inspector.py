"""An inspector with rules, on trays whose parts are known by construction."""

import json
import pickle
import zipfile

import pytest
from drawn_trays import BOXES, Colours, Tray, good_tray

import zerodefect
from zerodefect.inspection.archive import ProductError
from zerodefect.inspection.conformal import CalibrationError, PolicyError
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.load_inspector import load_product
from zerodefect.inspection.product_file import opened_product

RULES = ["exactly 2 screws", "label left of bottle", "fill level in bottle as usual"]


@pytest.fixture
def told(tmp_path):
    """The components of a drawn tray, by boxes on one of them."""
    file = Tray().save(tmp_path / "tray.png")
    return [f"{name}={file}:{box}" for name, box in BOXES.items()]


def trays(told, rules=RULES):
    inspector = Inspector(Colours())
    inspector.describe("tray")
    inspector.teach_rules(rules, told)
    return inspector


def good(count=40):
    return [good_tray(seed).draw() for seed in range(count)]


@pytest.fixture
def calibrated(told):
    inspector = trays(told)
    inspector.calibrate(good())
    return inspector


def truths(found):
    return {one.rule.split()[0]: one.truth for one in found.rules}


def test_a_good_tray_keeps_all_rules(calibrated):
    found = calibrated.inspect(Tray(noise=77).draw())
    assert found.verdict == "good"
    assert [one.truth for one in found.rules] == ["kept"] * 3
    assert {one.name for one in found.components} == set(BOXES)
    assert "Broken" not in found.explanation


@pytest.mark.parametrize(
    ("tray", "rule", "said"),
    [
        (Tray(screws=((12, 12),), noise=50), "exactly", "exactly 2 screws: 1 found"),
        (Tray(screws=((12, 12), (40, 12), (12, 44)), noise=51), "exactly", "3 found"),
        (Tray(level=0.35, noise=52), "level", "level of liquid in bottle as usual: 0.3"),
    ],
)
def test_what_breaks_a_rule_is_a_defect_that_says_why(calibrated, tray, rule, said):
    found = calibrated.inspect(tray.draw())
    score = calibrated.active_policy().verdict(found.score)
    assert score == "good" and found.verdict == "defect"
    assert truths(found)[rule] == "broken"
    assert found.explanation.startswith("Broken: ") and said in found.explanation
    record = found.to_dict()
    json.dumps(record, allow_nan=False)
    (broken,) = [one for one in record["rules"] if one["truth"] == "broken"]
    assert broken["version"] == 1 and broken["verdict"] == "defect"
    assert all(record["components"][place]["name"] for place in broken["components"])


def test_what_was_not_found_is_unsure_and_no_silent_pass(calibrated):
    found = calibrated.inspect(Tray(label=None, noise=53).draw())
    assert truths(found)["label"] == "uncertain" and found.verdict == "unsure"
    assert "Uncertain: label left of bottle: label not found" in found.explanation


def test_a_rule_says_itself_what_it_makes_of_a_picture(told):
    inspector = trays(told, ["exactly 2 screws, else unsure"])
    inspector.calibrate(good())
    assert inspector.inspect(Tray(screws=((12, 12),)).draw()).verdict == "unsure"


def test_scores_and_p_values_are_the_detectors_own(calibrated):
    plain = Inspector(Colours(), policy=calibrated.policy)
    plain.describe("tray")
    for tray in (Tray(level=0.3), Tray(noise=4)):
        one, other = calibrated.inspect(tray.draw()), plain.inspect(tray.draw())
        assert (one.score, one.p_value) == (other.score, other.p_value)
        assert other.rules == () and other.verdict == "good"


def test_the_network_runs_once_for_a_picture(calibrated):
    before = calibrated.detector.runs
    list(calibrated.inspect_many([tray.draw() for tray in (Tray(), Tray(noise=1))]))
    assert calibrated.detector.runs - before == 2


def test_the_network_runs_once_for_a_good_picture(told):
    inspector = trays(told)
    before = inspector.detector.runs
    inspector.calibrate(good(40))
    assert inspector.detector.runs - before == 40


def test_the_rate_is_shared_and_told(told):
    inspector = trays(told, [*RULES, "number of screws as usual"])
    with pytest.raises(CalibrationError, match=r"4 limits of rules|false-alarm rate of 0\.02"):
        inspector.calibrate(good(40), false_alarms=0.1)
    assert inspector.policy is None and not inspector.rule_set.learned
    policy = inspector.calibrate(good(49), false_alarms=0.1)
    assert policy.false_alarms == pytest.approx(0.1 / 5)
    assert inspector.rule_set.rate == pytest.approx(0.1 * 4 / 5)
    assert inspector.rule_set.guaranteed
    (note,) = [one for one in policy.notes if one.startswith("Rules as usual")]
    assert "at most 10 % of good images" in note and "4 limits of rules" in note
    assert inspector.calibration.false_alarms == 0.1


def test_without_a_rate_each_limit_gets_what_is_provable(told):
    inspector = trays(told)
    policy = inspector.calibrate(good(40))
    assert policy.false_alarms == pytest.approx(1 / 41)
    assert inspector.rule_set.rate == pytest.approx(2 / 41)


def test_what_good_pictures_do_not_keep_is_told(told):
    inspector = trays(told, ["exactly 3 screws", "label left of bottle"])
    policy = inspector.calibrate(good(20))
    assert "Of 20 good images 20 break the rule 'exactly 3 screws'." in policy.notes


def test_components_learned_from_the_same_pictures_prove_nothing(told, tmp_path):
    files = [good_tray(seed).save(tmp_path / f"good/{seed}.png") for seed in range(40)]
    inspector = trays([f"{n}={files[0]}:{b}" for n, b in BOXES.items()])
    policy = inspector.calibrate(files)
    assert not inspector.rule_set.guaranteed
    assert any("this is not guaranteed" in one for one in policy.notes if "Rules" in one)


def test_rules_as_usual_need_good_pictures(told):
    inspector = trays(told)
    with pytest.raises(PolicyError, match=r"'level of liquid in bottle as usual'.*Calibrate"):
        inspector.inspect(Tray().draw())
    with pytest.raises(PolicyError, match="parts of several"):
        inspector.calibrate({"a": good(2), "b": [good_tray(9).draw()]})


def test_rules_are_added_and_taken_back(calibrated):
    assert calibrated.teach_rules(["at least 1 label"]).learned
    assert len(calibrated.rule_set.rules) == 4
    calibrated.inspect(Tray(noise=3).draw())
    assert calibrated.teach_rules(["none"]) is None
    assert calibrated.inspect(Tray(level=0.3).draw()).verdict == "good"


def test_a_picture_that_shows_nothing_stays_unsure(calibrated):
    import numpy as np

    found = calibrated.inspect(np.zeros((128, 128, 3), np.uint8))
    assert found.verdict == "unsure" and found.reason


def test_a_product_file_carries_the_rules(calibrated, tmp_path):
    calibrated.save(tmp_path / "tray.zd")
    file = opened_product(tmp_path / "tray.zd")
    assert file.told.version == 2
    assert [str(rule) for rule in file.rules.rules] == [
        *("exactly 2 screws", "label left of bottle", "level of liquid in bottle as usual")
    ]
    again = load_product(tmp_path / "tray.zd", Colours())
    for tray in (Tray(level=0.3), Tray(noise=5), Tray(screws=())):
        one, other = calibrated.inspect(tray.draw()), again.inspect(tray.draw())
        assert (one.verdict, one.rules, one.components) == (
            *(other.verdict, other.rules, other.components),
        )
    again.teach_rules(["at least 1 label"])
    again.save(tmp_path / "more.zd")
    assert len(load_product(tmp_path / "more.zd", Colours()).rule_set.rules) == 4


def test_a_product_without_rules_is_what_it_was(tmp_path):
    inspector = Inspector(Colours())
    inspector.describe("tray")
    inspector.calibrate(good(20))
    inspector.save(tmp_path / "tray.zd")
    file = opened_product(tmp_path / "tray.zd")
    assert file.told.version == 1 and file.rules is None
    assert not {"rules.json", "components.safetensors"} & set(file.archive.sizes)


def changed(file, target, **members):
    """A copy of a product file with other members."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, members.get(name.partition(".")[0], old.read(name)))
    return target


@pytest.mark.parametrize(
    "members",
    [
        {"rules": b"{"},
        {"rules": b'{"version": 9, "rules": []}'},
        {"rules": b'{"rules": ["exactly screws"]}'},
        {"rules": b'{"rules": [], "components": ["nut"]}'},
        {"components": b"nothing"},
    ],
)
def test_damaged_rules_are_refused(calibrated, tmp_path, members):
    calibrated.save(tmp_path / "tray.zd")
    broken = changed(tmp_path / "tray.zd", tmp_path / "broken.zd", **members)
    with pytest.raises(ProductError, match=r"broken\.zd"):
        load_product(broken, Colours())


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda told: told["rules"].append("exactly 2 nuts"), "'nut', which is not known"),
        (lambda told: told["components"].append("nut=words nut"), None),
        (lambda told: told["components"].append("nut=cluster 3"), "'nut' looks like is not there"),
        (lambda told: told["learned"][0]["limits"][0].reverse(), None),
        (lambda told: told["learned"][0].update(limits=[[0.0, None]]), "are not whole"),
        (lambda told: told["learned"][0].update(limits=[]), "are not whole"),
        (lambda told: told["learned"][0].update(values=[]), "are not whole"),
        (lambda told: told["learned"][0].update(values=[[]]), "are not whole"),
        (lambda told: told["learned"][0].update(rule="position of label as usual"), "not whole"),
        (lambda told: told["learned"][0].update(rule="labels"), "cannot be used"),
    ],
)
def test_rules_that_were_edited_by_hand_are_refused_before_a_picture(
    calibrated, tmp_path, edit, reason
):
    calibrated.save(tmp_path / "tray.zd")
    section = json.loads(zipfile.ZipFile(tmp_path / "tray.zd").read("rules.json"))
    edit(section)
    made = changed(tmp_path / "tray.zd", tmp_path / "edited.zd", rules=json.dumps(section).encode())
    if reason is None:
        assert load_product(made, Colours()).inspect(Tray().draw()).rules
        return
    with pytest.raises(ProductError, match=reason) as error:
        load_product(made, Colours())
    assert "edited.zd" in str(error.value) and "\n" not in str(error.value)


def test_more_good_pictures_learn_the_limits_again(calibrated, tmp_path):
    calibrated.save(tmp_path / "tray.zd")
    again = load_product(tmp_path / "tray.zd", Colours())
    before = again.rule_set.learned
    again.relearn(good=[Tray(level=0.7, noise=91).draw()])
    (one,), (other,) = before.values(), again.rule_set.learned.values()
    assert len(other.values[0]) == len(one.values[0]) + 1
    assert other.limits[0][1] > one.limits[0][1]


def test_rules_travel_to_other_processes(calibrated):
    again = pickle.loads(pickle.dumps(calibrated))
    assert again.inspect(Tray(level=0.3).draw()).verdict == "defect"


def test_parts_of_several_pictures_have_the_worst_of_their_rules(told):
    inspector = trays(told, ["exactly 2 screws"])
    inspector.calibrate({f"{n}": [image] for n, image in enumerate(good(30))})
    (part,) = inspector.inspect_parts({"bad": [Tray(screws=((12, 12),)).draw()]})
    assert part.verdict == "defect"
    assert "exactly 2 screws: 1 found" in part.explanation


def test_words_that_the_model_does_not_know_leave_a_rule_uncertain(tmp_path):
    inspector = zerodefect.load(
        "dense", object="tray", rules=["no wheel"], components=["wheel=words wheel"]
    )
    found = inspector.inspect(Tray().draw())
    (rule,) = found.rules
    if rule.truth == "uncertain":
        assert "no place for wheel" in rule.told and found.verdict != "good"
    else:
        assert rule.value is not None
