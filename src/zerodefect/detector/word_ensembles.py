"""What detectors share that compare image features with frozen "normal" and "anomalous" texts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zerodefect.backbones.clip_weights import Backbone
from zerodefect.detector.contract import Detector
from zerodefect.prompts.ensemble import PromptEnsemble
from zerodefect.prompts.features import TextFeatures
from zerodefect.prompts.vocabulary import Vocabulary


class PromptedDetector(Detector):
    """A detector that is described by words.

    ``Config`` must have ``normal_states``, ``anomalous_states`` and ``templates``.

    Attributes:
        texts: ``(2, D)`` mean normal and mean anomalous text feature, not normalised; empty until
            described.
        kind_texts: ``(T, D)`` mean text feature of each defect kind of the vocabulary.
    """

    texts: Tensor
    kind_texts: Tensor

    def __init__(self, backbone: Backbone, config: Any) -> None:
        super().__init__(backbone, config)
        self.clip = backbone.clip
        self.text_features = TextFeatures(
            backbone.clip, backbone.fingerprint, reload=backbone.reload
        )
        self.prompts = PromptEnsemble(
            config.normal_states, config.anomalous_states, config.templates
        )
        dimension = backbone.clip.config.embed_dim
        self.register_buffer("texts", torch.empty(0, dimension))
        self.register_buffer("kind_texts", torch.empty(0, dimension))

    def describe(self, object_name: str, vocabulary: Vocabulary | None = None) -> None:
        """Prepare the texts: one mean feature per state set, and one per defect kind.

        Raises:
            ValueError: an empty name, or a prompt longer than the text tower reads.
        """
        kinds = vocabulary.kinds if vocabulary else ()
        features = self.text_features.means(
            [
                self.prompts.normal_prompts(object_name),
                self.prompts.anomalous_prompts(object_name),
                *(self.prompts.fill(phrases, object_name) for _, phrases in kinds),
            ]
        )
        # only now, when nothing can be refused any more: words and texts never disagree
        self.texts, self.kind_texts = features[:2], features[2:]
        self.object_name, self.vocabulary = object_name, vocabulary

    def _need_words(self) -> None:
        if not len(self.texts):
            raise RuntimeError(
                f"{self.info.title} needs the product's name: call describe(name) first"
            )


def weighted_mean(type_map: Tensor, weights: Tensor) -> Tensor:
    """``(B, T, g, g)`` averaged over the places with weights ``(B, g, g)``: ``(B, T)``."""
    return (type_map * weights[:, None]).sum((2, 3)) / weights.sum((1, 2))[:, None]
