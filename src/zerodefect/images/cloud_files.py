"""Point clouds as files store them: TIFF with x, y, z per pixel, PLY, and PCD."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zerodefect.images import formats
from zerodefect.images.samples import FaultError
from zerodefect.images.tiff import stored_samples

MAX_POINTS = 50_000_000

_EXPORT = "Export it as PLY (binary), PCD, or as a TIFF with x, y and z of every pixel"
_THINNER = "If you trust the file, thin the cloud out or cut it into parts"
_DAMAGED_HEADER = "its header is damaged"
# Names of the scalar types of PLY, old and new.
_PLY_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}
_PLY_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_PCD_KINDS = {"F": "f", "I": "i", "U": "u"}
_HEADER_BYTES = 2**16  # a longer header is none


@dataclass(frozen=True, eq=False)
class StoredPoints:
    """Points as a file has them.

    Attributes:
        points: ``(H, W, 3)`` if organised, else ``(N, 3)``; numbers of any type.
        organised: whether the file has a grid.
        notes: what the reader should know about the file.
    """

    points: np.ndarray
    organised: bool
    notes: tuple[str, ...] = ()


def is_cloud_file(head: bytes) -> bool:
    """Whether a file that begins so can only be a cloud (PLY, PCD); TIFF may be either."""
    return bool(re.match(rb"ply\s", head)) or _is_pcd(head)


def _is_pcd(head: bytes) -> bool:
    return bool(re.match(rb"(?:#[^\n]*\n|\s)*VERSION\s+\.?[\d.]+\s", head))


def parsed(data: bytes, most: int) -> StoredPoints:
    """Read the points of a whole file.

    Raises:
        FaultError: it is damaged, of a kind that cannot be read, or has more than ``most`` points.
    """
    if not data:
        raise FaultError("the file is empty")
    head = data[: formats.HEAD_BYTES]
    if formats.sniff(head) == "TIFF":
        return _from_tiff(data, most)
    if re.match(rb"ply\s", head):
        return _from_ply(data, most)
    if _is_pcd(head):
        return _from_pcd(data, most)
    kind = formats.sniff(head)
    what = f"a {kind} picture" if kind else formats.describe_stranger(head)[0]
    raise FaultError(f"it is not a cloud but {what}", _EXPORT)


def _check_count(count: int, most: int) -> None:
    if count < 1:
        raise FaultError("it has no points")
    if count > most:
        raise FaultError(f"it has {count:,} points, the limit is {most:,}", _THINNER)


# --- TIFF ------------------------------------------------------------------------------------


def _from_tiff(data: bytes, most: int) -> StoredPoints:
    samples, notes = stored_samples(data, most)
    if samples.shape[2] != 3:
        reason = f"it has {samples.shape[2]} channel{'s' * (samples.shape[2] > 1)}, not x, y and z"
        raise FaultError(reason, _EXPORT)
    if samples.dtype.kind == "u":
        reason = "its values are whole numbers without a sign, as a picture's"
        raise FaultError(reason, f"Pass it as a picture. {_EXPORT}")
    return StoredPoints(samples, True, tuple(notes))


# --- PLY -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    fields: tuple[tuple[str, str], ...]  # name, type; "" as the type of a list
    has_lists: bool


def _from_ply(data: bytes, most: int) -> StoredPoints:
    """Read a PLY file (Turk 1994) of either byte order or in ASCII."""
    found = re.search(rb"end_header[ \t]*(\r\n|\n|\r)", data[:_HEADER_BYTES])
    if not found:
        ended = len(data) < _HEADER_BYTES
        raise FaultError(formats.ENDS_EARLY if ended else _DAMAGED_HEADER)
    lines = [line.split() for line in data[: found.start()].decode("latin-1").splitlines()]
    form = next((line[1] for line in lines if line[:1] == ["format"] and len(line) > 1), "")
    if form != "ascii" and form not in _PLY_ORDERS:
        raise FaultError(f"its format {form!r} is not one of PLY's", _EXPORT)
    before, vertex = _elements(lines)
    _check_count(vertex.count, most)
    body = data[found.end() :]
    if form == "ascii":
        skipped = sum(element.count for element in before)
        points = _ascii_rows(body, skipped, vertex.count, vertex.fields)
    else:
        order = _PLY_ORDERS[form]
        if any(element.has_lists for element in (*before, vertex)):
            raise FaultError("lists stand before or among its points", _EXPORT)
        start = sum(element.count * _row_type(element.fields, order).itemsize for element in before)
        points = _binary_rows(body[start:], vertex.count, _row_type(vertex.fields, order))
    sides = _range_grid(lines)
    if sides and sides[0] * sides[1] == vertex.count:
        return StoredPoints(points.reshape(*sides, 3), True)
    return StoredPoints(points, False)


def _elements(lines: list[list[str]]) -> tuple[list[_Element], _Element]:
    """The elements before the points, and the points'."""
    elements: list[_Element] = []
    for line in lines:
        if line[:1] == ["element"]:
            if len(line) != 3 or not re.fullmatch(r"\d{1,15}", line[2]):
                raise FaultError(_DAMAGED_HEADER)
            elements.append(_Element(line[1], int(line[2]), (), False))
        elif line[:1] == ["property"]:
            if not elements or len(line) not in (3, 5):
                raise FaultError(_DAMAGED_HEADER)
            last, is_list = elements[-1], line[1] == "list"
            if not is_list and line[1] not in _PLY_TYPES:
                raise FaultError(f"its type {line[1]!r} is not one of PLY's", _EXPORT)
            kind = "" if is_list else _PLY_TYPES[line[1]]
            fields = (*last.fields, (line[-1], kind))
            elements[-1] = _Element(last.name, last.count, fields, last.has_lists or is_list)
    place = next((n for n, element in enumerate(elements) if element.name == "vertex"), None)
    if place is None:
        raise FaultError("it has no points (no element vertex)", _EXPORT)
    vertex = elements[place]
    _places([name for name, _ in vertex.fields])
    return elements[:place], vertex


