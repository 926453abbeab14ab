"""Where the project keeps what it may delete. This file imports nothing of the project."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Cache root: ``ZERODEFECT_CACHE`` if set, else the platform's user cache folder."""
    chosen = os.environ.get("ZERODEFECT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("zerodefect", appauthor=False)
