from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from zerodefect.inspection.calibration import calibrate
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.policy import Limits
from zerodefect.inspection.records import to_record
from zerodefect.inspection.regions import find_regions
from zerodefect.reports.html_report import write_report
from zerodefect.reports.report_pictures import write_assets
from zerodefect.types import printable

HOSTILE = [
    "parts/</script><script>alert(1)</script>.png",
    "parts/<img src=x onerror=alert(2)>.png",
    "parts/\"'`&amp;{{style}}#50%25 é 零件\u2028.png",
    "C:\\parts\\lot #3\\50%.png",
    "parts/not-utf8-\udcff.png",
]
SVG_NAMESPACE = "http://www.w3.org/2000/svg"


class Page(HTMLParser):
    """What the tests ask of a report page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.addresses: list[str] = []
        self.scripts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]
        self._open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        if self._open and self._open[-1] == "script":
            self.scripts[-1] += data
        elif not self._open or self._open[-1] != "style":
            self.text += data

    @property
    def statement(self) -> str:
        """What the report says on its verdicts, without the policy file shown further below."""
        return unescape(re.findall(r'<div class="statement">(.*?)</div>', self.html)[0])

    def count(self, name: str) -> int:
        found = re.search(rf'data-count="{name}"><b>([\d,]+)</b>', self.html)
        return int(found[1].replace(",", "")) if found else 0


def called(function: str, scripts: list[str]) -> list:
    """Arguments with which the scripts call ``zeroDefect.<function>``, in order."""
    starts = [s for s in scripts if s.startswith(f"zeroDefect.{function}(")]
    return [
        json.loads("[" + s.strip().removeprefix(f"zeroDefect.{function}(").removesuffix(");") + "]")
        for s in starts
    ]


def read_single(path: Path) -> tuple[dict, list[dict]]:
    page = Page(path)
    (summary,) = called("summary", page.scripts)
    chunks = called("chunk", page.scripts)
    assert [number for number, _ in chunks] == list(range(len(chunks)))
    return summary[0], [detail for _, details in chunks for detail in details]


def read_folder(folder: Path) -> tuple[dict, list[dict]]:
    (summary,) = called("summary", [(folder / "summary.js").read_text("utf-8")])
    files = sorted(folder.glob("data-*.js"))
    chunks = called("chunk", [file.read_text("utf-8") for file in files])
    assert [file.name for file in files] == [f"data-{n:03d}.js" for n, _ in chunks]
    return summary[0], [detail for _, details in chunks for detail in details]


def make_policy(**changes) -> dict:
    scores = np.linspace(0.1, 0.5, 120)
    policy = calibrate(scores, scores, method="winclip", fingerprint="f", object="tile")
    return {**policy.model_dump(mode="json"), **changes}


def policy_without_maps() -> dict:
    made = calibrate([0.1, 0.2, 0.3], method="asked", fingerprint="f", object="tile")
    return made.model_dump(mode="json")


def make_manifest(**changes) -> dict:
    return {
        "format": "zerodefect-run",
        "version": 1,
        "created": "2025-03-04T05:06:07+00:00",
        "zerodefect": "0.1.0",
        "object": "magnetic tile",
        "method": "winclip",
        "backbone": "embedded",
        "policy": make_policy(),
        "settings": {"paths": ["parts"]},
        **changes,
    }


UNCALIBRATED = make_policy(
    form="none", scores=[], map_maxima=[], limits={"unsure": None, "defect": 0.5}
)


def make_record(k: int, name: str | None = None, **changes) -> dict:
    """One of three kinds of images in turn: good, unsure with one region, defect with two."""
    region = {
        "box": [2, 3, 4, 2],
        "area": 8,
        "area_percent": 1.0 + k / 1000,
        "score": 0.4711 + k / 1e5,
        "p_value": 0.0123,
        "kind": "scratch",
        "kind_score": 0.75,
        "polygons": [[2.0, 3.0, 6.0, 3.0, 6.0, 5.0, 2.0, 5.0]],
        "rle": {"size": [8, 10], "counts": "a"},
    }
    regions = [region, {**region, "kind": None, "kind_score": None}][: k % 3]
    return {
        "image": name or f"parts/lot {k % 7}/{k:05d}.png",
        "status": "ok",
        "object": "magnetic tile",
        "width": 10,
        "height": 8,
        "verdict": ("good", "unsure", "defect")[k % 3],
        "calibrated": True,
        "score": 0.1 + k / 7e4,
        "p_value": (1 + k % 120) / 121,
        "count": len(regions),
        "regions": regions,
        "explanation": f"Explanation {k}.",
        "notes": ["first of 12 frames"] if k % 5 == 0 else [],
        "map": None,
        "assets": None,
        **changes,
    }


def make_failure(name: str = "parts/broken.jpg") -> dict:
    return {
        "image": name,
        "status": "failed",
        "reason": "the file ends in the middle",
        "remedy": "Copy the file again.",
    }


@pytest.fixture
def inspected(tmp_path: Path) -> dict:
    """A record with pictures, all made by the real functions."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (60, 90, 3), dtype=np.uint8)
    values = np.zeros((60, 90), np.float32)
    values[10:20, 30:50] = 0.9
    regions = find_regions(values, 0.5)
    inspection = Inspection(
        image="parts/a.png",
        object="tile",
        width=90,
        height=60,
        verdict="defect",
        calibrated=True,
        score=0.9,
        p_value=1 / 121,
        regions=regions,
        map=values,
    )
    assets = write_assets(pixels, inspection, (0.2, 1.0), tmp_path / "assets", "000000")
    return to_record(inspection, assets=assets)


