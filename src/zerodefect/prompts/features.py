"""Text features computed once: cached in memory and on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from zerodefect.backbones.clip import CLIP, TextTower, tokenize
from zerodefect.files import StoreError, atomic_write
from zerodefect.paths import cache_folder

_KEPT = 2**26  # bytes of embeddings that stay in memory
_FORMAT = 1  # raised whenever the numbers for the same key would change


@torch.no_grad()
def embed_texts(clip: CLIP, texts: Sequence[str], batch: int = 64) -> Tensor:
    """Text embeddings ``(len(texts), D)`` float32, not normalised, in the order given.

    Equal texts are computed once, and texts of similar length go together, so that each batch is
    cut right after its last end-of-text token.

    Raises:
        ValueError: a text does not fit the context.
    """
    unique = list(dict.fromkeys(texts))
    device = clip.logit_scale.device
    ids = tokenize(unique, clip.config.text.context_length)
    order = TextTower.ends(ids).argsort(stable=True)
    rows = [clip.text(ids[part].to(device)).float() for part in order.split(batch)]
    embedded = torch.empty(len(unique), clip.config.embed_dim, device=device)
    embedded[order.to(device)] = torch.cat(rows)
    place = {text: row for row, text in enumerate(unique)}
    return embedded[[place[text] for text in texts]]


class TextFeatures:
    """Text embeddings of one CLIP, cached by everything that changes them.

    The key covers the weights' fingerprint, the activation, the precision, the prompts in order
    and the way they are pooled. A damaged or unwritable cache costs time, never a job. In memory
    stay those used last, within ``budget`` bytes, however many products are named.

    Args:
        clip: the model; ``fingerprint`` must identify its weights.
        fingerprint: hash of the weights, or None to keep nothing on disk.
        folder: disk cache; the user's cache folder by default.
        reload: gives the same model anew, for texts alone; it is dropped when they are embedded,
            so that the text tower's weights do not stay in memory.
        budget: bytes that embeddings in memory may take together.
    """

    def __init__(
        self,
        clip: CLIP,
        fingerprint: str | None = None,
        folder: Path | None = None,
        reload: Callable[[], CLIP] | None = None,
        budget: int = 64 * 2**20,
    ) -> None:
        self.clip, self.fingerprint, self.folder, self.reload = clip, fingerprint, folder, reload
        self.budget = budget
        self._memory: dict[str, Tensor] = {}  # the one used last comes last

    def means(self, groups: Sequence[Sequence[str]]) -> Tensor:
        """Mean embedding of each group of prompts, ``(len(groups), D)``; raises as ``rows``."""
        return torch.stack(self._features(groups, "mean"))

    def directions(self, groups: Sequence[Sequence[str]]) -> Tensor:
        """Mean direction of each group, every prompt of unit length before it and the mean after.

        Returns:
            ``(len(groups), D)``; raises as ``rows``.
        """
        means = [F.normalize(rows, dim=-1).mean(dim=0) for rows in self._features(groups, "rows")]
        return F.normalize(torch.stack(means), dim=-1)

    def rows(self, prompts: Sequence[str]) -> Tensor:
        """Embedding of every prompt, ``(len(prompts), D)``, not normalised, in the order given.

        Raises:
            ValueError: no prompt, or one that does not fit the context.
        """
        return self._features([prompts], "rows")[0]

    def _features(self, groups: Sequence[Sequence[str]], pooling: str) -> list[Tensor]:
        """Embeddings of each group, its ``rows`` or their ``mean``."""
        if not all(groups):
            raise ValueError("no prompt to embed")
        keys = [self._key(prompts, pooling) for prompts in groups]
        model: CLIP | None = None
        found = []
        for key, prompts in zip(keys, groups, strict=True):
            shape = (len(prompts), self.clip.config.embed_dim)
            stored = self._memory.pop(key, None)
            if stored is None:
                stored = self._read(key, shape[1:] if pooling == "mean" else shape)
            if stored is None:
                model = model or (self.reload() if self.reload else self.clip)
                stored = embed_texts(model, prompts)
                stored = stored.mean(dim=0) if pooling == "mean" else stored
                self._write(key, stored)
            self._keep(key, stored)
            found.append(stored.to(self.clip.logit_scale.device))
        return found

    def _keep(self, key: str, feature: Tensor) -> None:
        """Put it last, and drop what was used longest ago; several threads may do so at once."""
        self._memory[key] = feature
        kept = list(self._memory.items())
        excess = sum(each.nbytes for _, each in kept) - self.budget
        for oldest, each in kept:
            if excess <= 0:
                return
            self._memory.pop(oldest, None)
            excess -= each.nbytes

    def _key(self, prompts: Sequence[str], pooling: str) -> str:
        facts = {
            "format": _FORMAT,
            "weights": self.fingerprint,
            "activation": self.clip.config.activation,
            "precision": str(self.clip.logit_scale.dtype),
            "pooling": pooling,
            "prompts": list(prompts),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def _path(self, key: str) -> Path:
        return (self.folder or cache_folder() / "text") / f"{key}.safetensors"

    def _read(self, key: str, shape: tuple[int, ...]) -> Tensor | None:
        if self.fingerprint is None:
            return None
        try:
            stored = load_file(self._path(key))["feature"]
        except (OSError, KeyError, SafetensorError):
            return None
        fits = stored.shape == shape and bool(stored.isfinite().all())
        return stored if fits else None

    def _write(self, key: str, feature: Tensor) -> None:
        if self.fingerprint is None:
            return
        # a full or read-only disk: it stays in memory
        with suppress(StoreError), atomic_write(self._path(key), cached=True) as file:
            file.write(save({"feature": feature.float().cpu().contiguous()}))
