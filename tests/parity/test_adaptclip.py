"""AdaptCLIP against the numbers of the official code (see the case's meta)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny_clip
import torch
from cases import Case, find

from zerodefect.detector.knowledge import Knowledge
from zerodefect.images import open_image
from zerodefect.methods.adaptclip import AdaptCLIP, AdaptCLIPConfig
from zerodefect.types import TrainingBatch

_HEADS = ("local_adapter", "global_adapter")  # four names of one module, filled under the first


class AdaptCase(Case):
    """A case with one tolerance for features and maps, and a relative one for losses."""

    def allowed(self, kind: str) -> float:
        return float(self.meta["tolerances"][kind].split()[0])

    def near(self, name: str, value: torch.Tensor, kind: str = "maps") -> None:
        expected = self.tensor(name)
        off = float((value.detach().reshape(expected.shape) - expected).abs().max())
        allowed = self.allowed(kind)
        if kind == "loss":
            allowed *= float(expected.abs().max())
        assert off <= allowed, f"{name}: off by {off:.3g}, allowed {allowed:.3g}"

    def backbone(self):
        clip = dict(self.meta["clip"])
        self.meta.update(activation="quick_gelu", tiny_clip={"seed": clip.pop("seed")})
        self.meta["tiny_clip"]["config"] = clip
        return super().backbone()

    def published(self, detector: AdaptCLIP) -> dict[str, dict[str, torch.Tensor]]:
        """The learned values as the authors' file holds them."""
        facts = self.meta["extra_parameters"]
        made: dict[str, dict[str, torch.Tensor]] = {}
        for name, shape in facts["shapes"].items():
            part, _, key = name.partition(".")
            source = f"{part}.{_first(key)}"
            draw = tiny_clip.draw if name.endswith("running_var") else tiny_clip.fill
            value = np.asarray(draw(facts["seed"], source, tuple(shape)), dtype=np.float32)
            if name.endswith("running_var"):
                value = 1 + 0.1 * np.abs(value)
            places = [_first(key, n) for n in range(4)] if part == "pq_learner" else [key]
            for place in dict.fromkeys(places):
                made.setdefault(part, {})[place] = torch.from_numpy(value)
        for entries in made.values():
            for key in [key for key in entries if key.endswith("running_var")]:
                counted = key.replace("running_var", "num_batches_tracked")
                entries[counted] = torch.tensor(0)
        made["textual_learner"] |= _tokens(detector)
        return made


def _first(key: str, place: int = 0) -> str:
    """The name of a shared head's value at one of its four places."""
    head, _, rest = key.partition(".")
    return (
        f"{head}.{place}.{rest.partition('.')[2]}" if head in _HEADS and rest[0] in "0123" else key
    )


def _tokens(detector: AdaptCLIP) -> dict[str, torch.Tensor]:
    table, n = detector.clip.text.token_embedding.weight.detach(), detector.config.context_length
    ids = detector.prompts.token_ids()[0]
    parts = {
        "token_prefix": table[ids[:1]],
        "token_suffix": table[ids[1 + n :]],
        "tokenized_prompts": ids.int(),
    }
    return {f"{k}_{side}": v[None, None] for k, v in parts.items() for side in ("pos", "neg")}


def build(case: AdaptCase, **options) -> AdaptCLIP:
    settings = case.meta["settings"]
    config = AdaptCLIPConfig(
        context_length=settings["n_ctx"],
        taps=tuple(settings["features_list"]),
        stream_start=case.meta["clip"]["vision_layers"] - (settings["dpam_layer"] - 1) + 1,
        sigma=settings["sigma"],
        reduction=settings["vl_reduction"],
        hidden=settings["pq_mid_dim"],
        **{"context": settings["pq_context"], **options},
    )
    detector = AdaptCLIP(case.backbone(), config).eval()
    published = case.published(detector)
    told = AdaptCLIP.official_options(published)
    assert told == {name: getattr(config, name) for name in told} and len(told) == 4
    values = detector.official_state(published)
    assert values.keys() == detector.learned_values.keys()
    detector.load_state_dict(values, strict=False)
    return detector


@pytest.fixture(scope="module", params=find("adaptclip"))
def case(request) -> AdaptCase:
    return AdaptCase(request.param)


@pytest.fixture(scope="module")
def detector(case) -> AdaptCLIP:
    return build(case)


@pytest.fixture(scope="module")
def features(case, detector):
    with torch.no_grad():
        return detector.encode(case.tensor("input"))


def shown(case: AdaptCase, detector: AdaptCLIP) -> Knowledge:
    with torch.no_grad():
        return detector.remember(detector.empty(), [detector.encode(case.tensor("prompt_input"))])


def prepared(case: AdaptCase, detector: AdaptCLIP, name: str) -> torch.Tensor:
    preprocess = replace(detector.preprocess, size=(case.meta["input_size"],) * 2)
    return torch.stack([torch.as_tensor(preprocess(open_image(i))) for i in case.arrays[name]])