# ---- pictures ----


def simple_inspection(values: np.ndarray | None, height: int, width: int, limit: float = 0.5):
    return Inspection(
        image="a.png",
        object=None,
        width=width,
        height=height,
        verdict="defect",
        calibrated=False,
        score=1.0,
        p_value=None,
        regions=() if values is None else find_regions(values, limit),
        map=values,
    )


def test_assets_have_the_stated_sizes_and_paths(tmp_path):
    pixels = np.full((1500, 3000, 3), 90, np.uint8)
    values = np.zeros((1500, 3000), np.float32)
    values[700:703, 100:2900] = 1.0  # a scratch of three pixels in three thousand
    inspection = simple_inspection(values, 1500, 3000)
    assets = write_assets(pixels, inspection, (0.2, 0.8), tmp_path / "assets", "000012")
    assert assets == {
        "image": "assets/000012.jpg",
        "heat": "assets/000012.png",
        "thumb": "assets/000012.thumb.jpg",
    }
    sizes = {key: Image.open(tmp_path / path).size for key, path in assets.items()}
    assert sizes == {"image": (1024, 512), "heat": (384, 192), "thumb": (192, 96)}
    assert sorted(p.name for p in (tmp_path / "assets").iterdir()) == sorted(
        Path(path).name for path in assets.values()
    )
    thumb = np.asarray(Image.open(tmp_path / assets["thumb"]).convert("L")).astype(int)
    far = thumb[70:90]
    assert np.abs(far - 90).max() < 12  # nothing is drawn where nothing was found
    assert np.ptp(thumb[35:55, 60:150]) > 100  # the outline is seen even at this size


def test_a_small_defect_is_framed_and_stays_visible_in_the_thumbnail(tmp_path):
    pixels = np.full((960, 1920, 3), 90, np.uint8)
    pixels[400:440, 800:840] = 250
    values = np.zeros((960, 1920), np.float32)
    values[400:440, 800:840] = 1.0  # four pixels of the thumbnail
    inspection = simple_inspection(values, 960, 1920)
    assets = write_assets(pixels, inspection, None, tmp_path / "assets", "a")
    thumb = np.asarray(Image.open(tmp_path / assets["thumb"]).convert("L")).astype(int)
    assert thumb.shape == (96, 192) and (thumb[41:43, 81:83] > 220).all()
    assert thumb[36:48, 76:88].min() < 60  # black beside white, all around
    assert np.abs(np.delete(thumb, np.s_[34:50], axis=0) - 90).max() < 12


def test_heat_map_colours_do_not_depend_on_the_image(tmp_path):
    """The same raw value has the same colour, whatever else the picture holds."""
    colours = []
    for highest in (0.6, 5.0):
        values = np.full((40, 40), 0.6, np.float32)
        values[:5] = 0.1
        values[30:] = highest
        inspection = simple_inspection(values, 40, 40)
        pixels = np.zeros((40, 40, 3), np.uint8)
        assets = write_assets(pixels, inspection, (0.2, 1.0), tmp_path / "assets", f"{highest}")
        heat = np.asarray(Image.open(tmp_path / assets["heat"]))
        assert heat.shape == (40, 40, 4)
        assert heat[2, 2, 3] == 0  # transparent below the range
        assert heat[20, 20, 3] > 0
        colours.append(heat[20, 20].tolist())
    assert colours[0] == colours[1]


