"""The benchmark of the embedded model: its floor, its crops, its figures and its tables."""

import argparse
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from models import tiny_backbone
from PIL import Image
from scipy import ndimage

from zerodefect.detector.combined import Combined
from zerodefect.detector.knowledge import Product
from zerodefect.methods import create
from zerodefect.scoring.joining import Scored
from zerodefect.types import Region

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def plates(tmp_path):
    """A folder in MVTec's layout: grey plates of several shapes, some with a dark spot."""
    random = np.random.default_rng(0)
    root = tmp_path / "plates"

    def draw(folder, name, spot):
        height, width = (int(side) for side in random.integers(60, 100, 2))
        pixels = random.normal(150, 4, (height, width))
        mask = np.zeros((height, width), np.uint8)
        if spot:
            mask[height // 2 - 5 : height // 2 + 5, width // 2 - 5 : width // 2 + 5] = 255
            pixels[mask > 0] -= 90
            truth = root / "ground_truth" / folder.name / f"{name}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(truth)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{name}.png")

    for index in range(4):
        draw(root / "train" / "good", f"{index}", spot=False)
        draw(root / "test" / "good", f"{index}", spot=False)
        draw(root / "test" / "hole", f"{index}", spot=True)
        draw(root / "test" / "stain", f"{index}", spot=True)
    return root


def test_local_contrast_is_the_difference_of_two_blurs():
    from embedded import local_contrast

    grey = np.random.default_rng(0).random((48, 40))
    blurred = [
        np.abs(ndimage.gaussian_filter(grey, k / 3) - ndimage.gaussian_filter(grey, k))
        for k in (4, 12)
    ]
    found = local_contrast(torch.from_numpy(grey)[None])[0].numpy()
    np.testing.assert_allclose(found, np.max(blurred, 0), atol=1e-9)


