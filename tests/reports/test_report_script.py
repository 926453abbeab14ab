"""What the page shows of regions: its own script, run by Node where there is one."""

import json
import random
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from zerodefect.reports.html_report import write_report

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no Node on this machine")
SCRIPT = resources.files("zerodefect.reports") / "assets" / "report.js"


def evaluated(expression):
    """Value of an expression in the page's script."""
    program = f"{SCRIPT.read_text('utf-8')}\nconsole.log(JSON.stringify({expression}));"
    done = subprocess.run([NODE, "-"], input=program, capture_output=True, check=True, text=True)
    return json.loads(done.stdout)


def on_page(folder, records, expression, parts=(), **manifest):
    """Value of an expression in the page of a report, once it has started."""
    policy = {"form": "split", "scores": [0.1, 0.2], "limits": {"unsure": 0.3, "defect": 0.4}}
    policy |= {"false_alarms": None, "review_rate": None, "guaranteed": True, "notes": []}
    policy |= {"region_limit": 0.5, "colour_range": [0.0, 1.0], **manifest}
    page = write_report(folder, records, {"policy": policy}, parts=parts)
    command = [NODE, Path(__file__).with_name("fake_browser.js"), page, expression]
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def inspected(boxes, **changes):
    """A record of a picture of 640 x 480 pixels, with square regions."""
    regions = [
        {
            **{"box": [x, y, side, side], "area": side**2, "area_percent": 0.5, "score": 0.75},
            **{"p_value": 0.25, "kind": "hole", "kind_score": 0.625},
            "polygons": [[x, y, x + side, y, x + side, y + side, x, y + side]],
        }
        for x, y, side in boxes
    ]
    told = {"image": "a.png", "status": "ok", "width": 640, "height": 480, "verdict": "defect"}
    told |= {"score": 0.8, "p_value": 0.25, "regions": regions, "notes": [], "calibrated": True}
    return told | changes


def placed(boxes, width, height):
    return evaluated(f"placeTags({json.dumps(boxes)}, {len(boxes)}, {width}, {height})")


def common(one, other):
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)


def test_a_number_stands_above_the_corner_of_its_region():
    assert placed([[100, 100, 40, 30]], 400, 300) == [[100, 79, 18, 18]]


def test_at_the_edges_it_stands_in_the_margin_of_the_picture():
    ((x, y, width, height),) = placed([[0, 0, 400, 300]], 400, 300)
    assert (y + height, x, width) == (-3, 0, 18)
    ((x, y, _, _),) = placed([[5, 2, 6, 6]], 400, 300)
    assert (x, y) == (5, -19)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_cover_no_region_and_no_number(seed):
    chance = random.Random(seed)
    sizes = [chance.choice([4, 8, 15, 40]) for _ in range(30)]
    boxes = [[chance.randint(0, 660), chance.randint(0, 460), size, size] for size in sizes]
    tags = placed(boxes, 700, 500)
    assert len(tags) == 30
    for k, tag in enumerate(tags):
        assert not any(common(tag, box) for box in boxes), k
        assert not any(common(tag, other) for other in tags[:k]), k
        assert -24 <= tag[0] <= 724 - tag[2] and -24 <= tag[1] <= 524 - tag[3]


