"""The packaged model: small, whole, of the declared shape, and it finds procedural damage."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import rankdata

from zerodefect.backbones.clip import CLIPConfig
from zerodefect.backbones.clip_weights import embedded_file
from zerodefect.detector.knowledge import Product
from zerodefect.images import normalised
from zerodefect.methods import load_detector
from zerodefect.pretraining.model_and_sheets import HELD_OUT
from zerodefect.pretraining.pretrain_stem import EMBEDDED
from zerodefect.procedural import DEFECT_KINDS, ProceduralBatch, generate


@pytest.fixture(scope="module")
def unseen() -> ProceduralBatch:
    """Pictures that no training drew, two of each product, at the side of the packaged model."""
    return generate(HELD_OUT, 0, 80, EMBEDDED.vision.image_size, pictures_per_product=2)


def test_file_is_small_finite_and_of_the_declared_shape() -> None:
    path = embedded_file()
    assert path.stat().st_size <= 30_000_000
    weights = load_file(path)
    assert all(v.dtype == torch.float16 and v.isfinite().all() for v in weights.values())
    side_car = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert CLIPConfig.from_open_clip(side_car) == EMBEDDED
    assert side_car["licence"] == "Apache-2.0"
    assert path.with_suffix(".md").exists()


@pytest.mark.slow
@torch.no_grad()
def test_it_finds_damage_in_pictures_it_never_saw(unseen: ProceduralBatch) -> None:
    detector = load_detector("dense", device="cpu")
    knowledge = detector.describe(detector.empty(), Product("product"))
    sharp = [DEFECT_KINDS.index(kind) for kind in ("crack", "hole", "break", "contamination")]
    rows = torch.isin(unseen.kinds, torch.tensor(sharp)).nonzero()[:, 0][:12]
    assert len(rows) == 12
    maps = detector(normalised(unseen.images[rows]), knowledge).map.numpy()
    masks = unseen.masks[rows].numpy()
    ranks = rankdata(maps.ravel())[masks.ravel()]
    inside, outside = len(ranks), int(np.sum(~masks))
    area = (ranks.sum() - inside * (inside + 1) / 2) / (inside * outside)
    assert area > 0.75  # pixel AUROC; 0.5 is guessing


@pytest.mark.slow
@torch.no_grad()
def test_a_sound_reference_lowers_sound_pictures_more_than_damaged_ones(
    unseen: ProceduralBatch,
) -> None:
    detector = load_detector("dense", device="cpu", reference_weight=1.0)
    words = detector.describe(detector.empty(), Product("product"))
    damaged = (unseen.kinds >= 0).view(-1, 2)
    distances: dict[bool, list[float]] = {True: [], False: []}
    for pair in (~damaged[:, 0]).nonzero()[:, 0].tolist():
        reference, judged = normalised(unseen.images[2 * pair : 2 * pair + 2]).split(1)
        knowledge = detector.remember(words, [detector.encode(reference)])
        distances[bool(damaged[pair, 1])].append(float(detector(judged, knowledge).score))
        if min(map(len, distances.values())) == 8:
            break
    assert min(map(len, distances.values())) == 8
    assert np.mean(distances[True]) > np.mean(distances[False])