def test_without_map_there_is_no_heat(tmp_path):
    pixels = np.full((30, 20, 3), 200, np.uint8)
    inspection = simple_inspection(None, 30, 20)
    assets = write_assets(pixels, inspection, (0.0, 1.0), tmp_path / "assets", "x")
    assert sorted(assets) == ["image", "thumb"]
    assert Image.open(tmp_path / assets["thumb"]).size == (20, 30)


def test_a_method_without_maps_has_no_colours(tmp_path):
    pixels = np.full((30, 20, 3), 200, np.uint8)
    inspection = simple_inspection(None, 30, 20)
    assets = write_assets(pixels, inspection, None, tmp_path / "assets", "x")
    assert sorted(assets) == ["image", "thumb"]
    assert np.ptp(np.asarray(Image.open(tmp_path / assets["thumb"]))) < 5  # the picture alone


# ---- the single file ----


def test_single_file_needs_nothing_else(tmp_path, inspected):
    path = write_report(tmp_path, [inspected, make_failure()], make_manifest())
    assert path == tmp_path / "report.html"
    page = Page(path)
    assert all(a.startswith(("#", "data:image/")) for a in page.addresses), page.addresses
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "embed", "base")]
    code = page.html.replace(SVG_NAMESPACE, "")
    assert "http://" not in code
    assert "https://" not in code
    assert not re.search(r"""["'(=]\s*//""", code)
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest|import\(", code)
    policy = next(a["content"] for t, a in page.tags if "content-security-policy" in str(a).lower())
    assert policy.startswith("default-src 'none';")
    assert not re.search(r"https?:|\*", policy)
    assert not (tmp_path / "report").exists()


def test_single_file_carries_the_pictures(tmp_path, inspected):
    summary, details = read_single(write_report(tmp_path, [inspected], make_manifest()))
    addresses = {**details[0]["assets"], "thumb": summary["thumb"][0]}
    assert sorted(addresses) == ["heat", "image", "thumb"]
    for key, address in addresses.items():
        mime = "image/png" if key == "heat" else "image/jpeg"
        assert address.startswith(f"data:{mime};base64,")
        content = base64.b64decode(address.partition(",")[2], validate=True)
        assert content == (tmp_path / inspected["assets"][key]).read_bytes()
        Image.open(io.BytesIO(content)).verify()


def test_pictures_from_outside_the_run_are_not_copied(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    run = tmp_path / "run"
    run.mkdir()
    (run / "notes.txt").write_text("no picture")
    paths = {"image": "../secret.jpg", "heat": str(tmp_path / "secret.jpg"), "thumb": "notes.txt"}
    summary, details = read_single(write_report(run, [make_record(0, assets=paths)], {}))
    assert details[0]["assets"] == {"image": None, "heat": None}
    assert summary["thumb"] == [None]


def test_numbers_shown_are_those_of_the_records(tmp_path):
    records = [make_record(k) for k in range(30)]
    path = write_report(tmp_path, [*records, make_failure()], make_manifest())
    check_numbers(records, *read_single(path))
    page = Page(path)
    assert [page.count(v) for v in ("good", "unsure", "defect", "failed")] == [10, 10, 10, 1]


def check_numbers(records: list[dict], summary: dict, details: list[dict]) -> None:
    for column in ("image", "verdict", "score", "p_value", "count"):
        assert summary[column] == [record[column] for record in records]
    for k, record in enumerate(records):
        kinds = [summary["vocabulary"][n] for n in summary["kinds"][k]]
        assert kinds == list(dict.fromkeys(r["kind"] for r in record["regions"]))
        area = sum(r["area_percent"] for r in record["regions"])
        assert summary["area"][k] == pytest.approx(area, rel=1e-3)
        detail = details[k]
        for key in ("image", "width", "height", "explanation", "notes"):
            assert detail[key] == record[key]
        shown = [{**region, "rle": None} for region in detail["regions"]]
        assert shown == [{**region, "rle": None, "allowed": None} for region in record["regions"]]


def test_limits_and_legend_come_from_the_policy(tmp_path):
    policy = make_policy()
    summary, _ = read_single(write_report(tmp_path, [make_record(1)], make_manifest()))
    assert summary["limits"] == policy["limits"]
    assert summary["region_limit"] == policy["region_limit"]
    assert summary["colour_range"] == policy["colour_range"]
    assert summary["calibration_scores"] == policy["scores"]
    assert len(set(summary["ramp"])) > 20
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in summary["ramp"])


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("ViT-B-16/openai", "ViT-B-16/openai"),
        (["embedded", "dino.pth"], "embedded, dino.pth"),
        ({"dense": "embedded", "pyramid": "lite0"}, "embedded (dense), lite0 (pyramid)"),
    ],
)
def test_all_networks_are_named(tmp_path, told, shown):
    assert shown in Page(write_report(tmp_path, [], {"backbone": told})).text


