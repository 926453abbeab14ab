"""AnoVL: what it does besides the authors' numbers."""

from __future__ import annotations

import pytest
import torch
from models import tiny_backbone

from zerodefect.layers.views import anovl_views
from zerodefect.methods.anovl import Adapter, AnoVL, AnoVLConfig
from zerodefect.prompts.features import TextFeatures, embed_texts
from zerodefect.prompts.vocabulary import Vocabulary


def images(count: int, *size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *(size or (64, 64)), generator=generator)


def made(**options) -> AnoVL:
    detector = AnoVL(tiny_backbone(), AnoVLConfig(**options))
    detector.describe("screw")
    return detector


@pytest.fixture(scope="module")
def detector() -> AnoVL:
    return made()


def test_words_come_first():
    with pytest.raises(RuntimeError, match="call describe"):
        AnoVL(tiny_backbone(), AnoVLConfig(views=False))(images(1))
    with pytest.raises(ValueError, match="needs a name"):
        AnoVL(tiny_backbone()).describe("  ")


def test_an_image_does_not_depend_on_its_batch(detector):
    batch = images(3)
    together = detector(batch)
    for row in range(3):
        alone = detector(batch[row : row + 1])
        torch.testing.assert_close(alone.map[0], together.map[row], atol=1e-6, rtol=0)
        torch.testing.assert_close(alone.score[0], together.score[row], atol=1e-6, rtol=0)


def test_pictures_that_are_not_square():
    wide = images(1, 40, 88)
    views = anovl_views(wide)
    assert len(views) == 22
    assert [tuple(v.shape[2:]) for v in views].count((88, 40)) == 2
    assert torch.equal(views[20], wide.flip((2, 3)))
    assert made()(wide).map.shape == (1, 40, 88)


def test_the_image_score_is_the_mean_over_the_views(detector):
    batch = images(2)
    plain = made(views=False, adapt=False)
    each = torch.stack([plain(view).score for view in anovl_views(batch)])
    torch.testing.assert_close(detector(batch).score, each.mean(0), atol=1e-6, rtol=0)


def test_adaptation_changes_the_map_and_not_the_score(detector):
    batch = images(2)
    adapted, plain = detector(batch), made(adapt=False)(batch)
    assert torch.equal(adapted.score, plain.score)
    assert (adapted.map - plain.map).abs().max() > 1e-3
    # clean tokens were to look normal
    assert adapted.map.mean() < plain.map.mean()


def test_the_seed_decides_the_adapter(detector):
    batch = images(1)
    state = torch.get_rng_state()
    first = detector(batch).map
    assert torch.equal(state, torch.get_rng_state())  # no draw from the global generator
    assert torch.equal(first, made()(batch).map)
    assert not torch.equal(first, made(seed=1)(batch).map)


def test_adaptation_inside_inference_mode(detector):
    batch = images(1)
    with torch.inference_mode():
        inside = detector(batch).map
    torch.testing.assert_close(inside, detector(batch).map)


def test_the_adapter_starts_within_its_bounds():
    bank = torch.nn.functional.normalize(images(1).flatten()[: 40 * 16].view(40, 16), dim=-1)
    adapter = Adapter(bank, 0.5, torch.Generator().manual_seed(0))
    for parameter in adapter.parameters():
        assert parameter.abs().max() <= 16**-0.5
        assert parameter.abs().max() > 0.9 * 16**-0.5
    tokens = images(1).flatten()[:32].view(2, 16)
    assert torch.equal(Adapter(bank, 0.0, torch.Generator())(tokens), tokens)


def test_bfloat16_is_close():
    batch = images(2)
    full = made()(batch)
    half = AnoVL(tiny_backbone()).to(torch.bfloat16)
    half.describe("screw")
    got = half(batch)
    assert got.map.dtype == got.score.dtype == torch.float32
    torch.testing.assert_close(got.map, full.map, atol=0.03, rtol=0)
    torch.testing.assert_close(got.score, full.score, atol=0.03, rtol=0)


def test_textures_have_domains_of_their_own(detector):
    assert "a textural photo of a {}" in detector.prompts("leather").templates
    assert "an industrial image of a {}" in detector.prompts("screw").templates
    own = AnoVL(tiny_backbone(), AnoVLConfig(textures=("cloth",)))
    assert "a surface picture of the {}" in own.prompts("cloth").templates
    for name in ("leather", "screw"):
        assert len(set(detector.prompts(name).templates)) == 66


def test_kinds_follow_the_vocabulary_and_nothing_else_does(detector):
    batch = images(2)
    before = detector(batch)
    assert before.type_map is None
    detector.describe("screw", Vocabulary.of(["rust", "burr"]))
    after = detector(batch)
    detector.describe("screw")
    assert torch.equal(before.map, after.map)
    assert torch.equal(before.score, after.score)
    assert after.type_map.shape == (2, 2, 64, 64)
    torch.testing.assert_close(after.type_map.sum(1), torch.ones(2, 64, 64))
    torch.testing.assert_close(after.type_score.sum(1), torch.ones(2))


def test_refused_words_change_nothing(detector):
    before = detector(images(1))
    with pytest.raises(ValueError, match="reads 77"):
        detector.describe("bolt", Vocabulary.of(["rust", "rust " * 90]))
    assert detector.object_name == "screw"
    assert torch.equal(detector(images(1)).map, before.map)


def test_the_map_keeps_its_range(detector):
    low, high = detector.map_range
    got = detector(100 * images(2)).map
    assert low <= got.min()
    assert got.max() <= high
    assert low < detector.neutral_score < high


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"steps": 0}, "at least 1 step"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"noise": -1.0}, "noise"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"residual": 1.5}, "residual"),
        ({"kind_temperature": 0.0}, "kind_temperature"),
    ],
)
def test_impossible_hyper_parameters(option, reason):
    with pytest.raises(ValueError, match=reason):
        AnoVLConfig(**option)


def test_rows_of_texts_are_kept(tmp_path):
    """The bank needs every prompt's embedding, in the order given, from the cache or not."""
    backbone, prompts = tiny_backbone(), ["a screw", "a small bolt", "a screw"]
    expected = embed_texts(backbone.clip, prompts)
    first = TextFeatures(backbone.clip, "weights", tmp_path)
    assert torch.equal(first.rows(prompts), expected)
    again = TextFeatures(backbone.clip, "weights", tmp_path, reload=lambda: pytest.fail("not kept"))
    assert torch.equal(again.rows(prompts), expected)
    assert torch.equal(again.rows(prompts), expected)  # now from memory
    torch.testing.assert_close(first.mean(prompts), expected.mean(0))
    with pytest.raises(ValueError, match="no prompt"):
        first.rows([])
