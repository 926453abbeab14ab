"""An inspection and the conversation on it in one file, so that it goes on another day."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from zerodefect.files import atomic_write
from zerodefect.inspection.explanation import Explanation
from zerodefect.inspection.inspected import Inspection
from zerodefect.version import __version__

FORMAT: Final = "zerodefect-talk"
VERSION: Final = 1

_REMEDY = "Name another file with --record, or move this one away"
_COMPARED = ("object", "verdict", "calibrated")


class TalkError(ValueError):
    """A record of a conversation that cannot go on; the message says file, reason and remedy."""


class TalkRecord(BaseModel):
    """One file: JSON. Later fields are added, and the version stays; see ``product_sections``.

    Attributes:
        zerodefect: version of the program that wrote it.
        picture: digest of the picture's pixels, as of ``sources.digest``.
        detector: fingerprint of what inspected it.
        inspection: the record, as ``Inspection.to_dict`` gives it, with its ``conversation``.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    format: Literal["zerodefect-talk"] = FORMAT
    version: Literal[1] = VERSION
    zerodefect: str = __version__
    picture: str
    detector: str
    inspection: dict[str, Any]

    @classmethod
    def of(cls, inspection: Inspection, picture: str, detector: str) -> TalkRecord:
        """Of an inspection; the other arguments as of the fields."""
        return cls(picture=picture, detector=detector, inspection=inspection.to_dict())

    def save(self, path: Path) -> None:
        """Write it; a file of that name is replaced in one step.

        Raises:
            StoreError: the operating system refused to write.
        """
        with atomic_write(path) as file:
            file.write(json.dumps(self.model_dump(mode="json"), indent=1).encode() + b"\n")

    @classmethod
    def load(cls, path: Path) -> TalkRecord:
        """Read one.

        Raises:
            TalkError: missing, damaged, of another kind or of a later version.
        """
        try:
            found = json.loads(path.read_bytes().decode("utf-8-sig"))
        except OSError as error:
            raise TalkError(f"{path}: cannot be read ({error.strerror}). {_REMEDY}") from None
        except (ValueError, RecursionError) as error:
            raise TalkError(f"{path}: not valid JSON, or cut off ({error}). {_REMEDY}") from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise TalkError(f"{path}: no record of a conversation. {_REMEDY}")
        version = found.get("version")
        if isinstance(version, int) and version > VERSION:
            raise TalkError(
                f"{path}: written in version {version}, this program reads up to version {VERSION}."
                f" Update ZeroDefect. {_REMEDY}"
            )
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise TalkError(f"{path}: {where} is not as it should be. {_REMEDY}") from None

    def conversation(
        self, inspection: Inspection, picture: str, detector: str, path: Path
    ) -> tuple[Explanation, ...]:
        """What was said, if it was of this very inspection.

        Args:
            inspection, picture, detector: what it would go on with; as of ``of``.
            path: of the file, for messages.

        Raises:
            TalkError: of another picture, detector or verdict; the message says which.
        """
        now = inspection.to_dict()
        then: dict[str, Any] = {"picture": self.picture, "detector": self.detector}
        then |= {name: self.inspection.get(name) for name in _COMPARED}
        here = {"picture": picture, "detector": detector, **{name: now[name] for name in _COMPARED}}
        different = [f"{n}: {then[n]!r} then, {here[n]!r} now" for n in then if then[n] != here[n]]
        if different:
            raise TalkError(
                f"{path}: a conversation on another inspection ({'; '.join(different)}). Give the "
                f"picture and options that it began with. {_REMEDY}"
            )
        try:
            said = self.inspection.get("conversation") or ()
            return tuple(Explanation.model_validate(one) for one in said)
        except (ValidationError, TypeError):
            raise TalkError(f"{path}: its conversation cannot be read. {_REMEDY}") from None
