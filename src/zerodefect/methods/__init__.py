"""The systems of the field, one file each, and those that other packages add.

Importing this package registers them all: its own files, and what is installed under the
entry-point group ``zerodefect.methods``.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
from importlib.metadata import entry_points
from types import ModuleType

from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.load_detector import default_method, load_detector
from zerodefect.detector.registry import create, facts_of, get, names

__all__ = ["create", "default_method", "facts_of", "get", "load_detector", "names"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
for _entry in entry_points(group="zerodefect.methods"):
    try:
        _entry.load()
    except Exception as error:  # another package's fault costs its own methods alone
        logging.getLogger("zerodefect").warning(
            "methods of %s are left out: %s: %s", _entry.value, type(error).__name__, error
        )


class Methods(ModuleType):
    """This package, which is ``zerodefect.methods`` and answers a call, too."""

    def __call__(self) -> dict[str, MethodInfo]:
        """Facts of all methods by their names: what each learns from, paper, licence, figures."""
        return {name: facts_of(name) for name in names()}


sys.modules[__name__].__class__ = Methods
