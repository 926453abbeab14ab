import io

import numpy as np
import pytest
from PIL import Image

from zerodefect.images import (
    blend,
    colorize,
    draw_regions,
    encode_jpeg,
    encode_png,
    heat_rgba,
    open_image,
    thumbnail,
)
from zerodefect.images.overlay import RAMP
from zerodefect.types import Region


def lightness(colours):
    """CIE L* of sRGB colours."""
    encoded = colours / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


def grey(height=60, width=80, value=128):
    return np.full((height, width, 3), value, np.uint8)


def square(x, y, side, polygons=True):
    corners = (x, y, x + side, y, x + side, y + side, x, y + side)
    return Region(
        box=(x, y, side, side),
        mask=np.ones((side, side), bool),
        polygons=(tuple(map(float, corners)),) if polygons else (),
        area=side * side,
        area_percent=1.0,
        score=1.0,
    )


def test_ramp_rises_evenly_in_lightness():
    steps = np.diff(lightness(RAMP.astype(float)))
    assert steps.min() > 0
    assert steps.max() < 3 * steps.mean()
    assert np.ptp(lightness(RAMP.astype(float))) > 80


def test_ramp_keeps_its_order_without_green_sensitivity():
    """Deuteranopia as simulated by Machado et al. 2009 (severity 1)."""
    matrix = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    seen = (RAMP.astype(float) @ matrix.T).clip(0, 255)
    assert np.diff(lightness(seen[::8])).min() > 0


def test_colours_stand_for_fixed_values():
    alone = colorize(np.array([[0.4]]), 0, 1)
    among_others = colorize(np.array([[0.4, -7.0, 99.0, np.inf]]), 0, 1)
    assert among_others.dtype == np.uint8
    assert (among_others[0, 0] == alone[0, 0]).all()
    assert (alone[0, 0] == RAMP[102]).all()
    assert (among_others[0, 1] == RAMP[0]).all()
    assert (among_others[0, 2:] == RAMP[255]).all()


def test_equal_limits_split_the_map():
    got = colorize(np.array([[0.1, 0.5, 0.9]]), 0.5, 0.5)
    np.testing.assert_array_equal(got[0], RAMP[[0, 255, 255]])


@pytest.mark.parametrize(
    ("value", "low", "high"), [(np.nan, 0, 1), (0.5, 1, 0), (0.5, np.nan, 1), (0.5, 0, np.inf)]
)
def test_senseless_scales_are_refused(value, low, high):
    with pytest.raises(ValueError, match=r"NaN|low"):
        colorize(np.array([[value]]), low, high)


def test_heat_is_transparent_below_low_and_grows():
    values = np.linspace(-1, 3, 41)[None]
    heat = heat_rgba(values, 0.0, 2.0)
    assert heat.shape == (1, 41, 4)
    alpha = heat[0, :, 3].astype(int)
    assert (alpha[values[0] <= 0] == 0).all()
    assert (np.diff(alpha[(values[0] >= 0) & (values[0] <= 2)]) > 0).all()
    assert 128 < alpha[-1] < 255


def test_blend_leaves_good_parts_untouched():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    heat = np.zeros((20, 30))
    heat[5:10, 5:10] = 1
    mixed = blend(pixels, heat, 0.2, 1)
    untouched = heat == 0
    np.testing.assert_array_equal(mixed[untouched], pixels[untouched])
    assert (mixed[~untouched] != pixels[~untouched]).any(axis=1).all()
    with pytest.raises(ValueError, match="differ in size"):
        blend(pixels, heat[:-1], 0.2, 1)


@pytest.mark.parametrize("polygons", [True, False])
def test_regions_are_outlined_and_nothing_else_is_covered(polygons):
    pixels = grey()
    drawn = draw_regions(pixels, [square(30, 30, 20, polygons), square(70, 2, 3, polygons)])
    assert (pixels == 128).all()  # the picture itself stays
    assert drawn[30, 40].tolist() == drawn[2, 71].tolist() == [255] * 3
    assert drawn[29, 40].tolist() == [0] * 3
    assert (drawn[34:46, 34:46] == 128).all()
    changed = (drawn != pixels).any(axis=2)
    assert not changed[8:27].any() and not changed[:27, :67].any()  # not beside the outlines
    np.testing.assert_array_equal(draw_regions(pixels, []), pixels)


def test_thumbnail_keeps_shape_and_never_enlarges():
    assert thumbnail(grey(60, 80), 40).shape == (30, 40, 3)
    assert thumbnail(grey(60, 80), 200).shape == (60, 80, 3)
    assert thumbnail(grey(1, 900), 30).shape == (1, 30, 3)
    with pytest.raises(TypeError, match="uint8"):
        thumbnail(grey().astype(np.uint16), 40)


def test_encoders():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    np.testing.assert_array_equal(open_image(encode_png(pixels)).pixels, pixels)
    rgba = np.dstack([pixels, pixels[..., 0]])
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(encode_png(rgba)))), rgba)
    assert abs(open_image(encode_jpeg(grey())).pixels.astype(int) - 128).max() <= 1
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert len(encode_jpeg(noise, quality=30)) < len(encode_jpeg(noise, quality=90))
    with pytest.raises(TypeError):
        encode_png(pixels.astype(np.uint16))