def test_an_answer_comes_with_the_details(tmp_path):
    answer = "Yes: the <rim> is chipped."
    records = [make_record(0, answer=answer), make_record(3)]
    _, details = read_single(write_report(tmp_path, records, make_manifest()))
    assert [detail["answer"] for detail in details] == [answer, None]


def test_a_run_without_maps_has_no_legend(tmp_path):
    manifest = make_manifest(policy=policy_without_maps())
    path = write_report(tmp_path, [make_record(0, answer="No.")], manifest)
    summary, _ = read_single(path)
    assert summary["calibrated"] is True and len(summary["calibration_scores"]) == 3
    assert summary["region_limit"] is summary["colour_range"] is None
    assert summary["ramp"] == []
    assert "Limits learned from 3 good images." in Page(path).statement


def test_many_calibration_scores_are_thinned(tmp_path):
    scores = [float(k) for k in range(20_000)]
    manifest = make_manifest(policy=make_policy(scores=scores))
    summary, _ = read_single(write_report(tmp_path, [make_record(1)], manifest))
    kept = summary["calibration_scores"]
    assert len(kept) == 500
    assert (kept[0], kept[-1]) == (0.0, 19_999.0)
    assert set(kept) <= set(scores)


def test_header_names_product_method_and_date(tmp_path):
    page = Page(write_report(tmp_path, [make_record(1)], make_manifest(object="<Tile> & Co")))
    for words in ("<Tile> & Co", "winclip", "embedded", "2025-03-04 05:06 UTC"):
        assert words in page.text
    assert "fingerprint" in page.text  # settings and policy are kept for the record


def test_failed_files_stand_with_reason_and_remedy(tmp_path):
    failures = [make_failure(name) for name in HOSTILE]
    page = Page(write_report(tmp_path, failures, make_manifest()))
    assert page.count("failed") == len(failures)
    for name in HOSTILE:
        assert printable(name).encode("utf-8", "replace").decode() in page.text
    assert page.text.count("the file ends in the middle") == len(failures)
    assert page.text.count("Copy the file again.") == len(failures)


# ---- hostile names ----


@pytest.mark.parametrize("limit", [200, 0])
def test_hostile_names_stay_text(tmp_path, limit):
    records = [
        make_record(2, name, explanation=name, notes=[name], object=name) for name in HOSTILE
    ]
    for record, name in zip(records, HOSTILE, strict=True):
        record["regions"] = [{**record["regions"][0], "kind": name}]
    manifest = make_manifest(object=HOSTILE[0], method=HOSTILE[1], settings={"x": HOSTILE})
    harmless = make_manifest(object="a", method="b")
    noted = [make_record(2, notes=[str(k) for k in range(len(HOSTILE))])]
    plain = Page(write_report(tmp_path, noted, harmless, single_file_limit=limit))
    path = write_report(tmp_path, records, manifest, single_file_limit=limit)
    page = Page(path)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert HOSTILE[0] in page.text
    read = read_single(path) if limit else read_folder(path.parent)
    assert read[0]["image"] == HOSTILE
    assert read[0]["vocabulary"] == HOSTILE
    assert [detail["explanation"] for detail in read[1]] == HOSTILE
    for script in page.scripts:
        assert "alert(" not in script or script.startswith("zeroDefect.")


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.text(min_size=1))
def test_any_name_survives(tmp_path, name):
    path = write_report(tmp_path, [make_record(0, name), make_failure(name)], {"object": name})
    page = Page(path)
    assert len(page.scripts) == 4  # code, summary, one chunk, start
    summary, details = read_single(path)
    assert summary["image"] == [name] == [details[0]["image"]]


# ---- the folder ----


