"""What data loaders yield becomes the right pictures, or an error: never other pixels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zerodefect import ImageError, open_image
from zerodefect.inspection.sources import expand, one_of, open_source


def pixels(seed: int = 0, height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


def opened(sources) -> list:
    return [open_source(one) for one in expand(sources)]


def failures(sources) -> list[str]:
    found = []
    for one in expand(sources):
        with pytest.raises(ImageError) as caught:
            open_source(one)
        found.append(str(caught.value))
    return found


PIXELS = [pixels(seed) for seed in range(3)]
TENSORS = [tensor(one) for one in PIXELS]
BATCH = torch.stack(TENSORS)
LABELS = torch.tensor([0, 1, 0])
MASKS = torch.zeros(3, 1, 6, 9)


@pytest.mark.parametrize(
    "sources",
    [
        BATCH,
        BATCH.numpy(),
        np.stack(PIXELS),
        [BATCH],
        [[BATCH, LABELS]],
        [(BATCH, MASKS, LABELS)],
        [{"image": BATCH, "label": LABELS, "mask": MASKS}],
        [{"image": one, "label": 0} for one in TENSORS],
        {"image": BATCH},
        {"images": PIXELS},
        list(zip(TENSORS, LABELS, strict=True)),
        [(one, "good") for one in TENSORS],
        [(Image.fromarray(one), Image.new("L", (9, 6)), 1) for one in PIXELS],
        [[(one, 0) for one in TENSORS]],
        (one for one in [BATCH[:2], BATCH[2:]]),
        torch.utils.data.DataLoader(list(zip(TENSORS, [0, 1, 0], strict=True)), batch_size=2),
        torch.utils.data.DataLoader([{"image": one} for one in TENSORS], batch_size=3),
        torch.utils.data.DataLoader(TENSORS, batch_size=2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_form_gives_the_same_pictures(sources):
    found = opened(sources)
    assert len(found) == len(PIXELS)
    for picture, expected in zip(found, PIXELS, strict=True):
        np.testing.assert_array_equal(picture.pixels, expected)


def test_a_data_set_that_is_asked_by_number_ends():
    class Endless(torch.utils.data.Dataset):
        """Never raises IndexError, as many do not."""

        def __len__(self):
            return 2

        def __getitem__(self, number):
            return TENSORS[number % 3], 0

    assert len(opened(Endless())) == 2


def test_paths_within_items(tmp_path):
    names = []
    for number, one in enumerate(PIXELS):
        names.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(one).save(names[-1])
    loader = torch.utils.data.DataLoader([{"path": name, "label": 1} for name in names])
    for sources in ([(name, 1) for name in names], [{"image_path": n} for n in names], loader):
        found = opened(sources)
        assert [one.path for one in found] == names
        np.testing.assert_array_equal(found[2].pixels, PIXELS[2])
    named = opened([{"image": BATCH, "image_path": names}])
    assert [one.path for one in named] == names


def test_pictures_without_a_name_are_called_by_their_place():
    assert [one.path for one in opened([BATCH[:2], BATCH[2:]])] == [
        "<picture 0>",
        "<picture 1>",
        "<picture 2>",
    ]
    assert opened([{"image": TENSORS[0], "name": "left"}])[0].path == "left"


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ((TENSORS[0], TENSORS[1]), "may be several pictures"),
        ((tensor(pixels(0)), tensor(pixels(1, 8, 8))), "may be several pictures"),
        ((BATCH, BATCH), "may be several pictures"),
        (("a.png", "b.png"), "may be several pictures"),
        ((1, TENSORS[0]), "no picture at its first place"),
        ((LABELS, BATCH), "no picture at its first place"),
        ((), "of nothing"),
        ({"label": 1, "x": TENSORS[0]}, "'label', 'x' holds no picture"),
        ({}, "with nothing holds no picture"),
        ({"image": BATCH, "image_path": ["a"]}, "names 1 pictures and holds 3"),
        (7, "cannot take a picture from int"),
        (None, "cannot take a picture from NoneType"),
    ],
)
def test_what_cannot_be_told_is_refused_before_any_work(item, told):
    with pytest.raises(TypeError, match=told):
        expand([TENSORS[0], item])


def test_one_picture_alone():
    np.testing.assert_array_equal(open_source(one_of((TENSORS[1], 0))).pixels, PIXELS[1])
    np.testing.assert_array_equal(open_source(one_of(BATCH[:1])).pixels, PIXELS[0])
    with pytest.raises(ImageError, match="3 pictures were given where one is inspected"):
        one_of(BATCH)


# --- values ---------------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64, torch.float16]))
def test_a_float_tensor_keeps_its_values(seed, dtype):
    values = torch.from_numpy(np.random.default_rng(seed).random((3, 5, 7))).to(dtype)
    picture = open_image(values)
    expected = values.double().permute(1, 2, 0).numpy()
    np.testing.assert_allclose(picture.pixels / 65535, expected, atol=0.51 / 65535)


def test_white_that_arithmetic_made_is_white():
    white = torch.full((3, 4, 5), 1.0000001)
    assert open_image(white).pixels.min() == 65535
    assert open_image(-torch.full((3, 4, 5), 1e-7)).pixels.max() == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t * 255, "run from 0 to 255, so white is unknown"),
        (lambda t: (t - 0.45) / 0.22, "undo a normalisation"),
        (lambda t: t + 0.001, "so white is unknown"),
        (lambda t: t.masked_fill(t > 0.5, torch.nan), "no numbers"),
        (lambda t: t.masked_fill(t > 0.5, torch.inf), "no numbers"),
        (lambda t: (t * 255).int(), "int32 are not supported"),
        (lambda t: (t * 300).long(), "int64 are not supported"),
        (lambda t: (t * 100).to(torch.int8), "int8 are not supported"),
        (lambda t: t.to(torch.complex64), "complex64 are not supported"),
        (lambda t: t.to_sparse(), "sparse"),
        (lambda t: t.to("meta"), "on meta"),
        (lambda t: t[None], "is a batch"),
        (lambda t: t[:2], "is not a picture"),
        (lambda t: t[:, 0, 0], "is not a picture"),
        (lambda t: t[:, :, :3], "channels first or last"),
        (lambda t: t[:, :0], "has no pixels"),
    ],
)
def test_wrong_tensors_are_refused_with_the_reason(change, told):
    values = torch.linspace(0, 1, 3 * 6 * 9).reshape(3, 6, 9)
    with pytest.raises(ImageError, match=told):
        open_image(change(values))


def test_a_dark_picture_of_a_batch_in_0_to_255_is_not_taken_for_one_in_0_to_1():
    batch = torch.stack([torch.full((3, 4, 5), 0.9), torch.full((3, 4, 5), 200.0)])
    assert open_image(batch[0]).pixels.max() > 50000  # alone, it is a bright one in 0..1
    found = failures([batch])
    assert len(found) == 2
    assert all(
        "its batch is refused" in one and "to 200, so white is unknown" in one for one in found
    )
    assert [one.partition(":")[0] for one in found] == ["<picture 0>", "<picture 1>"]


def test_a_picture_with_nan_costs_itself_alone_of_its_batch():
    batch = torch.rand(3, 3, 4, 5)
    batch[1, 0, 0, 0] = torch.nan
    first, broken, last = expand([batch])
    np.testing.assert_allclose(
        open_source(last).pixels / 65535, batch[2].permute(1, 2, 0), atol=1e-5
    )
    assert open_source(first).width == 5
    with pytest.raises(ImageError, match="no numbers"):
        open_source(broken)


def test_a_batch_without_values_fails_for_each_of_its_pictures():
    assert all("on meta" in one for one in failures([torch.rand(2, 3, 4, 5, device="meta")]))


def test_floats_that_are_0_or_1_alone_are_told():
    notes = open_image(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).notes
    assert any("read as black and white" in note for note in notes)
    assert not any("black and white" in note for note in open_image(torch.rand(4, 4)).notes)


def test_open_files_are_read_from_their_beginning_and_named(tmp_path):
    path = Path(tmp_path / "part.png")
    Image.fromarray(PIXELS[0]).save(path)
    with path.open("rb") as file:
        file.read(10)
        (picture,) = opened([file])
        assert picture.path == str(path)
        np.testing.assert_array_equal(picture.pixels, PIXELS[0])
        named = opened([{"image": file}])
        assert named[0].path == str(path)
    with path.open(encoding="latin-1") as file:
        assert "Open it with mode 'rb'" in failures([file])[0]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_loader_of_grey_pictures_is_not_read_as_one_in_colour(wrapped):
    """Three grey pictures, put together, have the shape of one in colour."""
    grey = [{"image": torch.rand(8, 9)} if wrapped else torch.rand(8, 9) for _ in range(3)]
    loader = torch.utils.data.DataLoader(grey, batch_size=3)
    with pytest.raises(TypeError, match=r"batch_size=None"):
        list(expand(loader))
    assert len(list(expand(torch.utils.data.DataLoader(grey, batch_size=None)))) == 3
    colour = torch.utils.data.DataLoader([torch.rand(1, 8, 9)] * 3, batch_size=3)
    assert len(list(expand(colour))) == 3
