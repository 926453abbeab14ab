"""What a row of a table says about its picture: good, a kind of defect, or nothing understood.

A word is understood by itself (``data/words.py``), a number or yes and no only by what its column
is called: ``is_good`` and ``defective`` answer opposite questions, and ``status`` answers none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from zerodefect.data.dataset import GOOD, UNNAMED_DEFECT
from zerodefect.data.listing import Listing, tell_test_words
from zerodefect.data.table_columns import Row
from zerodefect.data.words import GOOD_WORDS, key_of, says_good

_YES = frozenset({"1", "1.0", "true", "yes", "y", "t", "ja", "x"})
_NO = frozenset({"0", "0.0", "false", "no", "n", "f", "nein"})
_SIGNS = {"1": True, "1.0": True, "+1": True, "-1": False, "-1.0": False}
_UNDECIDED = frozenset(
    {"?", "-", "unknown", "unsure", "undecided", "unlabelled", "unlabeled", "todo", "tbd", "n/a"}
    | {"rework", "recheck", "review", "pending", "skip", "ignore", "unklar", "nacharbeit"}
)
# Columns that hold words: what a number in them means is anybody's guess.
_WORDS_ONLY = frozenset(
    {"quality", "result", "verdict", "status", "state", "judgement", "judgment", "decision"}
    | {"grade", "condition", "classification", "inspection_result", "test_result", "qc"}
    | {"qc_result", "inspection", "annotation", "ergebnis", "bewertung", "befund", "qualitaet"}
    | {"qualität", "urteil", "ok_nok", "ok_ng", "io_nio", "pass_fail", "good_bad", "ok_ko"}
)
# The sign means an outlier (scikit-learn) only where the column's name asks nothing.
_NEUTRAL = frozenset({"label", "labels", "target", "gt_label", "class", "category"})


def asks_good(column: str) -> bool:
    """Whether yes in a column of labels means a good part; else it means a defective one."""
    return key_of(column.removeprefix("is_").removeprefix("label_")) in GOOD_WORDS


def is_idle(column: str, values: Iterable[str]) -> bool:
    """Whether a column that may hold labels (status, result) holds something else in this table."""
    return column in _WORDS_ONLY and not any(says_good(v) is not None for v in values if v)


class Labels:
    """Reads the labels of one table's rows.

    Args:
        listing: takes what is not understood, and what should be known.
        rows: of the whole table, because 1 means another thing beside -1 than beside 0.
    """

    def __init__(self, listing: Listing, rows: Iterable[Row]) -> None:
        self.listing = listing
        seen: dict[str, set[str]] = {}
        for row in rows:
            column, value = row.found("label")
            seen.setdefault(column, set()).add(value)
        self._signed = {
            column
            for column, values in seen.items()
            if (values - {""}) <= _SIGNS.keys() and not values <= {"", "1", "1.0", "+1"}
        }
        tell_test_words(listing, (value for values in seen.values() for value in values))
        for column in sorted(self._signed & _NEUTRAL):
            note = f"column {column}: 1 is read as good and -1 as defective, as scikit-learn has it"
            listing.notes.append(note)

    def kind(self, row: Row) -> str:
        """Give the kind, empty for no label: from the label if there is one, else the kind."""
        (column, label), (kind_column, kind) = row.found("label"), row.found("kind")
        if not label:
            return self._kind_alone(row, kind_column, kind)
        good = self._says_good(column, label)
        if good is None:
            return self._named(row, column, label, kind)
        if (kind and says_good(kind) is (not good)) or (good and kind and says_good(kind) is None):
            says = f"the label says {'good' if good else 'defective'} ({label})"
            reason = f"{says} but the kind says {kind!r}; the label counts"
            self.listing.report("error", row.where, reason, "Correct one of the two")
            kind = ""
        if good:
            return GOOD
        return kind or _own_name(label) or UNNAMED_DEFECT

    def _says_good(self, column: str, label: str) -> bool | None:
        if (meant := says_good(label)) is not None:
            return meant
        word, good = label.casefold(), asks_good(column)
        if column in self._signed:
            return _SIGNS[word] if column in _NEUTRAL else _SIGNS[word] is good
        if column in _WORDS_ONLY or word not in _YES | _NO:
            return None
        return (word in _YES) is good

    def _named(self, row: Row, column: str, label: str, kind: str) -> str:
        """Take a word that is neither good nor bad for the name of a kind, where it can be one."""
        if _is_answer(label) or _is_number(label) or label.casefold() in _UNDECIDED:
            return self._unknown(row, column, label)
        if column in _WORDS_ONLY or asks_good(column):
            return self._unknown(row, column, label)
        return label if says_good(kind) else kind or label

    def _kind_alone(self, row: Row, column: str, kind: str) -> str:
        word = kind.casefold()
        if column.startswith("defect") and (_is_answer(kind) or word in {"none", "no_defect"}):
            return UNNAMED_DEFECT if word in _YES else GOOD
        if kind and (_is_answer(kind) or _is_number(kind) or word in _UNDECIDED):
            return self._unknown(row, column, kind)
        return UNNAMED_DEFECT if says_good(kind) is False and not _own_name(kind) else kind

    def _unknown(self, row: Row, column: str, label: str) -> str:
        reason = f"the {column} {label} is not understood, so the picture counts as unlabelled"
        remedy = "Write good or the kind of defect, or 0 for good and 1 for defective in a column "
        self.listing.report("error", row.where, reason, f"{remedy}called label")
        return ""


def _own_name(word: str) -> str:
    """Give a word for defective if it numbers the kind (``defect_2``), else nothing."""
    return word if key_of(word) and re.search(r"\d", word) else ""


def _is_answer(word: str) -> bool:
    return word.casefold() in _YES | _NO


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
