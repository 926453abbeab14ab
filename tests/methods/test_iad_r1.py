"""IAD-R1: its prompt, its score, what is left of a bad answer, and every verb with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from chat_stand_in import stand_in
from PIL import Image
from scripted_chat import ScriptedChat
from small_assemblies import ShadeChat
from small_detectors import everything, remembered
from typer.testing import CliRunner

import zerodefect
from zerodefect.backbones.chat_model import ChatTimeoutError
from zerodefect.backbones.hub_models import transformers_package
from zerodefect.backbones.weight_files import WeightsError
from zerodefect.cli import app
from zerodefect.detector.knowledge import Product
from zerodefect.inspection.inspector import Inspector
from zerodefect.methods import load_detector
from zerodefect.methods.iad_r1 import IADR1, IADR1Config
from zerodefect.types import Failure

DARK, BRIGHT = torch.full((1, 3, 56, 56), 0.2), torch.full((1, 3, 56, 56), 0.9)


def prompted(detector, knowledge, given=DARK):
    detector(given, knowledge)
    return [
        part if isinstance(part, str) else "PICTURE" for part in detector.chat.asked[-1][-1].parts
    ]


def test_the_prompt_with_and_without_references():
    detector = IADR1(ScriptedChat(lambda turns: "<answer>No</answer>"))
    assert prompted(detector, detector.empty()) == [
        "PICTURE",
        "Are there any defects in the test image?",
    ]
    two = remembered(detector, detector.empty(), torch.cat([DARK, BRIGHT]))
    assert prompted(detector, two) == [
        "Following is 2 image of normal sample, which can be used as a template to compare the "
        "image being queried.",
        *("PICTURE", "PICTURE", "Following is image of test sample:", "PICTURE"),
        "Are there any defects in the test image?",
    ]
    shown = [np.asarray(one).mean().round() for one in detector.chat.asked[-1][-1].pictures]
    assert shown == [51, 230, 51]
    few = IADR1(detector.chat, IADR1Config(shown=1))
    five = remembered(few, few.empty(), DARK.expand(5, -1, -1, -1))
    assert five.shots == 5 and prompted(few, five).count("PICTURE") == 2


def test_scores_are_probabilities_where_the_model_tells_them():
    detector = IADR1(ShadeChat())
    got = detector(torch.cat([DARK, BRIGHT]))
    torch.testing.assert_close(got.score, torch.tensor([0.2, 0.9]), atol=2e-3, rtol=0)
    assert got.map is None
    assert got.answer[0] == "No. As dark as it should be."
    assert got.answer[1].startswith("Yes: stain, top left. 0.9")


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("<think>x</think><answer>Yes</answer>", 1.0),
        ("<answer>No</answer>", 0.0),
        ("No defects to see.", 0.0),
        ("I cannot say.", 0.5),
    ],
)
def test_scores_of_a_model_that_tells_no_probabilities(said, score):
    got = IADR1(ScriptedChat(lambda turns: said))(DARK)
    assert got.score.tolist() == [score] and got.answer[0]


def test_an_answer_that_does_not_come_costs_its_picture_alone(tmp_path):
    def say(turns):
        bright = np.asarray(turns[-1].pictures[-1]).mean() > 128
        return ChatTimeoutError("scripted did not answer") if bright else "<answer>No</answer>"

    inspector = Inspector(IADR1(ScriptedChat(say)))
    files = []
    for number, shade in enumerate((40, 220, 50)):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", (60, 40), (shade,) * 3).save(files[-1])
    first, second, third = inspector.inspect_many(files)
    assert isinstance(second, Failure) and "did not answer" in second.reason
    assert "asked again" in second.remedy
    assert first.answer == third.answer == "No." and first.score == 0


def test_knowledge_holds_what_is_shown(tmp_path):
    detector = IADR1(ShadeChat())
    knowledge = everything(detector)
    assert knowledge.shots == 2 and knowledge.bytes > 2 * 3 * 56 * 56
    assert detector.describe(knowledge, Product("nut")).shots == 2


def test_without_a_model_it_says_what_is_missing():
    with pytest.raises(WeightsError, match=r"no chat model is named.*\[vlm\]"):
        load_detector("iad_r1")
    with pytest.raises(WeightsError, match="not on this machine"):
        load_detector("iad_r1", backbone="nowhere/model")


def parts(folder: Path, count: int, bright: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        values = np.random.default_rng(number).integers(0, 60, (48, 64, 3), dtype=np.uint8)
        if bright:
            values[10:30, 10:30] = 255
        Image.fromarray(values).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    try:
        transformers_package("vlm")
    except WeightsError:
        pytest.skip("the extra 'vlm' is not installed")
    from zerodefect.backbones.tiny_networks import llava_folder

    return llava_folder(tmp_path_factory.mktemp("vlm"))


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def test_a_server_is_named_in_every_output_and_found_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = parts(tmp_path / "good", 4)
    with stand_in() as server:
        server.answer = "<think>ok</think><answer>No</answer>"
        given = ("-m", "iad_r1", "-b", server.address, "--image-size", 56)
        told = run("calibrate", good, *given, "-n", "nut", "-o", "nut.zd")
        host = server.address.partition("/v1")[0]
        assert f"pictures leave this process: they are sent to {host}" in told.replace("\n", " ")
        told = run("inspect", good, "--product", "nut.zd", "-o", "run")
        assert f"they are sent to {host}" in told.replace("\n", " ")
    assert server.address in Path("run/run.json").read_text("utf-8")
    assert server.address in Path("run/report.html").read_text("utf-8")
    records = [json.loads(line) for line in Path("run/results.jsonl").read_text().splitlines()]
    assert [record["answer"] for record in records] == ["No. ok"] * 4


def test_what_it_says_is_told_on_the_terminal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    odd = parts(tmp_path / "odd", 1)
    with stand_in() as server:
        server.answer = f"<think>{'so it is ' * 50}</think><type>stain</type><answer>Yes</answer>"
        given = ("-m", "iad_r1", "-b", server.address, "--image-size", 56)
        monkeypatch.setenv("COLUMNS", "200")
        assert "Yes: stain. so it is" in run("inspect", odd, *given, "-o", "run")
        told = run("ask", odd / "0.png", *given)
    assert "answer of the method: Yes: stain. so it is" in told and told.count("so it is") == 50


@pytest.mark.slow
def test_every_verb_with_a_model_in_this_process(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZERODEFECT_CACHE", str(tmp_path / "cache"))
    good, odd = parts(tmp_path / "good", 6), parts(tmp_path / "odd", 2, bright=True)
    with_model = ("-m", "iad_r1", "-b", model, "--set", "max_tokens=6", "--image-size", 56)
    run("inspect", odd, *with_model, "-o", "plain")
    records = [json.loads(line) for line in Path("plain/results.jsonl").read_text().splitlines()]
    assert len(records) == 2 and all(record["status"] == "ok" for record in records)
    assert all(0 <= record["score"] <= 1 and record["answer"] for record in records)

    run("calibrate", good, *with_model, "-n", "nut", "-r", odd, "-o", "nut.zd")
    run("inspect", odd, "--product", "nut.zd", "-o", "known")
    records = [json.loads(line) for line in Path("known/results.jsonl").read_text().splitlines()]
    assert all(record["p_value"] is not None for record in records)
    inspector = zerodefect.load("nut.zd")
    assert inspector.inspect(odd / "0.png").score == pytest.approx(records[0]["score"], abs=1e-5)

    for number in range(2):
        for kind, source in (("good", good), ("bright", odd)):
            target = tmp_path / "data/nut/test" / kind / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((source / f"{number}.png").read_bytes())
    told = run("evaluate", "-d", "data", *with_model, "-o", "measured")
    assert "image" in told and Path("measured/data/iad_r1/results.json").is_file()
