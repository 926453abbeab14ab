"""open_clip's tables and tokenizer without its networks, against open_clip itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import write_tiny_weights

from zerodefect.backbones import open_clip_names
from zerodefect.backbones.clip import tokenize

STRINGS = [
    "",
    "a photo of a damaged magnetic tile.",
    "  A  Cropped\tPHOTO\nof the screw  ",
    "don't we've they'll i'm she'd it's",
    "0123 4567890 3.14159 M6x20",
    "&lt;b&gt; &amp;amp; &quot;",
    "Kühlkörper, Gehäuse, Straße",
    "钢板 表面 缺陷",
    "Ёлочка и гайка",
    "👩‍🔧🔩",
    "Ã¼ber schÃ¶n",  # text decoded with the wrong table, which ftfy repairs
    "ﬁne ﬂaw ½ Ⅳ ²",
    "e\u0301 \u00a0 \u200b \ufeff",
    "<start_of_text> X <end_of_text>",
    "{} % \\ ' \" ` ~ ^",
]


@pytest.mark.parametrize("text", STRINGS)
def test_tokens_equal_open_clips(text):
    assert torch.equal(tokenize([text]), open_clip.tokenize([text]))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=24))
def test_tokens_of_any_text_equal_open_clips(text):
    mine, theirs = open_clip_names.tokenizer(), open_clip.tokenizer._tokenizer
    assert mine.encode(text) == open_clip_names.encode(text) == theirs.encode(text)


@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_words_encoded_one_by_one_make_the_same_tokens(text):
    assert open_clip_names.encode(text) == open_clip.tokenizer._tokenizer.encode(text)


def test_shapes_and_addresses_equal_open_clips():
    assert set(open_clip_names.model_names()) >= set(open_clip.list_models())
    for model in open_clip.list_models():
        assert open_clip_names.model_config(model) == open_clip.get_model_config(model)
    assert open_clip_names.pretrained() == open_clip.list_pretrained()
    for model, tag in open_clip.list_pretrained():
        assert open_clip_names.weights_facts(model, tag) == open_clip.get_pretrained_cfg(model, tag)
    assert open_clip_names.tags("ViT-B-16") == open_clip.list_pretrained_tags_by_model("ViT-B-16")


@pytest.mark.parametrize("name", ["no-such-model", "../model_configs/ViT-B-16", ""])
def test_an_unknown_architecture(name):
    assert open_clip_names.model_config(name) is None


SCORE = """
import sys, torch
from zerodefect.detector.knowledge import Product
from zerodefect.methods import load_detector
detector = load_detector("winclip", backbone={backbone!r}, precision={precision!r}, device="cpu")
known = detector.describe(detector.empty(), Product("screw"))
detector(torch.rand(1, 3, 64, 64), known)
heavy = {{"torchvision", "open_clip", "timm", "torch._dynamo", "torch._inductor", "sympy"}}
print(sorted(heavy & set(sys.modules)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_loading_and_scoring_import_nothing_heavy(tmp_path, precision):
    """Each of these costs tens of MiB that no user of the towers needs."""
    code = SCORE.format(backbone=str(write_tiny_weights(tmp_path)), precision=precision)
    environment = {**os.environ, "ZERODEFECT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1].replace("'", '"')) == []