def test_preprocessing(case, detector):
    for pictures, name in (("images", "input"), ("prompt_images", "prompt_input")):
        expected = case.tensor(name)
        got = prepared(case, detector, pictures)[: len(expected)]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_image_side(case, detector, features):
    case.near("out/image_features", features.image, "features")
    for tap, patches in zip(detector.taps, features.patches, strict=True):
        expected = case.arrays[f"out/patch_features/layer_{tap}"]
        case.arrays[f"patches {tap}"] = expected[:, 1:]
        case.near(f"patches {tap}", patches[:1], "features")
    case.arrays["class"] = expected[:, :1]
    case.near("class", features.own_class[:1], "features")


def test_texts(case, detector):
    assert torch.equal(detector.prompts.token_ids().int(), case.tensor("out/learned_tokens"))
    case.near("out/static_text_features", detector.fixed_texts, "features")
    case.near("out/learned_text_features", detector.texts, "features")


@torch.no_grad()
def test_zero_shot(case, detector, features):
    visual, textual = detector.visual(features), detector.textual(features, detector.texts)
    for name, said in (("visual", visual), ("textual", textual)):
        case.near(f"out/zero_shot/local_{name}", features.grid.upsample(said.low)[:1])
        case.near(f"out/zero_shot/global_{name}", said.p, "scores")
    got = detector(case.tensor("input"))
    case.near("out/zero_shot/map_max", got.map.amax((1, 2)), "scores")
    case.near("out/anomaly_map", got.map)
    case.near("out/image_score", got.score, "scores")


@torch.no_grad()
def test_few_shot(case, detector, features):
    knowledge = shown(case, detector)
    assert knowledge.shots == case.meta["k_shots"]
    r, a = detector.aligned(features, knowledge)
    maps = torch.stack([features.grid.map(a_l) for a_l in a])
    case.near("out/few_shot/align_per_layer", maps[:, :1])
    case.near("out/few_shot/align_harmonic", detector.distance_map(a, features.grid)[:1])
    compared = detector.compared(features, r)
    local = features.grid.upsample(compared.low.mean(0))
    case.near("out/few_shot/local_pq_mean", local[:1])
    case.near("out/few_shot/global_pq", compared.p.mean(0), "scores")
    case.near("out/few_shot/global_logits", compared.image, "features")
    got = detector(case.tensor("input"), knowledge)
    case.near("out/few_shot/map_max", got.map.amax((1, 2)), "scores")
    case.near("out/few_shot/anomaly_map", got.map)
    case.near("out/few_shot/image_score", got.score, "scores")


@torch.no_grad()
def test_without_context(case, features):
    detector = build(case, context=False)
    r, _ = detector.aligned(features, shown(case, detector))
    compared = detector.compared(features, r)
    case.near("out/few_shot/no_context/global_logits", compared.image, "features")
    local = features.grid.upsample(compared.low.mean(0))
    case.near("out/few_shot/no_context/local_mean_first", local[:1])


def batch_of(case: AdaptCase, detector: AdaptCLIP) -> TrainingBatch:
    labels = case.tensor("label")
    return TrainingBatch(
        images=prepared(case, detector, "images"),
        masks=case.tensor("mask").float(),
        labels=labels,
        objects=(case.meta["class_name"],) * len(labels),
        generator=torch.Generator().manual_seed(0),
        references=prepared(case, detector, "prompt_images")[:, None],
    )


def test_losses_gradients_and_running_statistics(case):
    detector = build(case).train()
    terms = detector.training_loss(batch_of(case, detector))
    sums = torch.zeros(2)
    for mine, theirs in (("visual", "visual"), ("textual", "textual"), ("comparison", "pq")):
        pair = torch.stack([terms[f"{mine}_image"], terms[f"{mine}_map"]])
        for place, value in enumerate(pair):
            case.arrays["one"] = case.arrays[f"out/loss/{theirs}"][place : place + 1]
            case.near("one", value, "loss")
        sums = sums + pair
    case.near("out/loss/all", sums, "loss")
    sums.sum().backward()
    ours = {
        "visual_grad/local_adater.fc.0.weight": detector.local_mlp.fc[0].weight,
        "textual_grad/ctx_neg": detector.prompts.ctx_neg,
        "pq_grad/global_adapter.0.0.weight": detector.comparison.global_head[0].weight,
    }
    stored = [name for name in case.arrays if "_grad/" in name]
    assert sorted(stored) == sorted(f"out/loss/{name}" for name in ours)
    for name, value in ours.items():
        case.near(f"out/loss/{name}", value.grad, "loss")
    case.near("out/loss/visual_running_mean_after", detector.local_mlp.fc[1].running_mean)


@torch.no_grad()
def test_any_batch_gives_the_numbers_of_batch_one(case, detector):
    knowledge = shown(case, detector)
    for known in (detector.empty(), knowledge):
        together = detector(case.tensor("input"), known)
        for row in range(2):
            alone = detector(case.tensor("input")[row : row + 1], known)
            torch.testing.assert_close(together.map[row], alone.map[0], atol=2e-5, rtol=0)
            torch.testing.assert_close(together.score[row], alone.score[0], atol=2e-5, rtol=0)
