"""SAA+ against the official code at 23acbd90, whose networks' answers are stored in the case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import tiny_clip
import torch
from cases import Case, find
from torch import Tensor

from zerodefect.backbones.grounder import Found, Grounder, Queries, caption_of, grounding_size
from zerodefect.backbones.layered_features import TimmFeatures
from zerodefect.backbones.segmenter import Masks, Prompts, Segmenter
from zerodefect.detector.knowledge import Product
from zerodefect.images import Picture
from zerodefect.layers.similarity import upsample
from zerodefect.methods.saa_plus import (
    SAAPlus,
    SAAPlusConfig,
    Seen,
    object_saliency,
    self_saliency,
)


class SAACase(Case):
    """A case with its stand-ins for the networks."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        features = timm.create_model("resnet18", pretrained=False, num_classes=0)
        features.load_state_dict(self._saliency_state(), strict=False)
        network = TimmFeatures(features.eval(), "resnet18", "b" * 64)
        self.grounder, self.segmenter = StoredGrounder(self), StoredSegmenter(self)
        config = SAAPlusConfig(
            box_threshold=self.meta["box_threshold"],
            text_threshold=self.meta["text_threshold"],
            saliency_size=self.meta["saliency"]["size"],
        )
        self.detector = SAAPlus(self.segmenter, self.grounder, network, config).eval()
        self.product = Product(self.meta["class_name"])
        self.asked = self.detector.prompts(self.product)
        self.size = tuple(self.meta["image_hw"])

    def _saliency_state(self) -> dict[str, Tensor]:
        facts, state = self.meta["saliency"], {}
        for name, shape in facts["parameters"]:
            value = np.asarray(tiny_clip.fill(facts["weights_seed"], name, tuple(shape)))
            if name.endswith("running_var"):
                drawn = tiny_clip.draw(facts["weights_seed"], name, tuple(shape))
                value = 1 + np.float32(0.1) * np.abs(drawn)
            state[name] = torch.from_numpy(np.array(value))
        return state

    def close(self, name: str, value: Tensor, kind: str) -> None:
        """Compare at the case's tolerance for scores or maps."""
        told = self.meta["tolerance"][kind]
        allowed = {k: float(v) for k, v in re.findall(r"(atol|rtol) ([\d.e-]+)", told)}
        expected = self.tensor(name)
        got = value.reshape(expected.shape)
        torch.testing.assert_close(got, expected, **{"atol": 0.0, "rtol": 0.0, **allowed})

    def picture(self) -> Picture:
        return Picture("picture", self.arrays["image"])

    def seen(self) -> Seen:
        """The picture as the saliency saw it; the other networks' answers are stored."""
        (size,) = {tuple(self.arrays["input"].shape[-2:])}
        preprocess = self.detector.inputs["saliency"].preprocess
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocess.mean, preprocess.std))
        blue_first = self.tensor("input") * std + mean  # the detector turns them around itself
        inputs = {
            "segmenter": torch.zeros(1, 3, *size),
            "grounder": torch.zeros(1, 3, 32, 32),
            "saliency": (blue_first.flip(1) - mean) / std,
        }
        return replace(self.detector.encode(inputs), size=self.size)

    def queries(self) -> list[Queries]:
        captions = (self.asked.object, *self.asked.captions)
        return [self.grounder.queries(torch.zeros(1, 3, 32, 32), each) for each in captions]

    def found(self) -> tuple[Found, Found]:
        """Boxes of objects, and of defects."""
        objects, *defects = self.queries()
        O = self.detector.propose([objects], 0, None, 1 / self.asked.count)  # noqa: E741
        largest = float(O.areas.max()) * self.asked.area
        return O, self.detector.propose(defects, 0, self.asked.background, largest)


