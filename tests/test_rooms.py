"""The rooms of the design: each imports only from those above it in the table."""

import ast
from pathlib import Path

import pytest

import zerodefect

PACKAGE = Path(zerodefect.__file__).parent
# The design's table, bottom to top; the rooms of one row know nothing of each other.
TABLE = (
    {"version", "types", "files", "paths"},
    {"images"},
    {"layers"},
    {"backbones"},
    {"prompts"},
    {"procedural"},
    {"detector"},
    {"methods"},
    {"scoring"},
    {"data"},
    {"training"},
    {"pretraining"},
    {"inspection"},
    {"evaluation"},
    {"reports"},
    {"engines"},
    {"cli"},
)
FLOOR = {room: number for number, row in enumerate(TABLE) for room in row}
NOT = {"data": {"detector", "methods", "scoring"}}  # though they stand above it in the table
ABOVE_ALL = {"__init__", "__main__"}

FILES = sorted(PACKAGE.rglob("*.py"))


def imported_modules(source: str, package: str) -> set[str]:
    """Absolute dotted names of everything of the project that a source file imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).rstrip(".")
            found |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and _name(node.func) in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.add(first.value)
    return {name for name in found if name.split(".")[0] == "zerodefect"}


def imported_rooms(source: str, package: str = "zerodefect.cli") -> set[str]:
    """Rooms that a source file imports; "zerodefect" stands for the package as a whole."""
    names = (name.split(".") for name in imported_modules(source, package))
    return {parts[1] if len(parts) > 1 else parts[0] for parts in names}


def _name(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _package(path: Path) -> str:
    return ".".join(["zerodefect", *path.relative_to(PACKAGE).parts[:-1]])


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import torch, zerodefect.images", {"images"}),
        ("from zerodefect.images.decode import ImageError", {"images"}),
        ("from zerodefect import methods, __version__", {"methods", "__version__"}),
        ("from zerodefect import load", {"load"}),
        ("import zerodefect", {"zerodefect"}),
        ("def f():\n    from zerodefect.cli import shared", {"cli"}),
        ("if TYPE_CHECKING:\n    import zerodefect.engines.local as local", {"engines"}),
        ("from . import shared", {"cli"}),
        ("from ..engines import local", {"engines"}),
        ("from .. import methods", {"methods"}),
        ("importlib.import_module('zerodefect.reports.rle')", {"reports"}),
        ("from zerodefectors import methods", set()),
    ],
)
def test_what_counts_as_importing_a_room(source, rooms):
    assert imported_rooms(source) == rooms


def test_the_files_are_found():
    assert len(FILES) > 40
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} >= {
        "types",
        "methods",
        "cli",
    }


def test_every_room_stands_in_the_table():
    rooms = {p.name for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    rooms |= {p.stem for p in PACKAGE.glob("*.py")} - ABOVE_ALL
    assert rooms == set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_rooms_above_it(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room in ABOVE_ALL:
        return
    imported = imported_rooms(path.read_text("utf-8"), _package(path)) - {room}
    wrong = {name for name in imported if FLOOR.get(name, len(TABLE)) >= FLOOR[room]}
    wrong |= imported & NOT.get(room, set())
    assert not wrong, f"{room} must not import {sorted(wrong)}"


@pytest.mark.parametrize(
    "path", sorted((PACKAGE / "methods").rglob("*.py")), ids=lambda path: path.stem
)
def test_a_method_imports_no_other_method(path):
    names = imported_modules(path.read_text("utf-8"), _package(path))
    assert not {name for name in names if name.startswith("zerodefect.methods.")}