def test_above_the_limit_the_report_is_a_folder(tmp_path, inspected):
    records = [make_record(k, assets=inspected["assets"]) for k in range(201)]
    assert write_report(tmp_path, records[:200], make_manifest()).name == "report.html"
    path = write_report(tmp_path, iter([make_failure(), *records]), make_manifest())
    assert path == tmp_path / "report" / "index.html"
    assert not (tmp_path / "report.html").exists()  # the outdated form
    names = sorted(p.name for p in path.parent.iterdir())
    assert names == ["data-000.js", "data-001.js", "data-002.js", "index.html", "summary.js"]
    summary, details = read_folder(path.parent)
    check_numbers(records, summary, details)
    page = Page(path)
    assert {a for a in page.addresses if not a.startswith("#")} == {"summary.js"}
    for address in [*summary["thumb"], *details[200]["assets"].values()]:
        assert (path.parent / unquote(address)).is_file()


def test_relative_addresses_are_percent_encoded(tmp_path):
    assets = {"image": "assets/a#b %41?é.jpg", "thumb": "assets\\x.jpg"}
    path = write_report(tmp_path, [make_record(0, assets=assets)], {}, single_file_limit=0)
    summary, details = read_folder(path.parent)
    assert details[0]["assets"]["image"] == "../assets/a%23b%20%2541%3F%C3%A9.jpg"
    assert summary["thumb"] == ["../assets/x.jpg"]


def test_going_back_to_few_images_removes_the_folder(tmp_path):
    records = [make_record(k) for k in range(250)]
    folder = write_report(tmp_path, records, make_manifest()).parent
    assert (folder / "data-002.js").exists()
    write_report(tmp_path, records[:150], make_manifest(), single_file_limit=100)
    assert not (folder / "data-002.js").exists()
    assert (folder / "data-001.js").exists()
    (folder / "mine.txt").write_text("kept")
    write_report(tmp_path, records[:5], make_manifest())
    assert [p.name for p in folder.iterdir()] == ["mine.txt"]


def test_ten_thousand_images(tmp_path, inspected):
    names = (
        f"factory/line-3/camera-07/2025-03-04/lot-{k // 500:03d}/{k:06d}.png" for k in range(10_000)
    )
    records = (make_record(k, name, assets=inspected["assets"]) for k, name in enumerate(names))
    path = write_report(tmp_path, records, make_manifest())
    files = {p.name: p.stat().st_size for p in path.parent.iterdir()}
    assert len([name for name in files if name.startswith("data-")]) == 100
    assert files["summary.js"] < 3_000_000
    assert files["index.html"] < 100_000
    assert max(size for name, size in files.items() if name.startswith("data-")) < 200_000
    summary, _ = read_folder(path.parent)
    assert len(summary["image"]) == 10_000
    assert Page(path).count("good") == summary["verdict"].count("good") == 3334


# ---- what the verdicts rest on ----


def test_calibrated_report_states_the_guarantee(tmp_path):
    page = Page(write_report(tmp_path, [make_record(0)], make_manifest()))
    assert "Limits learned from 120 good images." in page.statement
    assert (
        "On average over calibrations at most 1 % of good parts like those are called defective; "
        "with 90 % confidence at most 1.9 % by these limits."
    ) in page.statement
    assert "at most 5 % of good parts like those are called unsure or worse." in page.statement
    assert "Uncalibrated" not in page.text


@pytest.mark.parametrize(
    "manifest", [make_manifest(policy=UNCALIBRATED), make_manifest(policy=None), {}]
)
def test_uncalibrated_report_says_so(tmp_path, manifest):
    page = Page(write_report(tmp_path, [make_record(0, calibrated=False, p_value=None)], manifest))
    assert "Uncalibrated: verdicts are provisional." in page.text
    assert "zerodefect calibrate" in page.text
    assert "At most" not in page.statement
    assert ("body", {"class": "uncalibrated"}) in page.tags


def test_one_uncalibrated_record_brings_the_banner(tmp_path):
    records = [make_record(0), make_record(1, calibrated=False)]
    assert "Uncalibrated" in Page(write_report(tmp_path, records, make_manifest())).text


def test_no_promise_for_limits_that_break_it(tmp_path):
    scores = make_policy()["scores"]
    limits = Limits(unsure=scores[60], defect=scores[-3]).model_dump()
    policy = make_policy(limits=limits)
    page = Page(write_report(tmp_path, [make_record(0)], make_manifest(policy=policy)))
    assert "At most" not in page.statement
    assert "The limit for “defect” was set by hand: 2 of the 120 good images" in page.statement
    assert "The limit for “unsure” was set by hand: 59 of the 120 good images" in page.statement


