"""Where a model sees words on a picture: maps of words, and areas of interest that words name."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zerodefect.detector.clip_detector import CLIPDetector, Features
from zerodefect.detector.combined import Combined
from zerodefect.detector.contract import Detector
from zerodefect.images import Picture
from zerodefect.inspection.sources import Source, open_source
from zerodefect.methods import load_detector
from zerodefect.methods.clip_surgery import CLIPSurgery
from zerodefect.prompts.unfamiliar import why_unfamiliar
from zerodefect.scoring.areas import FLAT, AreaByWords, AreaWords
from zerodefect.scoring.joining import resize_map
from zerodefect.scoring.viewing import Viewing

Roi = Picture | AreaWords | str | None
"""A mask picture; or words, as they are read by ``AreaWords.parse``."""

UNMEASURED = (
    "an area by words is another one in every picture, and pixel figures would not compare: "
    "measure with a mask picture, or the whole pictures"
)
"""Why ``evaluate`` takes no areas by words."""


@dataclass(frozen=True, eq=False)
class SeenWord:
    """Where a word is seen in a picture.

    Attributes:
        word: as it was given.
        map: ``(rows, columns)`` of patches, in [0, 1]: how much rather a patch speaks for the word
            than for no word; 0.5 where for neither. One scale for all pictures and words.
        at: ``(x, y)`` of the highest value, in pixels of the picture.
        remark: why this tells little; None where it does.
    """

    word: str
    map: np.ndarray
    at: tuple[int, int]
    remark: str | None = None

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest value of the map."""
        return float(self.map.min()), float(self.map.max())

    def to_dict(self) -> dict[str, Any]:
        """All but the map as plain data."""
        span = [round(value, 4) for value in self.span]
        return {"word": self.word, "span": span, "at": list(self.at), "remark": self.remark}

    def resized(self, height: int, width: int) -> np.ndarray:
        """The map at another size, ``(height, width)`` float32, bilinear."""
        return resize_map(torch.from_numpy(self.map), (height, width))


def checked_words(words: Sequence[str]) -> list[str]:
    """Words without the space around them, each once.

    Raises:
        ValueError: none, or an empty one.
    """
    found = list(dict.fromkeys(" ".join(word.split()) for word in words))
    if not found or not all(found):
        raise ValueError("an empty word can be seen nowhere: name what is looked for, as scratch")
    return found


def is_mask(roi: object) -> bool:
    """Whether what was given as a region of interest is a picture, not words.

    Text is that of a file where there is one, or where it looks like one: it has an ending or names
    a folder.
    """
    if not isinstance(roi, str):
        return not isinstance(roi, AreaWords)
    written = Path(roi).suffix != "" and " " not in Path(roi).suffix
    try:
        there = Path(roi).exists()
    except (OSError, ValueError):  # too long for a name
        there = False
    return there or written or "/" in roi or os.sep in roi


def opened_roi(roi: Source | AreaWords | None) -> Picture | AreaWords | None:
    """A region of interest as it was given: a mask picture, or words.

    Raises:
        ImageError: a picture that cannot be read.
        ValueError: words that name no area.
    """
    if roi is None or isinstance(roi, AreaWords):
        return roi
    return AreaWords.parse(str(roi)) if not is_mask(roi) else open_source(roi)


def opened_mask(roi: str | None) -> Picture | None:
    """The mask picture of what is measured.

    Raises:
        ImageError: it cannot be read.
        ValueError: words.
    """
    if not is_mask(roi):
        raise ValueError(f"--roi {roi!r}: {UNMEASURED}")
    return None if roi is None else open_source(roi)


def surgery_of(detector: Detector) -> CLIPSurgery:
    """CLIP Surgery on the CLIP of a detector, or on the embedded one where it has none."""
    parts = [part for _, part in detector.each()] if isinstance(detector, Combined) else [detector]
    part = next((part for part in parts if isinstance(part, CLIPDetector)), None)
    if part is None:
        made = load_detector(CLIPSurgery.info.name, device=str(detector.device))
        assert isinstance(made, CLIPSurgery)
        return made
    if isinstance(part, CLIPSurgery):
        return part
    advised = dict(part.source.recommended.get(CLIPSurgery.info.name, {}))
    side = advised.pop("image_size", None)
    made = CLIPSurgery.build(part.source, **advised)
    assert isinstance(made, CLIPSurgery)
    made.resize_inputs((side, side) if side else part.preprocess.size)
    return made.eval()


