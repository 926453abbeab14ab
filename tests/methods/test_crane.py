"""What is Crane's and Crane+'s own; their numbers are held by tests/parity/test_crane.py."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from small_detectors import images, small_clip, small_dino, total, training_batch

from zerodefect.backbones.vision import VisionEncoder
from zerodefect.backbones.weight_files import WeightsError
from zerodefect.methods.crane import Crane, CraneConfig


@pytest.fixture
def dino() -> VisionEncoder:
    return small_dino()


def build(backbone=None, encoder=None, **options) -> Crane:
    return Crane(backbone or small_clip(), CraneConfig(**options), encoder).eval()


# --- entries -----------------------------------------------------------------------------------


def test_equal_taps_change_the_losses_alone():
    one, three = (build(taps=taps) for taps in ((3,), (1, 2, 3)))
    assert torch.equal(one(images(2)).map, three(images(2)).map)
    a, b = (made.training_loss(training_batch(made, [0, 1])) for made in (one, three))
    torch.testing.assert_close(b["focal"], 3 * a["focal"])
    torch.testing.assert_close(b["dice"], 3 * a["dice"])
    assert torch.equal(a["image"], b["image"])


def test_the_papers_proportions():
    paper = build(small_clip(vision_layers=24, text_layers=12))
    assert (paper.taps, paper.copies, paper.stream.start) == ((24,), 4, 6)
    assert len(paper.prompts.compound_prompts_text) == 8


def test_crane_plus_reads_the_last_block_first_dino_then_clip(dino):
    plus, plain = build(encoder=dino), build()
    D, E = plus.encode(images(2)).patches
    torch.testing.assert_close(E, plain.encode(images(2)).patches[0])
    assert D.shape == E.shape and not torch.allclose(D, E, atol=1e-2)
    assert (plus.soft_mean, plain.soft_mean) == (False, True)
    assert not any(name.startswith("dino") for name in plus.learned)


def test_d_attention_by_hand(dino):
    """Patch by patch: values behind the last block's attention, heads joined before the output."""
    detector = build(encoder=dino)
    seen = images(1)
    visual = detector.clip.visual
    tokens = visual.embed(seen, resize="bilinear")
    last = visual.transformer.layers
    middle = visual.encode(tokens, taps=[last]).middle[last]
    block = visual.transformer.blocks[-1]
    _, _, v = block.attn.project(block.ln_1(middle)[:, 1:])
    f = dino.like(seen, detector.preprocess.mean, detector.preprocess.std, (8, 8))
    u = F.normalize(f.flatten(2)[0].T, dim=-1)
    S = u @ u.T
    M = 3.0 * (S - 1.2 * S.mean())
    A = torch.where(M >= 0, M, -torch.inf).softmax(-1)
    assert A.isfinite().all()
    expected = visual.project(block.attn.join(A @ v))
    got = detector.encode(seen).patches[0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_d_attention_of_a_picture_whose_patches_are_all_alike(dino):
    """The official form divides nothing by nothing; here each patch is left with itself."""
    detector = build(encoder=dino)
    tokens = 1 + 0.01 * torch.randn(2, 16, 8)
    assert torch.equal(detector.similarity_attention(tokens), torch.eye(16).expand(2, -1, -1))
    flat = torch.zeros(1, 3, 64, 64)
    assert detector(flat).map.isfinite().all()


def test_the_mean_over_the_batch_is_the_official_one(dino):
    seen = torch.cat([images(1), torch.zeros(1, 3, 64, 64)])
    own = build(encoder=dino)
    official = build(encoder=dino, batch_mean=True)
    for detector, equal in ((own, True), (official, False)):
        D = detector.encode(seen).patches[0][:1]
        alone = detector.encode(seen[:1]).patches[0]
        assert torch.allclose(D, alone, atol=1e-5) is equal
    torch.testing.assert_close(official(seen[:1]).map, own(seen[:1]).map)


def test_soft_mean_matters_with_two_entries(dino):
    seen = images(2)
    hard = build(encoder=dino)(seen)
    soft = build(encoder=dino, soft_mean=True)(seen)
    assert not torch.equal(hard.map, soft.map)
    assert torch.equal(hard.score, soft.score)


# --- conditioning --------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["pad_suffix", "pad_prefix", "replace_suffix", "replace_prefix"])
def test_each_image_has_its_own_sentences(place):
    detector = build(conditioning=place)
    g = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    T = detector.conditioned_texts(g)
    assert T.shape == (3, 2, 64)
    torch.testing.assert_close(detector.conditioned_texts(g[1:2])[0], T[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(detector.conditioned_texts(5 * g), T, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(T[0], T[1], atol=1e-3)


def test_scoring_is_unconditioned_unless_asked():
    plain, asked = build(), build(conditioned_test=True)
    unconditioned = build(conditioning="none")
    seen = images(2)
    assert torch.equal(plain(seen).map, unconditioned(seen).map)
    assert not torch.equal(plain(seen).map, asked(seen).map)
    losses = [total(made, training_batch(made, [1])) for made in (plain, unconditioned)]
    assert not torch.equal(*losses)


def test_a_backbone_whose_widths_differ():
    backbone = small_clip(text_width=128)
    with pytest.raises(ValueError, match="joint width 64 is not its text width 128"):
        build(backbone)
    detector = build(backbone, conditioning="none")
    assert detector(images(1)).map.shape == (1, 64, 64)
    assert total(detector, training_batch(detector, [1, 0])).isfinite()


# --- options ---------------------------------------------------------------------------------


def test_the_named_dino_is_loaded_from_the_given_file(monkeypatch, dino):
    asked = {}

    def load(name, **options):
        asked.update(options, name=name)
        return dino

    monkeypatch.setattr("zerodefect.methods.crane.load_vision", load)
    detector = build(dino="vit_base_patch14_reg4_dinov2", dino_weights="d.pth")
    assert detector.dino is dino
    assert (asked["name"], asked["weights"]) == ("vit_base_patch14_reg4_dinov2", "d.pth")
    config = json.loads(json.dumps(detector.facts()))["config"]
    assert config["dino_weights"] == dino.fingerprint  # its content, wherever the file lies


def test_absent_dino_weights_are_an_error_that_helps(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a: None)
    with pytest.raises(WeightsError, match="not on this machine"):
        build(dino="vit_base_patch14_reg4_dinov2")


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"temperature": 0.0}, "option temperature=.* greater than 0"),
        ({"image_temperature": 0.0}, "option image_temperature=.* greater than 0"),
        ({"taps": ()}, "option taps=.* at least 1 item"),
        ({"sigma": float("inf")}, "option sigma=inf: .*finite"),
        ({"attention": "vq"}, "option attention='vq': "),
        ({"training_upsampling": "cubic"}, "option training_upsampling=.*'nearest' or 'bilinear'"),
        ({"conditioned_test": True, "conditioning": "none"}, "needs a way of conditioning"),
        ({"conditioning": "middle"}, "option conditioning='middle': "),
        ({"taps": (9,)}, r"1\.\.3"),
    ],
)
def test_impossible_options(option, reason):
    with pytest.raises(ValueError, match=reason):
        Crane.build(small_clip(), **option)


def test_crane_plus_has_one_tap(dino):
    with pytest.raises(ValueError, match="reads the last block alone"):
        build(encoder=dino, taps=(1, 3))