def test_no_promise_without_proof(tmp_path):
    policy = make_policy(guaranteed=False, form="leave-one-out")
    page = Page(write_report(tmp_path, [make_record(0)], make_manifest(policy=policy)))
    assert "At most" not in page.statement
    assert "About 1 % of good parts should be called defective; this is not" in page.statement
    policy = make_policy(limits={"unsure": None, "defect": None})
    page = Page(write_report(tmp_path, [make_record(0)], make_manifest(policy=policy)))
    assert "No limit for the verdict “defect” can be proved" in page.statement


def test_notes_of_the_policy_are_shown(tmp_path):
    policy = make_policy(notes=["Defect limit replaced by 'x1.05'."])
    page = Page(write_report(tmp_path, [make_record(0)], make_manifest(policy=policy)))
    assert "Defect limit replaced by 'x1.05'." in page.statement


@pytest.mark.parametrize("records", [[], [make_failure()], [make_record(2, p_value=None)]])
@pytest.mark.parametrize("manifest", [{}, make_manifest(object=None, created=None)])
def test_thin_runs_have_a_report(tmp_path, records, manifest):
    summary, details = read_single(write_report(tmp_path, records, manifest))
    expected = [r["image"] for r in records if r["status"] == "ok"]
    assert summary["image"] == expected == [d["image"] for d in details]


# ---- in a browser, where there is one ----

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def open_page(path: Path, tmp_path: Path, fragment: str = "", script: str = "") -> str:
    """The page's DOM as Chromium has it after ``script`` ran, opened from file://."""
    if script:
        changed = path.with_name("scripted.html")
        html = path.read_text("utf-8").replace("</body>", f"<script>{script}</script></body>")
        changed.write_text(html, "utf-8")
        path = changed
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync "
        "--virtual-time-budget=4000 --dump-dom"
    )
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [str(CHROMIUM), *flags.split(), profile, path.as_uri() + fragment]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode("utf-8")


def cards(dom: str) -> list[int]:
    return [int(number) for number in re.findall(r'class="card"[^>]*data-image="(\d+)"', dom)]


@in_browser
def test_browser_lists_filters_and_sorts(tmp_path):
    records = [make_record(k) for k in range(90)]
    records[7]["image"] = HOSTILE[1]
    path = write_report(tmp_path, records, make_manifest())
    shown = cards(open_page(path, tmp_path))
    assert shown == list(range(89, 29, -1))  # highest score first, sixty to a page
    script = """
      document.querySelector('#verdicts input[value=good]').checked = false;
      byId('kind').value = String(data.vocabulary.indexOf(null));
      byId('least').value = '2'; byId('text').value = 'LOT 3';
      byId('sort').value = 'area-up'; select();"""
    shown = cards(open_page(path, tmp_path, script=script))
    assert shown == [k for k in range(90) if k % 3 == 2 and k % 7 == 3]
    script = "byId('least').value = '1'; byId('most').value = '1'; select();"
    assert cards(open_page(path, tmp_path, script=script)) == list(range(88, 0, -3))
    script = "byId('text').value = 'onerror'; select();"
    dom = open_page(path, tmp_path, script=script)
    assert cards(dom) == [7]
    assert "&lt;img src=x onerror=alert(2)&gt;.png" in dom
    assert "<img src=x" not in dom


@in_browser
def test_browser_opens_an_image_by_link_and_walks_on(tmp_path, inspected):
    records = [make_record(k, assets=inspected["assets"]) for k in range(250)]
    records[123]["image"] = HOSTILE[2]
    path = write_report(tmp_path, records, make_manifest())
    link = "#image=" + quote(HOSTILE[2], safe="")
    dom = open_page(path, tmp_path, link)
    assert "Explanation 123." in dom
    assert 'src="../assets/000000.png"' in dom
    assert f"{records[123]['score']:.4g}" in dom
    press = """
      const press = new KeyboardEvent('keydown', {key: 'KEY', bubbles: true});
      setTimeout(() => document.body.dispatchEvent(press), 500);"""
    # The list is sorted by falling score: the next image is the one before in the run.
    dom = open_page(path, tmp_path, link, press.replace("KEY", "ArrowRight"))
    assert "Explanation 122." in dom
    assert '<main id="overview" hidden="">' in dom
    dom = open_page(path, tmp_path, link, press.replace("KEY", "Escape"))
    assert '<main id="detail" hidden="">' in dom
    assert 123 in cards(dom)  # the page of the list that holds the image
    dom = open_page(path, tmp_path, "#image=none")
    assert len(cards(dom)) == 60


