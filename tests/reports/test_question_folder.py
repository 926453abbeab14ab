"""Runs of questions: tables, going on, failures, settings that differ."""

from __future__ import annotations

import csv
import json

import pytest
from question_tree import question_tree
from scripted_chat import ScriptedChat

from zerodefect.backbones.chat_model import ChatModelError, ChatTimeoutError
from zerodefect.data.question_file import read_questions
from zerodefect.evaluation.question_protocol import QuestionProtocol
from zerodefect.reports.question_folder import ask_all
from zerodefect.reports.run_folder import RunMismatch


@pytest.fixture
def data(tmp_path):
    return read_questions(question_tree(tmp_path / "MMAD"))


def right(turns):
    """Knows defects by the name of nothing: answers all defective."""
    return "A" if "Yes." in turns[0].parts[-1] else "D"


def test_tables_say_the_same_in_all_formats(data, tmp_path):
    results = ask_all(ScriptedChat(right), data, tmp_path / "run")
    table = results.counted["official"].table()
    assert table["VisA"]["Anomaly Detection"] == 50 and table["VisA"]["Overkill"] == 100
    assert table["Average"]["Defect Classification"] == 100
    found = json.loads((tmp_path / "run/results.json").read_text("utf-8"))
    official, every = found["scores"]
    assert official["table"] == table and official["counting"] == "official"
    assert every["table"] == table and found["letters"] == {"A": 0.5, "D": 0.5}
    assert official["defects"]["VisA"] == {"recall": 100, "precision": 50, "f1": 200 / 3}
    rows = list(csv.DictReader((tmp_path / "run/results.csv").read_text("utf-8").splitlines()))
    assert [row["dataset"] for row in rows] == ["DS-MVTec", "VisA", "Average"] * 2
    assert float(rows[1]["Anomaly Detection"]) == 50 and rows[2]["recall"] == ""
    text = (tmp_path / "run/results.md").read_text("utf-8")
    assert "| VisA | 50.0 |" in text and "GPT-4o: 74.3" in text
    assert "average 83.3 %" in results.headline()


def test_a_run_goes_on_where_it_was_killed(data, tmp_path):
    class KilledError(Exception):
        pass

    model = ScriptedChat(lambda turns: KilledError() if len(model.asked) > 4 else right(turns))
    with pytest.raises(KilledError):
        ask_all(model, data, tmp_path / "run")
    second = ScriptedChat(right)
    results = ask_all(second, data, tmp_path / "run")
    assert len(second.asked) == 4 and len(results.answers) == 8
    whole = ask_all(ScriptedChat(right), data, tmp_path / "whole")
    assert results.answers == whole.answers


def test_what_failed_is_listed_and_asked_again(data, tmp_path):
    data.pictures[2].file.unlink()

    slow = []

    def late(turns):
        if "Defect Classification" not in turns[0].parts[-1] or slow:
            return right(turns)
        slow.append(turns)
        return ChatTimeoutError("too late")

    results = ask_all(ScriptedChat(late, leaves=True), data, tmp_path / "run")
    assert len(results.answers) == 5 and len(results.failures) == 3
    reasons = [failure.reason for failure in results.failures]
    assert reasons[0] == "too late" and "2.png" in reasons[1]
    assert "in no figure: 3" in (tmp_path / "run/results.md").read_text("utf-8")
    again = ScriptedChat(right, leaves=True)
    results = ask_all(again, data, tmp_path / "run")
    assert len(again.asked) == 2 and len(results.answers) == 6  # the picture is still missing


def test_other_settings_need_another_folder(data, tmp_path):
    ask_all(ScriptedChat(right), data, tmp_path / "run", limit=1)
    with pytest.raises(RunMismatch, match=r"protocol\.shuffle: null then, 3 now"):
        ask_all(ScriptedChat(right), data, tmp_path / "run", protocol=QuestionProtocol(shuffle=3))
    results = ask_all(ScriptedChat(right), data, tmp_path / "run", limit=3)
    assert len(results.answers) == 6
    fewer = ask_all(ScriptedChat(right), data, tmp_path / "run", limit=2)
    assert len(fewer.answers) == 4


def test_a_model_that_never_answers_ends_the_run(tmp_path):
    root = question_tree(tmp_path / "MMAD")
    content = json.loads((root / "mmad.json").read_text("utf-8"))
    entry = content["VisA/pcb/test/good/2.png"]
    many = {f"VisA/pcb/test/good/{n}.png": entry for n in range(40)}
    (root / "mmad.json").write_text(json.dumps(many), "utf-8")
    (root / "VisA/pcb/test/good/2.png").rename(root / "VisA/pcb/test/good/0.png")
    model = ScriptedChat(lambda turns: ChatModelError("no connection"), leaves=True)
    with pytest.raises(ChatModelError, match=r"none of the first 10 pictures .*"):
        ask_all(model, read_questions(root), tmp_path / "run")
