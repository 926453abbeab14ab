"""``zerodefect doctor``: what is installed, which device, which weights, is the network off."""

from __future__ import annotations

import json
import platform
from typing import Any

import typer

from zerodefect.cli.options import AsJson
from zerodefect.cli.telling import tell

_EXTRAS = {
    "plot": ("matplotlib",),
    "train": ("accelerate", "matplotlib", "tensorboard"),
    "sam": ("transformers",),
    "vlm": ("transformers",),
}
_CORE = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow", "scipy")


def doctor(as_json: AsJson = False) -> None:
    """Say what this installation has and lacks.

    Exit code 1 if it cannot inspect.
    """
    facts, problems = _facts()
    if as_json:
        tell(json.dumps({**facts, "problems": problems}, indent=2), lines=True)
    else:
        for name, value in facts.items():
            shown = (
                ", ".join(f"{k} {v}" for k, v in value.items())
                if isinstance(value, dict)
                else value
            )
            tell(f"{name + ':':12s} {shown}")
        for problem in problems:
            tell(f"problem:     {problem}")
        if not problems:
            tell("everything that 'zerodefect inspect' needs is here")
    if problems:
        raise typer.Exit(1)


def _facts() -> tuple[dict[str, Any], list[str]]:
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    import torch
    from huggingface_hub import constants

    from zerodefect.backbones.clip_weights import load_clip
    from zerodefect.backbones.efficientnet import EFFICIENTNET
    from zerodefect.backbones.layered_features import load_features
    from zerodefect.backbones.weight_files import WeightsError
    from zerodefect.paths import cache_folder
    from zerodefect.version import __version__

    problems = []
    packages = {}
    for name in _CORE:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "missing"
            problems.append(f"{name} is not installed; reinstall zerodefect")
    weights = {}
    for title, load in (("embedded model", load_clip), (EFFICIENTNET, load_features)):
        try:
            weights[title] = load().fingerprint[:12]
        except WeightsError as error:
            weights[title] = "missing"
            problems.append(str(error))
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts = {
        "zerodefect": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": packages,
        "extras": {
            extra: " and ".join(module for module in modules if not find_spec(module)) + " absent"
            if not all(map(find_spec, modules))
            else "installed"
            for extra, modules in _EXTRAS.items()
        },
        "device": ", ".join(gpus) if gpus else f"cpu ({torch.get_num_threads()} threads), no GPU",
        "weights": weights,
        "network": (
            "off (HF_HUB_OFFLINE)"
            if constants.HF_HUB_OFFLINE
            else "never used, except by 'zerodefect backbones --fetch' and for a chat server that "
            "you name ('zerodefect inspect --explain')"
        ),
        "cache": str(cache_folder()),
    }
    return facts, problems
