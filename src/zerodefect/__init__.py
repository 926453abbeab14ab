"""ZeroDefect: find defects on industrial products that nobody trained on.

    import zerodefect
    inspector = zerodefect.load("winclip")
    report = inspector.inspect("part.png", object="screw")
    report.verdict, report.score, report.p_value, report.regions

The names below are the public ones; they load on first use, so that importing the package is
instant. What there is to tell goes to the logger "zerodefect", which says nothing unless a program
asks it to: ``logging.basicConfig()``.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from zerodefect.version import __version__

if TYPE_CHECKING:
    from zerodefect.backbones.weight_files import WeightsError
    from zerodefect.detector.contract import Detector
    from zerodefect.evaluation.evaluate_method import evaluate
    from zerodefect.images import ImageError, Picture, find_images, open_image
    from zerodefect.images.tiling import Tiling
    from zerodefect.inspection.archive import ProductError
    from zerodefect.inspection.conformal import CalibrationError
    from zerodefect.inspection.explainer import Explainer
    from zerodefect.inspection.inspected import Inspection
    from zerodefect.inspection.inspector import Inspector
    from zerodefect.inspection.load_inspector import load
    from zerodefect.inspection.policy import Policy, PolicyMismatch
    from zerodefect.methods import Methods
    from zerodefect.prompts.vocabulary import Vocabulary
    from zerodefect.reports.inspection_list import Results
    from zerodefect.scoring.viewing import Viewing
    from zerodefect.training.fit_method import fit
    from zerodefect.types import Failure, Prediction, Region

    methods: Methods

_HOMES = {
    "CalibrationError": "zerodefect.inspection.conformal",
    "Detector": "zerodefect.detector.contract",
    "Explainer": "zerodefect.inspection.explainer",
    "Failure": "zerodefect.types",
    "ImageError": "zerodefect.images",
    "Inspection": "zerodefect.inspection.inspected",
    "Inspector": "zerodefect.inspection.inspector",
    "Picture": "zerodefect.images",
    "Policy": "zerodefect.inspection.policy",
    "PolicyMismatch": "zerodefect.inspection.policy",
    "Prediction": "zerodefect.types",
    "ProductError": "zerodefect.inspection.archive",
    "Region": "zerodefect.types",
    "Results": "zerodefect.reports.inspection_list",
    "Tiling": "zerodefect.images.tiling",
    "Viewing": "zerodefect.scoring.viewing",
    "Vocabulary": "zerodefect.prompts.vocabulary",
    "WeightsError": "zerodefect.backbones.weight_files",
    "evaluate": "zerodefect.evaluation.evaluate_method",
    "find_images": "zerodefect.images",
    "fit": "zerodefect.training.fit_method",
    "load": "zerodefect.inspection.load_inspector",
    "open_image": "zerodefect.images",
}

__all__ = [
    "CalibrationError",
    "Detector",
    "Explainer",
    "Failure",
    "ImageError",
    "Inspection",
    "Inspector",
    "Picture",
    "Policy",
    "PolicyMismatch",
    "Prediction",
    "ProductError",
    "Region",
    "Results",
    "Tiling",
    "Viewing",
    "Vocabulary",
    "WeightsError",
    "__version__",
    "evaluate",
    "find_images",
    "fit",
    "load",
    "methods",
    "open_image",
]

logging.getLogger("zerodefect").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name == "methods":
        return import_module("zerodefect.methods")
    if name not in _HOMES:
        raise AttributeError(f"module 'zerodefect' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
