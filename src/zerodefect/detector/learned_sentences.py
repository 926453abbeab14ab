"""What the detectors share whose learned sentences say "object" instead of the product's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.transformer import SecondStream, same_depth
from zerodefect.detector import clip_detector
from zerodefect.detector.clip_detector import CLIPDetector
from zerodefect.detector.configs import Count, NotNegative, Positive, Taps, hyper_parameters
from zerodefect.detector.official_files import Checked
from zerodefect.layers.grid import Grid
from zerodefect.layers.similarity import text_probabilities
from zerodefect.prompts.learnable import LearnedPrompts, published_sizes

Attention = Literal["vv", "qq", "kk", "qq+kk", "qq+kk+vv", "concat", "echo", "plain"]
"""Correlation rule of the second stream; ``plain`` reads CLIP's own stream instead.

The rules suit CLIPs whose patches lost their place because nothing taught them to keep it. One
whose patches were trained to match texts, as the embedded model, needs ``plain``.
"""


@hyper_parameters
class LearnedSentencesConfig:
    """Hyper-parameters that these methods have in common, with AnomalyCLIP's defaults.

    Attributes:
        context_length: learned vectors in each sentence.
        deep_length: learned tokens that enter each further text block.
        depth: text blocks that read learned tokens; None for 9 of 12, at this tower's depth.
        stream_start: first image block with the second stream; None for 6 of 24.
        attention: what the second stream attends by; None for the paper's rule, or ``plain`` on
            weights whose patches match texts.
        taps: image blocks that give a map each; see the method for None.
        temperature: of the softmax over normal and damaged.
        sigma: standard deviation of the Gaussian over the map, in pixels of the input.
        seed: of the initial values.
    """

    context_length: Count = 12
    deep_length: Count = 4
    depth: Count | None = None
    stream_start: Count | None = None
    attention: Attention | None = None
    taps: Taps | None = None
    temperature: Positive = 0.07
    sigma: NotNegative = 4.0
    seed: int = 111


def attending(config: Any, clip: CLIPBackbone, rule: Attention) -> Any:
    """``config`` with its ``attention`` told: the paper's ``rule``, or what the weights need."""
    return replace(
        config, attention=config.attention or ("plain" if clip.patches_match_texts else rule)
    )


def second_stream(config: Any, layers: int, start: int) -> SecondStream | None:
    """What ``config.attention`` and ``stream_start`` ask for, from block ``start`` if not told.

    Raises:
        ValueError: a block that the tower of so many ``layers`` does not have.
    """
    start = config.stream_start or start
    if start > layers:
        raise ValueError(f"stream_start {start}: the image tower has blocks 1..{layers}")
    return None if config.attention == "plain" else SecondStream(config.attention, start)


@dataclass(frozen=True)
class Features(clip_detector.Features):
    """Image side of one batch; ``patches`` are projected, of the second stream if there is one.

    Attributes:
        middle: ``(B, 1+N, W)`` CLIP's own stream inside the last block, after its attention and
            before its MLP, where it is wanted.
        own_class: ``(B, 1, D)`` projected class token of the stream that ``patches`` are of, at the
            last tap.
    """

    middle: Tensor | None = None
    own_class: Tensor | None = None


class LearnedSentencesDetector(CLIPDetector):
    """A detector with learned sentences about any object, on a frozen CLIP with a second stream.

    Its texts depend on neither the image nor the product and are computed once.

    Attributes:
        prompts: the learned sentences; all that training changes.
        stream: the second stream, or None where the weights' own patches match texts.
        rule: the paper's rule of that stream.
        main_context: context whose length the official files tell, see ``official_options``.
        learner: what these files call the sentences.
    """

    undecided = 0.5
    positions = "bilinear"
    rule: ClassVar[Attention] = "vv"
    main_context: ClassVar[str] = "ctx_pos"
    learner: ClassVar[str] = "prompt_learner"

    config: LearnedSentencesConfig
    prompts: LearnedPrompts

    def __init__(self, clip: CLIPBackbone, config: Any) -> None:
        config = attending(config, clip, self.rule)
        super().__init__(clip, config)
        layers = self.clip.config.vision.layers
        self.stream = second_stream(config, layers, same_depth(6, 24, layers))

    def two_streams(
        self, images: Tensor, taps: Sequence[int], *, norm: bool, middle: bool = False
    ) -> Features:
        """Run the image tower on ``(B, 3, H, W)``; the patches of the blocks ``taps`` are read.

        ``norm`` says whether the class token passes ``ln_post``, as the patches always do, and
        ``middle`` whether the state inside the last block is kept.
        """
        visual, last = self.clip.visual, self.clip.config.vision.layers
        states = self.run(
            images,
            taps=[tap for tap in taps if tap < last] + [last] * middle,
            second=self.stream,
            class_only=self.stream is not None,
        )
        streams = {**states.taps, last: states.tokens}
        if states.second is not None:
            streams = {**states.second_taps, last: states.second}
        return Features(
            grid=self.grid(images),
            image=visual.project(states.tokens[:, 0], norm=norm).float(),
            patches=tuple(visual.project(streams[tap][:, 1:]).float() for tap in taps),
            middle=states.middle[last] if middle else None,
            own_class=visual.project(streams[taps[-1]][:, :1]).float(),
        )

    def learned_prompts(self, lengths: Mapping[str, int], **sentences: Any) -> LearnedPrompts:
        """Learned sentences of this tower, at the sizes and with the seed of ``config``."""
        return LearnedPrompts(
            self.clip.text,
            **sentences,
            lengths=lengths,
            depth=self.config.depth,
            deep_length=self.config.deep_length,
            generator=torch.Generator().manual_seed(self.config.seed),
        )

    def probability_map(self, F: Tensor, T: Tensor, grid: Grid) -> Tensor:
        """``(B, 2, H, W)`` probabilities of normal and damaged, of patches ``F (B, N, D)``."""
        return grid.map(text_probabilities(F, T, self.config.temperature).mT)

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
        learner = published.get(cls.learner)
        return published_sizes(learner, cls.main_context) if isinstance(learner, Mapping) else {}

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Learned values from ``{"prompt_learner": ...}``, the format of this family.

        Raises:
            ValueError: keys are missing or unknown, shapes do not fit, or the tokens are those of
                another CLIP or of other sentences; all are listed.
        """
        checked = Checked(published, f"{self.info.title} checkpoint")
        state = self.prompts.published(checked.inside(self.learner), self.clip.text)
        checked.done()
        return {f"prompts.{name}": value for name, value in state.items()}
