"""Does every method run here? Each inspects drawn parts, on networks that need no download.

What a method is built on is the embedded model and the other weights in the package; in the place
of segmenters, grounders and chat models, whose weights are not, stand networks of the same classes
with few random values. Methods that learn begin with their initial values. So what they say of the
parts means nothing; that they say it, in the form in which any method does, is what is tried.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from zerodefect.backbones.clip_weights import EMBEDDED
from zerodefect.backbones.tiny_networks import grounding_dino_folder, llava_folder, sam_folder
from zerodefect.images import Picture
from zerodefect.images.clouds import open_cloud
from zerodefect.inspection.inspector import Inspector
from zerodefect.methods import get, load_detector, names
from zerodefect.procedural import draw_product
from zerodefect.types import Failure

_PRODUCT, _KIND, _SIDE = "metal plate", "scratch", 128
_TINY: dict[str, Callable[[Path], Path]] = {
    "segmenter": sam_folder,
    "grounder": lambda folder: grounding_dino_folder(folder, length=128),
    "chat": llava_folder,
}
_EXTRA = {"segmenter": "sam", "grounder": "sam", "chat": "vlm"}


@dataclass(frozen=True)
class Trial:
    """How it went with a method.

    Attributes:
        method: its name.
        seconds: from loading to the verdict on two parts.
        problem: what went wrong; None if nothing did.
        missing: what has to be installed before it can be tried; None if it was.
        tiny: networks of random values that it ran on.
    """

    method: str
    seconds: float
    problem: str | None = None
    missing: str | None = None
    tiny: tuple[str, ...] = ()


def self_test(methods: Sequence[str] | None = None) -> Iterator[Trial]:
    """Try methods, by default all of them, one after the other.

    Raises:
        ValueError: no method of such a name.
    """
    chosen = [get(name).info.name for name in methods or names()]
    with tempfile.TemporaryDirectory() as folder:
        made = cache(lambda kind: _TINY[kind](Path(folder) / kind))
        for name in chosen:
            yield _tried(name, made)


def _tried(name: str, made: Callable[[str], Path]) -> Trial:
    begun, kinds = time.perf_counter(), get(name).info.backbones
    tiny = tuple(network for network, kind in kinds.items() if kind in _TINY)
    if tiny and not find_spec("transformers"):
        extra = _EXTRA[kinds[tiny[0]]]
        return Trial(name, 0.0, missing=f"pip install 'zerodefect[{extra}]'", tiny=tiny)
    try:
        with _quiet(transformers=bool(tiny)):
            _inspect(name, {network: str(made(kinds[network])) for network in tiny})
    except Exception as error:  # whatever it is, the other methods are tried
        problem = f"{type(error).__name__}: {error}"
        return Trial(name, time.perf_counter() - begun, problem, tiny=tiny)
    return Trial(name, time.perf_counter() - begun, tiny=tiny)


def _inspect(name: str, tiny: dict[str, str]) -> None:
    """Raises where what comes out is not what any method gives."""
    info = get(name).info
    backbone = {n: EMBEDDED for n, kind in info.backbones.items() if kind in ("clip", "vit")}
    inspector = Inspector(load_detector(name, backbone=backbone | tiny, untrained=True))
    if "words" in info.knows_from:
        inspector.describe(_PRODUCT)
    points = "xyz" in inspector.detector.inputs
    good = [_part(number, None, points) for number in range(4)]
    if "references" in info.needs:
        inspector.remember(good[:2])
    for said in inspector.inspect_many([_part(9, _KIND, points), *good[2:]]):
        if isinstance(said, Failure):
            raise RuntimeError(f"{said.reason}. {said.remedy}")
        if not np.isfinite(said.score):
            raise RuntimeError(f"its score is {said.score}")
        if said.map is not None and said.map.shape != (_SIDE, _SIDE):
            raise RuntimeError(f"its map is {said.map.shape}, not {_SIDE} x {_SIDE} pixels")


def _part(number: int, kind: str | None, points: bool) -> Picture:
    """A drawn plate; with points it lies in the plane of the picture, and damage is a dent."""
    pixels, damage = draw_product(_PRODUCT, 0, number, kind, _SIDE)
    if not points:
        return Picture("<drawn>", pixels)
    rows, columns = np.mgrid[:_SIDE, :_SIDE] * 1e-3  # a millimetre a pixel
    depth = 1 + 0.1 * columns + 2e-3 * damage
    return Picture("<drawn>", pixels, cloud=open_cloud(np.stack([columns, rows, depth], -1)))


@contextmanager
def _quiet(transformers: bool = False) -> Iterator[None]:
    """Warnings of untrained methods and bars of tiny weights say nothing here."""
    log = logging.getLogger("zerodefect")
    level = log.level
    log.setLevel(logging.ERROR)
    if transformers:
        from transformers.utils import logging as bars

        bars.disable_progress_bar()
    try:
        yield
    finally:
        log.setLevel(level)
        if transformers:
            bars.enable_progress_bar()
