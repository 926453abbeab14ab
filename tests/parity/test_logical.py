"""CSAD's patch histograms, LogSAD's scores and LogicAL's edge edits (see the case's meta)."""

from __future__ import annotations

from functools import cached_property

import pytest
import torch
from cases import Case, find
from torch import Tensor

from zerodefect.layers import edge_edits
from zerodefect.layers.component_maps import (
    finer_tokens,
    named_clusters,
    nearest_centre,
    painted,
    sharpened,
    without_slivers,
)
from zerodefect.layers.components import components, dilated
from zerodefect.layers.instance_matching import (
    class_histogram,
    composition_score,
    fused,
    instance_features,
    instance_masks,
    matching_score,
    nearest_tokens,
)
from zerodefect.layers.patch_histograms import (
    HistogramGaussian,
    InnerScale,
    joint_score,
    window_histograms,
)

PLACES = ("structural_scores", "instance_hungarian_match_scores")


@pytest.fixture(scope="module", params=find("logical"))
def case(request) -> Case:
    return Case(request.param)


# --- CSAD ----------------------------------------------------------------------------------------


class Histograms:
    """The detectors of a case."""

    def __init__(self, case: Case) -> None:
        self.case, self.facts = case, case.meta["parts"]["csad"]
        train = self.of("train")
        self.gaussians = [HistogramGaussian.of(h) for h in train]
        self.validation = self.distances("validation")
        self.test = self.distances("test")
        self.scales = [InnerScale.of(d) for d in self.validation]

    def of(self, which: str) -> list[Tensor]:
        maps = self.case.tensor(f"csad/{which}_maps").long()
        windows = zip(self.facts["patch_sizes"], self.facts["overlaps"], strict=True)
        return [window_histograms(maps, self.facts["num_classes"], *each) for each in windows]

    def distances(self, which: str) -> list[Tensor]:
        pairs = zip(self.gaussians, self.of(which), strict=True)
        return [gaussian.distance(h) for gaussian, h in pairs]


@pytest.fixture(scope="module")
def histograms(case) -> Histograms:
    return Histograms(case)


def near(case: Case, name: str, value: Tensor) -> None:
    torch.testing.assert_close(value, case.tensor(name), rtol=1e-4, atol=1e-9)


def test_histograms_of_windows_and_their_gaussians(case, histograms):
    for name in case.arrays:
        if name.startswith("out/csad/hist_mean_"):
            near(case, name, histograms.gaussians[int(name.rpartition("_")[2])].mean)
        if name.startswith("out/csad/inverse_covariance_"):
            own = histograms.gaussians[int(name.rpartition("_")[2])].inverse
            expected = case.tensor(name)
            torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-7 * expected.abs().max())


def test_distances_of_histograms(case, histograms):
    near(case, "out/csad/validation_distance", torch.stack(histograms.validation, 1))
    near(case, "out/csad/test_distance", torch.stack(histograms.test, 1))


def test_scores_of_histograms(case, histograms):
    pairs = list(zip(histograms.scales, histograms.test, strict=True))
    near(case, "out/csad/test_normalised", torch.stack([s.scaled(d) for s, d in pairs], 1))
    near(case, "out/csad/test_score", joint_score(histograms.test[:2], histograms.scales[:2]))


# --- LogSAD --------------------------------------------------------------------------------------


