"""The model file that a pretraining run leaves, with the side-car that loaders read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from zerodefect.backbones.clip import CLIP, CLIPConfig, TextConfig, VisionConfig
from zerodefect.files import atomic_write
from zerodefect.images import CLIP_MEAN, CLIP_STD
from zerodefect.pretraining.pretrain_state import CHECKPOINT, PretrainError

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
    "anomalyclip": {"attention": "plain"},
    "glocalclip": {"attention": "plain"},
    "crane": {"attention": "plain"},
}
"""Hyper-parameters that suit the embedded model, chosen on held-out procedural pictures and
``neu_steel``."""


def export(run: str | Path, target: str | Path) -> Path:
    """Write the averaged weights of a run as a model file with its side-car.

    Args:
        run: folder of the run.
        target: folder for ``embedded.safetensors`` (float16, open_clip's native names) and
            ``embedded.json`` (open_clip's configuration and ``preprocess_cfg``).

    Returns:
        Path of the weights.

    Raises:
        PretrainError: the run has no readable checkpoint.
    """
    checkpoint = Path(run) / CHECKPOINT
    try:
        with safe_open(checkpoint, "pt") as stored:
            facts = stored.metadata() or {}
            names = [n for n in stored.keys() if n.startswith("ema/")]  # noqa: SIM118
            weights = {n.removeprefix("ema/"): stored.get_tensor(n) for n in names}
    except (OSError, SafetensorError) as error:
        raise PretrainError(f"{checkpoint} cannot be read ({error}); has the run begun?") from error
    settings = json.loads(facts["config"])
    clip = CLIP(_model_config(settings["model"]))
    clip.load_state_dict(weights)
    half = {n: v.detach().half().contiguous() for n, v in clip.openai_state().items()}
    path = Path(target) / "embedded.safetensors"
    facts = {"format": "pt", "steps": facts["step"], "seed": str(settings["seed"])}
    with atomic_write(path) as file:
        file.write(save(half, facts))
    path.with_suffix(".json").write_text(
        json.dumps(_side_car(clip.config), indent=2) + "\n", encoding="utf-8"
    )
    return path


def _model_config(facts: dict[str, Any]) -> CLIPConfig:
    vision, text = VisionConfig(**facts["vision"]), TextConfig(**facts["text"])
    return CLIPConfig(facts["embed_dim"], vision, text, facts["activation"])


def _side_car(config: CLIPConfig) -> dict[str, Any]:
    # CLIP's own statistics: a loader that knows nothing of this side-car still gets them right.
    preprocess = {
        "size": config.vision.image_size,
        "mean": list(CLIP_MEAN),
        "std": list(CLIP_STD),
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    return {
        **config.to_open_clip(),
        "preprocess_cfg": preprocess,
        "licence": "Apache-2.0",
        "recommended_method": RECOMMENDED_METHOD,
        "recommended": RECOMMENDED,
    }
