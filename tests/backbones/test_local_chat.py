"""Chat models in this process: LLaVA-OneVision and Qwen2-VL of transformers' own classes, tiny."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="the extra 'vlm' is not installed")

from zerodefect.backbones.chat_model import (
    ChatMalformedError,
    ChatRefusedError,
    ChatTimeoutError,
    Turn,
    load_chat_model,
)
from zerodefect.backbones.local_chat import load_local_chat
from zerodefect.backbones.tiny_networks import llava_folder, qwen2_vl_folder, sam_folder
from zerodefect.backbones.weight_files import WeightsError, file_hash


def picture(height=60, width=80, seed=0):
    values = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


TALK = [Turn("user", ("A good part:", picture(), "the part:", picture(30, 30, 1), "what is it?"))]


@pytest.fixture(scope="module", params=[llava_folder, qwen2_vl_folder])
def folder(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("vlm"))


@pytest.fixture(scope="module")
def model(folder):
    return load_chat_model(str(folder))


def test_it_answers_and_says_the_same_again(model):
    said = model.answer(TALK, 12)
    assert said and said == said.strip()
    assert model.answer(TALK, 12) == said
    assert not model.leaves_process and model.where == "this process"


def test_an_answer_depends_on_pictures_words_and_earlier_turns(model):
    chances = [
        model.chances(turns, "", ["Yes", "No"])
        for turns in (
            TALK,
            [Turn("user", (*TALK[0].parts[:-2], picture(30, 30, 2), TALK[0].parts[-1]))],
            [Turn("user", (*TALK[0].parts[:-1], "what else is it?"))],
            [*TALK, Turn("assistant", ("a nut",)), Turn("user", ("sure?",))],
        )
    ]
    assert len({round(one[0], 9) for one in chances}) == 4


def test_conversations_of_several_pictures_or_none_are_answered_as_each_alone(model):
    words = [Turn("user", ("hi",)), Turn("assistant", ("ho",)), Turn("user", ("and?",))]
    chats = [TALK, words, [Turn("user", ("look", picture(40, 90, 3)))], TALK, words]
    together = model.answers(chats, 8)
    assert together[3] == together[0] and together[4] == together[1]
    assert together == [model.answer(one, 8) for one in chats]


def test_chances_are_those_of_the_network(model):
    """Against the whole text, one pass each: a tokeniser of bytes cuts nothing in two."""
    begun, options = "<answer>", ["Yes", "No", "Nothing"]
    found = model.chances(TALK, begun, options)
    assert sum(found) == pytest.approx(1)
    logs = []
    for option in options:
        inputs = model._prepared([TALK], begun + option)
        with torch.inference_mode():
            logits = model.network(**inputs).logits[0].double().log_softmax(-1)
        n, ids = len(option), inputs["input_ids"][0]
        logs.append(float(logits[-n - 1 : -1].gather(1, ids[-n:, None]).sum()))
    expected = torch.tensor(logs, dtype=torch.float64).softmax(0).tolist()
    assert found == pytest.approx(expected, rel=1e-4)


def test_what_the_weights_are_is_known(model, folder):
    assert model.name == f"{folder.name} (local)" and model.precision == "float32"
    assert len(model.fingerprint) == 64 and model.file.parent == folder
    if (folder / "model.safetensors").exists():
        assert model.fingerprint == file_hash(folder / "model.safetensors")


def test_half_precision_answers(folder):
    model = load_local_chat(folder, dtype=torch.bfloat16)
    assert model.precision == "bfloat16"
    assert model.answer(TALK, 4)


def test_a_model_that_is_too_slow_is_given_up(folder):
    model = load_local_chat(folder, timeout=0.0)
    with pytest.raises(ChatTimeoutError, match="did not answer within 0 seconds"):
        model.answer(TALK, 50)


def test_an_empty_answer_is_told(model, monkeypatch):
    end = model.network.generation_config.eos_token_id

    def nothing(**inputs):
        return torch.cat([inputs["input_ids"], torch.tensor([[end]])], dim=1)

    monkeypatch.setattr(model.network, "generate", nothing)
    with pytest.raises(ChatMalformedError, match="empty answer"):
        model.answer(TALK, 5)


def test_whatever_the_network_raises_is_a_refusal(model, monkeypatch):
    def broken(**inputs):
        raise IndexError("out of range\nand more")

    monkeypatch.setattr(model.network, "generate", broken)
    with pytest.raises(ChatRefusedError, match=r"could not answer \(out of range\)$"):
        model.answer(TALK)


def test_folders_that_hold_no_chat_model_are_refused(folder, tmp_path):
    import shutil

    with pytest.raises(WeightsError, match="nothing is downloaded unasked"):
        load_local_chat("nobody/has-such-a-model")
    with pytest.raises(WeightsError, match=r"no processor|no chat template"):
        load_local_chat(sam_folder(tmp_path / "sam"))
    silent = shutil.copytree(folder, tmp_path / "silent")
    (silent / "chat_template.jinja").unlink()
    with pytest.raises(WeightsError, match="no chat template in it"):
        load_local_chat(silent)
    bare = shutil.copytree(folder, tmp_path / "bare")
    for file in bare.glob("*.safetensors*"):
        file.unlink()
    with pytest.raises(WeightsError, match=r"no model\.safetensors in it"):
        load_local_chat(bare)
    wordless = shutil.copytree(folder, tmp_path / "wordless")
    for file in wordless.glob("*token*"):
        file.unlink()
    with pytest.raises(WeightsError, match="no processor in it"):
        load_local_chat(wordless)


def test_damaged_weights_are_refused(folder, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    file = max(copy.glob("*.safetensors"), key=lambda one: one.stat().st_size)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="Copy the folder again"):
        load_local_chat(copy)


def test_an_index_that_names_no_files_is_refused(tmp_path):
    folder = qwen2_vl_folder(tmp_path / "vlm")
    index = folder / "model.safetensors.index.json"
    for content in (json.dumps({"weight_map": {"a": "gone.safetensors"}}), "{", "[]"):
        index.write_text(content)
        with pytest.raises(WeightsError, match=r"Copy the folder again"):
            load_local_chat(folder)


def test_without_transformers_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WeightsError, match=r"chat models need transformers: .*zerodefect\[vlm\]"):
        load_chat_model("some/model")
