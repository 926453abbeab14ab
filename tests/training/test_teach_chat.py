"""Teaching tiny models of transformers' own classes, a step or two of each stage."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("trl", reason="the extra 'vlm-train' is not installed")

from scripted_chat import ScriptedChat
from typer.testing import CliRunner

from zerodefect.backbones.chat_model import Turn, load_chat_model
from zerodefect.backbones.tiny_networks import llava_folder, qwen2_vl_folder
from zerodefect.cli import app
from zerodefect.layers.group_policy import group_advantages, group_policy_loss
from zerodefect.training.chat_lessons import ChatLesson
from zerodefect.training.teach_chat import ChatTeaching, chat_trainer, teach_chat

pytestmark = pytest.mark.training

ANSWER = "<think>x</think><answer>No</answer>"
QUICK = {"max_steps": 2, "max_tokens": 6, "warm_up": 0, "learning_rate": 1e-2, "accumulation": 1}


@pytest.fixture(scope="module")
def lessons(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    return [ChatLesson(file, "<answer>No</answer>", ANSWER) for file in sorted(folder.iterdir())]


@pytest.fixture(scope="module", params=[llava_folder, qwen2_vl_folder])
def folder(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("vlm"))


def values(chat):
    return {name: value.detach().clone() for name, value in chat.network.named_parameters()}


def test_imitated_answers_become_likelier(folder, lessons, tmp_path):
    chat, figures = load_chat_model(str(folder)), []
    turns = [Turn("user", (Image.open(lessons[0].file), "Are there any defects?"))]
    before = chat.chances(turns, "", [ANSWER, "x" * len(ANSWER)])[0]
    made = teach_chat(
        chat, lessons, tmp_path / "made", "answers", ChatTeaching(**QUICK), on_log=figures.append
    )
    losses = [one["loss"] for one in figures if "loss" in one]
    assert len(losses) == 2 and losses[1] < losses[0] < 1.1 * math.log(265)  # of so many tokens
    taught = load_chat_model(str(made))
    assert taught.chances(turns, "", [ANSWER, "x" * len(ANSWER)])[0] > before
    assert taught.fingerprint != load_chat_model(str(folder)).fingerprint
    about = json.loads((made / "teaching.json").read_text("utf-8"))
    assert (about["stage"], about["lessons"]) == ("answers", 3)


def test_sampled_answers_are_rewarded(folder, lessons, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "zerodefect.training.teach_chat.accuracy_reward", lambda said, truth: sum(said.encode()) % 7
    )
    chat, figures = load_chat_model(str(folder)), []
    before = values(chat)
    made = teach_chat(
        chat, lessons, tmp_path / "made", "rewards", ChatTeaching(**QUICK), on_log=figures.append
    )
    steps = [one for one in figures if "reward" in one]
    assert len(steps) == 2 and all(math.isfinite(one["loss"]) for one in steps)
    assert {"rewards/accuracy/mean", "rewards/consistency/mean", "kl", "reward_std"} <= set(
        steps[0]
    )
    assert steps[0]["rewards/consistency/mean"] == 0  # random words are no tags
    assert steps[0]["completions/mean_length"] <= 6
    after = values(load_chat_model(str(made)))
    assert any(not torch.equal(before[name], value) for name, value in after.items())


def test_trls_loss_is_the_one_that_is_proven(lessons, tmp_path):
    """Value and gradient, at a divergence and at rewards of which neither is nothing."""
    chat = load_chat_model(str(qwen2_vl_folder(tmp_path / "vlm")))
    teaching = ChatTeaching(**{**QUICK, "max_steps": 1})
    trainer = chat_trainer(chat, lessons[:1], tmp_path / "made", "rewards", teaching)
    theirs, compared = trainer._compute_loss, []

    def gradient(loss):
        found = torch.autograd.grad(loss, chat.network.lm_head.weight, retain_graph=True)
        return found[0]

    def compute(model, given):
        draws = torch.Generator().manual_seed(0)
        noise = torch.randn(given["ref_per_token_logps"].shape, generator=draws)
        given["ref_per_token_logps"] = given["ref_per_token_logps"] + 0.3 * noise
        rewards = torch.tensor([3.0, 0.5, 1.0, 0.0])
        given["advantages"] = group_advantages(rewards, 4)[0]
        loss = theirs(model, given)
        ids = torch.cat([given["prompt_ids"], given["completion_ids"]], dim=1)
        attended = torch.cat([given["prompt_mask"], given["completion_mask"]], dim=1)
        seen = {
            name: given[name]
            for name in ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
            if name in given
        }
        said, *_ = trainer._get_per_token_logps_and_entropies(
            model, ids, attended, given["completion_ids"].shape[1], **seen
        )
        mask = given["completion_mask"].float()
        ours = group_policy_loss(said, given["ref_per_token_logps"], mask, rewards, group=4).loss
        compared.append((loss.detach(), ours.detach(), gradient(loss), gradient(ours)))
        return loss

    trainer._compute_loss = compute
    trainer.train()
    ((loss, ours, slope, own),) = compared
    torch.testing.assert_close(loss, ours, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(slope, own, rtol=1e-4, atol=1e-6)
    assert loss.abs() > 1e-4 and slope.abs().max() > 1e-4


def test_a_run_goes_on_from_its_last_state(lessons, tmp_path):
    chat = load_chat_model(str(qwen2_vl_folder(tmp_path / "vlm")))
    saving = ChatTeaching(**{**QUICK, "max_steps": 1, "save_steps": 1})
    made = teach_chat(chat, lessons, tmp_path / "made", "answers", saving)
    again, figures = load_chat_model(str(tmp_path / "vlm")), []
    more = ChatTeaching(**{**QUICK, "save_steps": 1})
    teach_chat(again, lessons, made, "answers", more, on_log=figures.append)
    assert [one["step"] for one in figures if "loss" in one] == [2]


def test_what_cannot_be_taught_is_said(lessons, tmp_path):
    with pytest.raises(ValueError, match="runs on a server"):
        teach_chat(ScriptedChat(str, leaves=True), lessons, tmp_path, "answers")
    chat = load_chat_model(str(qwen2_vl_folder(tmp_path / "vlm")))
    with pytest.raises(ValueError, match="this is a file"):
        teach_chat(chat, lessons, lessons[0].file, "answers")
    with pytest.raises(ValueError, match="takes a mask"):
        bare = ChatLesson(lessons[0].file, "<answer>Yes</answer>")
        teach_chat(chat, [bare], tmp_path / "made", "answers")
    with pytest.raises(ValueError, match="two or more"):
        ChatTeaching(group=1)


def run(*arguments):
    done = CliRunner().invoke(app, ["train", *map(str, arguments)])
    return done.exit_code, f"{done.output} {done.exception or ''}"


def test_the_verb_teaches_and_says_what_to_do_with_it(folder, lessons, tmp_path):
    file = lessons[0].file.parent / "answers.jsonl"
    lines = [json.dumps({"image": one.file.name, "answer": one.answer}) for one in lessons]
    file.write_text("\n".join([*lines, lines[0].replace("0.png", "9.png")]), "utf-8")
    given = ("iad_r1", "--data", f"answers:{file}", "--backbone", folder, "--max-steps", 1)
    code, told = run(*given, "--stage", "answers", "-o", tmp_path / "made", "--device", "cpu")
    file.unlink()
    assert code == 0, told
    assert "3 pictures to learn from; 1 left out" in told and "9.png" in told
    assert "step 1: loss" in told and f"--backbone {tmp_path / 'made'}" in told.replace("\n", "")
    assert load_chat_model(str(tmp_path / "made")).answer([Turn("user", ("hi",))], 4)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("iad_r1",), "two stages"),
        (("iad_r1", "--stage", "both"), "two stages"),
        (("anomalyclip", "--stage", "answers"), "--stage is for iad_r1"),
        (("iad_r1", "--stage", "answers", "--mosaic", 0.5), "taught without --mosaic"),
        (("iad_r1", "--stage", "answers", "--few"), "taught without --few"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments, reason):
    code, told = run(*arguments, "--data", "nowhere")
    assert code == 1 and reason in told