class StoredGrounder(Grounder):
    """Answers to captions as stored, and the case's tokeniser."""

    def __init__(self, case: SAACase) -> None:
        super().__init__("stored", "d" * 64)
        self.case, self.known = case, ["[CLS]", "[SEP]"]

    def tokens(self, caption: str) -> tuple[int, ...]:
        spaced = caption.replace(".", " . ").replace(",", " , ").split()
        self.known += [word for word in spaced if word not in self.known]
        return (0, *(self.known.index(word) for word in spaced), 1)

    def words(self, ids: Sequence[int]) -> str:
        return " ".join(self.known[one] for one in ids)

    def run(self, pixels: Tensor, ids: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        told = self.case.meta["detector_captions"]
        number = [self.tokens(each) for each in told].index(ids)
        logits, boxes = (self.case.tensor(f"detector/{number}/{k}") for k in ("logits", "boxes"))
        return logits[None], boxes[None]


class StoredSegmenter(Segmenter):
    """Masks that were returned for boxes, which are checked; they lie in a frame of 1024 pixels."""

    def __init__(self, case: SAACase) -> None:
        super().__init__("stored", "e" * 64, 1024)
        self.case = case

    def embed(self, pixels: Tensor) -> list[Tensor]:
        return [pixels]

    def masks(
        self, embedded: Sequence[Tensor], row: int, prompts: Prompts, *, several: bool = False
    ) -> Masks:
        height, width = self.case.size
        given = prompts.boxes * torch.tensor([width, height] * 2) * 1024 / max(height, width)
        for kind in ("object", "defect"):
            boxes = self.case.tensor(f"segmenter/{kind}_boxes")
            if boxes.shape == given.shape and torch.allclose(boxes, given, atol=1e-2, rtol=1e-4):
                masks = self.case.tensor(f"segmenter/{kind}_masks").float()[:, None]
                return Masks(2 * masks - 1, torch.ones(len(masks), 1))
        raise AssertionError("boxes that the official code did not hand over")


@pytest.fixture(scope="module", params=find("saa_plus"))
def case(request) -> SAACase:
    return SAACase(request.param)


def test_hybrid_prompts_are_the_authors(case):
    parsed, asked = case.meta["parsed"], case.asked
    assert [list(pair) for pair in case.meta["prompts"]] == [
        [caption, asked.background] for caption in asked.captions
    ]
    assert [caption_of(each) for each in (asked.object, *asked.captions)] == case.meta[
        "detector_captions"
    ]
    assert asked.object == parsed["object_prompt"]
    assert (asked.count, asked.most) == (parsed["object_number"], parsed["k_mask"])
    assert asked.area == pytest.approx(parsed["area_ratio"])


def test_pictures_as_the_networks_see_them(case):
    shape = tuple(case.meta["detector_input_shapes"][0][-2:])
    assert grounding_size(*case.size) == shape
    shown = replace(case.detector.inputs["grounder"].preprocess, size=shape)(case.picture())
    case.close("out/detector_input_subsample", shown[:, ::40, ::40], "maps")
    salient = case.detector.inputs["saliency"].preprocess
    blue_first = Picture("picture", np.ascontiguousarray(case.arrays["image"][..., ::-1]))
    # theirs is rounded to whole grey values first
    off = (salient(blue_first) - case.tensor("input")[0]).abs()
    assert off.max() < 0.75 / 255 / min(salient.std)


def test_proposals(case):
    objects, defects = case.found()
    kept = [
        f"{phrase}({str(score)[:4]})"  # cut off, not rounded
        for found in (objects, defects)
        for phrase, score in zip(found.phrases, found.scores.tolist(), strict=True)
    ]
    assert kept == [phrase for told in case.meta["kept_phrases"] for phrase in told]
    height, width = case.size
    frame = torch.tensor([width, height] * 2) * 1024 / max(height, width)
    for name, found in (("object", objects), ("defect", defects)):
        boxes = case.tensor(f"segmenter/{name}_boxes")
        torch.testing.assert_close(found.corners * frame, boxes, atol=1e-2, rtol=1e-4)
    case.close("out/defect_scores", defects.scores, "scores")
    limit = torch.tensor(float(objects.areas.max()) * case.asked.area)
    case.close("out/defect_area_limit", limit, "scores")


def test_saliency_features_and_saliency(case):
    seen, step = case.seen(), case.detector
    case.close("out/features_subsample", seen.features[0, ::16, ::8, ::8], "maps")
    objects = None
    if case.meta["saliency"]["strategy"] != "single":
        objects = step.cut_out(seen, 0, case.found()[0]).at(case.size)[:, 0]
    case.close("out/saliency_map", step.saliency(seen.features[0], objects, case.size), "maps")


def test_both_saliencies_on_stored_features(case):
    f = case.tensor("small/features")[0]
    case.close("small/out_single", self_saliency(f, 400), "maps")
    objects = case.tensor("small/object_masks") > 0
    case.close("small/out_multi", object_saliency(f, objects), "maps")


def test_scores_map_and_image_score(case):
    seen, (_, defects) = case.seen(), case.found()
    masks = case.detector.cut_out(seen, 0, defects)
    sigma = case.tensor("out/saliency_map")
    case.close(
        "out/defect_rescores", case.detector.rescored(masks, defects.scores, sigma), "scores"
    )
    objects, *asked = case.queries()
    got = case.detector.judge(seen, 0, case.asked, objects, asked)
    side = case.meta["out_size"]
    small = upsample(got[None], (side, side))
    case.close("out/anomaly_map", small, "maps")
    case.close("out/image_score", small.amax(), "maps")