class Seen:
    """One picture of a case: its components by stand-ins for the networks."""

    def __init__(self, case: Case, name: str) -> None:
        self.case, self.name, self.facts = case, name, case.meta["parts"]["logsad"]
        self.G = self.facts["feat_size"]
        self.pins = self.facts["class_name"] == "pushpins"

    def tokens(self, which: str) -> Tensor:
        low, high = (self.facts[f"{one}feat_size"] for one in ("ori_", ""))
        tokens = self.case.tensor(f"logsad/{self.name}/{which}_tokens")[None]
        return finer_tokens(tokens, (low, low), (high, high))[0]

    @cached_property
    def segments(self) -> Tensor:
        return painted(self.case.tensor(f"logsad/{self.name}/segments"))

    @cached_property
    def clusters(self) -> Tensor:
        """Classes of the clusters, sharp."""
        centres, queries = (self.case.tensor(f"logsad/{n}") for n in ("cluster_centres", "query"))
        own = nearest_centre(self.tokens("cluster"), centres).view(self.G, self.G)
        least = [*self.facts["thresholds"], *[0.0] * len(queries)]
        named = named_clusters(own, len(centres), self.tokens("projected"), queries, least)
        return without_slivers(sharpened(named, self.segments), len(queries) - 1)

    @cached_property
    def patches(self) -> Tensor:
        """Classes of the tokens alone."""
        P, queries = self.tokens("projected"), self.case.tensor("logsad/patch_query")
        return (P @ queries.T).argmax(1).view(self.G, self.G)

    @property
    def classes(self) -> int:
        return int(self.facts["patch_classes"])

    @cached_property
    def sharp_patches(self) -> Tensor:
        return without_slivers(sharpened(self.patches, self.segments), self.classes - 1)

    def histogram(self) -> Tensor:
        return class_histogram(self.patches if self.pins else self.sharp_patches, self.classes)

    @property
    def components(self):
        if self.pins:
            return components(dilated(self.clusters != self.facts["classes"] - 1))
        return components(self.sharp_patches != self.classes - 1)

    def instances(self) -> Tensor:
        return instance_masks(self.components, (self.G, self.G))

    @property
    def blocks(self) -> list[int]:
        return [self.facts["layer_width"]] * self.facts["layers"]

    def features(self) -> list[Tensor]:
        return instance_features(self.instances(), self.tokens("cluster"), self.blocks)


@pytest.fixture(scope="module")
def seen(case) -> list[Seen]:
    """The shots, and last the test picture."""
    shots = [f"shot{number}" for number in range(case.meta["parts"]["logsad"]["k_shot"])]
    return [Seen(case, name) for name in (*shots, "test")]


def close(case: Case, name: str, value: Tensor) -> None:
    expected = case.tensor(f"out/logsad/{name}")
    torch.testing.assert_close(value.to(expected), expected, atol=1e-5, rtol=0)


def scores(seen: list[Seen]) -> dict[str, Tensor]:
    *shots, test = seen
    layers = zip(*(shot.features() for shot in shots), strict=True)
    matching = matching_score(test.features(), [torch.cat(each) for each in layers])
    which = "cluster" if test.facts["class_name"] in ("pushpins", "screw_bag") else "dino"
    remembered = torch.cat([shot.tokens(which) for shot in shots])
    width = remembered.shape[1] // test.facts["layers"]
    near = nearest_tokens(test.tokens(which), remembered, [width] * test.facts["layers"])
    h = torch.stack([shot.histogram() for shot in shots])
    return {
        "hist_score": composition_score(test.histogram(), h),
        "instance_hungarian_match_score": matching,
        "structural_score": near.max(),
        "anomaly_map": near.view(test.G, test.G),
    }


def test_compositions(case, seen):
    *shots, test = seen
    close(case, "shot_histograms", torch.stack([shot.histogram() for shot in shots]))
    close(case, "test_histogram", test.histogram())


def test_instances(case, seen):
    *shots, test = seen
    close(case, "shot_instances", torch.cat([shot.instances() for shot in shots]))
    close(case, "test_instances", test.instances())
    counts = case.meta["parts"]["logsad"].get("shot_instance_counts")
    assert counts is None or [len(shot.instances()) for shot in shots] == counts


def test_scores_of_composition_matching_and_structure(case, seen):
    for name, value in scores(seen).items():
        close(case, name, value)


def test_the_scores_joined(case, seen):
    facts, found = case.meta["parts"]["logsad"], scores(seen)
    own = [found["structural_score"], found["instance_hungarian_match_score"]]
    told = [facts["stats"][place] for place in PLACES]
    score = fused(own, [(each["mean"], each["unbiased_std"]) for each in told])
    count, expected = len(seen[-1].components), facts.get("expected_count")
    if facts["class_name"] == "pushpins" and count != expected:
        assert facts["anomaly_flag"]
        score = torch.ones(())
    elif not facts["anomaly_flag"]:
        assert 0 < float(score) <= 1
    close(case, "pred_score", score)


# --- LogicAL -------------------------------------------------------------------------------------


def test_edge_edits(case):
    E_j, E_i, M = (case.tensor(f"edge/{name}") for name in ("normal", "candidate", "mask"))
    made = {
        "remove": edge_edits.remove_edges(E_j, M),
        "replace": edge_edits.replace_edges(E_j, E_i, M),
        "merge": edge_edits.merge_edges(E_j, E_i, M),
    }
    for name, value in made.items():
        assert torch.equal(value, case.tensor(f"out/edge/{name}")), name
