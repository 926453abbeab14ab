"""What ``product.json`` of a product file says, section by section.

The version rule: what is added later is a new section, or a new field of one, and the version
stays. Whoever does not know it reads on without it, and a section that it does not know is written
again as it was. The version rises only where a reader that does not know what is new would give
other numbers.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from zerodefect.inspection.archive import ProductError
from zerodefect.version import __version__

FORMAT: Final = "zerodefect-product"
VERSION: Final = 2
RULED: Final = 2
"""Version of a file with rules: a reader that does not know them would let broken ones pass."""
SUFFIX: Final = ".zd"

PRODUCT, KNOWLEDGE, POLICY = "product.json", "knowledge.safetensors", "policy.json"
CARD, POWER, KINDS = "card.md", "power.json", "kinds.safetensors"
RULES, COMPONENTS = "rules.json", "components.safetensors"
ROI, IGNORE = "roi.png", "ignore.png"
CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights/"
_FOLDERS = ("references/", "good/", "checks/", "thumbnails/", WEIGHTS)
_FILES = (
    *(PRODUCT, KNOWLEDGE, POLICY, CARD, POWER, KINDS, ROI, IGNORE, CHECKPOINT, RULES, COMPONENTS),
    "checkpoint.json",
)

Side = Field(ge=1, le=2**31)


class Section(BaseModel):
    """A part of ``product.json``; fields that are not known are let be."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Named(Section):
    """The product's words: ``kinds`` of defects with the phrases of each."""

    name: str | None = None
    kinds: tuple[tuple[str, tuple[str, ...]], ...] = ()


class Network(Section):
    """Which weights a network has, as ``backbones.backbone.network_facts`` tells."""

    name: str
    sha256: str
    licence: str | None = None
    file: str | None = None


class Made(Section):
    """The detector.

    Attributes:
        facts: all that decides its scores, as it tells them itself.
        sizes: ``(height, width)`` of its input, or of several by name; pixels.
        networks: its pretrained weights, by the names of its facts.
        asked: method, weights and options that it was asked for by; the others were defaults.
        checkpoint: whether learned values travel in the file.
        memory_budget: bytes that remembered references may take.
        licence: of the authors' code that the method follows.
    """

    facts: dict[str, Any]
    sizes: tuple[int, int] | dict[str, tuple[int, int]]
    networks: dict[str, Network] = {}
    asked: dict[str, Any] | None = None
    checkpoint: bool = False
    memory_budget: int | None = None
    licence: str = ""

    @field_validator("facts")
    @classmethod
    def _complete(cls, facts: dict[str, Any]) -> dict[str, Any]:
        for own in (facts, *facts.get("parts", {}).values()):
            if not isinstance(own["method"], str) or not isinstance(own["config"], dict):
                raise ValueError("no method, or no hyper-parameters")
        return facts

    @property
    def method(self) -> str:
        """Its name; several are joined by a plus."""
        return str(self.facts["method"])


class Seen(Section):
    """How pictures are shown to it, and the areas (``roi``, ``ignore``), see ``shown.named``."""

    tile: int | None = Field(default=None, ge=1)
    overlap: float = Field(default=0.25, ge=0, le=0.5)
    keep_aspect: bool = False
    view: str | None = None
    within: tuple[int, int] | None = None
    bit_depth: int | None = Field(default=None, ge=8, le=16)
    areas: tuple[str | None, str | None] = (None, None)


class Remembered(Section):
    """Digests of the references, in their order."""

    references: tuple[str, ...] = ()


class Asked(Section):
    """What the calibration was asked for.

    Attributes:
        automatic: nobody calibrated: the limits are those that references alone give.
        leave_one_out: the good pictures are the references.
    """

    automatic: bool = False
    leave_one_out: bool = False
    false_alarms: float | None = None
    review_rate: float | None = None
    confidence: float | None = None

    def rates(self) -> dict[str, Any]:
        """As ``Inspector.calibrate`` takes them."""
        return self.model_dump(exclude={"automatic"})


class PictureEntry(Section):
    """A picture that the file keeps, see ``images.kept.KeptPicture``, and the file of its cloud."""

    file: str
    name: str
    digest: str
    whole: tuple[int, int]
    light: tuple[float, float, float] | None = None
    cloud: str | None = None
    points: int | None = None
    colourless: bool = False


class Pictures(Section):
    """The pictures in the file, and the network's size within which they were kept."""

    kept: bool = False
    within: tuple[int, int] = (1, 1)
    references: tuple[PictureEntry, ...] = ()
    good: tuple[PictureEntry, ...] = ()


class CheckInput(Section):
    """A picture that is scored when the file is loaded, and what it scored when it was written."""

    file: str
    score: float
    highest: float | None = None


class Checks(Section):
    """Inputs that prove that scores are the same here, and what they were scored on."""

    inputs: tuple[CheckInput, ...] = ()
    machine: dict[str, str] = {}


class Origin(Section):
    """When the file was written, by which version."""

    created: str = ""
    zerodefect: str = __version__


class Product(BaseModel):
    """All of ``product.json``; sections that are not known are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    format: Literal["zerodefect-product"] = FORMAT
    version: Literal[1, 2] = 1
    product: Named
    detector: Made
    viewing: Seen
    memory: Remembered
    calibration: Asked
    pictures: Pictures
    checks: Checks
    provenance: Origin

    def to_bytes(self) -> bytes:
        """The file's content."""
        return json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes, path: str | Path) -> Product:
        """Read what ``to_bytes`` gave; ``path`` is that of the product file.

        Raises:
            ProductError: another kind of file, a newer version, or damaged.
        """
        remedy = "Copy it again from where it was written"
        try:
            told = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ProductError(path, f"{PRODUCT} in it is damaged ({error})", remedy) from None
        if not isinstance(told, Mapping) or told.get("format") != FORMAT:
            raise ProductError(path, "not a product file of ZeroDefect", "Give another file")
        version = told.get("version")
        if isinstance(version, int) and version > VERSION:
            reason = f"written in product version {version}, this program reads up to {VERSION}"
            raise ProductError(path, reason, "Update ZeroDefect")
        try:
            return cls.model_validate(told)
        except (ValidationError, LookupError, TypeError, AttributeError, RecursionError) as error:
            fault = f"{type(error).__name__}: {error}"
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                fault = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
            reason = f"{PRODUCT} in it cannot be used ({fault})"
            raise ProductError(path, reason, remedy) from None


def is_known(member: str) -> bool:
    """Whether a member of the archive is one that this version writes itself."""
    return member in _FILES or member.startswith(_FOLDERS)


def machine(device: torch.device) -> dict[str, str]:
    """What numbers depend on in their last digits: equal where these are."""
    import numpy

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "zerodefect": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "device": f"{device.type} {name}",
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }
