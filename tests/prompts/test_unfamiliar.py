"""Names that the texts' training did not know."""

from __future__ import annotations

import pytest

from zerodefect.prompts.unfamiliar import unfamiliar


@pytest.mark.parametrize(
    "name",
    [
        *("screw", "magnetic tile", "metal nut", "printed circuit board", "thermocouple", "gasket"),
        *("injection-moulded cap", "M4 screw x3000", "PCB", "5 µm filter", "semiconductor wafer"),
    ],
)
def test_plain_english_gets_no_remark(name):
    assert unfamiliar(name) is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("螺丝", "is not written in Latin letters"),
        ("винт", "is not written in Latin letters"),
        ("screw 螺丝", "is not written in Latin letters"),
        ("4711", "holds no word"),
        ("🔩", "holds no word"),
        ("Unterlegscheibe", "holds 'Unterlegscheibe', which the texts' vocabulary has not"),
        ("nakrętka M4", "holds 'nakrętka', which"),
        ("engrenage", "holds 'engrenage', which"),
    ],
)
def test_other_names_get_one_that_says_what_helps(name, why):
    remark = unfamiliar(name)
    assert remark.startswith(f"the name {name!r} {why}") and remark.endswith("English words")
