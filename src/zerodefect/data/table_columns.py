"""Files that list pictures, read as rows of text: encodings, separators, names of columns."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerodefect.data.dataset import DatasetError
from zerodefect.data.words import GOOD_WORDS

# Names that one fact goes by, lower case with underscores; the first that is present counts.
COLUMNS: dict[str, tuple[str, ...]] = {
    "image": (
        *("image", "img_path", "image_path", "path", "img", "file", "filename", "file_name"),
        *("filepath", "file_path", "source_ref", "image_name", "image_file", "image_filename"),
        *("image_id", "img_name", "imagename", "imagepath", "picture", "photo", "bild", "datei"),
        *("dateiname", "bildname", "bilddatei"),
    ),
    "mask": ("mask", "mask_path", "gt_path", "ground_truth", "gt", "anomaly_mask_ref", "maske"),
    "label": (
        *("label", "anomaly", "anomalous", "is_anomaly", "target", "anomaly_label", "label_index"),
        *("labels", "gt_label", "is_anomalous", "defective", "is_defective", "has_defect"),
        *("is_defect", "is_bad", "bad", "is_ng", "ng", "is_nok", "nok", "nio", "faulty"),
        *(
            "is_faulty",
            "abnormal",
            "is_abnormal",
            "rejected",
            "reject",
            "fail",
            "failed",
            "positive",
        ),
        *(f"{before}{word}" for before in ("", "is_") for word in sorted(GOOD_WORDS)),
        *("positive", "i_o", "n_i_o", "no_defect", "defect_free", "label_good", "label_ok"),
        *("ok_nok", "ok_ng", "ok_ko", "io_nio", "pass_fail", "good_bad", "quality", "result"),
        *("verdict", "judgement", "judgment", "decision", "qc_result", "qc", "test_result"),
        *("inspection_result", "inspection", "classification", "annotation", "grade"),
        *("condition", "status", "state", "ergebnis", "bewertung", "befund", "urteil"),
        *("qualität", "qualitaet"),
    ),
    "product": ("product", "object", "cls_name", "class_name", "class", "category", "produkt"),
    "kind": (
        *("kind", "defect", "specie_name", "defect_type", "anomaly_class", "defect_class"),
        *("defect_name", "defect_kind", "fehler", "fehlerart"),
    ),
    "split": ("split", "set", "subset"),
}

_EMPTY = frozenset({"", "nan", "null"})
_SEPARATORS = ",;\t|"


@dataclass(frozen=True)
class Row:
    """One entry of a table: where it stands, and its values under lower-case names."""

    where: str
    values: dict[str, str]

    def get(self, fact: str) -> str:
        """Give the first value that is not empty among the columns for a fact."""
        return self.found(fact)[1]

    def found(self, fact: str) -> tuple[str, str]:
        """Give the name and value of the first column for a fact that is not empty."""
        for column in COLUMNS[fact]:
            value = self.values.get(column, "").strip()
            word = value.casefold()
            if word not in _EMPTY and (word != "none" or column.startswith("defect")):
                return column, value
        return "", ""


def text_of(file: Path) -> str:
    """Read a file of text: UTF-8, UTF-16, or what Windows wrote before them (Windows-1252).

    What is none of the first two is taken for the last: a name that reads wrong so is a file that
    is not found, and reported.

    Raises:
        DatasetError: if it cannot be read, or is no text.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        reason = f"it cannot be read ({error.strerror or error})"
        raise DatasetError(file, reason, "Check the path and your access to it") from None
    encodings = ["utf-8-sig", "cp1252", "latin-1"]
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encodings = ["utf-16"]
    elif b"\0" in data[:2]:
        encodings = ["utf-16-be" if data[:1] == b"\0" else "utf-16-le"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise DatasetError(file, "it is not UTF-8 text", "Save it as UTF-8")


def json_of(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        DatasetError: if it cannot be read.
    """
    text = text_of(file)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(file, f"it is not JSON ({error})", "Write it anew") from None


def json_head(file: Path) -> bytes:
    """Read the first bytes of a JSON file, by which what wrote it is told; none of other files."""
    try:
        with file.open("rb") as stream:
            head = stream.read(4096) if file.suffix.lower() == ".json" else b""
    except OSError:
        return b""
    return head.removeprefix(b"\xef\xbb\xbf")


def values_of(entry: dict[Any, Any]) -> dict[str, str]:
    """Bring the names to lower case with underscores, and the values to text."""
    return {
        column_of(str(key)): "" if value is None else str(value) for key, value in entry.items()
    }


def column_of(heading: str) -> str:
    """Bring a heading to lower case with underscores: ``Is good?``, ``isGood``, ``is-good``."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", heading)
    return re.sub(r"\W+", "_", parted).strip("_").casefold()


def csv_rows(file: Path) -> list[Row]:
    """Read the rows of a CSV or TSV file, also one that begins with Excel's line ``sep=;``.

    Raises:
        DatasetError: if it cannot be read.
    """
    text, skipped = text_of(file), 0
    said = re.match(r"\s*sep=(.)\r?\n", text)
    if said:
        text, skipped = text[said.end() :], text[: said.end()].count("\n")
    head = text.lstrip().partition("\n")[0]
    delimiter = said[1] if said else max(_SEPARATORS, key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = []
    try:
        for entry in reader:
            named = {key: value for key, value in entry.items() if key is not None}
            rows.append(Row(f"{file}: line {reader.line_num + skipped}", values_of(named)))
    except csv.Error as error:
        reason = f"line {reader.line_num + skipped} cannot be read ({error})"
        raise DatasetError(file, reason, "Save it as CSV anew") from None
    return rows


def json_lines(file: Path) -> list[Row]:
    """Read the rows of a JSON-lines file.

    Raises:
        DatasetError: if it cannot be read.
    """
    rows = []
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            reason = f"line {number} is not JSON ({error})"
            raise DatasetError(file, reason, "Write one object per line") from None
        if not isinstance(entry, dict):
            reason = f"line {number} is not an object"
            raise DatasetError(file, reason, "Write one object per line")
        rows.append(Row(f"{file}: line {number}", values_of(entry)))
    return rows
