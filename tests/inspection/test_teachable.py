"""One inspector for any number of products, threads and processes."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from models import picture, tiny_backbone

from zerodefect import Inspector, Picture, Policy, PolicyMismatch, Tiling, Viewing, Vocabulary
from zerodefect.inspection import teachable
from zerodefect.methods import create
from zerodefect.methods.winclip import WinCLIP


@pytest.fixture(scope="module")
def detector():
    return WinCLIP(tiny_backbone()).eval()


@pytest.fixture
def inspector(detector):
    made = Inspector(detector)
    made.describe("screw")
    return made


def area(rows: slice, columns: slice, height: int = 80, width: int = 96) -> Picture:
    white = np.zeros((height, width, 3), np.uint8)
    white[rows, columns] = 255
    return Picture("area.png", white)


def same(one, other):
    assert one.object == other.object and one.verdict == other.verdict
    assert one.score == pytest.approx(other.score, abs=1e-5)
    np.testing.assert_allclose(one.map, other.map, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (Inspector.forget, "made with 3 references: add --reference"),
        (lambda i: i.remember(picture(9)), "made with 3 references, 4 now: give the same"),
        (
            lambda i: (i.forget(), i.remember([picture(seed) for seed in (1, 2, 9)])),
            "other pictures as references",
        ),
        (
            lambda i: setattr(i, "viewing", Viewing(Tiling(40))),
            "other tiles and aspect: see --tile",
        ),
        (lambda i: setattr(i, "roi", area(slice(0, 40), slice(None))), "other areas: see --roi"),
    ],
    ids=["forgotten", "one more", "others", "tiles", "area"],
)
def test_a_policy_that_does_not_fit_says_what_differs(inspector, change, told):
    inspector.remember([picture(1), picture(2), picture(3)])
    inspector.calibrate([picture(seed) for seed in range(10, 14)])
    change(inspector)
    with pytest.raises(PolicyMismatch, match=f"does not fit this run: {told}") as caught:
        inspector.inspect(picture(0))
    assert str(caught.value).count(": see") + str(caught.value).count("give the same") < 2


def test_weights_and_settings_that_differ_are_named(inspector):
    policy = inspector.calibrate([picture(seed) for seed in range(10, 14)])
    for detector, told in (
        (WinCLIP(tiny_backbone(1)).eval(), "other weights"),
        (create("winclip", tiny_backbone(), temperature=0.5).eval(), "other settings: see --set"),
    ):
        other = Inspector(detector, policy=policy)
        with pytest.raises(PolicyMismatch, match=told):
            other.inspect(picture(0), "screw")
    inspector.describe("nut")
    with pytest.raises(PolicyMismatch, match="object: 'screw' when calibrated, 'nut' now"):
        inspector.inspect(picture(0))


def test_a_name_in_another_language_is_remarked_on_once(inspector, caplog):
    teachable._remark_on.cache_clear()
    for _ in range(2):
        inspector.inspect(picture(0), object="螺丝")
        inspector.inspect(picture(0), object="metal nut")
    (record,) = caplog.records
    assert "'螺丝' is not written in Latin letters" in record.getMessage()
    another = Inspector(inspector.detector)
    another.describe("Unterlegscheibe")
    another.inspect(picture(0))
    another.inspect(picture(1))
    assert len(caplog.records) == 2


# --- names of one call ---------------------------------------------------------------------------


def test_a_name_given_to_one_call_holds_for_that_call_alone(inspector):
    before = inspector.inspect(picture(0))
    nut = inspector.inspect(picture(0), object="nut")
    assert nut.object == "nut" and abs(nut.score - before.score) > 1e-4
    same(inspector.inspect(picture(0)), before)
    assert inspector.object == "screw"
    many = list(inspector.inspect_many([picture(0)], object="nut"))
    same(many[0], nut)
    same(inspector.inspect(picture(0)), before)
    assert inspector.active_policy("nut").object == "nut"
    assert inspector.active_policy().object == "screw"


def test_a_name_for_one_call_keeps_references_and_vocabulary(inspector):
    inspector.describe("screw", Vocabulary.of(["rust"]))
    inspector.remember([picture(1), picture(2)])
    found = inspector.inspect(picture(0), object="nut")
    described = Inspector(inspector.detector, vocabulary=Vocabulary.of(["rust"]))
    described.describe("nut")
    described.remember([picture(1), picture(2)])
    same(found, described.inspect(picture(0)))
    assert found.calibrated and inspector.shots == 2


def test_a_name_begins_with_the_call_and_stays_while_a_stream_is_read(inspector):
    seen = inspector.inspect_many([picture(0), picture(1)], object="nut", batch_size=1)
    first = next(seen)
    inspector.describe("bolt")
    inspector.remember(picture(5))
    second = next(seen)
    assert (first.object, second.object) == ("nut", "nut")
    fresh = Inspector(inspector.detector)
    same(second, fresh.inspect(picture(1), object="nut"))


def test_areas_too_are_those_of_the_moment_when_a_stream_began(inspector):
    inspector.roi = area(slice(0, 40), slice(None))
    seen = inspector.inspect_many([picture(0), picture(1)], batch_size=1)
    next(seen)
    inspector.roi = None
    second = next(seen)
    assert (second.map[40:] == 0).all() and (second.map[:40] > 0).all()


# --- threads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("references", [0, 2])
def test_two_products_in_many_threads_keep_their_names_and_scores(inspector, references):
    if references:
        inspector.remember([picture(seed) for seed in range(20, 20 + references)])
    expected = {
        (name, seed): inspector.inspect(picture(seed), object=name)
        for name in ("screw", "nut")
        for seed in range(3)
    }
    together = threading.Barrier(4)

    def inspect(number: int):
        if number < 4:
            together.wait(30)  # at least the first ones at the same time
        key = ("screw" if number % 2 else "nut", number % 3)
        return key, inspector.inspect(picture(key[1]), object=key[0])

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(inspect, range(25)))
    assert len(found) == 25
    for key, outcome in found:
        assert outcome.object == key[0]
        same(outcome, expected[key])
    assert inspector.object == "screw"


def test_teaching_in_one_thread_while_others_inspect(inspector):
    """Whoever inspects sees the references of one moment: never half of them."""
    references = [picture(seed) for seed in range(30, 33)]
    expected = []
    for count in range(4):
        taught = Inspector(inspector.detector)
        taught.describe("screw")
        if count:
            taught.remember(references[:count])
        expected.append(taught.inspect(picture(0)).score)
    done = threading.Event()
    scores = []

    def inspect():
        while not done.is_set():
            scores.append(inspector.inspect(picture(0)).score)

    threads = [threading.Thread(target=inspect) for _ in range(2)]
    for thread in threads:
        thread.start()
    for each in references:
        inspector.remember(each)
    done.set()
    for thread in threads:
        thread.join()
    scores.append(inspector.inspect(picture(0)).score)
    for score in scores:
        assert min(abs(score - each) for each in expected) < 1e-5
    assert scores[-1] == pytest.approx(expected[-1], abs=1e-5)


def test_a_detector_is_built_once_however_many_ask(detector):
    built = []

    def build():
        built.append(threading.get_ident())
        return detector

    inspector = Inspector(build)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: inspector.detector, range(16)))
    assert len(built) == 1


def test_one_detector_serves_inspectors_of_several_products(detector):
    screw, nut = Inspector(detector), Inspector(detector)
    screw.describe("screw")
    nut.describe("nut")
    alone = screw.inspect(picture(0)), nut.inspect(picture(0))
    nut.remember([picture(3), picture(4)])
    same(screw.inspect(picture(0)), alone[0])
    assert (screw.shots, nut.shots) == (0, 2)
    assert abs(nut.inspect(picture(0)).score - alone[1].score) > 1e-4


# --- processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["winclip", "dense"])
def test_an_inspector_survives_pickling(method):
    inspector = Inspector(
        create(method, tiny_backbone()).eval(),
        viewing=Viewing(Tiling(80), keep_aspect=True),
        bit_depth=12,
        roi=area(slice(0, 60), slice(None)),
        vocabulary=Vocabulary.of(["rust", "dent"]),
    )
    inspector.describe("screw")
    inspector.remember([picture(1), picture(2), picture(3)])
    inspector.policy = inspector.calibrate([picture(seed) for seed in range(10, 14)])
    again = pickle.loads(pickle.dumps(inspector))
    assert again.fingerprint() == inspector.fingerprint()
    assert again.facts() == inspector.facts()
    assert isinstance(again.policy, Policy) and again.policy == inspector.policy
    same(again.inspect(picture(0)), inspector.inspect(picture(0)))
    again.describe("nut")  # it can be taught on, apart from the first
    again.policy = None
    again.remember(picture(7))
    assert (again.shots, inspector.shots) == (4, 3) and inspector.object == "screw"
    assert again.inspect(picture(0)).object == "nut"


def test_what_is_not_built_yet_is_built_before_it_is_sent(detector):
    inspector = Inspector(lambda: detector)  # a function that cannot be pickled
    inspector.describe("screw")
    again = pickle.loads(pickle.dumps(inspector))
    assert again.inspect(picture(0)).object == "screw"


class Looking(torch.utils.data.Dataset):
    """Pictures that are inspected where a loader fetches them."""

    def __init__(self, inspector: Inspector) -> None:
        self.inspector = inspector

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[str, float]:
        found = self.inspector.inspect(picture(index), object=("nut", None)[index % 2])
        return found.object, found.score


def scores_apart(inspector: Inspector, index: int) -> tuple[str, float]:
    """What a process of a pool does."""
    return Looking(inspector)[index]


@pytest.mark.killing
@pytest.mark.slow
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_workers_of_a_loader_inspect_as_this_process_does(inspector, how):
    inspector.remember([picture(8), picture(9)])
    expected = [Looking(inspector)[index] for index in range(4)]
    loader = torch.utils.data.DataLoader(
        Looking(inspector), batch_size=None, num_workers=2, multiprocessing_context=how
    )
    found = list(loader)
    assert [name for name, _ in found] == ["nut", "screw", "nut", "screw"]
    assert [score for _, score in found] == pytest.approx([s for _, s in expected], abs=1e-5)
    assert inspector.object == "screw"


@pytest.mark.killing
@pytest.mark.slow
def test_a_spawned_pool_inspects_as_this_process_does(inspector):
    inspector.calibrate([picture(seed) for seed in range(10, 14)])
    inspector.policy = None
    expected = [Looking(inspector)[index] for index in range(4)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(scores_apart, [inspector] * 4, range(4)))
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [score for _, score in found] == pytest.approx([s for _, s in expected], abs=1e-5)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_names(inspector):
    kept = inspector.detector.text_features
    inspector.inspect(picture(0), object="part 0")
    kept.budget, before = 40_000, inspector.inspect(picture(0), object="part 0").score
    sizes = []
    for number in range(1, 60):
        inspector.inspect(picture(0), object=f"part {number}")
        sizes.append(sum(each.nbytes for each in kept._memory.values()))
    assert max(sizes) <= 40_000 and sizes[-1] > 20_000
    assert len(inspector._automatic) <= 64
    assert inspector.inspect(picture(0), object="part 0").score == pytest.approx(before, abs=1e-5)
    kept.budget = 64 * 2**20


# --- areas ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["roi", "ignore"])
def test_references_are_seen_anew_when_an_area_is_set_afterwards(inspector, detector, name):
    references = [picture(1), picture(2)]
    chosen = area(slice(10, 60), slice(20, 70))
    before = inspector.fingerprint()
    inspector.remember(references)
    whole = inspector.inspect(picture(0))
    setattr(inspector, name, chosen)
    first = Inspector(detector, **{name: chosen})
    first.describe("screw")
    first.remember(references)
    found = inspector.inspect(picture(0))
    same(found, first.inspect(picture(0)))
    assert inspector.fingerprint() == first.fingerprint() != before
    assert abs(found.score - whole.score) > 1e-5
    limits = (inspector.active_policy().scores, first.active_policy().scores)
    assert limits[0] == pytest.approx(limits[1], abs=1e-5)
    setattr(inspector, name, None)
    same(inspector.inspect(picture(0)), whole)


def test_forgetting_keeps_name_and_areas(inspector):
    inspector.roi = area(slice(0, 40), slice(None))
    plain = inspector.inspect(picture(0))
    inspector.remember([picture(1), picture(2)])
    inspector.forget()
    assert inspector.shots == 0 and inspector.object == "screw" and inspector.roi is not None
    same(inspector.inspect(picture(0)), plain)
