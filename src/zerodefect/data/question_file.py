"""Questions about pictures as MMAD's ``mmad.json`` has them (arXiv 2410.09453)."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zerodefect.data.dataset import DatasetError

QUESTIONS = "mmad.json"
KNOWLEDGE = "domain_knowledge.json"

_OFFICIAL = "https://github.com/jam-cc/MMAD"
_RENAMED = {"DS-MVTec": "MVTec"}  # in the file of knowledge


@dataclass(frozen=True)
class Question:
    """One question with its options.

    Attributes:
        text: in words.
        options: text of each letter from A on, in the order of the file.
        answer: letter of the right one; as the file has it where it names none of them.
        kind: such as ``Anomaly Detection``.
    """

    text: str
    options: Mapping[str, str]
    answer: str
    kind: str


@dataclass(frozen=True)
class QuestionedPicture:
    """A picture and what is asked about it.

    Attributes:
        name: ``<data set>/<class>/.../<file>``, as the file of questions has it.
        file: where it lies.
        questions: in the order of the file.
        random_templates, similar_templates: pictures of good parts to compare it with.
    """

    name: str
    file: Path
    questions: tuple[Question, ...]
    random_templates: tuple[Path, ...] = ()
    similar_templates: tuple[Path, ...] = ()

    @property
    def dataset(self) -> str:
        """First part of its name."""
        return self.name.split("/", 1)[0]

    @property
    def product(self) -> str:
        """Second part of its name; empty where there is none."""
        return (*self.name.split("/"), "")[1]


@dataclass(frozen=True)
class QuestionedPictures:
    """All pictures of a folder.

    Attributes:
        root: the folder.
        file: of the questions.
        pictures: in the order of the file.
        knowledge: texts about normal parts and each defect, by data set and product; of a data set
            that the file renames under both names.
    """

    root: Path
    file: Path
    pictures: tuple[QuestionedPicture, ...]
    knowledge: Mapping[tuple[str, str], tuple[str, ...]]

    def known_of(self, picture: QuestionedPicture) -> tuple[str, ...]:
        """Texts about the product of a picture; none where nothing is known."""
        return self.knowledge.get((picture.dataset, picture.product), ())


def read_questions(root: str | Path) -> QuestionedPictures:
    """Read ``mmad.json`` and, where it is there, ``domain_knowledge.json``.

    Pictures are not opened: one that is missing is found out when it is asked about.

    Args:
        root: folder of both files, with the data sets beside them; or the question file itself.

    Raises:
        DatasetError: no such file, or one that cannot be used; names the entry and the remedy.
    """
    path = Path(root)
    file = path if path.suffix == ".json" else path / QUESTIONS
    content = _read(file, f"Bring it and the data sets from {_OFFICIAL} into one folder")
    pictures = tuple(_picture(file, name, entry) for name, entry in content.items())
    if not pictures:
        raise DatasetError(file, "no picture in it", _again())
    known = file.parent / KNOWLEDGE
    texts = _knowledge(known) if known.is_file() else {}
    return QuestionedPictures(file.parent, file, pictures, texts)


def _again() -> str:
    return f"Copy the file again from {_OFFICIAL}"


def _read(file: Path, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise DatasetError(file, "no such file", remedy) from None
    except OSError as error:
        raise DatasetError(file, f"cannot be read ({error.strerror})", remedy) from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(file, f"not valid JSON ({error})", _again()) from None
    if not isinstance(content, dict):
        raise DatasetError(file, "not a JSON object of pictures", _again())
    return content


def _picture(file: Path, name: str, entry: Any) -> QuestionedPicture:
    try:
        asked: Any = next((entry[key] for key in entry if key.startswith("conversation")), [])
        questions = tuple(_question(one) for one in asked)
        templates = [
            tuple(_file(file.parent, name, one) for one in entry.get(f"{how}_templates") or ())
            for how in ("random", "similar")
        ]
        return QuestionedPicture(name, _file(file.parent, name, name), questions, *templates)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"{type(error).__name__} {error}".strip()
        raise DatasetError(file, f"the entry {name!r} cannot be read ({why})", _again()) from None


def _question(entry: Mapping[str, Any]) -> Question:
    """Options get letters in the order of the file, whatever they are there."""
    options = dict(entry["Options"])
    if not options or len(options) > len(string.ascii_uppercase):
        raise ValueError(f"{len(options)} options")
    letters = dict(zip(options, string.ascii_uppercase, strict=False))
    shown = {letters[former]: str(text) for former, text in options.items()}
    answer = str(entry["Answer"]).strip()
    return Question(str(entry["Question"]), shown, letters.get(answer, answer), str(entry["type"]))


def _file(root: Path, name: str, path: str) -> Path:
    """A path is relative to the root or to data set and class.

    Raises:
        ValueError: it leads out of the root.
    """
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError(f"the path {path!r} leads out of the folder")
    inner = root.joinpath(*name.split("/")[:2], path)
    return inner if not (root / path).is_file() and inner.is_file() else root / path


def _knowledge(file: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    content = _read(file, _again())
    try:
        found = dict(_texts(content))
    except (AttributeError, TypeError) as error:
        raise DatasetError(file, f"not data set, class and texts ({error})", _again()) from None
    for renamed, name in _RENAMED.items():
        own = {(renamed, cls): texts for (data, cls), texts in found.items() if data == name}
        found = {**own, **found}
    return found


def _texts(content: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], tuple[str, ...]]]:
    for dataset, classes in content.items():
        for product, texts in classes.items():
            yield (dataset, product), tuple(str(text) for text in texts.values())
