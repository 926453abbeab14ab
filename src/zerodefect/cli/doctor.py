"""``zerodefect doctor``: what is installed, which device, which weights, is the network off."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zerodefect.cli.options import AsJson
from zerodefect.cli.telling import tell

if TYPE_CHECKING:
    from zerodefect.inspection.self_test import Trial

_EXTRAS = {
    "plot": ("matplotlib",),
    "train": ("accelerate", "matplotlib", "tensorboard"),
    "sam": ("transformers",),
    "vlm": ("transformers",),
}
_CORE = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow", "scipy")


def doctor(
    selftest: Annotated[
        bool,
        typer.Option(
            "--selftest",
            help="Let every method inspect drawn parts: on the weights in the package, and on "
            "tiny random networks where a method's own are not there. Takes a minute or two.",
        ),
    ] = False,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --selftest, this method alone; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what this installation has and lacks.

    Exit code 1 if it cannot inspect, or a method fails the self-test.
    """
    if method and not selftest:
        raise typer.BadParameter("it says which methods --selftest tries", param_hint="--method")
    facts, problems = _facts()
    if selftest:
        facts["selftest"] = _tried(method, None if as_json else _told)
        problems += [f"{t['method']}: {t['problem']}" for t in facts["selftest"] if t["problem"]]
    if as_json:
        tell(json.dumps({**facts, "problems": problems}, indent=2), lines=True)
    else:
        for name, value in facts.items():
            if name == "selftest":
                continue
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


def _tried(methods: list[str] | None, show: Callable[[Trial], None] | None) -> list[dict[str, Any]]:
    from zerodefect.inspection.self_test import self_test

    trials = []
    for trial in self_test(methods):
        trials.append(asdict(trial))
        if show:
            show(trial)
    return trials


def _told(trial: Trial) -> None:
    said = trial.problem or (f"not tried: {trial.missing}" if trial.missing else "")
    if not said:
        said = f"runs ({trial.seconds:.1f} s)"
        said += f", on a tiny {' and a tiny '.join(trial.tiny)}" if trial.tiny else ""
    tell(f"{trial.method + ':':20s} {said}")


def _facts() -> tuple[dict[str, Any], list[str]]:
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    import torch
    from huggingface_hub import constants

    from zerodefect.backbones.clip_weights import load_clip
    from zerodefect.backbones.efficientnet_weights import EFFICIENTNET
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
