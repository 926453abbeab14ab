"""What comes of inspecting one image, and how a program or a notebook shows it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from zerodefect.files import atomic_write
from zerodefect.images import Picture, open_image
from zerodefect.inspection.explanation import Explanation
from zerodefect.inspection.presentation import as_html, drawn_on
from zerodefect.inspection.records import to_record
from zerodefect.types import Count, Region, Verdict, printable, told_score

if TYPE_CHECKING:
    from zerodefect.inspection.rules.rule_records import ComponentRecord, RuleRecord
    from zerodefect.inspection.word_sight import SeenWord
    from zerodefect.scoring.areas import FoundArea

_OF_A_RUN = ("map", "assets", "part")  # of a record: where a run's folder has them
_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


@dataclass(frozen=True)
class Inspection:
    """Outcome for one image.

    Attributes:
        image: path as the user named it.
        object: product name the texts were built with, or None.
        width, height: size of the decoded (upright) image in pixels.
        verdict: good, unsure or defect. Provisional unless ``calibrated``.
        calibrated: whether the verdict rests on limits learned from good images.
        score: raw image score of the detector.
        p_value: conformal p-value of the image under "this is a good part", or None.
        regions: anomalous areas, highest score first.
        explanation: one or two plain sentences: why this verdict; those of ``explained``.
        notes: what the reader should know about the file ("first of 12 frames", ...).
        map: ``(height, width)`` float32 anomaly map at the image's size, or None if dropped or if
            the method gives none.
        answer: what the model itself says of the image, in its own words; None if it has none.
        reason: why the picture itself cannot be judged, whatever its score (it shows nothing, or is
            unlike all good ones in light or focus); the verdict is "unsure" then. None: it can.
        allowed: what the user's rules allow of it, where the verdict rests on them and not on the
            score; None: it rests on the score.
        counts: how many defects of each kind, in the order of the regions; not the number of
            regions, see ``Count``.
        transductive: whether the score depends on the other pictures that it was scored with.
        area: what was inspected, where words name it; None where they do not.
        words: where the words were seen that were asked for.
        rules: what came of each rule on the product's components; the verdict is at least theirs.
        components: their parts in the picture, to whose places the rules point.
        picture: as it was inspected, or None if dropped (``keep_maps=False``).
        colour_range: raw map values at the two ends of the colour ramp, from the calibration and so
            the same for all images; None without maps.
        explained: ``explanation`` from the evidence alone as a record: where, what, why, verdict.
        conversation: what chat models say of it, each checked against the evidence, in the order in
            which they were asked; see ``Explainer``.
    """

    image: str
    object: str | None
    width: int
    height: int
    verdict: Verdict
    calibrated: bool
    score: float
    p_value: float | None
    regions: tuple[Region, ...]
    explanation: str = ""
    notes: tuple[str, ...] = ()
    map: np.ndarray | None = field(default=None, repr=False, compare=False)
    answer: str | None = None
    reason: str | None = None
    allowed: str | None = None
    counts: tuple[Count, ...] = ()
    transductive: bool = False
    area: FoundArea | None = field(default=None, repr=False, compare=False)
    words: tuple[SeenWord, ...] = field(default=(), repr=False, compare=False)
    picture: Picture | None = field(default=None, repr=False, compare=False)
    colour_range: tuple[float, float] | None = field(default=None, repr=False, compare=False)
    explained: Explanation | None = None
    conversation: tuple[Explanation, ...] = ()
    rules: tuple[RuleRecord, ...] = ()
    components: tuple[ComponentRecord, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.explained is not None and not self.explanation:
            object.__setattr__(self, "explanation", self.explained.why)

    @property
    def count(self) -> int:
        """Number of separate anomalous regions."""
        return len(self.regions)

    def __str__(self) -> str:
        """One line: file, verdict, score, and the kinds found."""
        kinds = ", ".join(r.kind or "anomaly" for r in self.regions) or "no region"
        caution = "" if self.calibrated else " (uncalibrated)"
        why = f" ({self.reason})" if self.reason else ""
        score = told_score(self.score)
        told = f"{self.image}: {self.verdict}{caution}{why}, score {score}, {kinds}"
        return printable(told)

    def to_dict(self) -> dict[str, Any]:
        """Everything but picture and map as plain data that is strict JSON.

        It has the fields of ``results.jsonl`` (``docs/outputs.md``) but those that say where a run
        wrote files.
        """
        return {k: v for k, v in to_record(self).items() if k not in _OF_A_RUN}

    def overlay(self, picture: Any = None) -> Image.Image:
        """Draw the map, in the calibration's colours, and the outlines of regions on the picture.

        Args:
            picture: the one that was inspected, as ``open_image`` takes it, where it was not kept.

        Returns:
            RGB, at the picture's size. Without a map (dropped, or the method gives none) it shows
            outlines alone.

        Raises:
            ValueError: there is no picture, or one of another size.
        """
        return Image.fromarray(drawn_on(self.shown(picture).to_uint8(), self))

    def save(self, path: str | Path, picture: Any = None) -> None:
        """Write ``overlay`` (.png, .jpg) or ``to_dict`` (.json), as the ending says.

        Raises:
            ValueError: another ending; there is no picture, or one of another size.
            StoreError: the file cannot be written; it is never left half written.
        """
        path = Path(path)
        kind = path.suffix.lower()
        if kind not in (*_PICTURES, ".json"):
            raise ValueError(f"{path}: {kind or 'no ending'} is no format. Use .png, .jpg or .json")
        drawn = None if kind == ".json" else self.overlay(picture)
        with atomic_write(path) as file:
            if drawn is None:
                file.write((json.dumps(self.to_dict(), indent=1) + "\n").encode())
            else:
                drawn.save(file, _PICTURES[kind], quality=90)

    def shown(self, given: Any = None) -> Picture:
        """The picture that was inspected: the one that was kept, or the one given.

        Args:
            given: as ``open_image`` takes it.

        Raises:
            ValueError: there is no picture, or one of another size.
        """
        picture = self.picture if given is None else given
        if picture is not None and not isinstance(picture, Picture):
            picture = open_image(picture)
        if picture is None:
            raise ValueError(
                f"{self.image}: its picture was not kept. Pass it, from open_image, or inspect "
                "with keep_maps=True"
            )
        if picture.pixels.shape[:2] != (self.height, self.width):
            raise ValueError(
                f"{picture.path}: {picture.width} x {picture.height} pixels, and {self.image} was "
                f"inspected with {self.width} x {self.height}. Pass the picture that was inspected"
            )
        return picture

    def _repr_html_(self) -> str:
        """What a notebook shows: picture with map and outlines, verdict, reasons, regions."""
        return as_html(self)
