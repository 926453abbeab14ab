"""A product in one file: the same numbers elsewhere, more can be added, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from models import picture, write_tiny_weights
from small_clouds import tilted
from small_detectors import SMALL, alter

import zerodefect
from zerodefect import Inspector, Policy, ProductError, WeightsError, methods
from zerodefect.detector.checkpoint_file import save_checkpoint
from zerodefect.images import Picture, encode_png
from zerodefect.images.clouds import open_cloud
from zerodefect.images.kept import KeptPicture
from zerodefect.inspection.archive import write_archive
from zerodefect.inspection.load_inspector import load_product, renewed
from zerodefect.inspection.product_file import opened_product
from zerodefect.methods import load_detector


def good(count, first=0, height=60, width=90):
    return [picture(seed, height, width) for seed in range(first, first + count)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_weights(tmp_path_factory.mktemp("weights"))


def screw(weights, references=3, calibrated=8, **options):
    """An inspector as a user has it."""
    made = zerodefect.load(
        "winclip", backbone=str(weights), device="cpu", object="screw", **options
    )
    if references:
        made.remember(good(references))
    if calibrated:
        made.calibrate(good(calibrated, first=20))
    return made


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("product") / "screw.zd"
    screw(weights).save(path)
    return path


def with_points(pictures):
    """The same parts with a cloud each: tilted, and pressed in where the picture is bright."""
    parts = []
    for number, pixels in enumerate(pictures):
        points = tilted(*pixels.shape[:2], tilt=(0.1 * number, 0.05))
        points[..., 2] += pixels.mean(-1) * 1e-5
        parts.append(Picture(f"part {number}", pixels, cloud=open_cloud(points)))
    return parts


def same(one, other, *pictures):
    """To the last bit."""
    shown = list(pictures or (picture(50), picture(51, 60, 90)))
    for a, b in zip(one.inspect_many(shown), other.inspect_many(shown), strict=True):
        assert (a.score, a.verdict, a.p_value) == (b.score, b.verdict, b.p_value)
        assert (a.map is None) == (b.map is None)
        assert a.map is None or np.array_equal(a.map, b.map)
        assert [r.box for r in a.regions] == [r.box for r in b.regions]
        assert [(r.kind, r.kind_score) for r in a.regions] == [
            (r.kind, r.kind_score) for r in b.regions
        ]


def rewritten(path, target, change=lambda members: None, **told):
    """A copy with other members, or other sections of ``product.json``."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if told:
        members["product.json"] = json.dumps(
            {**json.loads(members["product.json"]), **told}
        ).encode()
    change(members)
    write_archive(target, members)
    return target


# --- the same, elsewhere -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*methods.names(), "dense+pyramid", "winclip+patchcore"])
def test_every_method_says_the_same_from_its_file_to_the_last_bit(name, weights, tmp_path):
    info = methods.facts_of(name)
    wanted = {n: kind for n, kind in info.backbones.items() if n not in info.spare}
    if {"segmenter", "grounder", "chat"} & set(wanted.values()):
        pytest.skip("its weights are not at hand; the networks stood in for, its own tests show it")
    networks = {n: str(weights) if kind == "clip" else "embedded" for n, kind in wanted.items()}
    options = {"backbone": networks, "device": "cpu", "image_size": 64}
    if info.trained:
        options |= SMALL.get(name, {})
        learner = load_detector(name, untrained=True, **options)
        alter(learner)
        save_checkpoint(learner, tmp_path / "learned.safetensors", {"seed": 3})
        options["checkpoint"] = tmp_path / "learned.safetensors"
    made = zerodefect.load(name, object="metal nut", **options)
    as_taken = with_points if "xyz" in made.detector.inputs else list
    if made.detector.memory is not None:
        made.remember(as_taken(good(3, height=64, width=64)))
    if "set" not in info.needs:
        made.calibrate(as_taken(good(4, first=20, height=64, width=64)))
    made.save(tmp_path / "made.zd")
    (tmp_path / "learned.safetensors").unlink(missing_ok=True)
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(tmp_path / "made.zd", tmp_path / "elsewhere" / "moved.zd")
    again = zerodefect.load(moved, device="cpu")
    assert again.facts() == made.facts()
    assert again.detector.origin == made.detector.origin
    assert again.policy == made.policy
    shown = as_taken([picture(50, 64, 64), picture(51, 64, 64)])  # two, for methods of sets
    same(made, again, *shown)
    assert again.file.check(again.scorer, again.snapshot().known) == 0.0


