"""Names of defect kinds and the words that describe each; the user can replace all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_KINDS: dict[str, tuple[str, ...]] = {
    "scratch": ("{} with a scratch", "scratched {}"),
    "crack": ("{} with a crack", "cracked {}"),
    "hole": ("{} with a hole", "{} with a blowhole"),
    "dent": ("{} with a dent", "dented {}"),
    "stain": ("{} with a stain", "stained {}"),
    "contamination": ("{} with contamination", "contaminated {}"),
    "discolouration": ("{} with discolouration", "discoloured {}"),
    "break": ("{} with a break", "broken {}", "{} with a chipped edge"),
    "uneven surface": ("{} with an uneven surface", "uneven {}"),
    "fray": ("{} with a fray", "frayed {}"),
    "missing part": ("{} with a missing part", "incomplete {}"),
    "extra part": ("{} with an extra part",),
    "misplaced part": ("{} with a misplaced part", "misaligned {}"),
    "bent": ("bent {}", "{} with a bend"),
    "print error": ("{} with a print error", "misprinted {}"),
    "burn": ("{} with a burn", "burnt {}"),
    "bubble": ("{} with a bubble", "{} with bubbles"),
}


@dataclass(frozen=True)
class Vocabulary:
    """Defect kinds in order, each with at least one state phrase around ``{}``.

    Attributes:
        kinds: kind name -> state phrases, such as ``"crack": ("{} with a crack",)``.

    Raises:
        ValueError: no kind, an empty name, or a phrase without exactly one ``{}``.
    """

    kinds: tuple[tuple[str, tuple[str, ...]], ...]

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ValueError("the defect vocabulary is empty; name at least one kind")
        names = [name for name, _ in self.kinds]
        if len(set(names)) != len(names):
            raise ValueError("a defect kind is named twice in the vocabulary")
        for name, phrases in self.kinds:
            if not name.strip() or not phrases:
                raise ValueError(f"defect kind {name!r} needs a name and at least one phrase")
            for phrase in phrases:
                if phrase.count("{}") != 1:
                    raise ValueError(
                        f"phrase {phrase!r} of kind {name!r} needs '{{}}' exactly once, where the "
                        "product's name goes"
                    )

    @property
    def names(self) -> tuple[str, ...]:
        """Kind names in order."""
        return tuple(name for name, _ in self.kinds)

    @classmethod
    def default(cls) -> Vocabulary:
        """Return the kinds that the embedded model was taught."""
        return cls.of(DEFAULT_KINDS)

    @classmethod
    def of(cls, kinds: Mapping[str, Sequence[str]] | Sequence[str]) -> Vocabulary:
        """Build from a mapping kind -> phrases, or from bare names (``"{} with NAME"``)."""
        if isinstance(kinds, Mapping):
            entries = [(n, (p,) if isinstance(p, str) else tuple(p)) for n, p in kinds.items()]
        else:
            entries = [(name, (f"{{}} with {name}",)) for name in kinds]
        return cls(tuple(entries))

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read a JSON object ``{"kind": ["{} with ...", ...]}`` or a text file, a kind a line.

        Raises:
            ValueError: the file cannot be read as either; the message names file and remedy.
        """
        path, fault = Path(path), "cannot be read"
        try:
            text, fault = path.read_text(encoding="utf-8"), "not a defect vocabulary"
            if path.suffix.lower() == ".json":
                content = json.loads(text)
                if not isinstance(content, (dict, list)):
                    raise ValueError("neither an object nor a list")
                return cls.of(content)
            lines = [line.strip() for line in text.splitlines()]
            return cls.of([line for line in lines if line and not line.startswith("#")])
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: {fault} ({error}). Give a UTF-8 text file with a kind a line, or "
                'JSON {"kind": ["{} with ..."]}'
            ) from None
