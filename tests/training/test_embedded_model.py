"""The packaged model: small, whole, of the declared shape, and it finds procedural damage."""

import json

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.stats import rankdata

from zerodefect.backbones.clip import CLIPConfig
from zerodefect.backbones.loading import embedded_file, load_clip
from zerodefect.data.procedural import DEFECT_KINDS, generate
from zerodefect.methods import create
from zerodefect.training.pretrain import EMBEDDED, normalised

HELD_OUT = 1_000_003  # a series of pictures that the training did not draw from


def test_file_is_small_finite_and_of_the_declared_shape() -> None:
    path = embedded_file()
    assert path.stat().st_size <= 25_000_000
    weights = load_file(path)
    assert all(v.dtype == torch.float16 and v.isfinite().all() for v in weights.values())
    side_car = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert CLIPConfig.from_open_clip(side_car) == EMBEDDED
    assert side_car["licence"] == "Apache-2.0"
    assert path.with_suffix(".md").exists()


@torch.no_grad()
def test_it_finds_damage_in_pictures_it_never_saw() -> None:
    batch = generate(HELD_OUT, 0, 96, EMBEDDED.vision.image_size)
    sharp = [DEFECT_KINDS.index(kind) for kind in ("crack", "hole", "break", "contamination")]
    rows = torch.isin(batch.kinds, torch.tensor(sharp)).nonzero()[:, 0][:12]
    assert len(rows) == 12
    detector = create("winclip", load_clip())
    detector.describe("product")
    maps = detector(normalised(batch.images[rows])).map.numpy()
    masks = batch.masks[rows].numpy()
    ranks = rankdata(maps.ravel())[masks.ravel()]
    inside, outside = len(ranks), int(np.sum(~masks))
    area = (ranks.sum() - inside * (inside + 1) / 2) / (inside * outside)
    assert area > 0.75  # pixel AUROC; 0.5 is guessing
