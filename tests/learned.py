"""What every method with learned sentences must hold; a test class inherits it."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import pytest
import torch
from models import tiny_backbone

from zerodefect.backbones.clip_weights import Backbone
from zerodefect.detector.contract import Detector
from zerodefect.types import TrainingBatch


@cache
def frozen() -> Backbone:
    """A backbone that nothing changes."""
    return tiny_backbone()


def images(count: int, *size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *(size or (64, 64)), generator=generator)


def batch(labels: list[int], side: int = 64, seed: int = 0) -> TrainingBatch:
    """Noise; the defective pictures have a bright square that the mask marks."""
    pictures = 0.3 * images(len(labels), side, side, seed=seed)
    masks = torch.zeros(len(labels), side, side)
    for row, label in enumerate(labels):
        if label:
            masks[row, side // 4 : side // 2, side // 4 : side // 2] = 1
    pictures = pictures + 2 * masks[:, None]
    return TrainingBatch(
        images=pictures,
        masks=masks,
        labels=torch.tensor(labels),
        objects=("part",) * len(labels),
        generator=torch.Generator().manual_seed(seed),
    )


def total(detector: Detector, data: TrainingBatch) -> torch.Tensor:
    return torch.stack(list(detector.training_loss(data).values())).sum()


class LearnedMethod:
    """``method`` and what differs from its defaults, for a small backbone."""

    method: type[Detector]
    options: ClassVar[dict[str, Any]] = {}

    def build(self, backbone=None, **options: Any) -> Detector:
        return self.method.build(backbone or frozen(), **{**self.options, **options}).eval()

    @pytest.fixture
    def detector(self) -> Detector:
        return self.build()

    def test_an_image_is_judged_alone_and_without_a_name(self, detector):
        many = images(5)
        together = detector(many)
        for row in range(5):
            alone = detector(many[row : row + 1])
            torch.testing.assert_close(alone.map[0], together.map[row], atol=1e-5, rtol=0)
            torch.testing.assert_close(alone.score[0], together.score[row], atol=1e-5, rtol=0)
        detector.describe("screw")
        assert torch.equal(detector(many).map, together.map)
        assert detector.object_name == "screw"
        assert detector.kinds == ()

    @pytest.mark.parametrize("size", [(40, 88), (128, 64), (8, 8)])
    def test_any_size(self, detector, size):
        got = detector(images(2, *size))
        assert got.map.shape == (2, *size)
        low, high = detector.map_range
        assert low <= float(got.map.min()) and float(got.map.max()) <= high
        assert got.score.isfinite().all()

    def test_bfloat16_stays_close_and_is_returned_in_float32(self, detector):
        backbone = tiny_backbone()
        backbone.clip.bfloat16()
        half, full = self.build(backbone)(images(2)), detector(images(2))
        assert half.map.dtype == half.score.dtype == torch.float32
        span = detector.map_range[1]
        torch.testing.assert_close(half.map, full.map, atol=0.05 * span, rtol=0)
        torch.testing.assert_close(half.score, full.score, atol=0.05, rtol=0)

    def test_initial_values_come_from_the_seed_alone(self):
        state = torch.random.get_rng_state()
        torch.manual_seed(1)
        first = self.build(seed=3).learned
        torch.manual_seed(2)
        second, other = self.build(seed=3).learned, self.build(seed=4).learned
        torch.random.set_rng_state(state)
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert torch.equal(value, second[name])
            assert not torch.equal(value, other[name])

    @pytest.mark.parametrize("labels", [[1], [0], [1, 0, 1], [1, 1], [0, 0]])
    def test_the_loss_is_finite_for_any_batch_and_reaches_every_learned_value(
        self, detector, labels
    ):
        terms = detector.training_loss(batch(labels))
        assert all(term.dim() == 0 and bool(term.isfinite()) for term in terms.values())
        torch.stack(list(terms.values())).sum().backward()
        for name, value in detector.learned.items():
            assert value.grad is not None and value.grad.abs().max() > 0, name
        assert all(value.grad is None for value in detector.clip.parameters())

    def test_the_loss_is_a_mean_over_images(self, detector):
        """So that shards of equal size may be averaged."""
        data = batch([1, 0])
        parts = [
            TrainingBatch(
                data.images[row : row + 1],
                data.masks[row : row + 1],
                data.labels[row : row + 1],
                data.objects[row : row + 1],
                data.generator,
            )
            for row in range(2)
        ]
        halves = torch.stack([total(detector, part) for part in parts]).mean()
        torch.testing.assert_close(total(detector, data), halves, atol=1e-5, rtol=1e-5)

    def test_training_lowers_the_loss_and_shows_after_learning(self, detector):
        data, seen = batch([1, 0, 1, 0]), images(2, seed=9)
        recipe = detector.recipe
        before = detector(seen).map
        optimiser = torch.optim.Adam(detector.parameter_groups(recipe), lr=0.01, betas=recipe.betas)
        losses = []
        for _ in range(8):
            optimiser.zero_grad()
            loss = total(detector, data)
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert losses[-1] < losses[0]
        detector.after_learning()
        assert not torch.equal(detector(seen).map, before)

    def test_learned_values_travel_by_name(self, detector):
        other = self.build(seed=5)
        assert not torch.equal(other(images(1)).map, detector(images(1)).map)
        with torch.no_grad():
            for name, value in detector.learned.items():
                other.learned[name].copy_(value)
        other.after_learning()
        assert torch.equal(other(images(1)).map, detector(images(1)).map)

    # --- official files -----------------------------------------------------------------------

    def test_an_official_file_gives_its_values(self):
        written, reader = self.build(seed=1), self.build(seed=2)
        published = official_file(written)
        state = reader.official_state(published)
        assert state.keys() == reader.learned.keys()
        for name, value in written.learned.items():
            assert torch.equal(state[name], value)

    def test_a_wrong_official_file_is_refused_with_all_its_faults(self):
        detector = self.build()
        published = official_file(detector)
        learner = published["prompt_learner"]
        first = next(name for name in learner if name.startswith("ctx"))
        learner[first] = learner[first][:, :, 1:]
        learner["surplus"] = torch.zeros(2)
        del learner["compound_prompts_text.0"]
        with pytest.raises(ValueError) as caught:
            detector.official_state(published)
        for told in (f"{first} has shape", "surplus is unknown", "compound_prompts_text.0 is miss"):
            assert told in str(caught.value)
        with pytest.raises(ValueError, match="prompt_learner is missing"):
            detector.official_state({"state_dict": {}})

    def test_a_file_for_another_clip_is_refused(self):
        published = official_file(self.build(tiny_backbone(seed=1)))
        with pytest.raises(ValueError, match="not this backbone's token embedding"):
            self.build().official_state(published)

    def test_the_sizes_are_read_from_the_file(self):
        detector = self.build()
        options = self.method.official_options(official_file(detector))
        again = self.build(**options)
        assert {n: v.shape for n, v in again.learned.items()} == {
            n: v.shape for n, v in detector.learned.items()
        }
        assert self.method.official_options({"prompt_learner": 3}) == {}


def official_file(detector: Detector) -> dict[str, dict[str, torch.Tensor]]:
    """What the official trainers of the AnomalyCLIP family write, with their unused layers."""
    prompts, table = detector.prompts, detector.clip.text.token_embedding.weight
    state = {name: value.detach().clone() for name, value in prompts.named_parameters()}
    width = table.shape[1]
    for i in range(len(prompts.compound_prompts_text)):
        state[f"compound_prompt_projections.{i}.weight"] = torch.zeros(896, width)
        state[f"compound_prompt_projections.{i}.bias"] = torch.zeros(896)
    for sentence, ids in zip(prompts.sentences, prompts.token_ids(), strict=True):
        vectors = sum(prompts.lengths[name] for name in sentence.contexts)
        state[f"token_prefix_{sentence.name}"] = table[ids[:1]][None, None].clone()
        state[f"token_suffix_{sentence.name}"] = table[ids[1 + vectors :]][None, None].clone()
        state[f"tokenized_prompts_{sentence.name}"] = ids[None, None].int()
    return {"prompt_learner": state}
