"""Large, narrow and masked pictures, the same for every method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import NoConfig, as_it_is, picture, tiny_backbone

from zerodefect.detector.contract import Detector, UnsupportedError
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Product
from zerodefect.images import Picture
from zerodefect.images.tiling import Tiling
from zerodefect.inspection.inspector import Inspector
from zerodefect.layers.memory import MemoryBank
from zerodefect.methods.winclip import WinCLIP
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.scoring.areas import read_area
from zerodefect.scoring.scorer import Scorer
from zerodefect.scoring.viewing import Viewing, aspect_size
from zerodefect.types import Prediction


class Brightness(Detector):
    """Each pixel's brightness is its anomaly: a detector that looks at one pixel at a time."""

    info = MethodInfo("brightness", "", "test", ("words",), "", "", "")
    Config = NoConfig

    def __init__(self, backbone):
        super().__init__(NoConfig(), (backbone,), as_it_is(backbone.preprocess))
        self.largest_batch = 0

    def encode(self, inputs):
        self.largest_batch = max(self.largest_batch, len(inputs))
        return inputs.mean(1)

    def predict(self, encoded, knowledge, left_out=None):
        return Prediction(score=encoded.amax((1, 2)), map=encoded)


class Known(Scorer):
    """A scorer that is asked about one product all the time."""

    def __init__(self, detector, viewing=None, words=None):
        super().__init__(detector, viewing)
        self.knowledge = detector.describe(detector.empty(), words or Product("plate"))

    def scored(self, pictures, areas=None, batch_size=8):
        return self.score(pictures, areas, self.knowledge, batch_size)


WORDS = Product("plate", Vocabulary.of(["rust", "dent"]))


@pytest.fixture(scope="module")
def winclip():
    return WinCLIP(tiny_backbone())


def shown(seed=0, height=150, width=200) -> Picture:
    return Picture(f"{seed}.png", picture(seed, height, width))


# --- tiles --------------------------------------------------------------------------------------


def test_tiling_changes_nothing_where_one_tile_holds_the_picture(winclip):
    plain = Known(winclip, words=WORDS).scored([shown()])[0]
    tiled = Known(winclip, Viewing(Tiling(200)), WORDS).scored([shown()])[0]
    assert tiled.score == plain.score
    assert np.array_equal(tiled.map, plain.map)


def test_tiles_of_the_networks_size_see_every_pixel():
    """64-pixel tiles on a 64-pixel network: nothing is resized, so a local map is exact."""
    detector = Brightness(tiny_backbone())
    scene = shown(3)
    scored = Known(detector, Viewing(Tiling(64))).scored([scene])[0]
    grey = scene.pixels.mean(2) / 255
    globally = Known(detector).scored([scene])[0].map
    np.testing.assert_allclose(2 * scored.map - globally, grey, atol=1e-4)


def test_a_constant_picture_shows_no_seam(winclip):
    flat = Picture("flat", np.full((300, 260, 3), 90, np.uint8))
    detector = Brightness(tiny_backbone())
    scored = Known(detector, Viewing(Tiling(64, 0.25))).scored([flat])[0]
    np.testing.assert_allclose(scored.map, 90 / 255, atol=1e-5)


def test_a_small_defect_that_the_global_view_loses_is_found_in_a_tile():
    pixels = np.zeros((640, 640, 3), np.uint8)
    pixels[400:403, 500:503] = 255
    detector = Brightness(tiny_backbone())
    globally = Known(detector).scored([Picture("a", pixels)])[0]
    tiled = Known(detector, Viewing(Tiling(64))).scored([Picture("a", pixels)])[0]
    assert globally.score < 0.3
    assert tiled.score == pytest.approx(1.0)
    row, column = np.unravel_index(tiled.map.argmax(), tiled.map.shape)
    assert 400 <= row < 403
    assert 500 <= column < 503


def test_batches_stay_small_whatever_the_number_of_tiles():
    detector = Brightness(tiny_backbone())
    Known(detector, Viewing(Tiling(32))).scored([shown(), shown(1)], batch_size=3)
    assert detector.largest_batch == 3


@pytest.mark.parametrize("viewing", [Viewing(), Viewing(Tiling(80)), Viewing(None, True)])
def test_neighbours_do_not_matter(winclip, viewing):
    scenes = [shown(0), shown(1, 90, 300), shown(2), shown(3, 64, 64)]
    scorer = Known(winclip, viewing, WORDS)
    for together, scene in zip(scorer.scored(scenes), scenes, strict=True):
        alone = scorer.scored([scene])[0]
        assert together.score == pytest.approx(alone.score, abs=1e-5)
        np.testing.assert_allclose(together.map, alone.map, atol=1e-5)
        np.testing.assert_allclose(together.type_map, alone.type_map, atol=1e-4)
        np.testing.assert_allclose(alone.type_map.sum(0), 1, atol=1e-4)
        assert alone.map.shape == (scene.height, scene.width)
        assert alone.highest == alone.map.max()


