"""Several detectors as one, ``"dense+patchcore"``: they err on different products.

The maps of the parts lie on scales of their own. What good pictures show brings them onto one:
each is centred and scaled by its mean and deviation over good pictures that it was not shown (each
reference left out in turn), and the weighted sum is bent into [0, 1] by a smooth monotone function
that neither ties nor saturates. Conformal calibration then learns the limits of the joint score,
so that its guarantee is its own. A part whose input a picture lacks (points without colours,
colours without points) is silent there, and the others are brought to the scale of all.

Symbols: x a part's map, mu and sigma its mean and deviation on good pictures, w the weights,
z = sum w (x - mu) / sigma.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zerodefect.detector import absent_inputs
from zerodefect.detector.composed import Later, Memory, images_of, numbered
from zerodefect.detector.configs import Positive, Share, hyper_parameters
from zerodefect.detector.contract import (
    Detector,
    Input,
    PatchFeatures,
    Sizes,
    UnsupportedError,
    plain,
)
from zerodefect.detector.facts import joint_info
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.layers.similarity import peak_and_spread, upsample
from zerodefect.types import Prediction

_AT_ONCE = 8  # batches that every part remembers before the next ones are encoded
_SCALE_FROM = 16  # good pictures, at most, that the scale of a part is learned from
_BEND = 4.0  # z that lies half-way between the middle and the end of the scale


@hyper_parameters
class CombinedConfig:
    """Hyper-parameters.

    Attributes:
        shares: weights of the parts, in their order; equal where empty.
        top: share of the highest values of the joint map whose mean makes half of the image score;
            the highest one makes the other half.
    """

    shares: tuple[Positive, ...] = ()
    top: Share = 0.01


_SCALE = "scale"  # of a part's knowledge: mean and deviation of its map on good pictures


def bent(z: Tensor) -> Tensor:
    """Onto (0, 1), smooth and monotone, where a sigmoid in float32 would soon be 1."""
    return 0.5 + 0.5 * z / (_BEND + z.abs())


class Combined(Detector):
    """Detectors that judge together; each keeps inputs and knowledge of its own.

    Args:
        parts: detectors by registered name, two or more.
        config: hyper-parameters.

    Raises:
        ValueError: another number of weights than parts, or a part that judges sets.
    """

    Config = CombinedConfig
    words_first = True  # a part's scale is that of its words
    config: CombinedConfig

    def __init__(self, parts: Mapping[str, Detector], config: CombinedConfig | None = None) -> None:
        config = config or CombinedConfig()
        if config.shares and len(config.shares) != len(parts):
            raise ValueError(f"option shares={config.shares}: {len(parts)} parts, one for each")
        super().__init__(config, (), {})
        self.parts = nn.ModuleDict(parts)
        self.info = joint_info([part.info for part in parts.values()])
        self.tells_kinds = any(p.tells_kinds for p in parts.values())
        self.inputs = self._inputs()
        self.backbone = {name: part.backbone for name, part in parts.items()}
        self.may_lack = True  # a part is silent where its inputs are absent
        if any(part.memory is not None for part in parts.values()):
            self.memory = _Memories(self)

    def each(self) -> Iterator[tuple[str, Detector]]:
        """Names and parts."""
        for name, part in self.parts.items():
            assert isinstance(part, Detector)
            yield name, part

    def _inputs(self) -> dict[str, Input]:
        return {
            _place(name, own): needed
            for name, part in self.each()
            for own, needed in part.inputs.items()
        }

    def resize_inputs(self, sizes: Sizes) -> None:
        """One size is for the inputs of all parts."""
        for name, part in self.each():
            if isinstance(sizes, Mapping):
                part.resize_inputs({own: sizes[_place(name, own)] for own in part.inputs})
            else:
                part.resize_inputs(sizes)
        self.inputs = self._inputs()

    # --- knowledge ------------------------------------------------------------------------------

    def of(self, knowledge: Knowledge, name: str) -> Knowledge:
        """What a part knows."""
        own = {
            place.removeprefix(f"{name}/"): tensor
            for place, tensor in knowledge.tensors.items()
            if place.startswith(f"{name}/")
        }
        facts = knowledge.facts.get(name, {})
        product, shots = knowledge.product, knowledge.shots
        return Knowledge(knowledge.detector["parts"][name], product, shots, own, facts)

    @staticmethod
    def nested(knowledge: Knowledge, name: str, own: Knowledge) -> Knowledge:
        """The knowledge with what a part knows now."""
        tensors = {f"{name}/{place}": tensor for place, tensor in own.tensors.items()}
        kept = knowledge.without(f"{name}/")
        facts = {**knowledge.facts, name: dict(own.facts)}
        return kept.having(tensors, product=own.product, shots=own.shots, facts=facts)

    def describe(self, knowledge: Knowledge, product: Product) -> Knowledge:
        """Tell every part.

        Raises:
            RuntimeError: it was shown references already, in the light of other words.
        """
        if knowledge.shots:
            raise RuntimeError("describe(...) comes before remember(...): begin with empty()")
        for name, part in self.each():
            own = part.describe(self.of(knowledge, name), product)
            knowledge = self.nested(knowledge, name, own)
        return knowledge

    def neutral_score(self, knowledge: Knowledge) -> float | None:
        """That of the only part that is heard, if there is one alone."""
        own = [(name, part) for name, part, _ in self.heard(knowledge)]
        if len(own) != 1:
            return None
        name, part = own[0]
        neutral = part.neutral_score(self.of(knowledge, name))
        if neutral is None:
            return None
        mean, deviation = part.usual_scale(self.of(knowledge, name))
        return float(bent(torch.tensor((neutral - mean) / deviation)))

    def remember(
        self,
        knowledge: Knowledge,
        batches: Iterable[Mapping[str, Any]],
        pictures: Iterable[Tensor] | None = None,
    ) -> Knowledge:
        """Let every part remember and settle, then learn the parts' scales."""
        if self.memory is None:
            raise self._unsupported("references")
        shown: list[tuple[Mapping[str, Any], Tensor]] = []
        known = {name: self.of(knowledge, name) for name, _ in self.each()}
        passing = numbered(batches, pictures, knowledge.shots, self._images)
        while some := list(islice(passing, _AT_ONCE)):
            for name, part in self.each():
                own, there = known[name], [one for one in some if name in one[0]]
                if part.memory is not None and there:
                    rows = [numbers for _, numbers, _ in there]
                    own = part.remember(own, (batch[name].value for batch, *_ in there), rows)
                known[name] = replace(own, shots=some[-1][2])
            room = max(0, _SCALE_FROM - sum(len(numbers) for _, numbers in shown))
            shown += [(batch, numbers) for batch, numbers, _ in some[:room]]
        return self._scaled(knowledge, known, shown)

    def _scaled(
        self,
        knowledge: Knowledge,
        known: Mapping[str, Knowledge],
        shown: Sequence[tuple[Mapping[str, Any], Tensor]],
    ) -> Knowledge:
        """The knowledge with what the parts know, settled, and their scales.

        What a part says of a good picture, left out in turn, is made once for all of these.
        """
        seen = {name: [n for n, (batch, _) in enumerate(shown) if name in batch] for name in known}
        known = {
            name: part.settle(known[name]) if seen[name] or _SCALE in known[name] else known[name]
            for name, part in self.each()
        }
        leveled = self._levels(known, shown)
        made: list[dict[str, Prediction]] = [{} for _ in shown]
        for name, part in self.each():
            own, usual = known[name], _keeps_scale(part, known[name])
            for row in seen[name] if leveled or not usual else ():
                batch, numbers = shown[row]
                out = None if part.memory is None else numbers.to(self.device)
                made[row][name] = part.predict(batch[name].value, own, out)
            if seen[name]:
                maps = [one[name].map for one in made if name in one]
                scale = torch.tensor(part.usual_scale(own)) if usual else _scale(maps)
                own = own.having({_SCALE: scale})
            knowledge = self.nested(knowledge, name, own)
        knowledge = knowledge.without(absent_inputs.LEVEL)
        return self._leveled(knowledge, made) if leveled else knowledge

    def _levels(
        self, known: Mapping[str, Knowledge], shown: Sequence[tuple[Mapping[str, Any], Tensor]]
    ) -> bool:
        """Whether pictures can lack the input of a part, and the good ones tell what that does."""
        whole = any(len(batch) == len(self.parts) for batch, _ in shown)
        told = [part.leaves_out(known[name]) for name, part in self.each() if part.memory]
        return whole and bool(told) and all(told) and bool(absent_inputs.subsets(dict(self.each())))

    def _images(self, encoded: Mapping[str, Any]) -> int:
        return images_of(self.references(encoded))

    def references(self, encoded: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """What every part remembers."""
        return {
            f"{name}/{place}": values
            for name, part in self.each()
            if part.memory is not None and name in encoded
            for place, values in part.references(encoded[name].value).items()
        }

    def settle(self, knowledge: Knowledge) -> Knowledge:
        """Nothing is left to be done: the scales needed settled parts."""
        return knowledge

    # --- what they say --------------------------------------------------------------------------

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Later]:
        """What every part makes of its inputs, once it is heard."""
        encoded = {}
        for name, part in self.each():
            places = {place: _place(name, place) for place in part.inputs}
            own = {place: inputs[one] for place, one in places.items() if one in inputs}
            if not own or (len(own) < len(places) and not part.may_lack):
                continue
            lone = part.inputs.keys() == {"image"}
            encoded[name] = Later(part.encode, own["image"] if lone else own)
        return encoded

    def heard(self, knowledge: Knowledge) -> list[tuple[str, Detector, float]]:
        """Parts that know enough to judge, and their shares, which sum to one."""
        shares = self.config.shares or (1.0,) * len(self.parts)
        able = [
            (name, part, share)
            for (name, part), share in zip(self.each(), shares, strict=True)
            if "references" not in part.info.needs or f"{name}/{_SCALE}" in knowledge
        ]
        return _to_one(able)

    def predict(
        self, encoded: Mapping[str, Any], knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """The joint map; kinds and answer of the first part that has them."""
        made = self._made(encoded, knowledge, left_out)
        names, map, score = self._joined(made, knowledge)
        said = list(made.values())
        if (place := absent_inputs.place(names)) in knowledge:
            by, to, score_by, score_to = knowledge[place]
            map, score = by * map + to, score_by * score + score_to
        size = map.shape[-2], map.shape[-1]
        types = next((one.type_map for one in said if one.type_map is not None), None)
        types = None if types is None else upsample(types, size)
        answer = next((one.answer for one in said if one.answer), None)
        return Prediction(bent(score), bent(map), types, answer)

    def _made(
        self, encoded: Mapping[str, Any], knowledge: Knowledge, left_out: Tensor | None
    ) -> dict[str, Prediction]:
        """What the parts say that are heard on these pictures.

        Raises:
            RuntimeError: no part knows what the pictures show.
        """
        heard = [one for one in self.heard(knowledge) if one[0] in encoded]
        if not heard:
            there = " and ".join(encoded) or "no part"
            raise RuntimeError(f"{there} was shown no good pictures with what these have")
        return {
            name: part.predict(encoded[name].value, self.of(knowledge, name), left_out)
            for name, part, _ in heard
        }

    def _joined(
        self, made: Mapping[str, Prediction], knowledge: Knowledge
    ) -> tuple[list[str], Tensor, Tensor]:
        """Names of the parts that say something, their joint map and score z."""
        heard = _to_one([one for one in self.heard(knowledge) if one[0] in made])
        z = []
        for name, part, share in heard:
            own, one = self.of(knowledge, name), made[name]
            if one.map is None:
                raise UnsupportedError(f"{name} gives no map and cannot be combined with others")
            scale = own.tensors.get(_SCALE, one.map.new_tensor(part.usual_scale(own)))
            z.append(share * (one.map - scale[0]) / scale[1])
        size = z[0].shape[-2], z[0].shape[-1]
        map = torch.stack([upsample(each, size) for each in z]).sum(0)
        if len(heard) > 1:
            score = peak_and_spread(map, self.config.top)
        else:  # alone, a part says what it says
            score = (one.score - scale[0]) / scale[1]
        return [name for name, *_ in heard], map, score

    def _leveled(self, knowledge: Knowledge, made: list[dict[str, Prediction]]) -> Knowledge:
        """The knowledge with what brings pictures that lack an input to the scale of the others.

        ``made`` is what the parts say of good pictures, each left out in turn.
        """
        whole = [one for one in made if len(one) == len(self.parts)]
        found = {}
        everyone = [self._joined(one, knowledge)[1:] for one in whole]
        for names in absent_inputs.subsets(dict(self.each())):
            some = [
                self._joined({name: one[name] for name in names}, knowledge)[1:] for one in whole
            ]
            level = absent_inputs.level(everyone, some)
            if level is not None:
                found[absent_inputs.place(names)] = level
        return knowledge.having(found)

    def patch_features(self, encoded: Mapping[str, Any]) -> tuple[PatchFeatures, ...]:
        """Those of all parts."""
        return tuple(
            f for name, part in self.each() for f in part.patch_features(encoded[name].value)
        )

    def facts(self) -> dict[str, Any]:
        """Everything besides knowledge and image that decides a score."""
        parts = {name: part.facts() for name, part in self.each()}
        shared = ("backbone", "weights", "precision", "preprocess")
        joint = {fact: {name: own[fact] for name, own in parts.items()} for fact in shared}
        config = plain(asdict(self.config))
        return {"method": self.info.name, **joint, "config": config, "parts": parts}


@dataclass
class _Memories:
    """The memories of the parts as one; the budget is shared equally."""

    joint: Combined
    constant: ClassVar[bool] = False

    @property
    def _own(self) -> dict[str, Memory]:
        return {n: part.memory for n, part in self.joint.each() if part.memory is not None}

    @property
    def budget(self) -> int:
        return sum(memory.budget for memory in self._own.values())

    @budget.setter
    def budget(self, budget: int) -> None:
        for memory in self._own.values():
            memory.budget = budget // len(self._own)

    def remember(
        self,
        knowledge: Knowledge,
        batches: Iterable[Mapping[str, Tensor]],
        pictures: Iterable[Tensor] | None,
    ) -> Knowledge:
        raise UnsupportedError("the parts remember each for themselves: call Combined.remember")

    def settle(self, knowledge: Knowledge) -> Knowledge:
        return knowledge

    def bytes_of(self, features: Mapping[str, Tensor]) -> int:
        return sum(values.nbytes for values in features.values())

    def leaves_out(self, knowledge: Knowledge) -> bool:
        return all(
            part.leaves_out(self.joint.of(knowledge, name))
            for name, part in self.joint.each()
            if part.memory is not None
        )


def _to_one(
    parts: list[tuple[str, Detector, float]],
) -> list[tuple[str, Detector, float]]:
    """The same with shares that sum to one."""
    total = sum(share for *_, share in parts)
    return [(name, part, share / total) for name, part, share in parts]


def _place(name: str, own: str) -> str:
    return name if own == "image" else f"{name}.{own}"


def _keeps_scale(part: Detector, own: Knowledge) -> bool:
    """Whether a part has a scale of its own.

    One that standardises itself does, and one that cannot leave a picture out must: what it was
    shown lies too near to itself.
    """
    alone = part.memory is not None and (own.shots < 2 or not part.leaves_out(own))
    return part.standardised or alone


def _scale(maps: Sequence[Tensor | None]) -> Tensor:
    """Mean and deviation ``(2,)`` of a part's maps of good pictures, each left out in turn."""
    values = torch.cat([map.flatten() for map in maps if map is not None])
    return torch.stack([values.mean(), values.std().clamp(min=1e-6)])
