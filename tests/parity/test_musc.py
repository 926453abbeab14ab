"""MuSc against the official code's numbers (see the case's meta), and the consistency filter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from cases import Case, find
from sklearn.metrics import roc_auc_score

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.layered_features import CLIPFeatures
from zerodefect.images import open_image
from zerodefect.layers.consistency import NEAR, consistency_filter
from zerodefect.layers.mutual import mean_of_nearest, mutual_distances
from zerodefect.methods.musc import MuSc, MuScConfig

TOLERANCES = {
    "tokens": "tokens",
    "lnamd": "lnamd (unit vectors)",
    "msm": "msm",
    "patch": "msm",
    "anomaly": "maps",
    "image": "image scores",
}


class MuScCase(Case):
    """A case whose tolerances are told by kind."""

    def backbone(self) -> CLIPBackbone:
        """The meta tells the towers' shape without a name of its own."""
        shape = dict(self.meta["tiny_clip"])
        self.meta["tiny_clip"] = {"seed": shape.pop("seed"), "config": shape}
        return super().backbone()

    def close(self, name: str, got: torch.Tensor) -> None:
        expected = self.tensor(name)
        kind = name.removeprefix("out/").partition("_")[0]
        atol = self.meta["tolerances"][TOLERANCES[kind]]
        got = got.reshape(expected.shape).to(expected.dtype)
        torch.testing.assert_close(got, expected, atol=atol, rtol=0)

    @property
    def ways(self) -> list[tuple[int, int, int]]:
        """Side, block as the case counts it, and its place among the layers."""
        blocks = self.meta["feature_blocks_1based"]
        return [
            (r, block, place) for r in self.meta["r_list"] for place, block in enumerate(blocks)
        ]


@pytest.fixture(scope="module", params=find("musc"))
def case(request) -> MuScCase:
    return MuScCase(request.param)


@pytest.fixture(scope="module")
def detector(case) -> MuSc:
    config = MuScConfig(
        layers=tuple(f"blocks.{n - 1}" for n in case.meta["feature_blocks_1based"]),
        neighbourhoods=tuple(case.meta["r_list"]),
        nearest=tuple(case.meta["topmin"]),
        rescoring=tuple(case.meta["rscin_k"]),
        activation="weights",  # the backbone has that of the case
        consistency=False,
    )
    return MuSc(CLIPFeatures(case.backbone()), config)


@pytest.fixture(scope="module")
def pixels(case, detector) -> torch.Tensor:
    side = case.meta["target_size"]
    prepare = dataclasses.replace(detector.preprocess, size=(side, side))
    return torch.stack([prepare(open_image(picture)) for picture in case.arrays["image"]])


@pytest.fixture(scope="module")
def encoded(detector, pixels):
    with torch.no_grad():
        return [detector.encode(batch) for batch in pixels.split(4)]


def test_preprocessing(case, detector, pixels):
    torch.testing.assert_close(pixels[:1], case.tensor("input"), atol=1e-5, rtol=0)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in (detector.preprocess.mean, detector.preprocess.std)
    )
    seen = ((pixels * std + mean) * 255).round().permute(0, 2, 3, 1)
    assert torch.equal(seen, case.tensor("input_u8").float())


def test_tokens_and_embedding(case, detector, encoded):
    for place, block in enumerate(case.meta["feature_blocks_1based"]):
        tokens = torch.cat([batch.layers[place] for batch in encoded]).flatten(2).mT
        expected = case.tensor(f"out/tokens_block{block}")[:, 1:]
        torch.testing.assert_close(tokens, expected, atol=case.meta["tolerances"]["tokens"], rtol=0)
    E = torch.nn.functional.normalize(torch.cat([batch.embedding for batch in encoded]), dim=-1)
    torch.testing.assert_close(E, case.tensor("out/image_embedding_normalised"), atol=1e-5, rtol=0)


def test_neighbourhoods_and_mutual_scores(case, detector, encoded):
    for r, block, place in case.ways:
        z = torch.cat([detector.aggregated(batch, place, r) for batch in encoded])
        if f"out/lnamd_r{r}_block{block}" in case.arrays:
            case.close(f"out/lnamd_r{r}_block{block}", z)
        s = [detector.mutual_score(d) for d in detector.distances(encoded, place, r)]
        case.close(f"out/msm_r{r}_block{block}", torch.stack(s))


def test_map_score_and_rescoring(case, detector, encoded):
    A, _ = detector.scored(encoded)
    case.close("out/patch_score", torch.stack(A))
    said = list(detector.score_set(encoded, detector.empty()))
    case.close("out/anomaly_map", torch.cat([one.map for one in said]))
    case.close("out/image_score_max", torch.cat([one.score for one in said]))
    step = detector.set_level("rscin", detector.empty())
    for one in said:
        step.see(one)
    score = torch.cat([step.apply(one).score for one in said])
    case.close("out/image_score_rscin", score)
    auroc = roc_auc_score(case.arrays["label"], score)
    assert auroc == pytest.approx(float(case.arrays["out/metric/image_auroc"]), abs=1e-6)


@pytest.fixture(scope="module", params=find("musc", "consistency_case"))
def repeated(request) -> Case:
    return Case(request.param)


def test_consistency_filter(repeated):
    case, atol = repeated, repeated.meta["tolerances"]["others"]
    z = case.tensor("features").double()  # as the reference is
    d = mutual_distances([z])
    D = torch.stack(d)
    same = torch.eye(len(z), dtype=torch.bool)[:, None].expand_as(D)
    assert D[same].isinf().all()
    torch.testing.assert_close(
        D.masked_fill(same, -1),
        case.tensor("out/D").double(),
        atol=case.meta["tolerances"]["D"],
        rtol=0,
    )
    exact = [row.masked_fill(row < 0, torch.inf) for row in case.tensor("out/D").double()]
    found = consistency_filter(exact)
    np.testing.assert_allclose(found.gap, case.arrays["out/gap"], atol=atol, rtol=1e-6)
    assert np.array_equal(found.nearest, case.arrays["out/k"])
    assert found.threshold == pytest.approx(float(case.arrays["out/threshold"]), abs=atol)
    np.testing.assert_allclose(found.links, case.arrays["out/links"], atol=atol, rtol=1e-6)
    assert np.array_equal(found.community, case.arrays["out/community"])
    np.testing.assert_allclose(found.ratio, case.arrays["out/ratio"], atol=atol, rtol=1e-6)
    assert np.array_equal(found.keep, case.arrays["out/keep"].astype(bool))
    plain = torch.stack([mean_of_nearest(row, NEAR) for row in exact])
    torch.testing.assert_close(plain, case.tensor("out/score_plain"), atol=atol, rtol=0)
    keep = [torch.from_numpy(k) for k in found.keep]
    score = torch.stack([mean_of_nearest(row, NEAR) for row in mutual_distances([z], keep)])
    torch.testing.assert_close(score, case.tensor("out/score"), atol=atol, rtol=0)
    truth = case.arrays["truth"].ravel()
    for name, s in (("plain", plain), ("filtered", score)):
        expected = float(case.arrays[f"out/auroc_{name}"])
        assert roc_auc_score(truth, s.ravel()) == pytest.approx(expected, abs=1e-6)
