"""The one loop: order, failures as values, what is read when, and who pays for a fault."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest
import torch
from models import picture, tiny_backbone

from zerodefect.detector.contract import Detector, Input
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import KnowledgeError, Product
from zerodefect.images import ImageError, Picture, Preprocess
from zerodefect.images.tiling import Tiling
from zerodefect.methods.winclip import WinCLIP
from zerodefect.scoring.scorer import Scorer
from zerodefect.scoring.stream import scored_stream, stream
from zerodefect.scoring.viewing import Viewing
from zerodefect.types import Failure, Prediction


def shown(number: int) -> Picture:
    """A picture that carries its number."""
    return Picture(f"{number}.png", np.full((2, 2, 3), number, np.uint8))


def opened(number: int) -> Picture:
    """Every fifth one cannot be read."""
    if number % 5 == 4:
        raise ImageError(f"{number}.png", "it is torn", "Copy it again")
    return shown(number)


def numbers(pictures: list[Picture]) -> list[int]:
    return [int(each.pixels[0, 0, 0]) for each in pictures]


def told(seen) -> list:
    return [None if isinstance(s.result, Failure) else s.result for s in seen]


# --- order and failures ------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 8, 100])
@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_results_come_in_order_and_failures_are_values(batch_size, kind):
    seen = list(stream(kind(list(range(17))), opened, numbers, batch_size))
    assert [s.source for s in seen] == list(range(17))
    assert told(seen) == [None if n % 5 == 4 else n for n in range(17)]
    for s in seen:
        if s.source % 5 == 4:
            assert s.picture is None
            assert s.result == Failure(f"{s.source}.png", "it is torn", "Copy it again")
        else:
            assert numbers([s.picture]) == [s.source]


def test_order_is_kept_when_opening_takes_its_time():
    def slow_to_open(number: int) -> Picture:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return shown(number)

    assert told(stream(list(range(12)), slow_to_open, numbers, 4)) == list(range(12))


def test_nothing_comes_of_nothing_and_of_failures_alone():
    called = []
    assert list(stream([], opened, numbers)) == []
    assert told(stream([4, 9, 14], opened, called.append, 2)) == [None] * 3
    assert not called


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"at least 1, got {batch_size}"):
        next(stream([1], shown, numbers, batch_size))


# --- who pays for a fault ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("out of memory\ndetails"), "could not be scored (out of memory)"),
        (MemoryError(), "could not be scored (MemoryError)"),
        (ImageError("3.png", "too many views", "Take larger tiles"), "too many views"),
    ],
)
def test_a_batch_that_breaks_costs_one_picture(error, reason):
    sizes = []

    def fragile(pictures):
        sizes.append(len(pictures))
        if 3 in numbers(pictures):
            raise error
        return numbers(pictures)

    seen = list(stream(list(range(8)), shown, fragile, 4))
    assert told(seen) == [0, 1, 2, None, 4, 5, 6, 7]
    failure = seen[3].result
    assert (failure.image, failure.reason) == ("3.png", reason) and failure.remedy
    assert seen[3].picture is not None  # it could be opened
    assert sizes == [4, 1, 1, 1, 1, 4]  # only the batch that broke goes one by one


def test_a_fault_of_the_program_is_not_hidden():
    def fault(pictures):
        raise TypeError("a fault")

    with pytest.raises(TypeError, match="a fault"):
        list(stream([0, 1], shown, fault))

    def broken(number: int) -> Picture:
        raise ZeroDivisionError

    for sources in ([0, 1], iter([0, 1])):
        with pytest.raises(ZeroDivisionError):
            list(stream(sources, broken, numbers))


# --- what is read when -------------------------------------------------------------------------


def test_a_generator_is_read_as_it_is_needed_and_may_never_end():
    taken = []

    def camera():
        for number in itertools.count():
            taken.append(number)
            yield number % 4

    seen = stream(camera(), shown, numbers, 3)
    assert not taken
    next(seen)
    assert taken == [0, 1, 2]  # one batch, and not one more
    assert told(itertools.islice(seen, 5)) == [1, 2, 3, 0, 1]
    assert len(taken) == 6


def test_a_generator_is_opened_in_the_thread_that_asks():
    threads = set()

    def noted(number: int) -> Picture:
        threads.add(threading.get_ident())
        return shown(number)

    list(stream(iter(range(4)), noted, numbers))
    assert threads == {threading.get_ident()}


def test_a_list_is_opened_ahead_while_a_batch_is_scored():
    began, following = threading.Event(), threading.Event()
    own = threading.get_ident()
    threads = set()

    def noted(number: int) -> Picture:
        threads.add(threading.get_ident())
        if number >= 2:
            began.wait(10)
            following.set()
        return shown(number)

    def score(pictures):
        began.set()
        if 0 in numbers(pictures):
            assert following.wait(10), "nothing was opened meanwhile"
        return numbers(pictures)

    assert told(stream(list(range(6)), noted, score, 2)) == list(range(6))
    assert own not in threads


def test_no_more_than_two_batches_are_opened_ahead():
    lock, count = threading.Lock(), 0
    ahead = []

    def counted(number: int) -> Picture:
        nonlocal count
        with lock:
            count += 1
        return shown(number)

    for done, _ in enumerate(stream(list(range(100)), counted, numbers, 4), start=1):
        ahead.append(count - done)
    assert count == 100 and max(ahead) <= 3 * 4  # the batch at hand, and two behind it


@pytest.mark.parametrize("kind", [list, iter])
def test_who_stops_early_neither_waits_nor_opens_the_rest(kind):
    count = 0

    def counted(number: int) -> Picture:
        nonlocal count
        count += 1
        time.sleep(0.01)
        return shown(number)

    seen = stream(kind(list(range(1000))), counted, numbers, 8)
    next(seen)
    before = threading.active_count()
    seen.close()
    assert count <= 8 * 3 + 2
    assert threading.active_count() <= before  # the readers are gone
    settled = count
    time.sleep(0.05)
    assert count == settled


# --- with a detector ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scorer():
    return Scorer(WinCLIP(tiny_backbone()))


@pytest.fixture(scope="module")
def knowledge(scorer):
    return scorer.detector.describe(scorer.detector.empty(), Product("plate"))


def read(seed: int) -> Picture:
    if seed < 0:
        raise ImageError("bad.png", "it is torn", "Copy it again")
    return Picture(f"{seed}.png", picture(seed, 40 + seed, 60))


def test_scored_pictures_are_those_of_the_scorer(scorer, knowledge):
    seeds = [3, -1, 5, 7]
    seen = list(scored_stream(scorer, knowledge, seeds, read, batch_size=2))
    assert [isinstance(s.result, Failure) for s in seen] == [False, True, False, False]
    for s in seen[:1] + seen[2:]:
        (alone,) = scorer.score([read(s.source)], None, knowledge)
        assert s.result.score == pytest.approx(alone.score, abs=1e-5)
        np.testing.assert_allclose(s.result.map, alone.map, atol=1e-5)


def test_areas_are_asked_for_each_picture(scorer, knowledge):
    def left_half(shown: Picture) -> np.ndarray:
        area = np.zeros((shown.height, shown.width), bool)
        area[:, :30] = True
        return area

    for s in scored_stream(scorer, knowledge, [1, 2], read, left_half):
        assert (s.result.map[:, 30:] == 0).all() and (s.result.map[:, :30] > 0).all()


def test_what_is_not_known_is_an_error_before_anything_is_opened(scorer, knowledge):
    detector = scorer.detector
    with pytest.raises(RuntimeError, match="needs the product's name"):
        scored_stream(scorer, detector.empty(), [1], pytest.fail)
    other = Scorer(WinCLIP(tiny_backbone(seed=1)))
    with pytest.raises(KnowledgeError, match="weights"):
        scored_stream(other, knowledge, [1], pytest.fail)


class Rank(Detector):
    """A set method: a picture's score is its brightness less the set's mean."""

    info = MethodInfo("rank", "Rank", "test", ("set",), "", "", "")

    def __init__(self) -> None:
        plain = Preprocess((8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
        super().__init__(None, (), {"image": Input(plain)})

    def facts(self):
        return {"method": "rank"}

    def encode(self, inputs):
        return inputs.mean((1, 2, 3))

    def score_set(self, encoded, knowledge):
        mean = torch.cat(list(encoded)).mean()
        return (Prediction(each - mean, None) for each in encoded)


def test_a_set_method_sees_all_and_failures_keep_their_place():
    scorer = Scorer(Rank())
    sources = [0, 4, 51, 102, 9, 151]
    seen = list(scored_stream(scorer, scorer.detector.empty(), sources, opened, batch_size=2))
    assert [s.source for s in seen] == sources
    found = [s.result.score if not isinstance(s.result, Failure) else None for s in seen]
    mean = (0 + 51 + 102 + 151) / 4
    expected = [None if n % 5 == 4 else (n - mean) / 255 for n in sources]
    assert found == [None if e is None else pytest.approx(e, abs=1e-5) for e in expected]


def test_a_picture_of_a_set_that_vanishes_meanwhile_is_a_failure_of_its_own():
    times = {}

    def vanishing(number: int) -> Picture:
        times[number] = times.get(number, 0) + 1
        if number == 1 and times[number] > 1:
            raise ImageError("1.png", "there is no such file", "Copy it again")
        return shown(number)

    scorer = Scorer(Rank())
    seen = list(scored_stream(scorer, scorer.detector.empty(), [0, 1, 2], vanishing))
    assert [isinstance(s.result, Failure) for s in seen] == [False, True, False]


def test_a_picture_of_a_set_that_cannot_be_shown_costs_itself_alone():
    def area(picture: Picture) -> None:
        if picture.path == "1.png":
            raise ImageError(picture.path, "the mask is another shape", "Draw it anew")

    def turned(number: int) -> Picture:
        """One of them would be more tiles than are allowed."""
        side = 2000 if number == 3 else 20
        return Picture(f"{number}.png", np.full((side, side, 3), number, np.uint8))

    scorer = Scorer(Rank(), Viewing(Tiling(16)))
    known = scorer.detector.empty()
    seen = list(scored_stream(scorer, known, [0, 1, 2, 3, 4], turned, area))
    assert [isinstance(s.result, Failure) for s in seen] == [False, True, False, True, False]
    assert [s.source for s in seen] == [0, 1, 2, 3, 4]
    assert seen[1].result.reason == "the mask is another shape"
    assert "views" in seen[3].result.reason
    alone = scored_stream(scorer, known, [0, 2, 4], turned)
    assert [s.result.score for s in seen if s.source % 2 == 0] == [s.result.score for s in alone]