def _range_grid(lines: list[list[str]]) -> tuple[int, int] | None:
    """Rows and columns, which range scanners note beside the points."""
    said = {line[1]: line[2] for line in lines if line[:1] == ["obj_info"] and len(line) == 3}
    rows, columns = said.get("num_rows", ""), said.get("num_cols", "")
    return (int(rows), int(columns)) if rows.isdigit() and columns.isdigit() else None


# --- PCD -------------------------------------------------------------------------------------


def _from_pcd(data: bytes, most: int) -> StoredPoints:
    """Read a PCD file (Point Cloud Library, version 0.7): ascii, binary, binary_compressed."""
    found = re.search(rb"(?:^|\n)DATA[ \t]+(\w+)[ \t]*\r?\n", data[:_HEADER_BYTES])
    if not found:
        ended = len(data) < _HEADER_BYTES
        raise FaultError(formats.ENDS_EARLY if ended else _DAMAGED_HEADER)
    text = data[: found.start()].decode("latin-1")
    said = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    names = said.get("FIELDS", [])
    sizes, kinds = said.get("SIZE", []), said.get("TYPE", [])
    counts = said.get("COUNT", ["1"] * len(names))
    numbers = (*sizes, *counts, *said.get("WIDTH", [""]), *said.get("HEIGHT", ["1"]))
    fits = len(names) == len(sizes) == len(kinds) == len(counts) > 0
    if not fits or not all(re.fullmatch(r"\d{1,15}", n) for n in numbers):
        raise FaultError(_DAMAGED_HEADER)
    width, height = int(said["WIDTH"][0]), int(said.get("HEIGHT", ["1"])[0])
    _check_count(width * height, most)
    if any(kind not in _PCD_KINDS for kind in kinds) or not set(sizes) <= {*"1248"}:
        raise FaultError("its fields have types that PCD does not know", _EXPORT)
    fields = []
    for name, size, kind, count in zip(names, sizes, kinds, counts, strict=True):
        whole = int(count)
        if not 0 < whole <= 4096:
            raise FaultError(_DAMAGED_HEADER)
        code = f"{_PCD_KINDS[kind]}{size}"
        fields += [(name if whole == 1 else f"{name}[{n}]", code) for n in range(whole)]
    _places([name for name, _ in fields])
    how, body = found.group(1).decode(), data[found.end() :]
    points = _pcd_rows(how, body, width * height, fields)
    return StoredPoints(points.reshape(height, width, 3) if height > 1 else points, height > 1)


