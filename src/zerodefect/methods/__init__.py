"""The systems of the field, one file each. ``create`` builds one by name."""

from __future__ import annotations

from zerodefect.methods.registry import create, get, names, register

__all__ = ["create", "get", "names", "register"]
