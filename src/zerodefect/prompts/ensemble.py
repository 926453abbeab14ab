"""The compositional prompt ensemble (WinCLIP, arXiv 2303.14814, section 4.1 and appendix)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NORMAL_STATES = (
    "{}", "flawless {}", "perfect {}", "unblemished {}",
    "{} without flaw", "{} without defect", "{} without damage",
)  # fmt: skip
ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")


def domain_templates(kind: str) -> tuple[str, ...]:
    """The 22 sentences of AnoVL (arXiv 2308.15939) about one kind of picture, without full stop.

    The kind is such as ``industrial photo`` or ``surface picture``.
    """
    article = "an" if kind.startswith("industrial") else "a"
    return (
        *(f"a cropped {kind} of {the} {{}}" for the in ("the", "a")),
        *(f"a close-up {kind} of {the} {{}}" for the in ("a", "the")),
        *(f"a bright {kind} of {the} {{}}" for the in ("a", "the")),
        *(f"a dark {kind} of {the} {{}}" for the in ("the", "a")),
        *(f"a jpeg corrupted {kind} of {the} {{}}" for the in ("a", "the")),
        *(f"a blurry {kind} of {the} {{}}" for the in ("the", "a")),
        *(f"{article} {kind} of {the} {{}}" for the in ("a", "the")),
        *(f"{article} {kind} of {the} small {{}}" for the in ("a", "the")),
        *(f"{article} {kind} of {the} large {{}}" for the in ("a", "the")),
        *(f"{article} {kind} of {the} {{}} for visual inspection" for the in ("the", "a")),
        *(f"{article} {kind} of {the} {{}} for anomaly detection" for the in ("the", "a")),
    )


PHOTO_TEMPLATES = tuple(f"{sentence}." for sentence in domain_templates("photo"))
# As in the reference implementations: one stands twice and counts twice, one is left out.
WINCLIP_TEMPLATES = (
    PHOTO_TEMPLATES[0], *PHOTO_TEMPLATES[2:8], *2 * PHOTO_TEMPLATES[9:10], *PHOTO_TEMPLATES[10:]
)  # fmt: skip
_PHOTOS = """
a bad photo of a, a low resolution photo of the, a bad photo of the, a cropped photo of the, a
bright photo of a, a dark photo of the, a photo of my, a photo of the cool, a close-up photo
of a, a black and white photo of the, a bright photo of the, a cropped photo of a, a jpeg
corrupted photo of a, a blurry photo of the, a photo of the, a good photo of the, a photo of
one, a close-up photo of the, a photo of a, a low resolution photo of a, a photo of a large, a
blurry photo of a, a jpeg corrupted photo of the, a good photo of a, a photo of the small, a
photo of the large, a black and white photo of a, a dark photo of a, a photo of a cool, a
photo of a small
"""
_SCENES = ("there is a", "there is the", "this is a", "this is the", "this is one")
APRIL_TEMPLATES = (
    *(f"{photo} {{}}." for photo in " ".join(_PHOTOS.split()).split(", ")),
    *(f"{scene} {{}} in the scene." for scene in _SCENES),
)
"""The 35 of APRIL-GAN (arXiv 2305.17382) and MultiADS (arXiv 2504.06740)."""


@dataclass(frozen=True)
class PromptEnsemble:
    """Every template filled with every state, filled with the object's name.

    Attributes:
        normal: states of a good product; ``{}`` stands for its name.
        anomalous: states of a defective one.
        templates: sentences; ``{}`` stands for the state.

    Raises:
        ValueError: an entry has no ``{}``, or a list is empty.
    """

    normal: tuple[str, ...] = NORMAL_STATES
    anomalous: tuple[str, ...] = ANOMALOUS_STATES
    templates: tuple[str, ...] = WINCLIP_TEMPLATES

    def __post_init__(self) -> None:
        for label, entries in vars(self).items():
            if not entries:
                raise ValueError(f"the prompt ensemble has no {label} entry")
            for entry in entries:
                if entry.count("{}") != 1:
                    raise ValueError(f"{label} entry {entry!r} needs '{{}}' exactly once")

    def normal_prompts(self, name: str) -> list[str]:
        """Sentences that describe a good ``name``."""
        return self.fill(self.normal, name)

    def anomalous_prompts(self, name: str) -> list[str]:
        """Sentences that describe a defective ``name``."""
        return self.fill(self.anomalous, name)

    def fill(self, states: Sequence[str], name: str) -> list[str]:
        """``template(state(name))``; state is the outer loop, template the inner one.

        Raises:
            ValueError: the name is empty.
        """
        name = " ".join(name.split())
        if not name:
            raise ValueError("the object needs a name, such as 'magnetic tile' or 'screw'")
        # replace, not str.format: a product name may itself contain braces
        filled = [state.replace("{}", name) for state in states]
        return [template.replace("{}", state) for state in filled for template in self.templates]
