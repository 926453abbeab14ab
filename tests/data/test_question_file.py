"""MMAD's files: what is read, and what is said of those that cannot be."""

from __future__ import annotations

import json

import pytest
from question_tree import OPTIONS, question, question_tree

from zerodefect.data.dataset import DatasetError
from zerodefect.data.question_file import read_questions


@pytest.fixture
def root(tmp_path):
    return question_tree(tmp_path / "MMAD")


def test_pictures_questions_templates_and_knowledge(root):
    data = read_questions(root)
    first = data.pictures[0]
    assert [one.name for one in data.pictures] == list(json.loads(data.file.read_text("utf-8")))
    assert (first.dataset, first.product) == ("DS-MVTec", "bottle")
    files = [first.file, *first.random_templates, *first.similar_templates]
    assert all(file.is_file() for file in files) and len(set(files)) == 3
    assert [one.kind for one in first.questions] == ["Anomaly Detection", "Object Details"]
    assert first.questions[0].options == OPTIONS and first.questions[0].answer == "B"
    assert data.known_of(first) == ("A round rim.", "A sharp line.")  # MVTec in that file
    assert data.known_of(data.pictures[2]) == ()
    assert read_questions(root / "mmad.json").pictures == data.pictures


def test_options_get_letters_in_the_order_of_the_file(tmp_path):
    entry = question("Object Analysis", "A", {"C": "x", "A": "y", "Q": "z"})
    odd = question("Object Analysis", "K")
    (tmp_path / "mmad.json").write_text(json.dumps({"V/c/0.png": {"conversation": [entry, odd]}}))
    first, second = read_questions(tmp_path).pictures[0].questions
    assert first.options == {"A": "x", "B": "y", "C": "z"} and first.answer == "B"
    assert second.answer == "K"  # names no option, and is no valid answer


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not valid JSON"),
        ('{"a": ', "not valid JSON"),
        ("[1]", "not a JSON object"),
        ("{}", "no picture"),
        ('{"V/c/0.png": 3}', "'V/c/0.png' cannot be read"),
        ('{"V/c/0.png": {"conversation": [{"Question": "x"}]}}', "KeyError 'Options'"),
        ('{"V/c/0.png": {"conversation": [{"Question": "x", "Options": {}}]}}', "0 options"),
        ('{"../c/0.png": {}}', "leads out of the folder"),
        ('{"V/c/0.png": {"random_templates": ["/etc/x.png"]}}', "leads out of the folder"),
        ('{"V/c/0.png": {"random_templates": [7]}}', "cannot be read"),
        ("[" * 100_000, "not valid JSON"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_reason_and_remedy(tmp_path, content, reason):
    (tmp_path / "mmad.json").write_text(content, "utf-8")
    with pytest.raises(DatasetError) as caught:
        read_questions(tmp_path)
    assert reason in str(caught.value) and "mmad.json" in str(caught.value)
    assert "Copy the file again" in str(caught.value)


def test_an_absent_file_says_where_it_is_from(tmp_path):
    with pytest.raises(DatasetError, match=r"no such file.*github.com/jam-cc/MMAD"):
        read_questions(tmp_path)


@pytest.mark.parametrize("content", ['{"MVTec": 3}', '{"MVTec": {"bottle": "x"}}', "{"])
def test_knowledge_that_cannot_be_used_is_an_error(root, content):
    (root / "domain_knowledge.json").write_text(content, "utf-8")
    with pytest.raises(DatasetError, match=r"domain_knowledge\.json"):
        read_questions(root)