VIEWS = {
    "tiles": {"tile": 40, "overlap": 0.3},
    "aspect": {"keep_aspect": True},
    "both": {"tile": 40, "keep_aspect": True},
    "areas": {"roi": "roi", "ignore": "ignore"},
    "area in words": {"roi": "a hole, not the scratch"},
    "depth": {"bit_depth": 12},
    "half": {"precision": "bfloat16"},
    "options": {"temperature": 0.03, "scales": (2,), "image_size": 48},
    "words": {
        "vocabulary": zerodefect.Vocabulary.of({"rust": ["rusty {}"], "burr": ["{} with a burr"]})
    },
    "budget": {"memory_budget": 60_000},
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("form", ["split", "left out", "automatic", "words alone"])
def test_views_areas_and_options_travel_in_the_file(view, form, weights, tmp_path):
    mask = np.zeros((60, 90, 3), np.uint8)
    mask[:, 10:70] = 255
    masks = {"roi": mask, "ignore": np.roll(mask, 45, axis=1)}
    options = {k: masks.get(v, v) if isinstance(v, str) else v for k, v in VIEWS[view].items()}
    references = 0 if form == "words alone" else 3
    made = screw(weights, references, 4 if form == "split" else 0, **options)
    if form == "left out":
        made.calibrate(good(4, first=20), leave_one_out=True)
    made.save(tmp_path / "made.zd")
    again = zerodefect.load(str(tmp_path / "made.zd"), device="cpu")
    assert again.facts() == made.facts() and again.shots == made.shots
    assert again.calibration == made.calibration
    assert again.vocabulary == made.vocabulary and again.active_policy() == made.active_policy()
    same(made, again, picture(50, 60, 90))
    again.save(tmp_path / "again.zd")  # a copy of a copy
    same(made, zerodefect.load(tmp_path / "again.zd", device="cpu"), picture(50, 60, 90))


def test_another_process_and_another_folder_say_the_same(file, tmp_path):
    moved = shutil.copy(file, tmp_path / "there.zd")
    code = (
        "import sys, json, torch; torch.set_num_threads(1)\n"
        "import zerodefect\n"
        "found = zerodefect.load(sys.argv[1], device='cpu').inspect(sys.argv[2])\n"
        "print(json.dumps([found.score.hex(), found.verdict, float(found.map.sum()).hex()]))"
    )
    shown = tmp_path / "part.png"
    shown.write_bytes(encode_png(picture(50)))
    done = subprocess.run(
        [sys.executable, "-c", code, moved, shown], capture_output=True, text=True, check=True
    )
    here = zerodefect.load(file, device="cpu").inspect(shown)
    told = [here.score.hex(), here.verdict, float(here.map.sum()).hex()]
    assert json.loads(done.stdout) == told


def test_one_detector_serves_many_products(file, weights, tmp_path):
    nut = screw(weights, references=2)
    nut.save(tmp_path / "nut.zd")
    shared = nut.detector
    products = [load_product(path, shared) for path in (file, tmp_path / "nut.zd")]
    assert all(product.detector is shared for product in products)
    assert products[0].shots == 3 and products[1].shots == 2
    same(products[1], nut)
    copied = pickle.loads(pickle.dumps(products[0]))
    same(copied, products[0])
    other = load_detector("winclip", backbone=str(weights), device="cpu", image_size=48)
    with pytest.raises(ProductError, match=r"its detector is another one here .*preprocess"):
        load_product(file, other)


def test_sixteen_bits_stay_sixteen(weights, tmp_path):
    made = zerodefect.load("winclip", backbone=str(weights), device="cpu", object="screw")
    wide = [one.astype(np.uint16) * 257 + 3 for one in good(4)]
    made.calibrate(wide, leave_one_out=True)
    made.save(tmp_path / "wide.zd")
    again = zerodefect.load(tmp_path / "wide.zd", device="cpu")
    kept = again.recalled(again.snapshot()).references
    assert all(one.pixels.dtype == np.uint16 for one in kept)
    assert {name.rpartition(".")[2] for name in again.file.archive.sizes} >= {"tif"}
    same(made, zerodefect.load(tmp_path / "wide.zd", device="cpu"))


# --- more good pictures, other weights -----------------------------------------------------------


@pytest.mark.parametrize("method", ["winclip", "dense+pyramid"])
def test_small_pictures_are_whole_and_everything_is_computed_again_to_the_last_bit(
    method, weights, tmp_path
):
    """They fit the network's input: adding to the file is the same as having had all at once."""

    def small(count, first=0):
        return good(count, first, 64, 64)

    def inspector():
        named = {"clip": str(weights), "dense.clip": str(weights), "pyramid.features": "embedded"}
        kinds = methods.facts_of(method).backbones
        networks = {name: file for name, file in named.items() if name in kinds}
        options = {"backbone": networks, "image_size": 64, "device": "cpu"}
        return zerodefect.load(method, object="screw", **options)

    made, whole = inspector(), inspector()
    made.remember(small(3))
    made.calibrate(small(9, 20), false_alarms=0.1)
    made.save(tmp_path / "a.zd")
    again = zerodefect.load(tmp_path / "a.zd", device="cpu")
    again.relearn(references=small(2, 3), good=small(5, 40))
    whole.remember(small(5))
    whole.calibrate([*small(9, 20), *small(5, 40)], false_alarms=0.1)
    assert again.viewing.within is None
    assert again.policy.scores == whole.policy.scores
    assert again.policy.limits == whole.policy.limits and again.policy.false_alarms == 0.1
    assert again.policy.frames == whole.policy.frames
    assert again.facts() == whole.facts()
    same(again, whole)


@pytest.mark.parametrize("options", [{}, {"keep_aspect": True}, {"tile": 120}])
@pytest.mark.parametrize("form", ["split", "left out"])
def test_large_pictures_are_kept_at_the_networks_size_and_new_ones_are_shrunk_alike(
    form, options, weights, tmp_path
):
    """Kept or whole, a picture scores the same once pictures of the file were learned from."""
    made = zerodefect.load("winclip", backbone=str(weights), device="cpu", object="nut", **options)
    large = good(6, 20, 150, 200)
    if form == "split":
        made.remember(good(3, 0, 150, 200))
    made.calibrate(large, leave_one_out=form == "left out")
    made.save(tmp_path / "a.zd")
    before = zerodefect.load(tmp_path / "a.zd", device="cpu")
    same(made, before)
    assert before.viewing.within is None
    again = zerodefect.load(tmp_path / "a.zd", device="cpu")
    again.relearn(references=good(2, 3, 150, 200))
    assert again.viewing.within == (64, 64)
    kept = again.good_pictures() or list(again.recalled(again.snapshot()).references[:6])
    assert all(isinstance(one, KeptPicture) and one.shrunk for one in kept)
    scored = [again.inspect(one) for one in kept]
    for known, whole in zip(scored, map(again.inspect, large), strict=True):
        assert known.score == whole.score and np.array_equal(known.map, whole.map)
    if form == "split":
        # scored in a batch, which moves the last digit
        scores = sorted(one.score for one in scored)
        assert scores == pytest.approx(list(again.policy.scores), rel=1e-5)
        highest = sorted(float(one.map.max()) for one in scored)
        assert highest == pytest.approx(list(again.policy.map_maxima), rel=1e-5)
        assert again.policy.frames == made.policy.frames  # of the whole pictures
    again.save(tmp_path / "b.zd")
    third = zerodefect.load(tmp_path / "b.zd", device="cpu")
    same(again, third)
    assert third.viewing.within == (64, 64) and third.shots == again.shots
    third.relearn(references=good(1, 70, 150, 200))
    assert third.shots == again.shots + 1


def test_what_is_given_twice_counts_once(file):
    again = zerodefect.load(file, device="cpu")
    policy = again.relearn(references=good(3), good=good(8, first=20))
    assert again.shots == 3 and len(policy.scores) == 8
    before = again.facts()
    for act in (
        lambda: again.relearn(references=good(1, first=20)),
        lambda: again.relearn(references=good(1, first=70), false_alarms=1e-6),
        lambda: again.relearn(references=np.zeros((60, 90, 3), np.uint8)),
    ):
        with pytest.raises(ValueError, match=r"is also a reference|cannot be|single colour"):
            act()
        assert again.facts() == before and again.policy == policy  # all is as it was
        assert again.inspect(picture(50)).calibrated


def test_an_automatic_policy_is_learned_again_when_references_are_added(weights, tmp_path):
    screw(weights, calibrated=0).save(tmp_path / "a.zd")
    again = zerodefect.load(tmp_path / "a.zd", device="cpu")
    assert again.policy is None and len(again.active_policy().scores) == 3
    again.remember(good(2, first=70))
    assert len(again.active_policy().scores) == 5
    assert again.inspect(picture(50)).calibrated


def test_without_pictures_it_inspects_and_asks_for_them_where_they_are_needed(weights, tmp_path):
    made, path = screw(weights), tmp_path / "bare.zd"
    made.save(path, pictures=False)
    with zipfile.ZipFile(path) as archive:
        kinds = {name.partition("/")[0] for name in archive.namelist() if "/" in name}
    assert kinds == {"checks"}  # drawn ones: no picture of the product, however small
    again = zerodefect.load(path, device="cpu")
    same(made, again)
    for act in (
        lambda: again.remember(picture(70)),
        lambda: again.relearn(references=picture(70)),
        lambda: again.relearn(good=good(3, first=70)),
        lambda: renewed(path, device="cpu"),
    ):
        with pytest.raises(ProductError, match=r"bare\.zd: it was written without the \d+ good"):
            act()
    same(made, again)  # nothing of it was lost in trying
    assert "nothing can be added" in again.file.card()
    again.save(tmp_path / "copy.zd")
    assert not opened_product(tmp_path / "copy.zd").told.pictures.kept


def test_with_other_weights_it_is_learned_anew_from_the_pictures_inside(file, tmp_path):
    other = write_tiny_weights(tmp_path, seed=1)
    with pytest.raises(WeightsError, match=r"screw\.zd: learned on .* whose scores do not compare"):
        zerodefect.load(file, backbone=str(other), device="cpu")
    fresh = renewed(file, backbone=str(other), device="cpu")
    assert fresh.shots == 3 and len(fresh.policy.scores) == 8
    assert fresh.policy.fingerprint != zerodefect.load(file, device="cpu").policy.fingerprint
    fresh.save(tmp_path / "fresh.zd")
    same(fresh, zerodefect.load(tmp_path / "fresh.zd", device="cpu"))
    assert renewed(file, device="cpu").policy.scores  # with the same weights, too


def test_learned_values_travel_where_it_is_learned_anew(weights, tmp_path):
    """Elsewhere the checkpoint is gone, or another one lies in its place."""
    options = {"backbone": str(weights), "device": "cpu", "image_size": 64}
    options |= SMALL.get("anomalyclip", {})
    learner, learned = load_detector("anomalyclip", untrained=True, **options), tmp_path / "run"
    alter(learner)
    save_checkpoint(learner, learned / "learned.safetensors", {"seed": 3})
    made = zerodefect.load(checkpoint=learned / "learned.safetensors", object="nut", **options)
    made.calibrate(good(4, first=20, height=64, width=64))
    made.save(tmp_path / "made.zd")
    shutil.rmtree(learned)
    fresh = renewed(tmp_path / "made.zd", device="cpu")
    limits = made.policy.model_dump(exclude={"created"})  # the second may have ended
    assert fresh.policy.model_dump(exclude={"created"}) == limits
    fresh.save(tmp_path / "made.zd")
    again = renewed(tmp_path / "made.zd", device="cpu")
    assert again.policy.model_dump(exclude={"created"}) == limits


# --- refused -------------------------------------------------------------------------------------


def test_rules_stay_where_it_is_learned_again_or_anew(weights, tmp_path):
    made = screw(weights, calibrated=0)
    made.calibrate(good(8, first=20), allow=["area<50"])
    made.save(tmp_path / "ruled.zd")
    kept = ("area<50px",)
    assert renewed(tmp_path / "ruled.zd", device="cpu").policy.allowances.rules == kept
    again = zerodefect.load(tmp_path / "ruled.zd", device="cpu")
    assert again.relearn(good=picture(70)).allowances.rules == kept


def test_limits_of_parts_are_not_learned_as_those_of_pictures(weights, tmp_path):
    """A part may have one picture, so that numbers of parts and pictures agree."""
    made = screw(weights, calibrated=0)
    made.calibrate({f"part {n}": [one] for n, one in enumerate(good(8, first=20))})
    made.save(tmp_path / "parts.zd")
    again = zerodefect.load(tmp_path / "parts.zd", device="cpu")
    for learn in (lambda: renewed(tmp_path / "parts.zd"), lambda: again.relearn(good=picture(70))):
        with pytest.raises(ValueError, match="those of parts with several pictures"):
            learn()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"object": "nut"}, "object 'nut' was given, it is 'screw' in the file"),
        ({"tile": 512}, "tile 512 was given, it is None in the file"),
        ({"keep_aspect": True}, "keep_aspect True was given, it is False"),
        ({"references": "good"}, "references was given"),
        ({"policy": "policy.json"}, "policy was given"),
        ({"temperature": 0.5}, "temperature 0.5 was given, it is 0.07 in the file"),
        ({"image_size": 128}, "image_size 128 was given, it is 64"),
        ({"precision": "bfloat16"}, "precision 'bfloat16' was given, it is 'float32'"),
        ({"roi": np.zeros((9, 9, 3), np.uint8)}, "roi was given"),
        ({"bit_depth": 12}, "bit_depth 12 was given"),
        ({"vocabulary": zerodefect.Vocabulary.of(["rust"])}, "vocabulary rust was given"),
        ({"temprature": 1}, "temprature was given"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_contradicts_the_file_is_refused_by_name(said, told, file):
    with pytest.raises(ProductError, match=r"it is contradicted: .*" + told) as caught:
        zerodefect.load(file, device="cpu", **said)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(file))


