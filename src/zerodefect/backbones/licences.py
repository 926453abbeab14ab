"""What is known of the licences of weights, and whether they allow commercial use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zerodefect.backbones.efficientnet import LITE

_PERMISSIVE = ("apache", "mit", "bsd", "cc-by-4.0", "cc0")
_RESTRICTED = ("-nc", "noncommercial", "non-commercial", "research")
_TERMS = {name: "ImageNet's own terms speak of research" for name in LITE}


@dataclass(frozen=True)
class Licence:
    """The licence of weights.

    Attributes:
        weights: their name.
        name: of the licence, or "not stated".
        commercial: whether it allows commercial use; None where nothing says it.
        remark: what else is to be known, or where to ask.
    """

    weights: str
    name: str
    commercial: bool | None
    remark: str = ""

    def __str__(self) -> str:
        """One line."""
        allowed = {
            True: "commercial use allowed",
            False: "no commercial use",
            None: "whether commercial use is allowed is not stated here",
        }[self.commercial]
        remark = f" ({self.remark})" if self.remark else ""
        return f"{self.weights}: {self.name}, {allowed}{remark}"


def licence_of(network: Mapping[str, Any]) -> Licence:
    """Licence of a network, as ``backbone.network_facts`` tells it."""
    name, told = str(network["name"]), network.get("licence")
    if not told or told == "see source":
        from zerodefect.backbones.open_clip_weights import weights_origin
        from zerodefect.backbones.weight_files import WeightsError

        place = "whoever made the file knows"
        if "/" in name and not name.endswith(")"):
            try:
                place = f"see {weights_origin(name)}"
            except (WeightsError, ValueError):
                place = "see where they come from"
        return Licence(name, "licence not stated", None, place)
    low = str(told).casefold()
    commercial = None
    if any(word in low for word in _RESTRICTED):
        commercial = False
    elif low.startswith(_PERMISSIVE):
        commercial = True
    return Licence(name, str(told), commercial, _TERMS.get(name, ""))