def test_untrained_network_differs_and_keeps_nothing_of_the_trained_one():
    from embedded import untrained

    trained = tiny_backbone()
    blank, again = untrained(trained), untrained(trained)
    assert blank.reload is None and blank.fingerprint is None
    for (name, value), other in zip(
        blank.clip.state_dict().items(), again.clip.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    assert not torch.equal(blank.clip.visual.proj, trained.clip.visual.proj)
    words = blank.clip.text.token_embedding.weight, trained.clip.text.token_embedding.weight
    assert not torch.equal(*words)


@pytest.mark.parametrize(("height", "width", "side"), [(100, 60, 48), (60, 100, 48), (5, 5, 4)])
def test_centre_is_a_square_in_the_middle(height, width, side):
    from embedded_pictures import centre

    rows, columns = np.mgrid[:height, :width]
    cut = centre(np.stack([rows, columns], -1), 0.8)
    assert cut.shape == (side, side, 2)
    for axis, length in enumerate((height, width)):
        first, last = cut[0, 0, axis], cut[-1, -1, axis]
        assert abs(first - (length - 1 - last)) <= 1  # as much is cut off on either side


def test_without_a_share_nothing_is_cut():
    from embedded_pictures import centre

    pixels = np.zeros((3, 7))
    assert centre(pixels, None) is pixels


def test_a_limit_takes_samples_from_the_whole_list():
    from embedded_pictures import spread_out

    assert spread_out(range(10), 5) == [0, 2, 4, 6, 8]
    assert spread_out(range(3), 5) == [0, 1, 2]
    assert spread_out(range(3), None) == [0, 1, 2]


def test_folder_reads_kinds_and_draws_references_from_good_training_pictures(plates):
    from embedded_pictures import folder

    source = folder(f"mine={plates}:metal plate", 2)
    assert (source.name, source.object, source.kinds) == ("mine", "metal plate", ("hole", "stain"))
    kinds = [make()[0] for make in source.test]
    assert sorted(kinds) == ["good", "good", "hole", "hole", "stain", "stain"]
    assert len(source.normal) == 4
    drawn = source.references(2, 0, 0.8)
    assert len(drawn) == 2 and all(p.width == p.height for p in drawn)
    assert {Path(p.path).parent for p in drawn} == {plates / "train" / "good"}
    assert source.vocabulary.names == source.kinds


def test_means_and_spread_over_seeds():
    from embedded_tally import mean, over_seeds

    assert mean([0.5, math.nan, 1.0]) == 0.75
    assert math.isnan(mean([math.nan]))
    assert over_seeds([0.5]) == "50.0"
    assert over_seeds([0.4, 0.6]) == "50.0 ± 14.1"
    assert over_seeds([]) == over_seeds([math.nan]) == "-"


def test_likeliest_kind_is_that_of_the_damaged_area():
    from embedded_tally import likeliest

    shares = np.zeros((2, 4, 4), np.float32)
    shares[0] = 0.9
    shares[:, 0, 0] = 0.2, 0.8
    mask = np.zeros((16, 16), bool)
    mask[1:3, 1:3] = True
    assert likeliest(shares, mask, ["hole", "stain"]) == "stain"
    assert likeliest(shares, ~mask, ["hole", "stain"]) == "hole"


def test_a_region_meets_damage_by_its_pixels_not_its_box():
    from embedded_tally import meets

    corner = np.eye(3, dtype=bool)
    region = Region((2, 4, 3, 3), corner, (), 3, 1.0, 1.0)
    mask = np.zeros((10, 10), bool)
    mask[4, 4] = True  # inside the box, beside the diagonal
    assert not meets(region, mask)
    mask[6, 4] = True
    assert meets(region, mask)


def scored(map, score=None, shares=None):
    return Scored(float(map.max()) if score is None else score, map, float(map.max()), shares)


def test_tally_gives_figures_per_kind_their_mean_and_all():
    from embedded_tally import Tally

    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    right, wrong = mask.astype(np.float32), (~mask).astype(np.float32)
    shares = np.stack([np.full((8, 8), 0.7), np.full((8, 8), 0.3)]).astype(np.float32)
    tally = Tally()
    for kind, map, score in (("hole", right, 0.9), ("stain", wrong, 0.1)):
        one = scored(map, score, shares)
        tally.add(kind, one, mask)
        tally.add_kinds(kind, one, mask, ["hole", "stain"], 0.5)
    tally.add("good", scored(np.zeros((8, 8), np.float32), 0.5), np.zeros((8, 8), bool))
    found = {(title, column): value for title, column, value in tally.figures(alike=False)}
    for title in ("image AUROC", "pixel AUROC"):
        assert found[title, "hole"] == 1 and found[title, "stain"] == 0
        assert found[title, "mean"] == found[title, "all"] == 0.5
    # zero on the good picture ties with the stain's missed pixels: 64 of 124 pairs, half each
    assert found["pixel AUROC, with the good pictures", "stain"] == pytest.approx(32 / 124)
    assert found["damaged pictures with a region on the damage", "hole"] == 1
    assert found["damaged pictures with a region on the damage", "stain"] == 0
    assert found["regions of damaged pictures that lie on damage", "mean"] == 0.5
    assert found["kind right, damaged area known", "hole"] == 1
    assert found["kind right, damaged area known", "stain"] == 0
    assert found["kind right, regions on damage", "hole"] == 1
    assert ("kind right, regions on damage", "stain") not in found  # no region lay there


def test_only_what_lies_between_the_markers_is_replaced():
    from embedded_tally import BEGIN, END, replaced

    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = replaced(text, "new")
    assert once == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert replaced(once, "new") == once
    for broken in ("no marker", f"{END} {BEGIN}", text + text):
        with pytest.raises(ValueError, match="once each"):
            replaced(broken, "new")


def test_the_page_has_the_markers():
    from embedded_tally import replaced

    page = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert "a new table" in replaced(page, "a new table")


def test_benchmark_of_a_small_folder(plates):
    from embedded import LocalContrast, benchmark
    from embedded_pictures import folder

    backbone = tiny_backbone()
    detectors = {"local contrast": LocalContrast(backbone), "tiny": create("dense", backbone)}
    arguments = argparse.Namespace(shots=[0, 1, 9], seeds=2, limit=2, brief=False)
    lines = list(benchmark(folder(f"{plates}", 2), detectors, arguments))
    assert "### plates (6 pictures, called 'plates')" in lines
    assert "Pictures that are left when all are cropped alike: good 2, hole 2, stain 2." in lines
    pixel = lines.index("pixel AUROC:")
    assert lines[pixel + 2] == "| | hole | stain | mean | all |"
    floor, *tiny = lines[pixel + 4 : pixel + 7]
    # a spot on an even plate is what local contrast is for
    assert floor == "| local contrast | 100.0 | 100.0 | 100.0 | 100.0 |"
    assert tiny[0].startswith("| tiny, 0-shot | ") and "±" not in tiny[0]
    assert tiny[1].startswith("| tiny, 1-shot | ") and tiny[1].count("±") == 4
    assert not any("9-shot" in line for line in lines)  # there are only four good ones
    assert "kind right, damaged area known (by chance 50.0):" in lines
    assert "pixel AP:" in lines
    arguments.brief = True
    some = benchmark(folder(f"{plates}", 2), {"tiny": detectors["tiny"]}, arguments)
    titles = [line for line in some if line.endswith(":")]
    assert "pixel AUROC:" in titles and "pixel AP:" not in titles


def test_cropped_pictures_whose_defect_lies_outside_are_left_out(plates):
    from embedded import LocalContrast, measure
    from embedded_pictures import folder

    truth = plates / "ground_truth" / "hole" / "0_mask.png"
    with Image.open(truth) as stored:
        mask = np.zeros_like(np.asarray(stored))
    mask[0, 0] = 255
    Image.fromarray(mask).save(truth)
    detector, source = LocalContrast(tiny_backbone()), folder(f"{plates}", None)
    (whole,) = measure(source, detector, [(0, 0)])
    (square,) = measure(source, detector, [(0, 0)], share=0.8)
    assert whole.image["hole"].images == 4 and square.image["hole"].images == 3
    assert whole.image["good"].images == square.image["good"].images == 4


def test_every_setting_of_a_grid_gets_a_line(plates, capsys):
    from embedded_options import try_out
    from embedded_pictures import SIDE, folder

    from zerodefect.scoring.scorer import Scorer

    detector = create("dense", tiny_backbone())
    words = detector.describe(detector.empty(), Product("plate"))
    base, items = detector.config, [make() for make in folder(f"{plates}", 2).test]
    scorer = Scorer(detector, map_size=(SIDE, SIDE))
    grid = {"reference_weight": (0.25, 1.0), "smoothing": (0.0, 1.0, 2.0)}
    try_out("here", scorer, words, [([items[0][1]], items)], grid)
    lines = capsys.readouterr().out.splitlines()
    assert len(set(lines)) == len(lines) == 6
    assert all(line.startswith("here  reference_weight ") for line in lines)
    assert all("pixel AUROC 0." in line and "image AUROC by map" in line for line in lines)
    assert detector.config == base and words.shots == 0


def test_a_reference_is_good_and_of_the_same_product():
    from embedded_options import few_shot_pairs
    from embedded_pictures import procedural

    source = procedural(12, 2)
    items = [make() for make in source.test]
    place = {id(picture.pixels): index for index, (_, picture, _) in enumerate(items)}
    pairs = few_shot_pairs(source)
    assert pairs
    for (reference,), ((_, query, _),) in pairs:
        one, other = place[id(reference.pixels)], place[id(query.pixels)]
        assert items[one][0] == "good" and one != other and one // 2 == other // 2
    twos = zip(items[::2], items[1::2], strict=True)
    bad = sum(a[0] != "good" and b[0] != "good" for a, b in twos)
    assert len(pairs) == 6 - bad


def test_nothing_is_chosen_on_the_tiles():
    from embedded import named_sources

    arguments = argparse.Namespace(folders=["x=magnetic_tile:tile"], choose=True)
    with pytest.raises(SystemExit, match="nothing is chosen"):
        named_sources(arguments)


def test_contenders_are_chosen_by_name(tmp_path):
    from embedded import contenders, own_detector

    settings = {"method": "dense", "backbone": None, "size": 64, "option": []}
    arguments = argparse.Namespace(**settings, only="embedded,local contrast")
    ours = own_detector(arguments)
    assert list(contenders(arguments, tmp_path, ours)) == ["local contrast", "embedded"]
    with pytest.raises(SystemExit, match="no contender 'embeded'"):
        contenders(argparse.Namespace(**settings, only="embeded"), tmp_path, ours)


def test_a_default_of_several_parts_is_named_whole_and_described_by_its_words():
    from embedded import heading, of_words

    words = create("dense", tiny_backbone())
    both = Combined({"dense": words, "other": create("dense", tiny_backbone())})
    assert of_words(both) is words and of_words(words) is words
    first, _ = heading(argparse.Namespace(seeds=2, limit=None), both)
    assert first.startswith(f"Weights `{words.weights[:12]}`, dense+dense at ")
