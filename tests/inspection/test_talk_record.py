"""The file of a conversation: it goes on with the same inspection, and with no other."""

import json
from dataclasses import replace

import numpy as np
import pytest

from zerodefect.files import StoreError
from zerodefect.inspection.explanation import Explanation
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.talk_record import TalkError, TalkRecord

SAID = (
    Explanation(why="Yes.", question="is it?", source="tiny", sent_to="h", boxes=((1, 2, 3, 4),)),
    Explanation(fault="late", source="tiny"),
)  # fmt: skip
OUTCOME = Inspection(
    "bad\udcff.png", "screw", 12, 10, "defect", True, float(np.float32(0.3)), 0.1, (),
    conversation=SAID,
)  # fmt: skip


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "talk.json"
    TalkRecord.of(OUTCOME, "pixels", "net").save(path)
    return path


def test_it_gives_back_what_was_said(file):
    talk = TalkRecord.load(file)
    assert talk.conversation(OUTCOME, "pixels", "net", file) == SAID
    fresh = replace(OUTCOME, conversation=(), score=0.30001)
    assert talk.conversation(fresh, "pixels", "net", file) == SAID


@pytest.mark.parametrize(
    ("changed", "which", "named"),
    [
        ({}, ("others", "net"), "picture: 'pixels' then, 'others' now"),
        ({}, ("pixels", "tent"), "detector: 'net' then"),
        ({"verdict": "good"}, ("pixels", "net"), "verdict: 'defect' then, 'good' now"),
        ({"object": None}, ("pixels", "net"), "object: 'screw' then, None now"),
    ],
)
def test_another_inspection_does_not_go_on_with_it(file, changed, which, named):
    with pytest.raises(TalkError, match="a conversation on another inspection") as error:
        TalkRecord.load(file).conversation(replace(OUTCOME, **changed), *which, file)
    assert named in str(error.value) and "talk.json" in str(error.value)


def test_later_fields_are_let_be_and_a_later_version_is_refused(file):
    told = json.loads(file.read_text())
    told["inspection"]["conversation"][0]["mood"] = "gay"
    file.write_text("\ufeff" + json.dumps({**told, "later": 1}), "utf-8")
    assert TalkRecord.load(file).conversation(OUTCOME, "pixels", "net", file) == SAID
    file.write_text(json.dumps({**told, "version": 2}))
    with pytest.raises(TalkError, match="Update ZeroDefect"):
        TalkRecord.load(file)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[1]", b"null", b"\xff\xfe", b'{"format": "zerodefect-policy"}'),
        *(b"[" * 100_000, b'{"format": "zerodefect-talk"}'),
        b'{"format": "zerodefect-talk", "version": "x", "picture": "a", "detector": "b"}',
    ],
)
def test_what_is_no_such_file_is_told(tmp_path, content):
    path = tmp_path / "talk.json"
    path.write_bytes(content)
    with pytest.raises(TalkError, match=r"talk\.json.*--record"):
        TalkRecord.load(path)


def test_a_conversation_that_cannot_be_read_is_told(file):
    told = json.loads(file.read_text())
    for broken in ([{"verdict": "perhaps"}], 3, ["a"]):
        told["inspection"]["conversation"] = broken
        file.write_text(json.dumps(told))
        with pytest.raises(TalkError, match="its conversation cannot be read"):
            TalkRecord.load(file).conversation(OUTCOME, "pixels", "net", file)


def test_a_folder_that_is_not_there_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError):
        TalkRecord.of(OUTCOME, "a", "b").save(tmp_path / "file" / "talk.json")
    with pytest.raises(TalkError, match="cannot be read"):
        TalkRecord.load(tmp_path)
