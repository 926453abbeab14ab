"""The model file that a pretraining run leaves, with the side-car that loaders read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save

from zerodefect.backbones.clip import CLIP
from zerodefect.files import atomic_write
from zerodefect.images import CLIP_MEAN, CLIP_STD

RECOMMENDED_METHOD = "dense"
"""Patches that see the whole picture find more than small windows that do not."""

RECOMMENDED: dict[str, dict[str, Any]] = {
    "dense": {
        "image_size": 256,
        "sizes": [0.5, 1.0],
        "image_score": "map",
        "reference_weight": 0.8,
        "reference_scale": 0.4,
    },
    "winclip": {"image_score": "map"},
    # These weights' patches were trained to match texts; a second stream would only blur them.
    **{method: {"attention": "plain"} for method in ("anomalyclip", "glocalclip", "crane")},
}
"""Hyper-parameters that suit the embedded model, chosen on held-out procedural pictures and
``neu_steel``."""


def export(clip: CLIP, folder: Path, facts: dict[str, str]) -> Path:
    """Write ``embedded.safetensors`` (float16, open_clip's native names) and ``embedded.json``.

    The latter is open_clip's configuration with ``preprocess_cfg``; ``facts`` stand in the head of
    the former. Returns its path.
    """
    path = folder / "embedded.safetensors"
    half = {n: v.detach().half().contiguous() for n, v in clip.openai_state().items()}
    with atomic_write(path) as file:
        file.write(save(half, {"format": "pt", **facts}))
    side_car = {
        **clip.config.to_open_clip(),
        # CLIP's own statistics: a loader that knows nothing of this side-car still gets them right.
        "preprocess_cfg": {
            "size": clip.config.vision.image_size,
            "mean": list(CLIP_MEAN),
            "std": list(CLIP_STD),
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
        "licence": "Apache-2.0",
        "recommended_method": RECOMMENDED_METHOD,
        "recommended": RECOMMENDED,
    }
    path.with_suffix(".json").write_text(json.dumps(side_car, indent=2) + "\n", encoding="utf-8")
    return path
