"""Kinds taught by pictures: what is learned of them, kept, and said of others."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from marked_plates import KINDS, SIDE, WHITE, Marks, plate

import zerodefect
from zerodefect import Inspector, ProductError
from zerodefect.detector.contract import PatchFeatures
from zerodefect.detector.facts import MethodInfo
from zerodefect.images import ImageError, Picture, encode_png
from zerodefect.images.tiling import Tiling
from zerodefect.inspection.region_features import SHAPE_FACTS, describe_regions
from zerodefect.inspection.region_kinds import KindsError
from zerodefect.inspection.regions import find_regions
from zerodefect.layers.grid import Grid
from zerodefect.scoring.viewing import Viewing

LINE, SPOT = (2, 40), (9, 9)


class Seeing(Marks):
    """Marks whose patches are the mean colours of squares of four pixels."""

    def patch_features(self, encoded: torch.Tensor) -> tuple[PatchFeatures, ...]:
        grid = Grid(SIDE // 4, SIDE // 4, (SIDE, SIDE))
        return (PatchFeatures(F.avg_pool2d(encoded, 4).flatten(2).mT, grid),)


def inspector(detector=Seeing, **how):
    made = Inspector(detector(), vocabulary=KINDS, **how)
    made.describe("plate")
    return made


def marked(size, seed):
    """A plate with a white mark of about that size."""
    draws = np.random.default_rng(seed)
    height, width = (max(1, side + int(draws.integers(-1, 2))) for side in size)
    return plate(seed, (WHITE, height, width))


def mask_of(pixels):
    return pixels.min(-1) > 150


def examples(count=6, masks=False):
    kinds = {"line": LINE, "spot": SPOT}
    pictures = {
        name: [marked(size, 100 * place + seed) for seed in range(count)]
        for place, (name, size) in enumerate(kinds.items())
    }
    if not masks:
        return pictures
    return {name: [(one, mask_of(one)) for one in some] for name, some in pictures.items()}


def kinds_of(outcome):
    return [region.kind for region in outcome.regions]


@pytest.mark.parametrize("masks", [False, True])
def test_taught_kinds_take_the_place_of_words(masks):
    made = inspector()
    before = made.inspect(marked(LINE, 900))
    assert kinds_of(before) == [None]  # white is of no kind
    made.teach_kinds(examples(masks=masks), unknown=0.0)
    assert made.kinds() == ("line", "spot")
    for size, name in ((LINE, "line"), (SPOT, "spot")):
        for seed in range(950, 953):
            found = made.inspect(marked(size, seed))
            assert kinds_of(found) == [name]
            assert found.counts[0].kind == name
    after = made.inspect(marked(LINE, 900))
    assert (after.score, after.p_value) == (before.score, before.p_value)
    assert after.verdict == before.verdict


def test_folders_with_masks_beside_the_pictures_or_apart(tmp_path):
    for name, some in examples().items():
        for number, pixels in enumerate(some):
            folder = tmp_path / name
            masks = folder if name == "line" else folder / "masks"
            masks.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.png").write_bytes(encode_png(pixels))
            drawn = mask_of(pixels).astype(np.uint8) * 255
            (masks / f"{number}_mask.png").write_bytes(encode_png(drawn))
    by_folder, by_pairs = inspector(), inspector()
    by_folder.teach_kinds({"line": tmp_path / "line", "spot": [tmp_path / "spot"]})
    by_pairs.teach_kinds(examples(masks=True))
    assert by_folder.taught_kinds.counts() == {"line": 6, "spot": 6}
    np.testing.assert_allclose(by_folder.taught_kinds.values, by_pairs.taught_kinds.values)


def test_the_product_file_holds_them(tmp_path):
    made = inspector()
    made.teach_kinds(examples())
    wanted = made.inspect(marked(SPOT, 77))
    kinds = made.taught_kinds
    path = tmp_path / "plate.zd"
    made.save(path)
    file = zerodefect.inspection.product_file.opened_product(path)
    assert file.kinds.facts() == kinds.facts()
    assert "Kinds from examples: line (6), spot (6)" in file.card()
    again = inspector()
    again.restore(again.snapshot(), file)
    assert again.inspect(marked(SPOT, 77)).regions[0].kind == wanted.regions[0].kind == "spot"


def test_rules_speak_of_taught_kinds():
    made = inspector()
    made.teach_kinds(examples(), unknown=0.0)
    good = [plate(seed) for seed in range(30)]
    made.calibrate(good, allow=["spot:area<200"])
    spot, line = made.inspect(marked(SPOT, 70)), made.inspect(marked(LINE, 70))
    assert spot.verdict == "good" and spot.allowed
    assert line.verdict == "defect"
    with pytest.raises(ValueError, match="no kind 'stain'"):
        made.calibrate(good, allow=["stain:area<200"])


def test_what_cannot_be_learned_from_is_refused(tmp_path):
    made = inspector()
    with pytest.raises(KindsError, match="no kind was named"):
        made.teach_kinds({})
    with pytest.raises(KindsError, match="no name of a kind"):
        made.teach_kinds({"unknown": [marked(LINE, 0)]})
    with pytest.raises(ImageError, match="its mask is empty"):
        made.teach_kinds({"line": [(marked(LINE, 0), np.zeros((SIDE, SIDE), bool))]})
    with pytest.raises(ImageError, match="its mask is 3 x 2 pixels"):
        made.teach_kinds({"line": [(marked(LINE, 0), np.ones((2, 3), bool))]})
    with pytest.raises(FileNotFoundError):
        made.teach_kinds({"line": tmp_path / "nowhere"})
    with pytest.raises(KindsError, match="no features of patches"):
        inspector(Marks).teach_kinds(examples())
    for given, reason in (
        ({"line": []}, "kind 'line': no example was given"),
        ({5: [marked(LINE, 0)]}, "5 is no name of a kind"),
        ({" Unknown ": [marked(LINE, 0)]}, "no name of a kind"),
        ({"oil stain": [marked(LINE, 0)], "Oilstain ": []}, "in case or spaces alone"),
        ({"line": [(marked(LINE, 0),) * 3]}, "3 things are no pair"),
    ):
        with pytest.raises(KindsError, match=reason):
            made.teach_kinds(given)
    for mask, reason in (
        (np.full((SIDE, SIDE), np.nan), "NaN"),
        (np.ones(SIDE), r"of shape \(64,\)"),
        (np.full((SIDE, SIDE), "a"), "and type <U1"),
    ):
        with pytest.raises(ImageError, match=reason):
            made.teach_kinds({"line": [(marked(LINE, 0), mask)]})
    assert made.taught_kinds is None


def test_a_folder_without_pictures_is_named_in_one_line(tmp_path):
    empty = tmp_path / "scratch"
    empty.mkdir()
    with pytest.raises(
        KindsError, match=r"scratch: the folder holds no pictures\. Give a folder"
    ) as caught:
        inspector().teach_kinds({"scratch": empty})
    assert "\n" not in str(caught.value)


def test_names_are_kept_without_spaces_and_no_later_one_is_nearly_the_same():
    made = inspector()
    some = examples()
    assert "one kind alone cannot be told" in made.teach_kinds({" line ": some["line"]}).told()
    with pytest.raises(KindsError, match="'line' and 'Line' differ in case"):
        made.teach_kinds({"Line": some["line"]})
    assert "one kind alone" not in made.teach_kinds({"spot": some["spot"]}).told()
    assert made.kinds() == ("line", "spot")


class OfASet(Seeing):
    """Scores pictures against each other alone."""

    info = MethodInfo("ofset", "", "test", ("set",), "", "", "")

    def predict(self, encoded, knowledge, left_out=None):
        raise NotImplementedError


def test_where_pictures_are_scored_against_each_other_examples_need_masks():
    made = Inspector(OfASet())
    with pytest.raises(KindsError, match=r"against each other, .* give masks beside the examples"):
        made.teach_kinds(examples())
    assert made.teach_kinds(examples(masks=True)).counts() == {"line": 6, "spot": 6}


def test_a_damaged_member_of_the_product_file_is_named(tmp_path):
    made = inspector()
    made.teach_kinds(examples())
    path = tmp_path / "plate.zd"
    made.save(path)
    file = zerodefect.inspection.product_file.opened_product(path)
    names = list(file.archive.sizes)
    members = dict(zip(names, file.archive.read_all(names), strict=True))
    members["kinds.safetensors"] = members["kinds.safetensors"][:50]
    zerodefect.inspection.archive.write_archive(path, members)
    with pytest.raises(ProductError, match=r"kinds.safetensors in it: .* are damaged"):
        _ = zerodefect.inspection.product_file.opened_product(path).kinds


def test_a_region_is_compared_with_its_surroundings_by_hand():
    pixels = np.full((SIDE, SIDE, 3), 51, np.uint8)
    pixels[16:24, 8:24] = (255, 153, 51)
    region = find_regions((pixels[..., 0] > 100).astype(np.float32), 0.5)
    values, widths = describe_regions(inspector().scorer, Picture("a", pixels), None, region)
    assert widths == (6, SHAPE_FACTS) and values.shape == (1, 13)
    np.testing.assert_allclose(values[0, :3], [0.8, 0.4, 0.0], atol=1e-6)  # less the plate
    np.testing.assert_allclose(values[0, 3:6], [1.0, 0.6, 0.2], atol=1e-6)  # themselves
    assert values[0, 6] == pytest.approx(np.log(128 / 4096))
    assert values[0, 7] == pytest.approx(np.log(2), abs=1e-3)  # twice as long as wide


def test_the_network_runs_once_for_a_picture_that_is_not_cut(monkeypatch):
    made = inspector()
    made.teach_kinds(examples(), unknown=0.0)
    runs = []
    encode = Seeing.encode
    monkeypatch.setattr(
        Seeing, "encode", lambda self, images: runs.append(len(images)) or encode(self, images)
    )
    pictures = [marked(SPOT, 40), plate(41), marked(LINE, 42)]
    found = list(made.inspect_many(pictures))
    assert runs == [3]
    alone = [made.inspect(one) for one in pictures]
    assert list(map(kinds_of, found)) == list(map(kinds_of, alone)) == [["spot"], [], ["line"]]
    np.testing.assert_allclose(
        [r.kind_score for one in found for r in one.regions],
        [r.kind_score for one in alone for r in one.regions],
        rtol=1e-4,
    )


def test_in_tiles_a_region_is_seen_at_their_scale():
    """On a large picture a small region is seen as it is on a small one."""
    small = plate(3, (WHITE, 9, 9))
    large = np.tile(plate(4), (4, 4, 1))
    large[130 : 130 + SIDE, 70 : 70 + SIDE] = small
    tiled = inspector(viewing=Viewing(Tiling(SIDE)))
    (region,) = find_regions((large.min(-1) > 150).astype(np.float32), 0.5)
    seen, _ = describe_regions(tiled.scorer, Picture("a", large), None, [region])
    x, y = region.box[0] - 70, region.box[1] - 130
    (alone,) = find_regions((small.min(-1) > 150).astype(np.float32), 0.5)
    assert alone.box[:2] == (x, y)
    other, _ = describe_regions(inspector().scorer, Picture("a", small), None, [alone])
    np.testing.assert_allclose(seen[0, 3:6], other[0, 3:6], atol=0.25)
    untiled, _ = describe_regions(inspector().scorer, Picture("a", large), None, [region])
    assert seen[0, 3] > 1.15 * untiled[0, 3]  # less of the plate is mixed in