def _pcd_rows(how: str, body: bytes, count: int, fields: list[tuple[str, str]]) -> np.ndarray:
    if how == "ascii":
        return _ascii_rows(body, 0, count, fields)
    row = _row_type(fields, "<")
    if how == "binary":
        return _binary_rows(body, count, row)
    if how != "binary_compressed":
        raise FaultError(f"its data are stored as {how!r}, which PCD does not know", _EXPORT)
    if len(body) < 8:
        raise FaultError(formats.ENDS_EARLY)
    packed, plain = (int(n) for n in np.frombuffer(body, "<u4", 2))
    if plain != count * row.itemsize:
        raise FaultError("its header contradicts itself")
    if len(body) < 8 + packed:
        raise FaultError(formats.ENDS_EARLY)
    flat = _unpacked(body[8 : 8 + packed], plain)
    columns, at = {}, 0
    for name, code in fields:  # field after field, not point after point
        columns[name] = np.frombuffer(flat, f"<{code}", count, at)
        at += count * np.dtype(code).itemsize
    return np.stack([columns[axis] for axis in "xyz"], 1).astype(np.float64)


def _unpacked(packed: bytes, length: int) -> bytes:
    """Undo LZF: runs of plain bytes, and copies of up to 264 bytes from up to 8192 back."""
    made = bytearray()
    at, end = 0, len(packed)
    while at < end:
        control = packed[at]
        at += 1
        if control < 32:
            made += packed[at : at + control + 1]
            at += control + 1
        else:
            count = control >> 5
            if count == 7:
                count += packed[at]
                at += 1
            back = ((control & 31) << 8) + packed[at] + 1
            at += 1
            start = len(made) - back
            if start < 0:
                raise FaultError(formats.DAMAGED + ": its points do not unpack")
            count += 2
            piece = bytes(made[start : start + count])
            made += (piece * (count // len(piece) + 1))[:count]  # a copy may overlap itself
        if len(made) > length:
            break
    if len(made) != length:
        raise FaultError(formats.DAMAGED + ": its points do not unpack")
    return bytes(made)


# --- rows ------------------------------------------------------------------------------------


def _places(names: Sequence[str]) -> list[int]:
    """Columns of x, y and z."""
    missing = [axis for axis in "xyz" if names.count(axis) != 1]
    if missing:
        raise FaultError(f"its points have no {', '.join(missing)}", _EXPORT)
    return [names.index(axis) for axis in "xyz"]


def _row_type(fields: Sequence[tuple[str, str]], order: str) -> np.dtype:
    """Type of a row; only x, y and z keep their names, since files may have others twice."""
    named = ((name if name in "xyz" else f"#{n}", code) for n, (name, code) in enumerate(fields))
    return np.dtype([(name, order + code) for name, code in named])


def _binary_rows(body: bytes, count: int, row: np.dtype) -> np.ndarray:
    """``(count, 3)`` float64 from rows of the type."""
    if len(body) < count * row.itemsize:
        raise FaultError(formats.ENDS_EARLY)
    rows = np.frombuffer(body, row, count)
    return np.stack([rows[name].astype(np.float64) for name in "xyz"], 1)


def _ascii_rows(
    body: bytes, skipped: int, count: int, fields: Sequence[tuple[str, str]]
) -> np.ndarray:
    """``(count, 3)`` float64 from lines of numbers, after those that are skipped."""
    lines = [line for line in body.splitlines() if line.strip()][skipped : skipped + count]
    if len(lines) < count:
        raise FaultError(formats.ENDS_EARLY)
    places = _places([name for name, _ in fields])
    try:
        cells = [line.split() for line in lines]
        return np.array([[float(row[place]) for place in places] for row in cells])
    except (ValueError, IndexError):
        raise FaultError(formats.DAMAGED + ": a line of its points cannot be read") from None
