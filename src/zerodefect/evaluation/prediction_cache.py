"""Predictions kept on disk: an evaluation that was killed goes on; a further metric is free."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from zerodefect.files import StoreError, atomic_write

_FORMAT = 2  # raised whenever predictions for the same key would change


class PredictionCache:
    """Maps and scores by everything that decides them, one file per picture.

    Args:
        folder: where they are kept, or None to keep nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def shelf(self, key: dict[str, Any]) -> PredictionCache:
        """The part for one detector in one state; ``key`` is plain data that identifies it."""
        text = json.dumps([_FORMAT, key], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:32]
        return PredictionCache(self.folder / digest if self.folder else None)

    def has(self, image: Path) -> bool:
        """Whether there is a prediction; it may still turn out to be damaged."""
        with contextlib.suppress(OSError):
            return self._path(image).exists()
        return False

    def get(self, image: Path) -> tuple[float, np.ndarray | None] | None:
        """Score and ``(H, W)`` float32 map, if there is one, of a picture that has not changed."""
        try:
            with np.load(self._path(image), allow_pickle=False) as stored:
                return float(stored["score"]), stored.get("map")
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def put(self, image: Path, score: float, map: np.ndarray | None) -> None:
        """Keep a prediction; a full or read-only disk costs time, never the job."""
        kept: dict[str, Any] = {"score": np.float64(score)} | ({} if map is None else {"map": map})
        with (
            contextlib.suppress(OSError, StoreError),
            atomic_write(self._path(image), cached=True) as file,
        ):
            np.savez(file, **kept)

    def _path(self, image: Path) -> Path:
        if self.folder is None:
            raise FileNotFoundError("nothing is kept")
        state = image.stat()
        facts = f"{os.fspath(image)}|{state.st_size}|{state.st_mtime_ns}"
        digest = hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return self.folder / f"{digest}.npz"
