"""What a detector knows of one product: a frozen record that it makes and is handed back."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from zerodefect.files import atomic_write
from zerodefect.prompts.vocabulary import Vocabulary

FORMAT = "zerodefect-knowledge"
VERSION = 1

Bytes = bytes  # whose name a property of ``Knowledge`` has
_LONGEST = 1000  # characters of a name, beyond what any text tower reads


class KnowledgeError(ValueError):
    """Knowledge that cannot be used: another detector's, or a file that is none."""


@dataclass(frozen=True)
class Product:
    """What a method is told of a product.

    Attributes:
        name: what it is called, such as ``magnetic tile``; runs of blanks become one.
        vocabulary: defect kinds to tell apart, or None.
        descriptions: sentences that say how a good one looks.
        counts: components of a good one and how many there are, ``("screw", 2)``.

    Raises:
        ValueError: a name that is empty, no text, of more than 1000 characters, or holds control
            characters.
    """

    name: str
    vocabulary: Vocabulary | None = None
    descriptions: tuple[str, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            told = type(self.name).__name__
            raise ValueError(f"the object's name is text, such as 'screw', and not a {told}")
        name = " ".join(self.name.split())
        if not name:
            raise ValueError("the object needs a name, such as 'magnetic tile' or 'screw'")
        if len(name) > _LONGEST:
            raise ValueError(
                f"the object's name has {len(name):,} characters, at most {_LONGEST} are read: a "
                "few words do, such as 'magnetic tile'"
            )
        if odd := [sign for sign in name if unicodedata.category(sign) in ("Cc", "Cs")]:
            raise ValueError(
                f"the object's name holds the control character {odd[0]!r}: write plain words, "
                "such as 'magnetic tile'"
            )
        object.__setattr__(self, "name", name)


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What one detector knows of one product. Nothing in it is ever changed.

    Attributes:
        detector: facts of the detector that made it; no other one accepts it.
        product: its name and words, or None before ``describe``.
        shots: pictures remembered.
        tensors: text features, memory and what else the method keeps, by name.
        facts: plain data that goes with the tensors.
    """

    detector: Mapping[str, Any]
    product: Product | None = None
    shots: int = 0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def having(self, tensors: Mapping[str, Tensor], **changes: Any) -> Knowledge:
        """The same with further tensors, or others under their names, and changed attributes."""
        return replace(self, tensors={**self.tensors, **tensors}, **changes)

    def without(self, prefix: str) -> Knowledge:
        """The same without the tensors whose names begin like this."""
        kept = {name: t for name, t in self.tensors.items() if not name.startswith(prefix)}
        return replace(self, tensors=kept)

    def to(self, device: torch.device | str) -> Knowledge:
        """The same on another device."""
        return self.having({name: tensor.to(device) for name, tensor in self.tensors.items()})

    @property
    def bytes(self) -> int:
        """Bytes that the tensors take."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    # --- on disk --------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; the same knowledge gives the same bytes.

        Raises:
            StoreError: the operating system refused to write.
        """
        with atomic_write(Path(path)) as file:
            file.write(self.to_bytes())

    def to_bytes(self) -> Bytes:
        """What ``save`` writes."""
        about = {
            "version": VERSION,
            "detector": dict(self.detector),
            "product": self.product and asdict(self.product),
            "shots": self.shots,
            "facts": dict(self.facts),
        }
        header = {FORMAT: json.dumps(about)}  # one entry: several come in no fixed order
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.tensors.items()}
        return save(tensors, header)

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> Knowledge:
        """Read what ``save`` wrote.

        Raises:
            KnowledgeError: no such file, damaged, of another kind or of a newer version.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from None
        return cls.from_bytes(data, str(path), device)

    @classmethod
    def from_bytes(cls, data: Bytes, name: str, device: torch.device | str = "cpu") -> Knowledge:
        """Read what ``to_bytes`` gave; ``name`` is that of the file, for errors.

        Raises:
            KnowledgeError: as of ``load``.
        """
        try:
            length = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
            if FORMAT not in header:
                raise KnowledgeError(f"{name}: not a file of ZeroDefect's knowledge")
            about = json.loads(header[FORMAT])
            if about["version"] > VERSION:
                raise KnowledgeError(
                    f"{name}: written by a newer ZeroDefect (version {about['version']}, this "
                    f"one reads up to {VERSION}). Update the package"
                )
            tensors = {key: tensor.to(device) for key, tensor in load(data).items()}
            product = about["product"] and _product(about["product"])
            return cls(about["detector"], product, about["shots"], tensors, about["facts"])
        except KnowledgeError:
            raise
        except (SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(name, error) from None
        except RecursionError:
            raise _unreadable(name, "its header is nested too deep") from None


def _unreadable(name: object, error: object) -> KnowledgeError:
    return KnowledgeError(
        f"{name}: cannot be read as knowledge ({error}). Copy it again, or let the detector learn "
        "anew"
    )


def _product(facts: Mapping[str, Any]) -> Product:
    kinds = facts["vocabulary"] and facts["vocabulary"]["kinds"]
    return Product(
        facts["name"],
        Vocabulary(tuple((name, tuple(phrases)) for name, phrases in kinds)) if kinds else None,
        tuple(facts["descriptions"]),
        tuple((component, count) for component, count in facts["counts"]),
    )
