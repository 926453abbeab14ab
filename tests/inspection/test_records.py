import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rle_decoder import decode_rle, in_box

from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.records import failure_record, to_record
from zerodefect.inspection.region_kinds import by_words
from zerodefect.inspection.regions import find_regions
from zerodefect.types import Failure

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
    regions = find_regions(map, 0.5, minimum_area=1, p_value=lambda _: p)
    regions = by_words(regions, types, kinds or (), map.shape)
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


def plain(record):
    """The fields of a dataclass as JSON gives them back, without the pictures."""
    left_out = ("mask", "map", "regions", "picture", "colour_range")
    fields = {k: v for k, v in asdict(record).items() if k not in left_out}
    return json.loads(json.dumps(fields))


@given(inspections())
@settings(max_examples=150, deadline=None)
def test_everything_is_said_in_strict_json(inspection):
    record = to_record(inspection, map_path="maps/a.tiff", assets={"thumb": "assets/a.jpg"})
    back = json.loads(json.dumps(record, allow_nan=False))
    assert back.items() >= plain(inspection).items()
    assert (back["map"], back["assets"]) == ("maps/a.tiff", {"thumb": "assets/a.jpg"})
    for one, other in zip(back["regions"], inspection.regions, strict=True):
        assert one.items() >= plain(other).items()
        assert np.array_equal(in_box(decode_rle(one["rle"]), other.box), other.mask)


def test_fields_of_a_record():
    map = np.zeros((10, 12), np.float32)
    map[2:5, 3:7] = 1
    inspection = Inspection("a.png", None, 12, 10, "defect", True, np.float32(0.5), 0.1, ())
    inspection = replace(inspection, regions=find_regions(map, 0.5))
    record = to_record(inspection)
    assert list(record) == [
        *("image", "status", "object", "width", "height", "verdict", "calibrated", "score"),
        *(
            "p_value",
            "count",
            "counts",
            "regions",
            "explanation",
            "answer",
            "reason",
            "allowed",
            "part",
            "notes",
            "map",
            "assets",
            "transductive",
            "area",
            "words",
            "rules",
            "components",
            "explained",
            "conversation",
        ),
    ]
    assert record["count"] == 1
    (region,) = record["regions"]
    assert region["box"] == [3, 2, 4, 3]
    assert region["area"] == 12 and region["area_percent"] == 10.0
    assert region["polygons"] == [[3, 2, 7, 2, 7, 5, 3, 5]]
    assert region["rle"]["size"] == [10, 12]


@given(names, names, names)
def test_failures_are_said_in_json(image, reason, remedy):
    failure = Failure(image, reason, remedy)
    record = json.loads(json.dumps(failure_record(failure)))
    assert record == {"status": "failed", "part": None, **asdict(failure)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_cannot_say_are_refused(value):
    inspection = Inspection("a.png", None, 4, 4, "good", False, value, None, ())
    with pytest.raises(ValueError, match="score"):
        to_record(inspection)