def test_what_agrees_with_the_file_is_no_contradiction(file, weights):
    zerodefect.load(file, object="screw", device="cpu", temperature=0.07, scales=[2, 3])
    loaded = zerodefect.load(file, backbone=str(weights), device="cpu", precision="auto")
    for act in (
        lambda: loaded.describe("nut"),
        lambda: loaded.inspect(picture(0), object="nut"),
        lambda: setattr(loaded, "roi", None),
    ):
        with pytest.raises(ProductError, match=r"cannot be given to a product that was loaded"):
            act()
    loaded.describe("screw")
    assert loaded.inspect(picture(0), object="screw").object == "screw"


def test_a_path_that_exists_wins_over_a_name(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "patchcore").mkdir()  # a folder is no product
    assert zerodefect.load("winclip", device="cpu").detector.info.name == "winclip"
    shutil.copy(file, tmp_path / "winclip")
    assert zerodefect.load("winclip", device="cpu").object == "screw"
    for name in ("none.zd", "./none", Path("none")):
        with pytest.raises(ProductError, match=r"none.*: no such file. Check the path"):
            zerodefect.load(name)


def test_weights_that_are_missing_are_named_with_what_brings_them(weights, tmp_path):
    local = shutil.copytree(weights.parent, tmp_path / "w")
    made = screw(local / weights.name, calibrated=0)
    made.save(tmp_path / "here.zd")
    (tmp_path / "there").mkdir()
    moved = shutil.copy(tmp_path / "here.zd", tmp_path / "there" / "here.zd")
    shutil.rmtree(local)
    with pytest.raises(
        WeightsError, match=r"here\.zd: its weights tiny\.safetensors \(SHA-256"
    ) as e:
        zerodefect.load(moved, device="cpu")
    assert "Put the file beside the product file, or name it (--backbone" in str(e.value)
    for one in weights.parent.iterdir():
        shutil.copy(one, tmp_path / "there")
    same(made, zerodefect.load(moved, device="cpu"))
    elsewhere = shutil.move(tmp_path / "there" / weights.name, tmp_path / weights.name)
    shutil.move(tmp_path / "there" / "tiny.json", tmp_path / "tiny.json")
    same(made, zerodefect.load(moved, backbone=str(elsewhere), device="cpu"))


