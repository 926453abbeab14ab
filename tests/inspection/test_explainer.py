"""A chat model that explains: what it is shown, what of its answers is kept, what it may break."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
from models import picture, write_tiny_weights
from PIL import Image

import zerodefect
from zerodefect.backbones.chat_model import (
    ChatMalformedError,
    ChatModel,
    ChatRefusedError,
    ChatTimeoutError,
)
from zerodefect.images import Picture
from zerodefect.inspection import explainer as explainer_file
from zerodefect.inspection.explainer import Explainer, good_parts
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.regions import find_regions
from zerodefect.scoring.stream import Seen
from zerodefect.types import Failure

HEIGHT, WIDTH = 300, 400
MAP = np.zeros((HEIGHT, WIDTH), np.float32)
MAP[30:45, 80:120] = 1.0
PIXELS = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
PIXELS[30:45, 80:120] = (250, 10, 10)
OUTCOME = Inspection(
    "a.png", "screw", WIDTH, HEIGHT, "defect", True, 0.9, 0.02,
    tuple(replace(one, kind="scratch") for one in find_regions(MAP, 0.5)),
    explanation="It stands out.", map=MAP, picture=Picture("a.png", PIXELS),
    colour_range=(0.0, 1.0),
)  # fmt: skip
ANSWER = {"location": "upper left", "kind": "scratch", "why": "A red bar.", "verdict": "defect"}


class Said(ChatModel):
    """Says what it was given, in order; raises what is an exception."""

    leaves_process = False

    def __init__(self, *answers):
        self.name, self.answers_left, self.heard = "said", list(answers), []

    def answer(self, turns, max_tokens=512):
        self.heard.append(list(turns))
        answer = self.answers_left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else json.dumps(answer)


class Sent(Said):
    leaves_process = True
    where = "http://host:8000"


def test_it_is_shown_picture_references_map_and_regions_and_not_the_verdict():
    model = Said(ANSWER)
    good = [Picture(f"{k}.png", np.full((50, 60, 3), 40 * k, np.uint8)) for k in range(4)]
    Explainer(model, good).explain(OUTCOME)
    ((turn,),) = model.heard
    assert turn.role == "user"
    first, second, part, overlay, cut = turn.pictures
    assert [one.size for one in (first, second)] == [(60, 50), (60, 50)]
    assert np.array_equal(np.asarray(part), PIXELS)
    assert np.array_equal(np.asarray(overlay), np.asarray(OUTCOME.overlay()))
    inside = np.asarray(cut)[cut.height // 2, cut.width // 2]
    assert abs(inside.astype(int) - (250, 10, 10)).max() < 5  # the region, enlarged
    assert max(cut.size) == 512
    words = turn.text
    assert "screw" in words and "1: [200, 100, 300, 150], perhaps scratch" in words
    # nothing of score, limits or verdict: its own is to be one
    assert "0.9" not in words and "0.02" not in words and "It stands out" not in words
    before, _, _ = words.partition("Answer with one JSON object")
    assert "defect" not in before.replace("for defects", "")


def test_without_references_map_or_name_it_is_shown_the_picture_alone():
    model = Said(ANSWER)
    bare = replace(OUTCOME, object=None, map=None, colour_range=None, regions=())
    found = Explainer(model).explain(bare)
    ((turn,),) = model.heard
    assert len(turn.pictures) == 1 and "detector" not in turn.text
    assert found.conversation[0].why == "A red bar."


def test_large_pictures_are_shrunk_and_large_regions_not_cut_out():
    map = np.ones((1500, 2000), np.float32)
    large = replace(
        OUTCOME, width=2000, height=1500, map=map, regions=find_regions(map, 0.5),
        picture=Picture("a.png", np.zeros((1500, 2000, 3), np.uint8)),
    )  # fmt: skip
    model = Said(ANSWER)
    Explainer(model).explain(large)
    assert [one.size for one in model.heard[0][0].pictures] == [(1024, 768), (512, 384)]


def test_its_answer_is_added_to_the_record_and_changes_nothing_else():
    found = Explainer(Said(ANSWER)).explain(OUTCOME)
    (entry,) = found.conversation
    assert (entry.source, entry.sent_to, entry.fault) == ("said", None, None)
    assert entry.contradictions == () and entry.boxes == ()
    assert replace(found, conversation=()) == OUTCOME
    record = found.to_dict()
    assert record["conversation"] == [{**ANSWER, "source": "said"}]
    assert (record["verdict"], record["explanation"]) == ("defect", "It stands out.")


def test_contradictions_are_kept_and_the_verdict_stands():
    wrong = {**ANSWER, "verdict": "good", "box": [800, 800, 900, 900]}
    found = Explainer(Sent(wrong)).explain(OUTCOME)
    (entry,) = found.conversation
    assert len(entry.contradictions) == 3 and found.verdict == "defect"
    assert entry.boxes == ((320, 240, 40, 30),) and entry.sent_to == "http://host:8000"
    html = found._repr_html_()
    assert all(sentence.partition(";")[0] in html for sentence in entry.contradictions)
    assert "http://host:8000 (pictures left this process)" in html


def test_several_turns_are_remembered():
    model = Said({"why": "It is red."}, "not\x1b[2J JSON", ChatTimeoutError("late"), ANSWER)
    explainer, outcome = Explainer(model), OUTCOME
    for question in ("which\ncolour?", "how long?", "how wide?", "sure?"):
        outcome = explainer.ask(outcome, question)
    assert [one.question for one in outcome.conversation] == [
        *("which colour?", "how long?", "how wide?", "sure?"),
    ]
    first, prose, late, last = outcome.conversation
    assert (first.why, last.why, late.why) == ("It is red.", "A red bar.", "")
    assert prose.why == "not\\u001b[2J JSON" and late.fault == "late"
    turns = model.heard[-1]
    # what got no answer is not told again; pictures stand in the first turn alone
    assert [turn.role for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert "which colour?" in turns[0].text and "how long?" in turns[2].text
    assert "sure?" in turns[4].text and "how wide?" not in "".join(t.text for t in turns)
    assert json.loads(turns[1].text)["why"] == "It is red."
    assert [bool(turn.pictures) for turn in turns] == [True, False, False, False, False]


def test_a_long_conversation_forgets_its_beginning():
    model = Said(*[{"why": f"answer {k}"} for k in range(12)])
    outcome = OUTCOME
    for k in range(12):
        outcome = Explainer(model).ask(outcome, f"question {k}?")
    words = "".join(turn.text for turn in model.heard[-1])
    assert "question 3?" in words and "question 2?" not in words
    assert len(outcome.conversation) == 12


@pytest.mark.parametrize(
    "answer",
    [
        *(ChatTimeoutError("late"), ChatRefusedError("no\x1b room"), ChatMalformedError("odd")),
        *("I cannot help with that.", "{", '{"verdict": ["?"]}', "\x1b[2J"),
    ],
)
def test_whatever_goes_wrong_costs_the_sentence_alone(answer):
    found = Explainer(Said(answer)).explain(OUTCOME)
    (entry,) = found.conversation
    assert entry.fault and not entry.why and "\x1b" not in json.dumps(entry.to_dict())
    assert replace(found, conversation=()) == OUTCOME
    if isinstance(answer, str):
        assert entry.said and ("form" in entry.fault or "says nothing" in entry.fault)


def test_questions_and_pictures_that_are_none():
    explainer = Explainer(Said())
    with pytest.raises(ValueError, match="the question is empty"):
        explainer.ask(OUTCOME, " \n")
    with pytest.raises(ValueError, match="its picture was not kept"):
        explainer.explain(replace(OUTCOME, picture=None))
    with pytest.raises(ValueError, match="was inspected with 400 x 300"):
        explainer.ask(OUTCOME, "?", np.zeros((5, 5, 3), np.uint8))
    given = Image.fromarray(PIXELS)
    model = Said(ANSWER)
    assert Explainer(model).explain(replace(OUTCOME, picture=None, map=None), given).conversation


def run_of(*verdicts):
    for number, verdict in enumerate(verdicts):
        name = f"{number}.png"
        if verdict == "failed":
            yield Seen(name, None, Failure(name, "broken", ""))
        else:
            yield Seen(name, OUTCOME.picture, replace(OUTCOME, image=name, verdict=verdict))


def faults(found):
    return [
        one.result.conversation[-1].fault if getattr(one.result, "conversation", ()) else "-"
        for one in found
    ]


def test_a_run_explains_what_is_not_good_and_goes_on_after_failures():
    model = Said(ANSWER, ChatTimeoutError("late"), ANSWER)
    found = list(
        Explainer(model).explaining(run_of("good", "defect", "failed", "unsure", "defect"))
    )
    assert faults(found) == ["-", None, "-", "late", None]
    assert [one.source for one in found] == [f"{k}.png" for k in range(5)]
    model = Said(ANSWER, ANSWER)
    found = list(Explainer(model).explaining(run_of("good", "defect"), good=True))
    assert faults(found) == [None, None]


def test_a_model_that_is_down_is_not_asked_for_every_picture():
    late = ChatTimeoutError("late")
    model = Said(late, late, ANSWER, late, "{", late, ANSWER)
    found = faults(Explainer(model).explaining(run_of(*["defect"] * 9)))
    assert found[2] is None and found[5] == "late"
    assert all("not asked, after 3 pictures in a row" in one for one in found[6:])
    assert len(model.heard) == 6
    server = Sent(*[late] * 30)
    found = faults(Explainer(server).explaining(run_of(*["defect"] * 30)))
    assert len(server.heard) <= 3 + 4 and found[-1].startswith("not asked")


def test_a_server_is_asked_about_several_pictures_at_a_time_and_they_keep_their_order():
    together = threading.Barrier(4, timeout=30)

    class Slow(Sent):
        def answer(self, turns, max_tokens=512):
            together.wait()  # comes to an end where four are asked at a time, and only there
            return json.dumps(ANSWER)

    kinds = ["good", "failed", "defect", "unsure", "defect", "defect", "failed", "good"]
    found = list(Explainer(Slow()).explaining(run_of(*kinds)))
    assert [one.source for one in found] == [f"{k}.png" for k in range(8)]
    assert faults(found) == ["-", "-", None, None, None, None, "-", "-"]


def test_a_run_that_ends_early_leaves_nothing_behind():
    found = Explainer(Sent(*[ANSWER] * 9)).explaining(run_of(*["defect"] * 9))
    assert next(found).source == "0.png"
    found.close()
    assert list(Explainer(Sent()).explaining(run_of())) == []
    with pytest.raises(ZeroDivisionError):  # what goes wrong in the inspection is told
        list(Explainer(Sent(ANSWER)).explaining(one for one in [1 / 0]))


def test_names_of_models_act_on_nothing():
    model = Sent(ANSWER)
    model.name, model.where = "a\x1b[2Jb", "http://x\u202ey"
    explainer = Explainer(model)
    told = [explainer.notice(), json.dumps(explainer.facts()), explainer.sent_to]
    told += [json.dumps(explainer.explain(OUTCOME).to_dict(), ensure_ascii=False)]
    assert not any("\x1b" in text or "\u202e" in text for text in told)
    assert "pictures leave this process: they are sent to" in explainer.notice()
    assert "in this process" in Explainer(Said()).notice()


def test_a_server_and_a_model_in_this_process_by_name(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="the extra 'vlm' is not installed")
    from chat_stand_in import stand_in

    from zerodefect.backbones.tiny_networks import llava_folder

    with stand_in() as server:
        server.answer = json.dumps(ANSWER)
        explainer = Explainer.load(server.address, timeout=5)
        assert not server.asked  # nothing goes out before a question
        entry = explainer.explain(OUTCOME).conversation[0]
        assert (entry.source, entry.sent_to, entry.why) == ("tiny", server.host, "A red bar.")
        assert len(server.pictures()) == 3
        assert explainer.facts() == {
            **{"name": "tiny", "sha256": None, "licence": None, "sent_to": server.host},
        }
    monkeypatch.setattr(explainer_file, "_TOKENS", 8)
    folder = llava_folder(tmp_path / "vlm")
    explainer = Explainer.load(str(folder), device="cpu", precision="float32")
    entry = explainer.ask(OUTCOME, "what is it?").conversation[0]
    # random words: an answer in no form, or none at all, and either way a record of it
    assert entry.source == "vlm (local)" and entry.sent_to is None
    assert entry.why or entry.fault
    assert len(explainer.facts()["sha256"]) == 64


def test_the_good_parts_of_an_inspector_are_shown(tmp_path):
    weights = write_tiny_weights(tmp_path)
    made = zerodefect.load("winclip", backbone=str(weights), device="cpu", object="screw")
    assert good_parts(made) == ()
    made.remember([picture(seed, 40, 48) for seed in range(3)])
    assert len(good_parts(made)) == 3
    made.calibrate([picture(seed, 40, 48) for seed in range(20, 26)])
    for pictures, count in ((True, 3), (False, 0)):
        made.save(tmp_path / "screw.zd", pictures=pictures)
        assert len(good_parts(zerodefect.load(tmp_path / "screw.zd"))) == count
    made = zerodefect.load("winclip", backbone=str(weights), device="cpu", object="screw")
    made.calibrate([picture(seed, 40, 48) for seed in range(20, 26)])
    assert len(good_parts(made)) == 6  # those of the calibration, where there are no references
