"""What detectors share that compare image features with frozen "normal" and "anomalous" texts."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.clip_detector import CLIPDetector
from zerodefect.detector.knowledge import Product
from zerodefect.prompts.ensemble import PromptEnsemble


class WordDetector(CLIPDetector):
    """A detector that is described by words: WinCLIP's compositional ensemble.

    ``Config`` must have ``normal_states``, ``anomalous_states`` and ``templates``. Its knowledge
    holds ``texts (2, D)``, the mean normal and the mean anomalous text feature, and ``kind_texts
    (T, D)``, the mean of each defect kind; means of raw embeddings, not normalised.
    """

    prepared: ClassVar[dict[str, Any]] = {}

    def __init__(self, clip: CLIPBackbone, config: Any) -> None:
        super().__init__(clip, config)
        self.prompts = PromptEnsemble(
            config.normal_states, config.anomalous_states, config.templates
        )

    def words(self, product: Product) -> dict[str, Tensor]:
        """One mean feature per state set, and one per defect kind."""
        kinds = product.vocabulary.kinds if product.vocabulary else ()
        features = self.text_features.means(
            [
                self.prompts.normal_prompts(product.name),
                self.prompts.anomalous_prompts(product.name),
                *(self.prompts.fill(phrases, product.name) for _, phrases in kinds),
            ]
        )
        return {"texts": features[:2], "kind_texts": features[2:]}