def test_check_pictures_that_score_otherwise_are_refused(file, tmp_path):
    told = opened_product(file).told.model_dump(mode="json")
    inputs = told["checks"]["inputs"]
    inputs[1]["score"] *= 1 + 1e-6  # as another processor may
    near = rewritten(file, tmp_path / "near.zd", checks={"inputs": inputs, "machine": {}})
    assert (
        0
        < zerodefect.load(near, device="cpu").file.check(
            zerodefect.load(near, device="cpu").scorer,
            zerodefect.load(near, device="cpu").snapshot().known,
        )
        < 1e-4
    )
    inputs[1]["score"] *= 1.01
    far = rewritten(file, tmp_path / "far.zd", checks={"inputs": inputs, "machine": {}})
    with pytest.raises(ProductError, match=r"far\.zd: its own check pictures score otherwise"):
        zerodefect.load(far, device="cpu")


def test_what_cannot_be_saved_says_why_and_leaves_the_former_file(weights, tmp_path):
    path = tmp_path / "former.zd"
    path.write_bytes(b"former")
    unseen = zerodefect.load("patchcore", device="cpu", image_size=64)
    with pytest.raises(RuntimeError, match=r"needs normal images"):
        unseen.save(path)
    learner = load_detector("anomalyclip", untrained=True, backbone=str(weights), device="cpu")
    with pytest.raises(ValueError, match=r"anomalyclip: its learned values are those of no check"):
        Inspector(learner).save(path)
    made = screw(weights)
    made.policy = made.policy.model_copy(update={"fingerprint": "0" * 16})
    with pytest.raises(zerodefect.PolicyMismatch):
        made.save(path)
    assert path.read_bytes() == b"former" and list(tmp_path.iterdir()) == [path]


