"""Arrays and tensors from Python as samples, or one line that says what helps."""

from __future__ import annotations

import numpy as np
import torch

from zerodefect.images.samples import FaultError, Raw, check_size

_CHANNELS = (1, 3, 4)
_SHAPES = (
    "Pass (height, width) or (height, width, 1, 3 or 4), or channels first; a batch of grey "
    "pictures as (batch, 1, height, width)"
)


def from_array(given: np.ndarray | torch.Tensor, max_pixels: int) -> Raw:
    """Samples of an array; channels first where only that makes sense, as tensors have them.

    Raises:
        FaultError: its shape is none of a picture.
    """
    tensor = isinstance(given, torch.Tensor)
    array = plain_array(given)
    if array.ndim == 4:
        what = "Pass its pictures one by one, such as list(batch), or it to inspect_many"
        raise FaultError(f"an array of shape {array.shape} is a batch, not one picture", what)
    if array.ndim == 3:
        last, first = array.shape[2] in _CHANNELS, array.shape[0] in _CHANNELS
        if first and last and tensor:
            reason = f"a tensor of shape {tuple(array.shape)} may have channels first or last"
            raise FaultError(reason, "Pass it as an array (height, width, channels)")
        if first and not last:
            array = array.transpose(1, 2, 0)
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise FaultError(f"an array of shape {array.shape} is not a picture", _SHAPES)
    check_size(array.shape[1], array.shape[0], max_pixels)
    return Raw(array.copy(), [])


def plain_array(given: np.ndarray | torch.Tensor) -> np.ndarray:
    """The values of an array or tensor, wherever it lies, as NumPy has them.

    Raises:
        FaultError: a tensor that has none (sparse, quantised, without data).
    """
    if not isinstance(given, torch.Tensor):
        return given
    try:
        tensor = given.detach().cpu()
        if tensor.dtype.is_floating_point and tensor.dtype != torch.float64:
            tensor = tensor.float()
        return tensor.numpy()
    except (TypeError, RuntimeError):
        reason = f"a tensor of type {given.dtype}, {given.layout}, on {given.device} is no picture"
        raise FaultError(reason, "Pass a dense one of 8 bits, unsigned, or float in 0..1") from None