def test_a_crowd_of_small_regions_is_numbered_from_further_away_with_lines():
    boxes = [[300 + 9 * (k % 5), 200 + 9 * (k // 5), 6, 6] for k in range(25)]
    tags = placed(boxes, 700, 500)
    assert not any(common(tag, box) for tag in tags for box in boxes)
    shapes = [[x, y, x + w, y, x + w, y + h, x, y + h] for x, y, w, h in boxes]
    lines = evaluated(f"{json.dumps(tags)}.map((t, k) => leaderLine(t, [{json.dumps(shapes)}[k]]))")
    assert lines[0] == "" and sum(map(bool, lines)) >= 15


def test_a_line_joins_a_number_with_the_shape_and_not_with_its_box():
    square = "[100, 0, 110, 0, 110, 18, 100, 18]"
    assert evaluated(f"leaderLine([0, 0, 18, 18], [{square}])") == "M18,9L100,9"
    assert evaluated(f"leaderLine([79, 0, 18, 18], [{square}])") == ""
    crescent = "[0, 40, 40, 0, 40, 40]"  # nothing is at the corner of its box, beside the number
    x, y, *end = map(
        float,
        evaluated(f"leaderLine([0, -21, 18, 18], [{crescent}])")[1:].replace("L", ",").split(","),
    )
    assert (x, y, *end) == (18, -3, pytest.approx(30.5), pytest.approx(9.5))
    assert evaluated("leaderLine([0, 0, 18, 18], [])") == ""


def test_a_region_that_its_outline_would_cover_gets_a_ring_at_every_zoom():
    assert evaluated("screenBox([500, 400, 3, 3], 0.2, 0.2)") == [90.3, 70.3, 20, 20]
    assert evaluated("screenBox([500, 400, 3, 4], 4, 4)") == [1990, 1592, 32, 32]
    assert evaluated("screenBox([500, 400, 6, 3], 4, 4)") == [2000, 1600, 24, 12]
    assert evaluated("ring([90, 70, 20, 20])") == "M90 80a10 10 0 1 0 20 0a10 10 0 1 0 -20 0"
    assert evaluated("screenBox([0, 400, 3000, 3], 0.2, 0.2)") == [0, 80, 600, pytest.approx(0.6)]


def test_names_that_act_on_the_text_around_them_are_shown_with_escapes():
    assert evaluated(r'shownName("a\u001b[31m\u202egnp.exe é 部😀")') == (
        "a\\u001b[31m\\u202egnp.exe é 部😀"
    )


def test_what_the_numbers_mean_stands_beside_them(tmp_path):
    words = on_page(
        tmp_path,
        [inspected([(100, 100, 40)], notes=["first of 3 frames"])],
        """showDetail(0).then(() => ["findings", "reading", "grid"])
           .then((names) => names.map((name) => byId(name).textContent))""",
    )
    findings, reading, grid = words
    share = "share of good images, this one counted with them, that"
    assert f"p-value: {share} score at least as high" in findings
    assert f"p {share} reach this score somewhere" in findings
    assert "Share how much of all kinds' evidence speaks for this kind" in findings
    assert "1 hole 62.5 % 1,600 px" in findings and "first of 3 frames" in findings
    assert f"p: {share}" in reading and "1 note" in grid


def test_without_a_calibration_no_p_value_is_explained(tmp_path):
    record = inspected([(100, 100, 40)], p_value=None, calibrated=False)
    expression = 'showDetail(0).then(() => byId("findings").textContent)'
    findings = on_page(tmp_path, [record], expression, form="none")
    assert "p-value: share" not in findings and "p not known before a calibration" in findings


def test_a_small_region_has_a_ring_until_it_is_enlarged(tmp_path):
    seen = """showDetail(0).then(() => {
      const all = (selector) => byId("stage").querySelectorAll(selector);
      const arcs = (mark) => mark.querySelector("path").attributes.d.includes("a");
      const region = (path) => path.dataset.region;
      const look = () => [all(".ringed").map(region), all(".mark").map(arcs)];
      const before = look();
      Object.assign(byId("stage"), { clientWidth: 4 * 640, clientHeight: 4 * 480 });
      applyControls();
      return [before, look()];
    })"""
    before, after = on_page(tmp_path, [inspected([(100, 100, 40), (300, 200, 8)])], seen)
    assert before == [["1", "1"], [False, True]]
    assert after == [[], [False, False]]


def part_of(name, verdict, score, *images):
    pictures = [{"image": image, "verdict": verdict, "score": score} for image in images]
    told = {"part": name, "verdict": verdict, "calibrated": True, "score": score, "p_value": 0.25}
    return {**told, "pictures": pictures, "explanation": "Why.", "reason": None}


def test_pictures_of_a_part_stand_together_the_worst_part_first(tmp_path):
    pictures = {"1_a.png": 0.1, "2_a.png": 0.9, "1_b.png": 0.2, "2_b.png": 0.05}
    records = [
        inspected([], image=image, score=score, part=image[0]) for image, score in pictures.items()
    ]
    parts = [part_of("1", "good", 0.2), part_of("2", "defect", 0.9)]
    expression = "[shown.map((i) => data.image[i]), byId('grid').textContent]"
    order, cards = on_page(tmp_path, records, expression, parts=parts)
    assert order == ["2_a.png", "2_b.png", "1_a.png", "1_b.png"]
    assert cards.count("part 2: defect") == 2 and cards.count("part 1: good") == 2
    shown = "(showFindings(1, null), byId('findings').textContent)"
    findings = on_page(tmp_path, records, shown, parts=parts)
    assert "Part 2: defect" in findings and "2_b.png" in findings and "1_a.png" not in findings


def test_a_region_that_is_allowed_says_by_which_rule(tmp_path):
    record = inspected([[10, 10, 5], [50, 50, 5]])
    record["regions"][1]["allowed"] = "hole:area<50px"
    expression = "regionTable(data && chunks.get(0)[0].regions)[0].textContent"
    assert on_page(tmp_path, [record], expression).count("allowed: hole:area<50px") == 1


def test_how_many_of_each_kind_stands_beside_the_score(tmp_path):
    record = inspected([[10, 10, 5], [50, 50, 5]])
    record["counts"] = [
        {"kind": "scratch", "count": 2, "low": 1, "high": 3},
        {"kind": None, "count": 1, "low": 1, "high": 1},
    ]
    shown = "(showFindings(0, chunks.get(0)[0]), byId('findings').textContent)"
    assert "2 \u00d7 scratch (1 to 3); 1 \u00d7 anomaly" in on_page(tmp_path, [record], shown)
    del record["counts"]  # of an earlier version
    assert "scratch" not in on_page(tmp_path, [record], shown)


def test_words_and_the_area_that_words_name_are_laid_over_the_picture(tmp_path):
    words = [{"word": "<b>label</b>", "span": [0.25, 0.75], "at": [12, 34]}]
    area = {"words": "screw, not background", "percent": 41.5, "rle": None}
    files = {name: f"assets/{name}.png" for name in ("image", "word0", "area")}
    (tmp_path / "assets").mkdir()
    for file in files.values():
        (tmp_path / file).write_bytes(b"png")
    record = inspected([], words=words, area=area, assets=files)
    show = f"(showWords({json.dumps(record)}), byId('words').textContent)"
    told = on_page(tmp_path, [record], show)
    assert "screw, not background" in told and "41.5 % of the picture" in told
    assert "<b>label</b>  0.25 to 0.75, highest at 12, 34" in told
    assert "0.5 for neither" in told
    layers = f"(showWords({json.dumps(record)}), byId('words').querySelectorAll('img').length)"
    assert on_page(tmp_path, [record], layers) == 4
    without = inspected([], assets={})
    assert on_page(tmp_path, [without], f"(showWords({json.dumps(without)}), 1)") == 1


def test_what_a_chat_model_says_stands_with_its_contradictions(tmp_path):
    """As text, whatever it is; what it names is drawn, and the list warns of contradictions."""
    said = {"location": "left", "kind": "<b>x</b>", "why": "A \u202e<script>", "verdict": "good"}
    said |= {"source": "tiny", "sent_to": "http://h:1", "question": "is it?"}
    said |= {"contradictions": ["It is not."], "remarks": ["cut"], "boxes": [[10, 20, 30, 40]]}
    late = {"source": "tiny", "fault": "no answer in time", "said": "..."}
    records = [
        inspected([(30, 50, 60)], conversation=[said, late]),
        inspected([], image="b.png", conversation=[]),
        inspected([], image="c.png"),  # of a former version
    ]
    shown = "(await showDetail(0), byId('findings').textContent)"
    findings = on_page(tmp_path, records, shown)
    for text in ("is it?", "A \\u202e<script>", "<b>x</b>", "It is not.", "cut", "http://h:1"):
        assert text in findings
    assert "No answer: no answer in time" in findings and "It said: ..." in findings
    boxes = (
        "(await showDetail(0), byId('stage').querySelectorAll('rect').map((one) => one.attributes))"
    )
    (box,) = on_page(tmp_path, records, boxes)
    assert box == {"class": "named", "x": "10", "y": "20", "width": "30", "height": "40"}
    assert on_page(tmp_path, records, "data.against") == [1, 0, 0]
    assert on_page(tmp_path, records, "byId('grid').textContent").count("against the evidence") == 1
    html = (tmp_path / "report.html").read_text("utf-8")
    assert "they were sent to http://h:1." in html and "1 against the evidence" in html
    assert "1 without an answer" in html
