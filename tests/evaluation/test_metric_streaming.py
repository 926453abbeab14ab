import errno
import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_oracles import images

from zerodefect.evaluation.metrics import (
    HistogramPixelMetrics,
    ImageMetrics,
    MetricError,
    PixelMetrics,
    Saturation,
    SpillError,
    SPROMetrics,
    pixel_metrics,
    sorted_runs,
    streaming_metrics,
)
from zerodefect.evaluation.metrics.sorted_runs import (
    Run,
    SortedRuns,
    SpillFolder,
    merged,
    order_key,
    pack,
    score_of,
    unpack,
)

QUERIES = (
    "auroc",
    "ap",
    "ap:trapezoid",
    "f1max",
    "f1max:grid21",
    "fpr_at_miss",
    "aupro",
    "aupro@0.05",
    "aupro:steps200",
    "aupro:steps200_winclip",
    "aupro:quantile100_mvtec3d",
    "aupro:adeval_hist1000",
)
TINY = 400  # bytes for the buffers: spills after 50 normal, 12 defective pixels


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Many pieces and blocks already in small sets."""
    monkeypatch.setattr(sorted_runs, "PIECE", 7)
    monkeypatch.setattr(streaming_metrics, "BLOCK", 16)


def filled(maps, masks, **options) -> PixelMetrics:
    state = PixelMetrics(fill_holes=True, **options)
    for map, mask in zip(maps, masks, strict=True):
        state.update(map, mask)
    return state


def texts(state: PixelMetrics) -> list[str]:
    """Results down to the last bit; NaN equals NaN."""
    return [repr(metric) for metric in state.compute(QUERIES)]


def blobs(seed: int, count: int = 6, side: int = 24) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    maps = random.random((count, side, side)).astype(np.float32)
    masks = np.zeros(maps.shape, bool)
    for index in range(1, count):
        y, x = random.integers(0, side - 6, 2)
        masks[index, y : y + 6, x : x + 5] = True
        masks[index, y + 2 : y + 4, x + 2] = False
    return maps + masks * np.float32(0.25), masks


@settings(max_examples=40, deadline=None)
@given(images(most=6), st.randoms(use_true_random=False), st.sampled_from([TINY, 3000, 1 << 20]))
def test_any_order_any_split_any_memory_gives_the_same_bits(drawn, random, memory):
    maps, masks = drawn
    expected = texts(filled(maps, masks))
    order = list(range(len(maps)))
    random.shuffle(order)
    states = [PixelMetrics(fill_holes=True, memory_limit=memory) for _ in range(3)]
    for index in order:
        random.choice(states).update(maps[index], masks[index])
    random.shuffle(states)
    states[1].merge(states[2])
    states[0].merge(states[1])
    assert texts(states[0]) == expected
    assert states[0].images == len(maps)


@pytest.mark.parametrize("decimals", [0, 1, 7])
def test_spilled_equals_in_memory_equals_one_array(decimals):
    maps, masks = blobs(0)
    maps = maps.round(decimals).astype(np.float32)
    spilled = filled(maps, masks, memory_limit=TINY)
    assert len(spilled.normal.runs()) > 20
    assert texts(spilled) == texts(filled(maps, masks))


def test_all_pixels_equal_over_many_blocks():
    maps, masks = np.full((3, 12, 12), 0.5, np.float32), blobs(0, 3, 12)[1]
    assert texts(filled(maps, masks, memory_limit=TINY)) == texts(filled(maps, masks))
    [auroc] = filled(maps, masks, memory_limit=TINY).compute(["auroc"])
    assert auroc.value == 0.5


def test_states_merge_in_every_order():
    maps, masks = blobs(1, 3, 12)
    expected = texts(filled(maps, masks))
    for order in itertools.permutations(range(3)):
        total = PixelMetrics(fill_holes=True, memory_limit=TINY)
        for index in order:
            total.merge(filled(maps[index : index + 1], masks[index : index + 1]))
        assert texts(total) == expected


def test_the_merged_state_stays_as_it_is_and_may_go():
    maps, masks = blobs(2)
    first = filled(maps[:3], masks[:3], memory_limit=TINY)
    second = filled(maps[3:], masks[3:], memory_limit=TINY)
    before = texts(second)
    first.merge(second)
    assert texts(second) == before
    del second
    assert texts(first) == texts(filled(maps, masks))


def test_more_images_may_follow_a_result():
    maps, masks = blobs(3, 4, 12)
    state = PixelMetrics(fill_holes=True, memory_limit=TINY)
    for map, mask in zip(maps, masks, strict=True):
        state.update(map, mask)
        state.compute(QUERIES)
    assert texts(state) == texts(filled(maps, masks))


def test_states_that_do_not_fit_are_not_merged():
    state = PixelMetrics(mask_rule="nearest>0")
    with pytest.raises(MetricError, match="different rules"):
        state.merge(PixelMetrics(mask_rule="bilinear>0"))
    with pytest.raises(MetricError, match="keeps the pixels in holes"):
        PixelMetrics().merge(PixelMetrics(fill_holes=True))
    with pytest.raises(MetricError, match="itself"):
        state.merge(state)
    with pytest.raises(MetricError, match="exact and approximate"):
        state.merge(HistogramPixelMetrics())


@pytest.mark.parametrize("state", [PixelMetrics(), SPROMetrics()])
def test_states_with_scores_on_disk_are_not_pickled(state):
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(state)


def test_the_spill_folder_goes_with_the_state(tmp_path):
    state = filled(*blobs(7), memory_limit=TINY, spill_folder=tmp_path)
    assert list(tmp_path.rglob("*.run"))
    whole = PixelMetrics(fill_holes=True, memory_limit=TINY, spill_folder=tmp_path)
    whole.merge(state)
    del state
    assert texts(whole) == texts(filled(*blobs(7)))
    del whole
    assert not list(tmp_path.iterdir())


def test_small_sets_touch_no_disk(tmp_path):
    filled(*blobs(7), spill_folder=tmp_path / "missing").compute(QUERIES)
    assert not list(tmp_path.iterdir())


def test_a_missing_spill_folder_is_told(tmp_path):
    with pytest.raises(SpillError, match="spill_folder="):
        filled(*blobs(7), memory_limit=TINY, spill_folder=tmp_path / "missing")


def test_vanished_scores_are_told(tmp_path):
    state = filled(*blobs(7), memory_limit=TINY, spill_folder=tmp_path)
    for file in tmp_path.rglob("*.run"):
        file.unlink()
    with pytest.raises(SpillError, match="cannot be read"):
        state.compute(["auroc"])


def test_scores_cut_short_are_told(tmp_path):
    state = filled(*blobs(7), memory_limit=TINY, spill_folder=tmp_path)
    for file in tmp_path.rglob("*.run"):
        file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(SpillError, match="cut short"):
        state.compute(["auroc"])


def test_a_full_disk_is_told_and_the_state_gives_no_wrong_figure(tmp_path, monkeypatch):
    maps, masks = blobs(8)
    state = filled(maps[:2], masks[:2], memory_limit=TINY, spill_folder=tmp_path)
    opened = Path.open

    def full(self, mode="r", *rest, **named):
        if "w" in mode and self.suffix == ".run":
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(self, mode, *rest, **named)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(SpillError, match="No space left on device"):
        state.update(maps[2], masks[2])
    monkeypatch.undo()
    for act in (state.compute, lambda: state.update(maps[3], masks[3])):
        with pytest.raises(SpillError, match="start over"):
            act()


def test_the_buffers_stay_within_the_limit():
    limit = 1 << 16
    state = PixelMetrics(fill_holes=True, memory_limit=limit)
    stores = (state.normal, state.defective, state.holes)
    for seed in range(4):
        for map, mask in zip(*blobs(seed, 10, 64), strict=True):
            state.update(map, mask)
        assert sum(store._buffer.nbytes for store in stores) <= limit
        held = [run.values for store in stores for run in store._spilled if run.path]
        assert held
        assert all(values is None for values in held)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda x: x + 0.0),
        min_size=1,
    )
)
def test_keys_order_as_scores_and_come_back(numbers):
    scores = np.array(numbers, np.float32)
    keys = order_key(scores)
    assert (score_of(keys) == scores).all()
    assert ((keys[:, None] < keys) == (scores[:, None] < scores)).all()
    areas = np.arange(len(scores))
    back, weights = unpack(np.sort(pack(scores, areas)))
    assert (back == -np.sort(-scores)).all()
    assert sorted(weights) == sorted([0.0, *(1 / areas[1:])])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9)), min_size=1, max_size=5), st.integers(1, 20))
def test_runs_merge_and_rank_as_one_sorted_array(lists, block):
    arrays = [np.sort(np.array(numbers, np.float32)) for numbers in lists]
    whole = np.sort(np.concatenate(arrays))
    some = [Run(array) for array in arrays if len(array)]
    assert np.concatenate([whole[:0], *merged(some, block)]).tolist() == whole.tolist()
    values = np.array([-1.0, 0.0, 3.0, 3.0, 3.5, 9.0, 10.0])
    ranks = [run.rank(values) for run in some]
    expected = np.searchsorted(whole, values, "left"), np.searchsorted(whole, values, "right")
    for side in (0, 1):
        found = sum((rank[side] for rank in ranks), np.zeros(len(values), np.int64))
        assert found.tolist() == expected[side].tolist()


def test_runs_hold_all_numbers():
    store = SortedRuns(np.float32, 10, SpillFolder())
    numbers = np.random.default_rng(0).random(95).astype(np.float32)
    for part in np.split(numbers, [3, 50, 51]):
        store.append(part)
    assert len(store) == 95
    assert np.concatenate(list(merged(store.runs(), 8))).tolist() == np.sort(numbers).tolist()


def test_images_merge():
    random = np.random.default_rng(0)
    scores, labels = random.random(50).round(1), random.random(50) < 0.4
    whole, parts = ImageMetrics(), [ImageMetrics(), ImageMetrics()]
    whole.update(scores, labels)
    for index in random.permutation(50):
        parts[index % 2].update(scores[index], labels[index])
    parts[0].merge(parts[1])
    queries = ["auroc", "ap", "ap:trapezoid", "f1max", "f1max:grid21", "fpr_at_miss"]
    assert parts[0].compute(queries) == whole.compute(queries)
    assert parts[0].images == 50
    with pytest.raises(MetricError, match="itself"):
        whole.merge(whole)


def spro_images(seed: int):
    maps, masks = blobs(seed, 9)
    for index, (map, mask) in enumerate(zip(maps, masks, strict=True)):
        if index < 3:
            yield map, (), None
        else:
            half = mask.copy()
            half[:, :12] = True
            kinds = ((mask, Saturation(7)), (half, Saturation(0.4, relative=True)))
            yield map, kinds, ("logical_anomalies", "structural_anomalies")[index % 2]


@pytest.mark.slow
def test_saturated_overlap_streams_within_any_memory():
    whole, spilled = SPROMetrics(), SPROMetrics(memory_limit=2000)
    images = list(spro_images(0))
    for image, other in zip(images, images[::-1], strict=True):
        whole.update(*image)
        spilled.update(*other)
    limits = (0.01, 0.05, 0.3, 1.0)
    assert spilled.compute(limits) == whole.compute(limits)
    groups = [metric.group for metric in whole.compute()]
    assert groups == ["logical_anomalies", "structural_anomalies", "mean"]


def test_saturated_overlap_by_hand():
    map = np.array([[0.9, 0.7, 0.6, 0.3], [0.8, 0.5, 0.2, 0.1]], np.float32)
    region = np.array([[1, 1, 1, 1], [0, 0, 0, 0]], bool)
    state = SPROMetrics(["kind"])
    state.update(map, [(region, Saturation(2))], "kind")
    kind, mean = state.compute([1.0])
    # Half found at no false positive, all of the saturation area after the first of four.
    assert kind.value == mean.value == pytest.approx(0.25 * 0.5 + 0.75)


@pytest.mark.parametrize(
    ("saturation", "region", "area"),
    [
        (Saturation(60), 100, 60),
        (Saturation(60), 10, 10),
        (Saturation(0.5, relative=True), 7, 3),
        (Saturation(1.0, relative=True), 7, 7),
    ],
)
def test_saturation_areas(saturation, region, area):
    assert saturation.area(region) == area


def test_a_full_saturation_is_plain_region_overlap():
    maps, masks = blobs(3)
    state = SPROMetrics(["kind"])
    for map, mask in zip(maps, masks, strict=True):
        channels = [(mask, Saturation(1.0, relative=True))] if mask.any() else []
        state.update(map, channels, "kind" if channels else None)
    [expected] = pixel_metrics(maps, masks, ["aupro"])
    assert state.compute([0.3])[0].value == expected.value


def test_saturated_overlap_refuses_what_makes_no_sense():
    map, mask = np.zeros((2, 2), np.float32), np.eye(2, dtype=bool)
    state = SPROMetrics()
    for channels, group in (((), "logical_anomalies"), ([(mask, Saturation(1))], None)):
        with pytest.raises(MetricError, match="good one neither"):
            state.update(map, channels, group)
    with pytest.raises(MetricError, match="unknown group"):
        state.update(map, [(mask, Saturation(1))], "odd")
    with pytest.raises(MetricError, match="no saturation area"):
        state.update(map, [(mask, Saturation(0.1, relative=True))], "logical_anomalies")
    with pytest.raises(MetricError, match="distinct"):
        SPROMetrics(["a", "a"])
