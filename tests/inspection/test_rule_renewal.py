"""Rules that are refused early, dropped, and carried over when a product is learned anew."""

import numpy as np
import pytest
from drawn_trays import BOXES, Colours, Tray, good_tray

import zerodefect
from zerodefect.inspection.conformal import PolicyError
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.load_inspector import load_product, renewed
from zerodefect.inspection.product_file import opened_product
from zerodefect.inspection.rules.component_sources import ComponentError

RULES = ["exactly 2 screws", "exactly 3 labels", "fill level in bottle as usual"]
SMALL = {"image_size": 128, "device": "cpu"}


@pytest.fixture
def told(tmp_path):
    """The components of a drawn tray, by boxes on one of them."""
    file = Tray().save(tmp_path / "tray.png")
    return [f"{name}={file}:{box}" for name, box in BOXES.items()]


def good(count):
    return [good_tray(seed).draw() for seed in range(count)]


@pytest.fixture
def product(told, tmp_path):
    """A product of ``pyramid`` with rules; the picture with boxes is one of its references."""
    inspector = zerodefect.load("pyramid", object="tray", **SMALL)
    inspector.remember([str(tmp_path / "tray.png"), *good(3)])
    inspector.teach_rules(RULES, told)
    inspector.calibrate([good_tray(seed).draw() for seed in range(10, 30)])
    inspector.save(tmp_path / "tray.zd")
    return tmp_path / "tray.zd"


def of_rules(policy):
    return [one for one in policy.notes if "rule" in one.lower()]


# --- dropped -------------------------------------------------------------------------------------


def test_rules_that_are_dropped_leave_no_notes(told):
    inspector = Inspector(Colours())
    inspector.describe("tray")
    inspector.teach_rules(RULES, told)
    policy = inspector.calibrate(good(40))
    assert any("Rules as usual" in one for one in of_rules(policy))
    assert any("break the rule 'exactly 3 labels'" in one for one in of_rules(policy))
    others = [one for one in policy.notes if one not in of_rules(policy)]
    inspector.teach_rules(["at least 1 screw"])
    assert inspector.policy == policy  # nothing was dropped
    assert inspector.teach_rules("none") is None
    assert of_rules(inspector.policy) == [] and list(inspector.policy.notes) == others
    assert inspector.policy.limits == policy.limits


# --- refused early -------------------------------------------------------------------------------


def test_a_component_that_is_not_known_is_refused_before_anything_is_loaded(monkeypatch, told):
    def loaded(*_, **__):
        raise AssertionError("a network was loaded")

    monkeypatch.setattr("zerodefect.inspection.load_inspector.load_detector", loaded)
    with pytest.raises(ComponentError, match=r"'nut', which is not known \(known: screw, label"):
        zerodefect.load("pyramid", rules=["exactly 2 nuts"], components=told)
    with pytest.raises(ComponentError, match="no component was told"):
        zerodefect.load("pyramid", rules=["exactly 2 nuts"])


@pytest.mark.slow
def test_a_product_file_knows_the_components_before_it_is_loaded(monkeypatch, product):
    assert zerodefect.load(product, rules=["no label"]).rule_set.rules[-1].what == "number"
    monkeypatch.setattr("zerodefect.inspection.load_inspector.load_product", None)
    with pytest.raises(ComponentError, match=r"'nut', which is not known \(known: screw, label"):
        zerodefect.load(product, rules=["exactly 2 nuts"])


# --- what is usual, of a product -----------------------------------------------------------------


@pytest.mark.slow
def test_the_remedy_for_what_is_usual_is_one_that_works(product, tmp_path):
    again = load_product(product)
    again.teach_rules(["number of labels as usual"])
    with pytest.raises(PolicyError) as error:
        again.inspect(Tray().draw())
    said = f'zerodefect calibrate --product {product} --rule "number of labels as usual"'
    assert str(error.value).endswith(said)
    again.relearn()  # what it does
    assert not again.rule_set.unlearned
    again.save(tmp_path / "bare.zd", pictures=False)
    bare = load_product(tmp_path / "bare.zd")
    bare.teach_rules(["area of label as usual"])
    with pytest.raises(PolicyError, match="keeps no pictures to learn it from: calibrate anew"):
        bare.check_rules()


# --- learned anew --------------------------------------------------------------------------------


@pytest.mark.slow
def test_rules_are_carried_over_by_the_same_detector(product):
    (product.parent / "tray.png").unlink()  # nothing needs to be learned anew
    before, again = load_product(product), renewed(product, device="cpu")
    assert again.rule_set.rules == before.rule_set.rules
    assert again.rule_set.learned.keys() == before.rule_set.learned.keys()
    assert sum("Rules as usual" in one for one in again.policy.notes) == 1
    for tray in (Tray(noise=5), Tray(screws=((12, 12),)), Tray(level=0.3)):
        one, other = before.inspect(tray.draw()), again.inspect(tray.draw())
        assert [r.truth for r in one.rules] == [r.truth for r in other.rules]
        np.testing.assert_allclose(one.rules[2].value, other.rules[2].value, atol=0.02)
    again.save(product)
    assert opened_product(product).rules.learned


@pytest.mark.slow
def test_another_detector_learns_the_components_anew_or_says_what_it_lacks(product):
    other = {"method": "patchcore", **SMALL}
    again = renewed(product, **other)
    assert again.detector.info.name == "patchcore" and not again.rule_set.unlearned
    assert again.inspect(Tray(screws=((12, 12),), noise=3).draw()).rules[0].truth == "broken"
    picture = product.parent / "tray.png"
    Tray(noise=17).save(picture)
    with pytest.raises(ComponentError, match=r"tray\.png, which is another picture now.*--renew"):
        renewed(product, **other)
    picture.unlink()
    with pytest.raises(ComponentError, match=r"'screw'.*tray\.png, which is not there"):
        renewed(product, **other)
    assert renewed(product, rules=["none"], **other).rule_set is None
    elsewhere = Tray(noise=17).save(product.parent / "new.png")
    told = [f"{name}={elsewhere}:{box}" for name, box in BOXES.items()]
    assert len(renewed(product, components=told, **other).rule_set.rules) == 3


@pytest.mark.slow
def test_clusters_of_another_detector_are_refused(product, tmp_path):
    from zerodefect.inspection.rules.component_learning import save_clusters
    from zerodefect.inspection.rules.component_model import Clusters

    made = zerodefect.load("pyramid", object="tray", **SMALL)
    made.remember(good(3))
    rows = [made.rows_of(picture) for picture in made.pictures(made.words())]
    save_clusters(Clusters.of(rows, 6, ["a"]), tmp_path / "tray.clusters")
    made.teach_rules(["area of ground at least 10 %"], ["ground=cluster 1"],
                     tmp_path / "tray.clusters")  # fmt: skip
    made.calibrate([good_tray(seed).draw() for seed in range(10, 22)])
    made.save(tmp_path / "by.zd")
    assert renewed(tmp_path / "by.zd").rule_set.model is not None
    with pytest.raises(ComponentError, match="told by clusters of what the former detector saw"):
        renewed(tmp_path / "by.zd", method="patchcore", **SMALL)


def test_a_product_without_rules_gains_none_and_may_be_given_some(tmp_path, told):
    from zerodefect.inspection.rules.rule_renewal import renew_rules

    inspector = Inspector(Colours())
    inspector.describe("tray")
    renew_rules(inspector, None, same=True)
    assert inspector.rule_set is None
    renew_rules(inspector, None, same=False, rules=["exactly 2 screws"], components=told)
    assert inspector.inspect(Tray().draw()).rules[0].truth == "kept"
