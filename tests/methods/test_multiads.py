"""What is MultiADS's own; its numbers are held by tests/parity/test_multiads.py."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from small_detectors import KINDS, images, remembered, small_clip, taught, total, training_batch

from zerodefect.detector.knowledge import Product
from zerodefect.layers.losses import focal_of_target
from zerodefect.methods.multiads import MultiADS, MultiADSConfig
from zerodefect.prompts.vocabulary import DEFAULT_KINDS

NAMED = {"rust": ("rusty {}",), "burr": ("{} with a burr",), "dent": ("dented {}",)}


def build(**options) -> MultiADS:
    few = {"templates": ("a photo of a {}.",), "kinds": NAMED}
    return MultiADS.build(small_clip(), **{**few, **options}).eval()


@pytest.fixture(scope="module")
def detector() -> MultiADS:
    return build()


def test_kinds_are_given_with_phrases_as_names_or_as_a_file(tmp_path):
    assert MultiADSConfig().kinds == DEFAULT_KINDS
    assert MultiADSConfig(kinds=["rust"]).kinds == {"rust": ("{} with rust",)}
    (tmp_path / "kinds.json").write_text(json.dumps({"rust": ["rusty {}", "{} with rust"]}))
    read = MultiADSConfig(kinds=str(tmp_path / "kinds.json"))
    assert read.kinds == {"rust": ("rusty {}", "{} with rust")}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kinds": {}}, "option kinds=.*name at least one kind"),
        ({"kinds": {"rust": ["rust"]}}, "needs '{}' exactly once"),
        ({"kinds": "no-such.json"}, "no-such.json: cannot be read"),
        ({"called": {"bent_wire": "bend"}}, "'bend' is none of the kinds, which are rust, burr"),
    ],
)
def test_kinds_that_are_none(options, reason):
    with pytest.raises(ValueError, match=reason):
        build(**options)


def test_the_map_adds_the_kinds_up_and_the_score_is_its_three_highest_pixels(detector):
    given, known = images(2), taught(detector, vocabulary=KINDS)
    got = detector(given, known)
    with torch.no_grad():
        logits = list(detector.logits(detector.encode(given), known["texts"]))
    good = torch.stack([P.softmax(1)[:, 0] for P in logits])
    torch.testing.assert_close(got.map, (1 - good).sum(0), atol=1e-5, rtol=0)
    assert detector.map_range(known) == (0.0, 3.0) and detector.neutral_score(known) == 1.5
    highest = got.map.flatten(1).sort(descending=True).values[:, :3]
    torch.testing.assert_close(got.score, highest.mean(1))


def test_prior_knowledge_lets_only_the_products_kinds_count():
    """What else could be wrong with it takes no probability away from being good."""
    detector, given = build(prior=True), images(2)
    all_kinds, one = taught(detector), taught(detector, vocabulary=KINDS)
    assert len(one["texts"]) == 1 + len(KINDS.names)
    torch.testing.assert_close(one["texts"], one["kind_texts"])
    got = detector(given, one)
    torch.testing.assert_close(got.score, got.map.amax((1, 2)))
    assert not torch.equal(got.map, detector(given, all_kinds).map)


def test_a_memory_of_the_inspected_pictures_leaves_the_patch_itself_out():
    detector, given = build(adaptation=0.0), images(2)
    known = remembered(detector, taught(detector), given)
    with torch.no_grad():
        encoded = detector.encode(given)
        d = detector.distances(encoded, known)
    x = torch.nn.functional.normalize(encoded.patches[0].flatten(0, 1), dim=-1)
    second = (1 - x @ x.T).sort(dim=1).values[:, 1].unflatten(0, (2, -1))
    torch.testing.assert_close(d[0], second, atol=1e-5, rtol=0)
    assert not detector.monotone_memory and build().monotone_memory


# --- training ------------------------------------------------------------------------------------


def test_kinds_of_data_sets_find_their_columns(detector, caplog):
    named = build(called={"bent_corner": "dent"})
    batch = replace(
        training_batch(named, [1, 1, 1, 0, 1]), kinds=("Burr", "bent corner", "melted", "", "rust")
    )
    assert named.columns(batch) == [2, 3, 0, 0, 1]
    assert "the kind 'melted' is none of those learned" in caplog.text
    assert detector.columns(replace(batch, kinds=())) == [0] * 5


def test_the_kind_is_learned(detector):
    """Its own column is what the loss asks for; without a kind any column will do."""
    learner = build(dice=False)
    batch = replace(training_batch(learner, [1]), masks=torch.ones(1, 64, 64))
    T = learner.words(Product("screw"))["texts"]
    losses = {}
    with torch.no_grad():
        for kind in (*NAMED, ""):
            losses[kind] = float(total(learner, replace(batch, kinds=(kind,))))
        logits = learner.logits(learner.encode(batch.images), T)
        P = torch.stack([s.softmax(1)[0] for s in logits])  # (K, C, H, W)
    for kind, p in zip((*NAMED, ""), (*P[:, 1:].unbind(1), P[:, 1:].sum(1)), strict=True):
        expected = sum(float(focal_of_target(one[None], 4)) for one in p)
        assert losses[kind] == pytest.approx(expected, rel=1e-4)
    assert losses[""] < min(losses[kind] for kind in NAMED)