def test_limits_from_elsewhere_travel_but_cannot_be_computed_again(weights, tmp_path, caplog):
    policy = Policy.model_validate(screw(weights).policy.model_dump())
    made = screw(weights, calibrated=0)
    made.policy = policy
    made.save(tmp_path / "a.zd")
    assert "written without pictures: the 8 good ones" in caplog.text
    again = zerodefect.load(tmp_path / "a.zd", device="cpu")
    assert again.policy == policy
    with pytest.raises(ProductError, match=r"without the 8 good pictures"):
        again.relearn(good=good(3, first=70))


@pytest.mark.parametrize(
    ("member", "content", "told"),
    [
        ("product.json", b"[]", "not a product file of ZeroDefect"),
        ("product.json", b"{", "product.json in it is damaged"),
        ("product.json", b"[" * 100_000, "product.json in it is damaged"),
        ("product.json", None, "a zip, but no product file"),
        ("policy.json", b"{}", "policy.json in it: not a ZeroDefect policy"),
        ("policy.json", None, "policy.json is missing"),
        ("knowledge.safetensors", b"", "knowledge.safetensors: cannot be read as knowledge"),
        ("knowledge.safetensors", b"\xff" * 99, "knowledge.safetensors: cannot be read"),
        ("knowledge.safetensors", None, "knowledge.safetensors is missing"),
        ("checks/0.png", b"x", "checks/0.png in it is no picture"),
        ("good/00000.png", b"x", "good/00000.png in it is no picture"),
        ("good/00001.png", encode_png(picture(0, 900, 900)), "is larger than the picture"),
        ("power.json", b"{", "power.json in it is damaged"),
    ],
)
def test_members_that_cannot_be_used_are_named(member, content, told, file, tmp_path):
    def change(members):
        members.pop(member, None) if content is None else members.update({member: content})

    bad = rewritten(file, tmp_path / "bad.zd", change)
    with pytest.raises(ProductError, match=r"bad\.zd: .*" + told) as caught:
        zerodefect.load(bad, device="cpu").relearn(references=picture(70))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", ["product", "detector", "viewing", "memory", "calibration"])
