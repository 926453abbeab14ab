"""What a chat model is taught by: data sets, files of answers, and what cannot be used."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from zerodefect.data import open_dataset
from zerodefect.data.dataset import DatasetError
from zerodefect.training.chat_lessons import (
    ChatLesson,
    check_lessons,
    lessons_of,
    location_of,
    read_lessons,
)
from zerodefect.training.reasoning_rewards import rewards


def draw(path, box=None, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full((30, 60), 40, dtype=np.uint8) if mode == "RGB" else np.zeros((30, 60), "uint8")
    if box:
        values[box] = 255
    Image.fromarray(values).convert(mode).save(path)


@pytest.fixture
def root(tmp_path):
    """A tree as MVTec AD has it: a good part, and a scratch at the bottom right."""
    box = np.s_[22:28, 45:57]
    draw(tmp_path / "nut/train/good/0.png")
    draw(tmp_path / "nut/test/good/0.png")
    draw(tmp_path / "nut/test/deep_scratch/0.png", box)
    draw(tmp_path / "nut/ground_truth/deep_scratch/0_mask.png", box, "L")
    return tmp_path


def test_a_data_set_tells_location_and_type(root):
    scratch, good = sorted(lessons_of(open_dataset(root)), key=lambda one: one.file.parent.name)
    assert scratch.solution == (
        "<location>bottom right</location><type>deep scratch</type><answer>Yes</answer>"
    )
    assert scratch.answer == (
        "<think>The nut shows a deep scratch at the bottom right, on 4 percent of the picture."
        f"</think>{scratch.solution}"
    )
    assert good.solution == "<answer>No</answer>" and good.answer.startswith("<think>Nothing on")
    lessons = [scratch, good]
    assert rewards([o.answer for o in lessons], [o.solution for o in lessons]) == [3.0, 2.0]


def test_what_cannot_be_read_is_left_out_and_told(root):
    (root / "nut/test/good/0.png").write_bytes(b"\x89PNG")
    (root / "nut/ground_truth/deep_scratch/0_mask.png").write_bytes(b"")
    told = []
    assert lessons_of(open_dataset(root), told.append) == []
    assert len(told) == 2 and all(failure.reason for failure in told)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (np.s_[0:5, 0:5], "top left"),
        (np.s_[13:17, 28:32], "center"),
        (np.s_[13:17, 55:60], "right"),
        (np.s_[25:30, 28:32], "bottom"),
        (np.s_[29:30, 59:60], "bottom right"),
    ],
)
def test_a_mask_lies_in_a_ninth_of_the_picture(place, words):
    mask = np.zeros((30, 60), dtype=bool)
    mask[place] = True
    assert location_of(mask) == words


def test_a_file_of_answers(tmp_path):
    draw(tmp_path / "a.png")
    truth = "<location>top</location><type>scratch</type><answer>Yes</answer>"
    answer = f"<think>A line.</think>{truth}"
    lines = [{"image": "a.png", "answer": answer}, {"image": "gone.png", "answer": answer}]
    file = tmp_path / "answers.jsonl"
    file.write_text("\n\n".join(map(json.dumps, lines)), "utf-8")
    told = []
    (lesson,) = read_lessons(file, told.append)
    assert lesson == ChatLesson(tmp_path / "a.png", truth, answer)
    assert [failure.image for failure in told] == [str(tmp_path / "gone.png")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2 is no lesson"),
        ("[]", "line 2 is no lesson"),
        ('{"image": "a.png"}', "KeyError"),
        ('{"image": 3, "answer": "x"}', "line 2 is no lesson"),
        ('{"image": "a.png", "answer": "Yes"}', "neither Yes nor No"),
        ('{"image": "a.png", "answer": "<answer>maybe</answer>"}', "neither Yes nor No"),
    ],
)
def test_a_line_that_is_no_lesson_is_named(tmp_path, line, reason):
    draw(tmp_path / "a.png")
    (tmp_path / "x.jsonl").write_text(f"\n{line}\n", "utf-8")
    with pytest.raises(DatasetError, match=reason) as caught:
        read_lessons(tmp_path / "x.jsonl")
    assert "Write a line" in str(caught.value)
    with pytest.raises(DatasetError, match="cannot be read"):
        read_lessons(tmp_path / "absent.jsonl")


def test_nothing_to_learn_is_an_error():
    bare = ChatLesson(None, "<answer>Yes</answer>")
    assert check_lessons([bare], imitated=False) == [bare]
    with pytest.raises(ValueError, match="takes a mask"):
        check_lessons([bare], imitated=True)
    with pytest.raises(ValueError, match="nothing to learn"):
        check_lessons([], imitated=False)
