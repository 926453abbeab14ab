"""The power curve in a page: its numbers, and nothing where it does not hold."""

import re
from html import unescape

import pytest

from zerodefect.inspection.power_curve import Cell, PowerCurve, Share
from zerodefect.reports.html_report import write_report
from zerodefect.reports.power_section import power_of_run, power_section

CURVE = PowerCurve(
    method="winclip",
    fingerprint="abc",
    calibrated=True,
    unsure_limit=0.5,
    region_limit=0.4,
    pictures=3,
    origin="left out",
    located=True,
    cells=(
        Cell(kind="scratch", size=2, contrast=5, drawn=10, found=1),
        Cell(kind="scratch", size=2, contrast=40),
        Cell(kind="<stain>", size=8, contrast=5, drawn=5, found=5),
        Cell(kind="<stain>", size=8, contrast=40, drawn=8, found=6),
    ),
    undamaged=Share(drawn=4, found=0),
    seconds=60,
    seed=0,
)
POLICY = {"fingerprint": "abc", "limits": {"unsure": 0.5, "defect": 0.6}, "region_limit": 0.4}


def cells(html):
    rows = re.findall(r"<tr>(.*?)</tr>", html)[1:]
    texts = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    return [[unescape(re.sub(r"<[^>]+>", "", text)) for text in row] for row in texts]


def test_every_cell_tells_its_numbers_and_its_bar_is_as_long():
    html = power_section(CURVE)
    assert cells(html) == [
        ["scratch", "2 px", "10 % 1 of 10; 1-39 %", "not measured"],
        ["<stain>", "8 px", "100 % 5 of 5; 55-100 %", "75 % 6 of 8; 40-95 %"],
    ]
    assert re.findall(r"width:(\d+)%", html) == ["10", "100", "75"]
    for sentence in CURVE.sentences():
        assert sentence in unescape(html)
    assert "http" not in html and "src=" not in html  # nothing from elsewhere


def test_a_report_shows_the_curve_of_its_run_and_keeps_it_out_of_the_settings(tmp_path):
    manifest = {"object": "plate", "policy": POLICY, "power": CURVE.as_dict()}
    html = write_report(tmp_path, [], manifest).read_text("utf-8")
    assert power_section(CURVE) in html and "zerodefect-power" not in html
    without = write_report(tmp_path, [], {"object": "plate", "policy": POLICY})
    assert "Which damage would be found" not in without.read_text("utf-8")


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ({"policy": POLICY}, ""),
        ({"policy": {**POLICY, "region_limit": 0.3}, "power": CURVE.as_dict()}, "other limits"),
        ({"policy": None, "power": CURVE.as_dict()}, "other limits"),
        ({"policy": POLICY, "power": {"format": "<b>"}}, "not a power curve"),
    ],
)
def test_a_curve_that_does_not_hold_is_not_shown(manifest, told):
    html = power_of_run(manifest)
    assert told in html and "<table" not in html and "<b>" not in html
    assert bool(html) == bool(told)
