"""CVAT for images 1.1: an XML file of pictures with polygons, masks, boxes, ellipses and tags."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

from zerodefect.data.annotated_pictures import Annotated, add_annotated
from zerodefect.data.dataset import DatasetError
from zerodefect.data.drawn_masks import Area, Outline, Runs, centred_box, ellipse_outline
from zerodefect.data.folders import SPLITS
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.listing import Listing, is_good

TREE = """\
parts/
├── annotations.xml                    CVAT for images 1.1
└── images/0.png ...                   a picture without shapes is good, unless others have a tag
                                       that says so: then it is unlabelled"""

_NAME = "annotations.xml"
_SHAPES = frozenset({"polygon", "mask", "box", "ellipse"})
_REMEDY = "Export the task anew as CVAT for images 1.1"


def _recognises(place: Path, named: bool) -> bool:
    file = place if place.is_file() else place / _NAME
    try:
        with file.open("rb") as stream:
            head = stream.read(4096) if file.suffix.lower() == ".xml" else b""
    except OSError:
        return False
    return b"<annotations" in head


@register(Layout("cvat", TREE, _recognises, asked=21))
def _read(place: Path, name: str) -> Listing:
    """Read one export, or ``annotations.xml`` of a folder.

    Raises:
        DatasetError: it is missing, of another form, or declares entities of its own.
    """
    file = place if place.is_file() else place / _NAME
    top = _xml_of(file)
    images = top.findall("image")
    if top.tag != "annotations" or not images:
        video = " (CVAT for video is not read)" if top.find("track") is not None else ""
        raise DatasetError(file, f"it lists no images{video}", _REMEDY)
    known = {label.findtext("name", "") for label in top.iter("label")}
    entries = [_entry(file, image, known) for image in images]
    if any(is_good(word) for entry in entries for _, word in entry.words):
        for entry in entries:
            entry.seen = bool(entry.areas or entry.words)
    listing = Listing(f"{file.name} of CVAT lists the pictures")
    root = file.parent
    add_annotated(listing, entries, root, [root / "images"], name)
    return listing


def _xml_of(file: Path) -> Element:
    """Read an XML file; what declares a document type is refused, and entities with it.

    Entities that expand to gigabytes, or read other files, can be declared nowhere else.

    Raises:
        DatasetError: it cannot be read.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*declaration: object) -> None:
        reason = "it declares a document type, as CVAT never does and XML bombs do"
        raise DatasetError(file, reason, _REMEDY)

    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        with file.open("rb") as stream:
            parser.ParseFile(stream)
        return builder.close()
    except OSError as error:
        reason = f"it cannot be read ({error.strerror or error})"
        raise DatasetError(file, reason, "Check the path and your access to it") from None
    except (expat.ExpatError, ParseError, AssertionError, LookupError) as error:
        raise DatasetError(file, f"it is not XML ({error})", _REMEDY) from None


def _entry(file: Path, image: Element, known: set[str]) -> Annotated:
    name = image.get("name", "")
    split = SPLITS.get(image.get("subset", "").casefold())
    entry = Annotated(f"{file}: image {image.get('id')} ({name})", name, split=split)
    try:
        if not name:
            raise ValueError("the entry names no picture")
        entry.size = _whole(image, "width"), _whole(image, "height")
        for shape in image:
            _add(entry, shape, known)
    except ValueError as error:
        entry.fault = str(error)
    return entry


def _add(entry: Annotated, shape: Element, known: set[str]) -> None:
    label = shape.get("label", "")
    if known and label not in known:
        raise ValueError(f"a {shape.tag} has a label that the file does not list ({label})")
    if shape.tag == "tag":
        entry.words.append(("tag", label))
    elif shape.tag in _SHAPES:
        entry.areas.append((label, _area(shape)))
        entry.boxes += shape.tag == "box"
    else:
        raise ValueError(f"a {shape.tag} marks no area")


def _area(shape: Element) -> Area:
    degrees = _number(shape, "rotation", "0")
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in shape.get("points", "").split(";")]
        if len(pairs) < 3 or any(len(pair) != 2 for pair in pairs):
            raise ValueError("a polygon has no three corners")
        return Outline(tuple(_float(value) for pair in pairs for value in pair))
    if shape.tag == "mask":
        corner, size = (
            (_whole(shape, a), _whole(shape, b)) for a, b in (("left", "top"), ("width", "height"))
        )
        counts = [count.strip() for count in shape.get("rle", "").split(",")]
        if not all(count.isdecimal() for count in counts):
            raise ValueError("the RLE of a mask is no list of numbers")
        return Runs(tuple(map(int, counts)), size, corner, by_columns=False)
    if shape.tag == "ellipse":
        x, y, rx, ry = (_number(shape, name) for name in ("cx", "cy", "rx", "ry"))
        return ellipse_outline(x, y, rx, ry, degrees)
    left, top, right, bottom = (_number(shape, name) for name in ("xtl", "ytl", "xbr", "ybr"))
    centre = (left + right) / 2, (top + bottom) / 2
    return centred_box(*centre, right - left, bottom - top, degrees)


def _number(shape: Element, name: str, default: str = "") -> float:
    return _float(shape.get(name, default), f"{name} of a {shape.tag}")


def _float(text: str, what: str = "a corner of a polygon") -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{what} is no number ({text})") from None


def _whole(shape: Element, name: str) -> int:
    number = _number(shape, name)
    if not number.is_integer() or number < 0:
        raise ValueError(f"{name} of a {shape.tag} is no number of pixels ({shape.get(name)})")
    return int(number)
