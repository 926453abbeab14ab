"""How questions are asked: order, templates, shuffling, failures."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from question_tree import picture, question_tree
from scripted_chat import ScriptedChat

from zerodefect.backbones.chat_model import ChatRefusedError
from zerodefect.backbones.hub_models import transformers_package
from zerodefect.backbones.weight_files import WeightsError
from zerodefect.data.question_file import read_questions
from zerodefect.evaluation.question_protocol import QuestionProtocol, ask, shown_options


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_questions(question_tree(tmp_path_factory.mktemp("mmad")))


def asked(data, number=0, say=lambda turns: "A", leaves=False, **options):
    model = ScriptedChat(say, leaves)
    return model, ask(model, data, data.pictures[number], QuestionProtocol(**options))


def test_words_and_pictures_in_their_order(data):
    model, replies = asked(data, knowledge=True)
    (turn,) = model.asked[1]
    words = [part if isinstance(part, str) else "PICTURE" for part in turn.parts]
    assert turn.role == "user"
    assert words[0].endswith("Answer with the option's letter from the given choices directly! ")
    assert words[1:] == [
        "A round rim.\nA sharp line.\n",
        "Following is 1 image of normal sample, which can be used as a template to compare the "
        "image being queried.",
        "PICTURE",
        "Following is the query image: ",
        "PICTURE",
        "Following is the question list: ",
        "Question 2: What of Object Details? \nA. a hole\nB. a dent\nC. a stain\nD. a scratch\n",
    ]
    assert [reply.given for reply in replies] == ["A", "A"]
    assert [reply.true for reply in replies] == ["B", "D"]


def test_templates_are_random_similar_or_none(data):
    shown = [
        [part.tobytes() for part in asked(data, **options)[0].asked[0][0].pictures]
        for options in ({}, {"similar": True}, {"templates": 0}, {"templates": 5})
    ]
    assert [len(pictures) for pictures in shown] == [2, 2, 1, 2]
    assert shown[0][0] != shown[1][0] and shown[0][1] == shown[1][1] == shown[2][0]
    assert shown[3] == shown[0]


def test_shuffled_options_are_mapped_back(data):
    """Whoever answers by an option's text has the same letters in any order."""

    def scratch(turns):
        lines = turns[0].parts[-1].splitlines()
        return next((line[0] for line in lines if "scratch" in line or "Yes" in line), "?")

    places = Counter()
    for seed in range(12):
        model, replies = asked(data, say=scratch, shuffle=seed)
        assert [reply.given for reply in replies] == ["A", "D"]
        places[scratch(model.asked[1])] += 1
        again, same = asked(data, say=scratch, shuffle=seed)
        assert same == replies
        assert [t[0].parts[-1] for t in again.asked] == [t[0].parts[-1] for t in model.asked]
    assert len(places) == 4
    question = data.pictures[0].questions[1]
    orders = {tuple(shown_options(question, 1, "x", number)[0].values()) for number in range(9)}
    assert len(orders) > 3
    assert shown_options(question, None, "x", 1)[0] == question.options


def test_an_answer_that_does_not_come_costs_its_question_alone(data):
    def say(turns):
        return ChatRefusedError("no") if "Question 1" in turns[0].parts[-1] else "It is D."

    for leaves in (False, True):
        first, second = asked(data, say=say, leaves=leaves)[1]
        assert (first.given, first.failure) == ("", "no")
        assert (second.given, second.failure) == ("D", "")


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "template"])
def test_a_picture_that_cannot_be_opened_costs_its_questions_alone(tmp_path, damage):
    data = read_questions(question_tree(tmp_path))
    first = data.pictures[0]
    file = first.random_templates[0] if damage == "template" else first.file
    content = b"" if damage == "empty" else file.read_bytes()[:200]
    file.write_bytes(content)
    if damage == "missing":
        file.unlink()
    model, replies = asked(data)
    assert not model.asked and len(replies) == 2
    assert all(file.name in reply.failure and not reply.given for reply in replies)
    assert all(not reply.failure for reply in asked(data, 1)[1])


def test_pictures_that_leave_the_process_fit_into_512_pixels(tmp_path):
    root = question_tree(tmp_path)
    data = read_questions(root)
    picture(data.pictures[0].file, 0, (300, 1100))
    sizes = [asked(data, leaves=leaves)[0].asked[0][0].pictures[1].size for leaves in (True, False)]
    assert sizes == [(512, 140), (1100, 300)]


def test_a_picture_without_questions_is_no_work(tmp_path):
    (tmp_path / "mmad.json").write_text(json.dumps({"V/c/good/0.png": {}}), "utf-8")
    picture(tmp_path / "V/c/good/0.png", 0)
    model, replies = asked(read_questions(tmp_path))
    assert replies == [] and model.asked == []


def test_numbers_that_are_none_are_refused():
    for options in ({"templates": -1}, {"max_tokens": 0}):
        with pytest.raises(ValueError, match="name"):
            QuestionProtocol(**options)


def test_a_local_model_answers_every_question(data, tmp_path):
    try:
        transformers_package("vlm")
    except WeightsError:
        pytest.skip("the extra 'vlm' is not installed")
    from zerodefect.backbones.chat_model import load_chat_model
    from zerodefect.backbones.tiny_networks import llava_folder

    model = load_chat_model(str(llava_folder(tmp_path)))
    replies = ask(model, data, data.pictures[1], QuestionProtocol(max_tokens=4))
    assert len(replies) == 2 and all(reply.text and not reply.failure for reply in replies)
    assert all(reply.given in "ABCD" for reply in replies)  # by the closest text at least