@pytest.mark.parametrize("value", [None, [], "x", {"facts": {}}, {"facts": {"parts": 3}}])
def test_sections_of_another_shape_are_named(section, value, file, tmp_path):
    bad = rewritten(file, tmp_path / "bad.zd", **{section: value})
    try:
        zerodefect.load(bad, device="cpu")
    except ValueError as error:
        assert str(error).startswith(str(tmp_path)) and "\n" not in str(error)
    else:
        assert isinstance(value, dict) and section != "detector"


# --- later versions, several writers -------------------------------------------------------------


def test_unknown_sections_fields_and_members_survive(file, tmp_path):
    told = opened_product(file).told.model_dump(mode="json")
    later = rewritten(
        file,
        tmp_path / "later.zd",
        lambda members: members.update({"notes/later.txt": b"hello"}),
        future={"what": [1, 2]},
        product={**told["product"], "colour": "grey"},
    )
    again = zerodefect.load(later, device="cpu")
    same(again, zerodefect.load(file, device="cpu"))
    again.relearn(references=good(1, first=70))
    again.save(tmp_path / "copy.zd")
    copy = opened_product(tmp_path / "copy.zd")
    assert copy.told.model_extra == {"future": {"what": [1, 2]}}
    assert copy.archive.read("notes/later.txt") == b"hello"
    newer = rewritten(file, tmp_path / "newer.zd", version=3)
    with pytest.raises(ProductError, match=r"version 3, this program reads up to 2. Update"):
        zerodefect.load(newer)


