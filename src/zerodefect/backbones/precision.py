"""Which precision networks run in: the one place that decides."""

from __future__ import annotations

import logging
import platform
from typing import Literal

import torch

_log = logging.getLogger("zerodefect")

Precision = Literal["float32", "bfloat16"]
_ASKED = ("float32", "bfloat16", "auto")


def check_precision(asked: str) -> None:
    """Refuse what is none of the three.

    Raises:
        ValueError: saying which they are.
    """
    if asked not in _ASKED:
        raise ValueError(f"precision is float32, bfloat16 or auto, not {asked!r}")


def pick_precision(asked: str, device: torch.device | str) -> Precision:
    """The precision to run in on a device: the one asked for, or for ``"auto"`` the faster one.

    ``"auto"`` is bfloat16 where the device computes in it, float32 elsewhere. Asked of a device
    that only emulates it, bfloat16 stays bfloat16, and a warning says what it costs.

    Raises:
        ValueError: none of the three.
    """
    check_precision(asked)
    if asked == "float32" or (asked == "auto" and not computes_bfloat16(device)):
        return "float32"
    if not computes_bfloat16(device):
        _log.warning(
            "bfloat16 on %s, which only emulates it: products may take many times as long as in "
            "float32 (--precision auto)",
            "this processor" if torch.device(device).type == "cpu" else device,
        )
    return "bfloat16"


def computes_bfloat16(device: torch.device | str) -> bool:
    """Whether a device has instructions for products in bfloat16.

    Of processors that are AVX512_BF16 or AMX (x86) and the BF16 extension (ARM), of NVIDIA GPUs
    compute capability 8.0. A device of which that is not known has none.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if platform.machine().lower() in ("arm64", "aarch64"):
        return _told(getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None))
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(_told(getattr(torch.cpu, name, None)) for name in names)


def _told(supported: object) -> bool:
    """What a check of torch's says; versions differ in which of them they have."""
    return bool(supported()) if callable(supported) else False