# --- aspect -------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([8, 14, 16]))
def test_aspect_sizes_are_multiples_of_about_the_native_area(height, width, patch):
    native = (16 * patch, 16 * patch)
    tall, wide = aspect_size((height, width), native, patch)
    assert tall % patch == wide % patch == 0
    assert 0.8 < tall * wide / (native[0] * native[1]) < 1.25
    if 0.25 <= height / width <= 4:
        assert (tall / wide) / (height / width) == pytest.approx(1, abs=0.15)


# --- inspected areas ----------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([None, Tiling(64)]))
def test_what_lies_outside_changes_nothing(seed, tiling):
    scorer = Known(WinCLIP(tiny_backbone()), Viewing(tiling))
    random = np.random.default_rng(seed)
    area = random.random((150, 200)) < 0.7
    scene = shown(seed)
    other = scene.pixels.copy()
    other[~area] = random.integers(0, 256, (int((~area).sum()), 3))
    first = scorer.scored([scene], [area])[0]
    second = scorer.scored([Picture("x", other)], [area])[0]
    assert first.score == second.score
    assert np.array_equal(first.map, second.map)
    assert first.highest == second.highest
    assert (first.map[~area] == 0).all()


def test_masks_say_what_counts():
    white = np.zeros((10, 20), np.uint8)
    white[:, :10] = 255
    mask = Picture("roi.png", np.repeat(white[..., None], 3, 2))
    area = read_area(mask, None, 100, 200)
    assert area[:, :100].all()
    assert not area[:, 100:].any()
    assert np.array_equal(read_area(None, mask, 100, 200), ~area)
    assert read_area(None, None, 5, 5) is None
    with pytest.raises(ValueError, match="nothing to inspect"):
        read_area(mask, mask, 5, 10)


def test_an_area_of_another_size_names_the_picture(winclip):
    with pytest.raises(ValueError, match=r"0.png: the inspected area is \(3, 3\)"):
        Known(winclip, words=WORDS).scored([shown()], [np.ones((3, 3), bool)])


def test_regions_and_percent_keep_to_the_area():
    inspector = Inspector(Brightness(tiny_backbone()))
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[4:12, 4:12] = 255
    pixels[40:60, 40:60] = 255
    roi = np.zeros((64, 64, 3), np.uint8)
    roi[:32] = 255
    inspector.roi = Picture("roi", roi)
    found = inspector.inspect(pixels)
    assert [region.box for region in found.regions] == [(4, 4, 8, 8)]
    assert found.regions[0].area_percent == pytest.approx(100 * 64 / (32 * 64))


# --- references ---------------------------------------------------------------------------------


@pytest.mark.parametrize("viewing", [Viewing(), Viewing(Tiling(80)), Viewing(None, True)])
def test_left_out_scores_are_those_of_a_memory_of_the_others(viewing):
    scenes = [shown(0), shown(1), shown(2)]
    if viewing.keep_aspect:
        scenes[1] = shown(1, 90, 200)  # another network size
    scorer = Known(WinCLIP(tiny_backbone()), viewing)
    found = scorer.score_left_out(scenes, [None] * 3, scorer.knowledge)
    assert scorer.knowledge.shots == 0
    for index, scored in enumerate(found):
        others = scenes[:index] + scenes[index + 1 :]
        known = scorer.remember(scorer.knowledge, others, [None] * 2)
        expected = scorer.score([scenes[index]], None, known)[0]
        assert scored.score == pytest.approx(expected.score, abs=1e-5)
        np.testing.assert_allclose(scored.map, expected.map, atol=1e-5)


def counted(monkeypatch, detector):
    """Numbers of inputs that went through the network, batch by batch."""
    encode, counts = detector.encode, []
    monkeypatch.setattr(
        detector, "encode", lambda inputs: counts.append(len(inputs)) or encode(inputs)
    )
    return counts


@pytest.mark.parametrize("viewing", [Viewing(), Viewing(Tiling(80)), Viewing(None, True)])
def test_leaving_out_runs_the_network_once_for_each_view_whatever_the_sizes(monkeypatch, viewing):
    sizes = [(150, 200), (64, 64), (90, 300), (150, 200), (300, 90), (40, 70)]
    scenes = [shown(seed, *size) for seed, size in enumerate(sizes)]
    scorer = Known(WinCLIP(tiny_backbone()), viewing)
    counts = counted(monkeypatch, scorer.detector)
    found = scorer.score_left_out(scenes, [None] * 6, scorer.knowledge)
    assert sum(counts) == sum(1 + len(viewing.tiles(scene)) for scene in scenes)
    if viewing == Viewing():
        assert counts == [6]  # once a picture
    for scene, scored in zip(scenes, found, strict=True):
        assert scored.map.shape == (scene.height, scene.width)


def test_one_picture_has_no_others_unless_some_are_known():
    scorer = Known(WinCLIP(tiny_backbone()))
    with pytest.raises(ValueError, match="at least two"):
        scorer.score_left_out([shown()], [None], scorer.knowledge)
    known = scorer.remember(scorer.knowledge, [shown(1)], [None])
    (found,) = scorer.score_left_out([shown()], [None], known)
    (expected,) = scorer.score([shown()], None, known)
    assert found.score == pytest.approx(expected.score, abs=1e-5)