@in_browser
def test_browser_shows_the_models_words_and_no_regions_without_maps(tmp_path):
    answer = "Yes: the <rim> is chipped."
    name = "#image=" + quote(make_record(0)["image"], safe="")
    told = make_record(0, answer=answer)
    with_maps = open_page(write_report(tmp_path, [told], make_manifest()), tmp_path, name)
    assert "<blockquote>Yes: the &lt;rim&gt; is chipped.</blockquote>" in with_maps
    none = ("<p>No region lies above the region limit.</p>", ">no region<", ">Raw anomaly map<")
    assert all(words in with_maps for words in none)
    manifest = make_manifest(policy=policy_without_maps())
    without = open_page(write_report(tmp_path, [told], manifest), tmp_path, name)
    assert "<blockquote>Yes: the &lt;rim&gt; is chipped.</blockquote>" in without
    assert not any(words in without for words in none)


@in_browser
def test_browser_says_when_a_file_is_missing(tmp_path):
    path = write_report(tmp_path, [make_record(k) for k in range(250)], make_manifest())
    (path.parent / "data-001.js").unlink()
    name = quote(make_record(150)["image"], safe="")
    assert "data-001.js cannot be read" in open_page(path, tmp_path, f"#image={name}")
    (path.parent / "summary.js").unlink()
    assert "summary.js cannot be read" in open_page(path, tmp_path)


# ---- parts of several pictures ----


def make_part(name: str, verdict: str, score: float | None, *images: str, **changes) -> dict:
    told = {"part": name, "verdict": verdict, "calibrated": True, "score": score, "p_value": None}
    pictures = [{"image": image, "verdict": verdict, "score": score} for image in images]
    return {**told, "pictures": pictures, "explanation": f"Why {name}.", "reason": None, **changes}


def test_parts_are_listed_from_the_worst_on_with_links_to_their_pictures(tmp_path):
    parts = [
        make_part("1", "good", 0.2, HOSTILE[2]),
        make_part("2", "unsure", None),
        make_part(HOSTILE[1], "defect", 0.9, HOSTILE[0], HOSTILE[4]),
        make_part("4", "defect", 0.95),
    ]
    parts[3]["pictures"] = [{"image": "a.png", "verdict": "failed", "score": None}]
    records = [make_record(0, name, part="1") for name in HOSTILE]
    page = Page(write_report(tmp_path, records, make_manifest(), parts=parts))
    summary, _ = read_single(tmp_path / "report.html")
    assert [row[0] for row in summary["parts"]] == ["4", HOSTILE[1], "2", "1"]
    assert summary["part"] == [3] * len(HOSTILE)
    assert "4 parts: 2 defect, 1 unsure, 1 good" in page.text
    links = [unquote(a) for a in page.addresses if a.startswith("#image=")]
    replaced = HOSTILE[4].replace("\udcff", "\ufffd")  # as the script names it
    assert links == [f"#image={name}" for name in (HOSTILE[0], replaced, HOSTILE[2])]
    assert "a.png: not read" in page.text and "Why 2." in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_of_very_many_parts_the_worst_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr("zerodefect.reports.report_parts.MAX_PARTS", 3)
    parts = [make_part(f"p{k}", "good", k / 100) for k in range(20)]
    page = Page(write_report(tmp_path, [], make_manifest(), parts=parts))
    assert [f"Why p{k}." in page.text for k in range(16, 20)] == [False, True, True, True]
    assert "17 more are in parts.csv" in page.text


def test_what_is_allowed_stands_in_the_statement(tmp_path):
    policy = make_policy(allowances={"version": 1, "rules": ["stain:area<50"]})
    page = Page(write_report(tmp_path, [], make_manifest(policy=policy)))
    assert "Allowed: any stain below 50 pixels." in page.statement
    policy = make_policy(parts={"version": 1, "by": "x", "pictures": {"2": 120}})
    page = Page(write_report(tmp_path, [], make_manifest(policy=policy)))
    assert "Limits learned from 120 good parts." in page.statement
