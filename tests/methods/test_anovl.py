"""What is AnoVL's own; its numbers are held by tests/parity/test_anovl.py."""

from __future__ import annotations

import pytest
import torch
from small_detectors import images, small_clip, taught

from zerodefect.methods.anovl import Adapter, AnoVL, anovl_views
from zerodefect.types import Prediction


def made(**options) -> AnoVL:
    return AnoVL.build(small_clip(), **options)


def judged(pictures: torch.Tensor, **options) -> Prediction:
    detector = made(**options)
    return detector(pictures, taught(detector))


def test_pictures_that_are_not_square():
    wide = images(1, 40, 88)
    views = anovl_views(wide)
    assert len(views) == 22
    assert [tuple(v.shape[2:]) for v in views].count((88, 40)) == 2
    assert torch.equal(views[20], wide.flip((2, 3)))
    assert judged(wide).map.shape == (1, 40, 88)


def test_the_image_score_is_the_mean_over_the_views():
    batch, plain = images(2), made(views=False, adapt=False)
    each = torch.stack([plain(view, taught(plain)).score for view in anovl_views(batch)])
    torch.testing.assert_close(judged(batch).score, each.mean(0), atol=1e-6, rtol=0)


def test_adaptation_changes_the_map_and_not_the_score():
    batch = images(2)
    adapted, plain = judged(batch), judged(batch, adapt=False)
    assert torch.equal(adapted.score, plain.score)
    assert (adapted.map - plain.map).abs().max() > 1e-3
    # clean tokens were to look normal
    assert adapted.map.mean() < plain.map.mean()


def test_the_seed_decides_the_adapter():
    batch = images(1)
    first = judged(batch).map
    assert torch.equal(first, judged(batch).map)
    assert not torch.equal(first, judged(batch, seed=1).map)


def test_the_adapter_starts_within_its_bounds():
    bank = torch.nn.functional.normalize(images(1).flatten()[: 40 * 16].view(40, 16), dim=-1)
    adapter = Adapter(bank, 0.5, torch.Generator().manual_seed(0))
    for parameter in adapter.parameters():
        assert parameter.abs().max() <= 16**-0.5
        assert parameter.abs().max() > 0.9 * 16**-0.5
    tokens = images(1).flatten()[:32].view(2, 16)
    assert torch.equal(Adapter(bank, 0.0, torch.Generator())(tokens), tokens)


def test_textures_have_domains_of_their_own():
    detector = made()
    assert "a textural photo of a {}" in detector.prompts("leather").templates
    assert "an industrial image of a {}" in detector.prompts("screw").templates
    assert "a surface picture of the {}" in made(textures=("cloth",)).prompts("cloth").templates
    for name in ("leather", "screw"):
        assert len(set(detector.prompts(name).templates)) == 66


def test_the_undecided_point_lies_within_the_maps_range():
    detector = made()
    low, high = detector.map_range(detector.empty())
    assert low < detector.neutral_score(detector.empty()) < high


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"steps": 0}, "option steps=0: .*greater than or equal to 1"),
        ({"learning_rate": 0.0}, "option learning_rate=.* greater than 0"),
        ({"noise": -1.0}, "option noise=.* greater than or equal to 0"),
        ({"weight_decay": -1.0}, "option weight_decay=.* greater than or equal to 0"),
        ({"residual": 1.5}, "option residual=.* less than or equal to 1"),
        ({"kind_temperature": 0.0}, "option kind_temperature=.* greater than 0"),
    ],
)
def test_impossible_options(option, reason):
    with pytest.raises(ValueError, match=reason):
        made(**option)
