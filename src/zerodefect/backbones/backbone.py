"""What every pretrained network tells of itself, whatever it is."""

from __future__ import annotations

from typing import Protocol

from zerodefect.images import Preprocess


class Backbone(Protocol):
    """A pretrained network with what must travel with its weights."""

    @property
    def name(self) -> str:
        """As the user would name it again."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights file, hexadecimal."""

    @property
    def preprocess(self) -> Preprocess:
        """Input size, mean, standard deviation and interpolation of the weights."""

    @property
    def stride(self) -> int:
        """Pixels between neighbouring features; both sides of an input are multiples of it."""

    @property
    def width(self) -> int:
        """Channels of its features."""

    @property
    def precision(self) -> str:
        """Of its weights, as torch names it: ``float32``, ``bfloat16``."""

    @property
    def activation(self) -> str | None:
        """That it runs with, where files of learned values hang on it."""
