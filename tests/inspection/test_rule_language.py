"""Rules as users type them: what is understood, what it prints back to, what an error points at."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zerodefect.inspection.rules.rule_files import presets, read_rules
from zerodefect.inspection.rules.rule_language import ComponentRule, RuleError
from zerodefect.inspection.rules.rule_reader import component_name, parse_rule
from zerodefect.inspection.rules.rule_words import KEYWORDS, number_in_words, plural, singular


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("exactly 2 screws", "exactly 2 screws"),
        ("2 screws", "exactly 2 screws"),
        ("Exactly TWO Screws", "exactly 2 screws"),
        ("at least one label", "at least 1 label"),
        ("at most twelve leaves", "at most 12 leaves"),
        ("more than 2 boxes", "at least 3 boxes"),
        ("fewer than twenty-one batteries", "at most 20 batteries"),
        ("no scratches", "exactly 0 scratches"),
        ("between 2 and 4 hex nuts", "between 2 and 4 hex nuts"),
        ("two to four glasses", "between 2 and 4 glasses"),
        ("number of screws as usual", "number of screws as usual"),
        ("number of screws is at most 3", "at most 3 screws"),
        ("fill level between 0.6 and 0.8", "level of liquid between 0.6 and 0.8"),
        ("fill level between 60 % and 80 percent", "level of liquid between 0.6 and 0.8"),
        ("juice level in bottle above .5", "level of juice in bottle at least 0.5"),
        ("level of juice in the bottle as usual", "level of juice in bottle as usual"),
        ("area of label between 3 % and 6 %", "area of label between 3 % and 6 %"),
        ("area of the label below 6", "area of label at most 6 %"),
        ("position of label as usual", "position of label as usual"),
        ("position of label within 5 % of .5, .3", "position of label within 0.05 of 0.5, 0.3"),
        (
            "horizontal position of cap between 0.4 and 0.6",
            "horizontal position of cap between 0.4 and 0.6",
        ),
        ("a label inside the bottle", "label inside bottle"),
        ("the label is not in the bottle", "label not inside bottle"),
        ("label outside of bottle", "label not inside bottle"),
        ("label not outside bottle", "label inside bottle"),
        ("cables are to the left of plugs", "cable left of plug"),
        ("every cap must be above the label", "cap above label"),
        ("cap over label, otherwise unsure", "cap above label, else unsure"),
        ("cap touches label else defect", "cap touching label"),
    ],
)
def test_what_is_understood(text, printed):
    rule = parse_rule(text)
    assert str(rule) == printed
    assert parse_rule(printed) == rule


def test_the_parts_of_a_rule():
    assert parse_rule("2 to 4 screws, else unsure") == ComponentRule(
        "number", "screw", low=2, high=4, otherwise="unsure"
    )
    assert parse_rule("level of milk in glass under 30 %") == ComponentRule(
        "level", "milk", "glass", high=0.3
    )
    assert parse_rule("cable right of plug").names == ("cable", "plug")


@pytest.mark.parametrize(
    ("text", "word", "allowed"),
    [
        ("exactly screws", "screws", "a whole number"),
        ("exactly 2.5 screws", "2.5", "a whole number"),
        ("at 2 screws", "2", "'least' or 'most'"),
        ("area label between 3 and 4", "label", "'of'"),
        ("area of label roughly 3", "3", "as usual"),
        ("level of juice between 0.8 and 0.6", "0.6", "smaller number first"),
        ("level of juice at least 7", "7", "0 to 1"),
        ("area of label at most 400 %", "400", "0 to 100"),
        ("label inside", "", "name of a component"),
        ("label inside label", "label", "another component"),
        ("label inside level", "level", "name of a component"),
        ("exactly 2 screws, else good", "good", "'defect' or 'unsure'"),
        ("exactly 2 screws;", ";", "words, numbers"),
        ("exactly 2 screws inside box", "inside", "the end of the rule"),
        ("position of label at 3", "at", "within"),
        ("", "", "exactly 2 screws"),
        ("fewer than 0 screws", "0", "from 1"),
    ],
)
def test_errors_point_at_the_word_and_say_what_is_allowed(text, word, allowed):
    with pytest.raises(RuleError) as caught:
        parse_rule(text)
    error = caught.value
    assert error.text[error.start : error.end].strip() == word
    assert allowed in error.allowed and error.allowed in str(error)
    lines = str(error).splitlines()
    assert lines[1].strip() == text.strip()
    assert lines[2] == "  " + " " * error.start + "^" * max(1, error.end - error.start)


SAFE = st.text("abcdefghijklmnopqrsty", min_size=1, max_size=9)
WORDS = SAFE.map(singular).filter(lambda word: word not in KEYWORDS)
NAMES = st.lists(WORDS, min_size=1, max_size=3).map(" ".join)
NUMBERS = st.one_of(
    st.integers(0, 100).map(str),
    st.decimals(0, 1, places=3).map(str),
    st.sampled_from(["two", "twelve", "thirty-one", "60 %", "0.5 %"]),
)


@st.composite
def sentences(draw):
    """Texts in the forms of the grammar, most of them rules."""
    name, other = draw(NAMES), draw(NAMES)
    one, two = draw(NUMBERS), draw(NUMBERS)
    text = draw(
        st.sampled_from(
            [
                f"exactly {one} {name}s",
                f"at least {one} {name}",
                f"between {one} and {two} {name}",
                f"fewer than {one} {name}",
                f"area of {name} between {one} and {two}",
                f"area of {name} at most {one}",
                f"level of {name} in {other} above {one}",
                f"{name} level as usual",
                f"number of {name}s as usual",
                f"position of {name} within {one} of {two}, {one}",
                f"vertical position of the {name} below {one}",
                f"{name} inside {other}",
                f"the {name} is not touching {other}",
                f"{name} to the left of {other}",
                f"{name} outside {other}",
            ]
        )
    )
    return text + draw(st.sampled_from(["", ", else unsure", " otherwise defect"]))


@given(sentences())
@example("exactly 3 theses")
@example("exactly 2 i")  # 'is' would be a word with a meaning of its own
def test_every_rule_prints_back_to_text_that_parses_to_it(text):
    try:
        rule = parse_rule(text)
    except RuleError:
        return
    assert parse_rule(str(rule)) == rule
    assert str(parse_rule(str(rule))) == str(rule)


ANYTHING = st.sampled_from([*sorted(KEYWORDS), "screw", "2", "%", ",", "0.5", "İ", "ß"])


@given(st.one_of(st.text(max_size=80), st.lists(ANYTHING, max_size=9).map(" ".join)))
@example("exactly 2 \x1b[31mscrews")
@example("exactly 2 ßs")
@example("İ inside box")
@example("9" * 300)
def test_any_text_is_a_rule_or_the_one_clear_error(text):
    try:
        rule = parse_rule(text)
    except RuleError as error:
        assert "Allowed here: " in str(error)
        assert "\x1b" not in str(error)
        return
    assert parse_rule(str(rule)) == rule


@given(SAFE)
def test_one_and_many(word):
    assert singular(singular(word)) == singular(word)
    one = singular(word)
    assert plural(one) == one or singular(plural(one)) == one


def test_words_for_things_and_numbers():
    many = ["screws", "boxes", "batteries", "leaves", "glasses", "lenses", "bus", "washer", "axis"]
    one = ["screw", "box", "battery", "leaf", "glass", "lens", "bus", "washer", "axis"]
    assert [singular(word) for word in many] == one
    assert [number_in_words(w) for w in ("two", "a", "ninety-nine", "screw")] == [2, 1, 99, None]
    assert component_name("The Hex Nuts") == "hex nut"


def test_files_and_presets(tmp_path):
    file = tmp_path / "product.rules"
    file.write_text("# of the bag\nexactly 2 screws\n\nlabel inside bag  # always\n")
    assert read_rules(file) == ["exactly 2 screws", "label inside bag"]
    for name in presets():
        assert read_rules(name)
    assert {"juice_bottle", "pushpins"} <= set(presets())
    file.write_text("exactly screws\n")
    with pytest.raises(RuleError):
        read_rules(file)
    file.write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no rule"):
        read_rules(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no text"):
        read_rules(file)
    with pytest.raises(ValueError, match="juice_bottle"):
        read_rules(tmp_path / "missing.rules")
