"""What the detectors share whose learned sentences say "object" instead of the product's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from zerodefect.backbones.clip_weights import Backbone
from zerodefect.backbones.transformer import SecondStream, same_depth
from zerodefect.detector.contract import Detector
from zerodefect.detector.official_files import Checked
from zerodefect.prompts.learnable import LearnedPrompts, published_sizes
from zerodefect.prompts.vocabulary import Vocabulary

Attention = Literal["vv", "qq", "kk", "qq+kk", "qq+kk+vv", "concat", "plain"]
"""Correlation rule of the second stream; ``plain`` reads CLIP's own stream instead.

The rules suit CLIPs whose patches lost their place because nothing taught them to keep it. One
that was trained to match patches with texts, as the embedded model, needs ``plain``.
"""


def second_stream(attention: str, start: int | None, layers: int) -> SecondStream | None:
    """Second stream of a tower of ``layers`` blocks, or None for ``plain``.

    Args:
        attention: see ``Attention``.
        start: first block that has it; None for the sixth of 24, at this tower's depth.
        layers: blocks of the tower.

    Raises:
        ValueError: there is no such rule or block.
    """
    if attention not in get_args(Attention):
        raise ValueError(f"attention is one of {', '.join(get_args(Attention))}, not {attention!r}")
    if start is not None and not 1 <= start <= layers:
        raise ValueError(f"stream_start {start}: the image tower has blocks 1..{layers}")
    if attention == "plain":
        return None
    return SecondStream(attention, start or same_depth(6, 24, layers))


@dataclass(frozen=True)
class Features:
    """Image-side features of one batch.

    Attributes:
        image: ``g (B, C)``, from the class token of CLIP's own stream.
        patches: ``F_l (B, N, C)`` per tap, from the second stream where there is one.
        grid: rows and columns of patches.
        size: height and width of the network input, which the map is brought to.
        middle: ``(B, 1+N, W)`` CLIP's own stream inside the last block, after its attention and
            before its MLP, where it is wanted.
    """

    image: Tensor
    patches: tuple[Tensor, ...]
    grid: tuple[int, int]
    size: tuple[int, int]
    middle: Tensor | None = None


class ObjectAgnosticDetector(Detector):
    """A detector with learned sentences about any object, on a frozen CLIP with a second stream.

    Its texts depend on neither the image nor the product and are computed once. Pictures are
    resized as these papers do it: 8-bit values, bicubic, antialiased.

    Attributes:
        clip: the frozen towers.
        prompts: the learned sentences; all that training changes.
    """

    #: Context whose length the official files tell, see ``official_options``.
    main_context: ClassVar[str] = "ctx_pos"

    prompts: LearnedPrompts

    def __init__(self, backbone: Backbone, config: Any) -> None:
        super().__init__(backbone, config)
        self.clip = backbone.clip.requires_grad_(False)
        self.preprocess = replace(
            backbone.preprocess, interpolation="bicubic", antialias=True, resize_on="pil"
        )

    @torch.no_grad()
    def two_streams(
        self,
        images: Tensor,
        taps: Sequence[int],
        stream: SecondStream | None,
        *,
        norm: bool,
        middle: bool = False,
    ) -> Features:
        """Run the image tower on ``(B, 3, H, W)``.

        Args:
            images: the network's input.
            taps: blocks whose patches are read.
            stream: the second stream that gives them; None for CLIP's own.
            norm: whether the class token passes ``ln_post``, as the patches always do.
            middle: keep the state inside the last block.
        """
        visual = self.clip.visual
        images = images.to(visual.proj.dtype)
        last = visual.transformer.layers
        states = visual.encode(
            visual.embed(images, resize="bilinear"),
            taps=[tap for tap in taps if tap < last] + [last] * middle,
            second=stream,
            class_only=stream is not None,
        )
        streams = {**states.taps, last: states.tokens}
        if states.second is not None:
            streams = {**states.second_taps, last: states.second}
        return Features(
            image=visual.project(states.tokens[:, 0], norm=norm).float(),
            patches=tuple(visual.project(streams[tap][:, 1:]).float() for tap in taps),
            grid=visual.grid(images),
            size=(images.shape[-2], images.shape[-1]),
            middle=states.middle[last] if middle else None,
        )

    def describe(self, object_name: str, vocabulary: Vocabulary | None = None) -> None:
        """Keep the product's name for reports; nothing that is scored depends on it."""
        self.object_name = object_name

    @property
    def kinds(self) -> tuple[str, ...]:
        """There is one anomalous class; kinds are not told apart."""
        return ()

    @property
    def texts(self) -> Tensor:
        """Text features ``(S, D)`` of the learned sentences, not normalised; computed once."""
        return self.prompts.cached(self.clip.text)

    def after_learning(self) -> None:
        """Drop the texts of the former values."""
        self.prompts.clear()

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Lengths and depth of the learned tokens."""
        learner = published.get("prompt_learner")
        return published_sizes(learner, cls.main_context) if isinstance(learner, Mapping) else {}

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Learned values from ``{"prompt_learner": ...}``, the format of this family.

        Raises:
            ValueError: keys are missing or unknown, shapes do not fit, or the tokens are those of
                another CLIP or of other sentences; all are listed.
        """
        checked = Checked(published, f"{self.info.title} checkpoint")
        state = self.prompts.published(checked.inside("prompt_learner"), self.clip.text)
        checked.done()
        return {f"prompts.{name}": value for name, value in state.items()}
