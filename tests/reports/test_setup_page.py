"""The page of what was learned."""

from html.parser import HTMLParser

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zerodefect.inspection.calibration import calibrate
from zerodefect.inspection.power_curve import Cell, PowerCurve, Share
from zerodefect.reports.setup_page import write_setup_page

WHO = {"method": "winclip", "fingerprint": "f" * 16, "object": "screw"}
SCORES = [0.1 + 0.01 * place for place in range(30)]


class Page(HTMLParser):
    """Addresses, tags and words of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.words = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.words += data


def written(folder, scores=SCORES, heading="screw", names=("a.png",), curve=None, **rates):
    policy = calibrate(scores, **rates, **WHO).model_dump(mode="json")
    pictures = [(name, np.full((30, 40, 3), 90, np.uint8)) for name in names]
    path = folder / "screw.html"
    write_setup_page(
        path,
        heading=heading,
        facts={"Method": "WinCLIP", "Nothing": None},
        policy=policy,
        references=pictures,
        curve=curve,
        commands=[("zerodefect inspect parts/ --product screw.zd", "Inspect parts:")],
    )
    return Page(path.read_text("utf-8"))


def test_it_says_what_was_learned_and_what_to_type(tmp_path):
    cell = Cell(kind="scratch", size=2, contrast=40, drawn=10, found=9)
    curve = PowerCurve(
        method="winclip",
        fingerprint="f" * 16,
        calibrated=True,
        unsure_limit=0.3,
        region_limit=0.3,
        pictures=3,
        origin="held out",
        located=True,
        cells=(cell,),
        undamaged=Share(drawn=4, found=0),
        seconds=60,
        seed=0,
    )
    page = written(tmp_path, curve=curve, false_alarms=0.1)
    assert "Limits learned from 30 good images." in page.words
    assert "at most 10 % of good parts like those are called defective" in page.words
    assert all(sentence in page.words for sentence in curve.sentences())
    assert "9 of 10" in page.words and "Not measured" not in page.words
    assert "zerodefect inspect parts/ --product screw.zd" in page.words
    assert "defect above 0.3700" in page.words  # 30 scores at 10 %: the third largest
    assert page.tags.count("img") == 1


def test_it_needs_nothing_else(tmp_path):
    page = written(tmp_path, names=[f"{n}.png" for n in range(60)])
    assert all(address.startswith("data:image/jpeg") for address in page.addresses)
    assert page.tags.count("img") == 24 and "60, 24 of them shown" in page.words
    assert "script" not in page.tags
    assert "Not measured." in page.words


def test_names_inject_nothing(tmp_path):
    page = written(tmp_path, heading="<script>x", names=["<img src=x>.png", "{{style}}.png"])
    assert "script" not in page.tags and page.tags.count("img") == 2
    assert "{{style}}.png" in page.words and "<script>x" in page.words


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40))
def test_any_scores_can_be_drawn(tmp_path_factory, scores):
    page = written(tmp_path_factory.mktemp("page"), scores)
    assert page.tags.count("svg") == 1
