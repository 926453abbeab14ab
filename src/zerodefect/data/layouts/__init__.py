"""How data sets lie on disk, one file for each layout. Importing this package registers them."""

import importlib
import pkgutil

from zerodefect.data.layout_registry import layout_names, published_sets

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

CATALOGUE = published_sets()
LAYOUTS = layout_names()