def test_left_out_of_a_thinned_memory_is_scored_against_a_memory_of_the_others():
    scenes = [shown(seed) for seed in range(3)]
    scorer = Known(WinCLIP(tiny_backbone()))
    memory = scorer.detector.memory
    memory.budget = 20_000
    assert not memory.leaves_out(scorer.remember(scorer.knowledge, scenes, [None] * 3))
    found = scorer.score_left_out(scenes, [None] * 3, scorer.knowledge)
    for index, scored in enumerate(found):
        others = scenes[:index] + scenes[index + 1 :]
        known = scorer.remember(scorer.knowledge, others, [None] * 2)
        (expected,) = scorer.score([scenes[index]], None, known)
        # what is kept of the others depends on the order of near ties, hardly more
        assert scored.score == pytest.approx(expected.score, abs=0.02)


# --- what remembering takes ---------------------------------------------------------------------


def remembered_bytes(known):
    return sum(t.nbytes for name, t in known.tensors.items() if name.startswith("memory/"))


@pytest.mark.parametrize("viewing", [Viewing(), Viewing(Tiling(80))])
def test_what_it_will_take_is_said_before_anything_is_kept(monkeypatch, viewing):
    scorer = Known(WinCLIP(tiny_backbone()), viewing)
    scenes = [shown(seed) for seed in range(5)]
    events, plans = [], []
    stored = MemoryBank.stored
    monkeypatch.setattr(
        MemoryBank, "stored", staticmethod(lambda *a: events.append("kept") or stored(*a))
    )

    def on_plan(plan):
        events.append("said")
        plans.append(plan)

    known = scorer.remember(scorer.knowledge, scenes, [None] * 5, 2, on_plan)
    assert events[0] == "said" and events.count("said") == 1 and "kept" in events
    (plan,) = plans
    assert plan.views == 5 * (1 + len(viewing.tiles(scenes[0])))
    assert plan.bytes == remembered_bytes(known)  # all pictures are of one size
    assert plan.budget == scorer.detector.memory.budget
    assert str(plan).startswith(f"references: {plan.views} views take ")
    assert "coreset" not in str(plan)


def test_who_does_not_like_the_plan_keeps_nothing(monkeypatch):
    scorer = Known(WinCLIP(tiny_backbone()))
    scorer.detector.memory.budget = 10_000
    counts = counted(monkeypatch, scorer.detector)

    def refuse(plan):
        assert "only a coreset of them is kept" in str(plan)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scorer.remember(scorer.knowledge, [shown(s) for s in range(9)], [None] * 9, 2, refuse)
    assert counts == [2]  # one batch was needed to know
    assert scorer.knowledge.shots == 0


def test_turned_references_count_too(monkeypatch):
    scorer = Known(WinCLIP(tiny_backbone()))
    monkeypatch.setattr(scorer.detector, "augmented", lambda inputs: iter([inputs.flip(-1)]))
    plans = []
    scenes = [shown(seed) for seed in range(3)]
    known = scorer.remember(scorer.knowledge, scenes, [None] * 3, on_plan=plans.append)
    assert plans[0].views == 6 and plans[0].bytes == remembered_bytes(known)
    assert known.shots == 3


def test_a_method_without_a_memory_takes_no_references():
    scorer = Known(Brightness(tiny_backbone()))
    with pytest.raises(UnsupportedError, match="takes no references; it learns normality from w"):
        scorer.remember(scorer.knowledge, [shown()], [None])


def test_a_tiled_few_shot_inspection_end_to_end():
    detector = WinCLIP(tiny_backbone())
    inspector = Inspector(detector, viewing=Viewing(Tiling(80)))
    inspector.describe("plate")
    inspector.remember([shown(seed) for seed in range(4)])
    outcome = inspector.inspect(shown(9))
    assert outcome.calibrated
    assert inspector.active_policy().false_alarms == pytest.approx(0.2)
    assert outcome.map.shape == (150, 200)


def test_viewing_and_areas_are_part_of_what_a_policy_is_bound_to(winclip):
    plain = Inspector(winclip).fingerprint()
    assert Inspector(winclip, viewing=Viewing(Tiling(80))).fingerprint() != plain
    assert Inspector(winclip, viewing=Viewing(None, True)).fingerprint() != plain
    masked = Inspector(winclip)
    masked.roi = Picture("roi", np.full((4, 4, 3), 255, np.uint8))
    assert masked.fingerprint() != plain


def test_torch_states_stay_usable_after_remembering():
    """Memories made while inferring must not be tensors that later code cannot work with."""
    scorer = Known(WinCLIP(tiny_backbone()))
    known = scorer.remember(scorer.knowledge, [shown()], [None])
    assert not any(tensor.is_inference() for tensor in known.tensors.values())
    assert scorer.detector(torch.randn(1, 3, 64, 64), known).map.shape == (1, 64, 64)
