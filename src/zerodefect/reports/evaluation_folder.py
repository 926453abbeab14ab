"""The folder of an evaluation: results are never written over in silence; worst cases are drawn."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zerodefect.data import read_mask
from zerodefect.data.dataset import Sample
from zerodefect.evaluation.predictions import centre
from zerodefect.evaluation.protocol import Evaluation
from zerodefect.evaluation.result_tables import FORMAT, WORST, write_results
from zerodefect.evaluation.worst_cases import WorstCase
from zerodefect.files import StoreError, atomic_write
from zerodefect.images import ImageError, blend, encode_jpeg, open_image, resize_map, thumbnail
from zerodefect.reports.run_folder import RunMismatch, differences

_FILES = ("results.json", "results.md", "curves.png")
_SIDE = 320  # pixels of a panel
# what decides figures; versions and the precision of kept maps are told and not compared
_COMPARED = ("detector", "names", "viewing", "areas", "data", "protocol")
_OTHER = "Choose another --output, or --overwrite to throw the old results away."


class EvaluationFolder:
    """Results of one method on one data set.

    Args:
        folder: made when it is written to.
        overwrite: throw away results of other settings.
    """

    def __init__(self, folder: Path, *, overwrite: bool = False) -> None:
        self.folder, self.overwrite = folder, overwrite

    def check(self, facts: Mapping[str, Any]) -> None:
        """Make sure, before the work, that the folder holds no results of other settings.

        Args:
            facts: of the evaluator.

        Raises:
            RunMismatch: it does; what differs is named.
            StoreError: what lies there cannot be read as results.
        """
        path = self.folder / _FILES[0]
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            if self.overwrite:
                return
            raise StoreError(path, f"not valid JSON ({error})", _OTHER) from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise StoreError(path, "not the results of an evaluation", "Choose another --output.")
        if self.overwrite:
            return
        now = json.loads(json.dumps(facts))
        names = [name for name in _COMPARED if name in found]
        pairs = [(_compared(found, name), _compared(now, name), name) for name in names]
        different = [text for pair in pairs for text in differences(*pair)]
        if different:
            more = f" and {len(different) - 5} more" if len(different) > 5 else ""
            told = "; ".join(different[:5])
            reason = f"this folder holds results of other settings ({told}{more})"
            raise RunMismatch(self.folder, reason, _OTHER)

    def write(self, evaluation: Evaluation, method: str) -> list[Path]:
        """Write results, curves and drawings of the worst cases; gives the files.

        Raises:
            RunMismatch: meanwhile results of other settings came to lie there.
            StoreError: a file cannot be written.
        """
        self.check(evaluation.facts)
        written = write_results(evaluation, self.folder, method)
        written += _draw(evaluation.worst, self.folder / WORST)
        for old in (*map(self.folder.joinpath, _FILES), *(self.folder / WORST).glob("*.jpg")):
            if old not in written:  # of other settings
                old.unlink(missing_ok=True)
        return written

    def told(self, files: Sequence[Path]) -> str:
        """What ``write`` wrote, in words; the many drawings as one number."""
        beside = [file.name for file in files if file.parent == self.folder]
        drawn = len(files) - len(beside)
        more = [f"{drawn} worst cases in {WORST}/"] if drawn else []
        return f"{self.folder} ({', '.join(beside + more)})"


def _compared(facts: Mapping[str, Any], name: str) -> Any:
    value = facts.get(name)
    if name == "protocol" and isinstance(value, dict):
        return {key: inner for key, inner in value.items() if key != "batch_size"}
    return value


def _draw(cases: Sequence[WorstCase], folder: Path) -> Iterator[Path]:
    """Picture, map over it, and mask of each case; one scale of colours for each number of shots.

    Where a picture or mask cannot be opened any more, it is left out.
    """
    for _, some in groupby(cases, key=lambda case: case.shots):
        alike = list(some)
        maps = [case.map for case in alike if case.map is not None]
        low = min((float(map.min()) for map in maps), default=0.0)
        high = max((float(map.max()) for map in maps), default=1.0)
        for case in alike:
            with contextlib.suppress(ImageError):
                panels = np.hstack(list(_panels(case, low, high)))
                with atomic_write(folder / case.drawing) as file:
                    file.write(encode_jpeg(panels))
                yield folder / case.drawing


def _panels(case: WorstCase, low: float, high: float) -> Iterator[np.ndarray]:
    pixels = open_image(case.file, bit_depth=case.bit_depth).to_uint8()
    pixels = pixels if case.crop is None else centre(pixels, case.crop)
    shown = thumbnail(pixels, _SIDE)
    yield shown
    size = shown.shape[0], shown.shape[1]
    if case.map is not None:
        yield blend(shown, resize_map(case.map, *size), low, high)
    if case.masks:
        first, *more = case.masks
        sample = Sample(case.file, first, case.product, case.kind, True, None, tuple(more))
        mask = read_mask(sample)
        mask = mask if case.crop is None else centre(mask, case.crop)
        small = Image.fromarray(mask).resize((size[1], size[0]), Image.Resampling.NEAREST)
        yield np.repeat(np.asarray(small)[..., None], 3, axis=2).astype(np.uint8) * 255
