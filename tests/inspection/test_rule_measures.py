"""What rules measure, by hand, and when they hold."""

import numpy as np
import pytest

from zerodefect.inspection.rules.component_parts import ComponentPart, SeenComponent
from zerodefect.inspection.rules.rule_measures import measured, stated_limits
from zerodefect.inspection.rules.rule_reader import parse_rule

SIZE = 100


def part(x, y, width, height, confidence=1.0):
    """A rectangle in a picture of 100 x 100."""
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + height, x : x + width] = True
    centre = (x + width / 2) / SIZE, (y + height / 2) / SIZE
    return ComponentPart(mask, (x, y, width, height), (), width * height / 100, centre, confidence)


def check(text, **parts):
    rule = parse_rule(text)
    seen = {name: SeenComponent(name, tuple(some)) for name, some in parts.items()}
    found = measured(rule, seen)
    return found.truth(stated_limits(rule)), found.sure


BOTTLE = part(60, 10, 30, 80)


@pytest.mark.parametrize(
    ("text", "truth", "value"),
    [
        ("exactly 2 screws", "kept", 2),
        ("at least 3 screws", "broken", 2),
        ("no screws", "broken", 2),
        ("area of screw between 1 and 5 %", "kept", 2),
        ("area of screw at most 1 %", "broken", 2),
        ("level of screw at least 0.8", "kept", 0.9),
        ("level of liquid in bottle between 0.4 and 0.6", "kept", 0.5),
        ("level of liquid between 0.4 and 0.45", "broken", 0.5),
        ("horizontal position of screw between 0.2 and 0.3", "kept", 0.25),
        ("vertical position of screw at least 0.3", "broken", 0.15),
        ("position of screw within 0.01 of 0.25, 0.15", "kept", 0),
        ("position of screw within 0.04 of 0.25, 0.2", "broken", 0.05),
        ("screw left of bottle", "kept", 0.4),
        ("bottle right of screw", "kept", 0.5),
        ("bottle above screw", "broken", -0.35),
        ("bottle below screw", "kept", 0.35),
        ("liquid inside bottle", "kept", 1),
        ("screw inside bottle", "broken", 0),
        ("screw not inside bottle", "kept", 0),
        ("screw touching bottle", "broken", 0.4),
        ("cap touching bottle", "kept", 0),
        ("cap not touching bottle", "broken", 0),
        ("half inside bottle", "broken", 0.5),
    ],
)
def test_values_by_hand(text, truth, value):
    found, sure = check(
        text,
        screw=[part(10, 10, 10, 10), part(30, 10, 10, 10)],
        bottle=[BOTTLE],
        liquid=[part(65, 50, 20, 40)],
        cap=[part(65, 2, 10, 8)],
        half=[part(50, 40, 20, 10)],
    )
    assert found == truth
    assert sure == pytest.approx((value,), abs=1e-9)


def test_every_part_of_the_subject_must_hold():
    inside, outside = part(65, 20, 10, 10), part(10, 20, 10, 10)
    assert check("label inside bottle", label=[inside, outside], bottle=[BOTTLE])[0] == "broken"
    assert check("label not inside bottle", label=[inside, outside], bottle=[BOTTLE])[0] == "broken"
    assert check("label not inside bottle", label=[outside], bottle=[BOTTLE])[0] == "kept"


def test_a_container_that_shows_around_what_it_holds():
    walls = [part(60, 10, 4, 80), part(86, 10, 4, 80)]
    assert check("label inside bottle", label=[part(64, 30, 22, 20)], bottle=walls)[1] == (1.0,)


def test_a_drop_on_the_wall_is_no_level():
    mask_high = part(74, 20, 2, 30)  # a trickle above the liquid
    liquid = part(65, 50, 20, 40)
    joined = ComponentPart(liquid.mask | mask_high.mask, (65, 20, 20, 70), (), 8.6, (0.7, 0.7), 1.0)
    assert check("level of liquid in bottle as usual", liquid=[joined], bottle=[BOTTLE])[1] == (
        pytest.approx(0.5),
    )


def test_doubtful_parts_leave_a_rule_open_where_they_decide():
    sure, weak = part(10, 10, 10, 10), part(30, 10, 10, 10, confidence=0.15)
    assert check("exactly 2 screws", screw=[sure, weak])[0] == "uncertain"
    assert check("exactly 1 screw", screw=[sure, weak])[0] == "uncertain"
    assert check("at least 1 screw", screw=[sure, weak])[0] == "kept"
    assert check("at least 3 screws", screw=[sure, weak])[0] == "broken"
    assert check("screw left of bottle", screw=[weak], bottle=[BOTTLE]) == ("uncertain", None)


def test_a_component_that_is_not_there():
    assert check("exactly 1 label", label=[]) == ("broken", (0.0,))
    assert check("no label", label=[]) == ("kept", (0.0,))
    assert check("label inside bottle", label=[], bottle=[BOTTLE]) == ("uncertain", None)
    assert check("level of liquid at least 0", liquid=[]) == ("uncertain", None)


def test_a_component_that_cannot_be_seen_is_never_passed():
    unseen = {"cap": SeenComponent("cap", (), "the model sees no place for cap")}
    for text in ("no cap", "exactly 1 cap", "area of cap at most 9 %", "level of cap at least 0"):
        rule = parse_rule(text)
        assert measured(rule, unseen).truth(stated_limits(rule)) == "uncertain"