class WordSight(ABC):
    """Sees words on pictures; the part of an inspector that needs neither product nor limits.

    Attributes:
        viewing: how pictures are shown; they are seen as a whole, not in tiles.
    """

    viewing: Viewing

    def __init__(self) -> None:
        self._surgery: CLIPSurgery | None = None
        self._lock = threading.RLock()

    @property
    @abstractmethod
    def detector(self) -> Detector:
        """Whose CLIP is asked."""

    @abstractmethod
    def _open(self, source: Any) -> Picture:
        """A picture, from whatever may be one."""

    @property
    def surgery(self) -> CLIPSurgery:
        """CLIP Surgery on the detector's CLIP, or on the embedded one; made at first use."""
        with self._lock:
            if self._surgery is None:
                self._surgery = surgery_of(self.detector)
        return self._surgery

    def where(self, word: str, source: Source | Any) -> np.ndarray:
        """Where the model sees a word in a picture.

        Args:
            word: such as ``"scratch"``, ``"label"`` or ``"normal surface"``.
            source: the picture, as ``inspect`` takes it.

        Returns:
            ``(H, W)`` float32 in [0, 1] at the picture's size: the softmax over the word and no
            word (the same sentences without it), at temperature 0.07, by the maps of CLIP Surgery.
            0.5: the place speaks for neither. Nothing is rescaled: a word that the model does not
            know has a flat map near 0.5.

        Raises:
            ValueError: no word, or more than the text tower reads.
            ImageError: the picture cannot be read.
        """
        picture = self._open(source)
        (seen,) = self.see_words(picture, [word])
        return seen.resized(picture.height, picture.width)

    def see_words(self, picture: Picture, words: Sequence[str]) -> tuple[SeenWord, ...]:
        """Where each of the words is seen in a picture; raises as ``where``."""
        asked = checked_words(words)
        maps = self._evidence(picture, asked).sigmoid().cpu().numpy()
        return tuple(_seen(word, map, picture) for word, map in zip(asked, maps, strict=True))

    def asked_words(
        self, words: Sequence[str], tell: Callable[[str], None] = lambda remark: None
    ) -> list[str]:
        """Words that can be looked for, each once; ``tell`` is called of those hardly known.

        Raises:
            ValueError: as of ``where``.
        """
        asked = checked_words(words)
        self.surgery.texts(asked)
        for remark in filter(None, map(_unknown, asked)):
            tell(remark)
        return asked

    def area_of(self, roi: Roi) -> Picture | AreaByWords | None:
        """A region of interest as it is looked for in each picture.

        Raises:
            ValueError: words that name no area.
        """
        words = AreaWords.parse(roi) if isinstance(roi, str) else roi
        return AreaByWords(words, self._area_map) if isinstance(words, AreaWords) else words

    def sight_facts(self, area: Picture | AreaByWords | None) -> list[str]:
        """What decides where words are found besides them, as a digest; nothing of masks."""
        if not isinstance(area, AreaByWords):
            return []
        facts = json.dumps(self.surgery.facts(), sort_keys=True)
        return [hashlib.sha256(facts.encode()).hexdigest()[:16]]

    def _area_map(self, picture: Picture, words: AreaWords) -> np.ndarray:
        """How much rather a patch speaks for the best wanted word than for the best unwanted."""
        evidence = self._evidence(picture, (*words.wanted, *words.unwanted))
        wanted, unwanted = evidence.split([len(words.wanted), len(words.unwanted)])
        map: np.ndarray = (wanted.amax(0) - unwanted.amax(0)).sigmoid().cpu().numpy()
        return map

    @torch.inference_mode()
    def _evidence(self, picture: Picture, words: Sequence[str]) -> Tensor:
        """``(n, h, w)``, see ``CLIPSurgery.word_evidence``."""
        surgery = self.surgery
        prepare = self.viewing.preprocess(surgery.inputs["image"], picture)
        pixels = prepare(self.viewing.shown(picture))[None].to(surgery.device)
        encoded: Features = surgery.encode(pixels)
        return surgery.word_evidence(encoded, words)[0]


def _unknown(word: str) -> str | None:
    why = why_unfamiliar(word)
    return why and f"the word {word!r} {why}: the model hardly knows it"


def _seen(word: str, map: np.ndarray, picture: Picture) -> SeenWord:
    row, column = np.unravel_index(int(map.argmax()), map.shape)
    rows, columns = map.shape
    at = int((column + 0.5) * picture.width / columns), int((row + 0.5) * picture.height / rows)
    flat = np.ptp(map) < FLAT
    remark = f"the model sees no place for the word {word!r}: its map is flat" if flat else None
    return SeenWord(word, map, at, remark or _unknown(word))