def test_power_travels_and_is_dropped_when_limits_change(file, weights, tmp_path):
    made = screw(weights)
    made.power = {"format": "zerodefect-power", "told": "later"}
    made.save(tmp_path / "a.zd")
    again = zerodefect.load(tmp_path / "a.zd", device="cpu")
    assert again.power == made.power and "Measured, " in again.file.card()
    again.relearn(references=good(1, first=70))
    assert again.power is None
    again.save(tmp_path / "b.zd")
    assert "power.json" not in opened_product(tmp_path / "b.zd").archive
    assert "Not measured" in opened_product(file).card()


def test_a_file_that_was_replaced_or_removed_while_in_use_is_told(file, weights, tmp_path):
    path = Path(shutil.copy(file, tmp_path / "screw.zd"))
    loaded = zerodefect.load(path, device="cpu")
    screw(weights, references=2).save(path)
    with pytest.raises(ProductError, match=r"it was replaced since it was loaded. Load it again"):
        loaded.relearn(references=picture(70))
    path.unlink()
    with pytest.raises(ProductError, match=r"no such file"):
        loaded.relearn(references=picture(70))
    same(loaded, zerodefect.load(file, device="cpu"))
    shutil.copy(file, path)
    own = zerodefect.load(path, device="cpu")
    own.save(path)  # over itself
    own.relearn(references=picture(70))
    assert own.shots == 4


def test_the_card_says_what_it_knows_proves_and_whose_weights_it_needs(file):
    text = opened_product(file).card()
    for part in (
        "# screw (screw.zd)",
        "Method: winclip, on tiny.safetensors",
        "References, which it compares with: 3 good pictures",
        "Limits learned from 8 further good pictures",
        "at most 11.1 % of good images like these are called defective",
        "tiny.safetensors: licence not stated",
        "11 good pictures inside, lossless at 64 x 64 pixels or fewer",
    ):
        assert part in text
    with zipfile.ZipFile(file) as archive:
        assert archive.read("card.md").decode() == text


def test_pictures_in_the_file_name_no_folders_and_all_records_are_frozen(file):
    told = opened_product(file).told
    assert all("/" not in one.name for one in (*told.pictures.references, *told.pictures.good))
    with pytest.raises(dataclasses.FrozenInstanceError):
        opened_product(file).told = None
