import pytest
from closeness import close


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("score 0.4056, above 0.40", "score 0.4057, above 0.40", True),
        ("score 0.4056", "score 0.4058", False),
        ("score 0.4056", "score of 0.4056", False),
        ("3 regions, 0.5 %", "4 regions, 0.5 %", False),
        ("p = 1.2e-05", "p = 1.3e-05", True),
        ("p = 1.2e-05", "p = 1.4e-05", False),
        ({"a": [1.0, None]}, {"a": [1.0 + 1e-7, None]}, True),
        ({"a": 1.0}, {"a": 1.001}, False),
        ({"a": 1.0}, {"b": 1.0}, False),
        ([1.0], [1.0, 2.0], False),
    ],
)
def test_numbers_may_differ_by_their_rounding_and_nothing_else(one, other, same):
    assert close(one, other) is same
