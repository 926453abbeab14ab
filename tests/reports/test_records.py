import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from zerodefect.inspection.regions import find_regions
from zerodefect.reports.records import failure_record, from_record, to_record
from zerodefect.types import Failure, Inspection

# Lone surrogates stand for the bytes of file names that are no valid UTF-8.
names = st.text(max_size=20) | st.just("bad\udcff.png")
maps = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    elements=st.floats(0, 1, width=32),
)
p_values = st.none() | st.floats(0, 1)


@st.composite
def inspections(draw):
    map = draw(maps)
    p = draw(p_values)
    kinds = draw(st.sampled_from([None, ("scratch", "hole")]))
    types = (
        None if kinds is None else draw(hnp.arrays(np.float64, (2, 2, 3), elements=st.just(0.5)))
    )
    regions = find_regions(
        map, 0.5, minimum_area=1, type_map=types, kinds=kinds or (), p_value=lambda _: p
    )
    return Inspection(
        image=draw(names),
        object=draw(st.none() | names),
        width=map.shape[1],
        height=map.shape[0],
        verdict=draw(st.sampled_from(["good", "unsure", "defect"])),
        calibrated=draw(st.booleans()),
        score=float(map.max()),
        p_value=p,
        regions=regions,
        explanation=draw(names),
        notes=tuple(draw(st.lists(names, max_size=2))),
        map=map,
        answer=draw(st.none() | names),
    )


def plain(inspection):
    regions = tuple(replace(r, mask=None) for r in inspection.regions)
    return replace(inspection, regions=regions, map=None)


@given(inspections())
@settings(max_examples=150, deadline=None)
def test_round_trip_through_strict_json(inspection):
    record = to_record(inspection, map_path="maps/a.tiff", assets={"thumb": "assets/a.jpg"})
    text = json.dumps(record, allow_nan=False)
    back = from_record(json.loads(text))
    assert plain(back) == plain(inspection)
    for one, other in zip(back.regions, inspection.regions, strict=True):
        assert one.mask.dtype == bool
        assert np.array_equal(one.mask, other.mask)


def test_fields_of_a_record():
    map = np.zeros((10, 12), np.float32)
    map[2:5, 3:7] = 1
    inspection = Inspection("a.png", None, 12, 10, "defect", True, np.float32(0.5), 0.1, ())
    inspection = replace(inspection, regions=find_regions(map, 0.5))
    record = to_record(inspection)
    assert list(record) == [
        *("image", "status", "object", "width", "height", "verdict", "calibrated", "score"),
        *("p_value", "count", "regions", "explanation", "answer", "notes", "map", "assets"),
    ]
    assert record["count"] == 1
    (region,) = record["regions"]
    assert region["box"] == [3, 2, 4, 3]
    assert region["area"] == 12 and region["area_percent"] == 10.0
    assert region["polygons"] == [[3, 2, 7, 2, 7, 5, 3, 5]]
    assert region["rle"]["size"] == [10, 12]


def test_a_record_from_before_answers_still_loads():
    inspection = Inspection("a.png", None, 12, 10, "good", True, 0.5, 0.1, (), answer="None seen.")
    record = to_record(inspection)
    assert from_record(record).answer == record.pop("answer") == "None seen."
    assert from_record(record) == replace(inspection, answer=None)


@given(names, names, names)
def test_failure_round_trip(image, reason, remedy):
    failure = Failure(image, reason, remedy)
    assert from_record(json.loads(json.dumps(failure_record(failure)))) == failure


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_cannot_say_are_refused(value):
    inspection = Inspection("a.png", None, 4, 4, "good", False, value, None, ())
    with pytest.raises(ValueError, match="score"):
        to_record(inspection)


def test_an_unknown_status_is_refused():
    with pytest.raises(ValueError, match="unknown status 'maybe'"):
        from_record({"image": "a.png", "status": "maybe"})
