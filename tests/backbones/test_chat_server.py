"""A chat server, and one that misbehaves in every way."""

from __future__ import annotations

import base64
import io
import json
import socket

import numpy as np
import pytest
from chat_stand_in import cut, cut_within, drip, hang, reply, said, stand_in
from PIL import Image

from zerodefect.backbones import chat_server
from zerodefect.backbones.chat_model import (
    ChatMalformedError,
    ChatRefusedError,
    ChatTimeoutError,
    Turn,
    load_chat_model,
)

PICTURE = Image.fromarray(np.full((20, 30, 3), (200, 30, 30), np.uint8))
TALK = [Turn("user", ("the part:", PICTURE, "what is it?"))]


@pytest.fixture
def server():
    with stand_in() as state:
        yield state


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(chat_server, "_PAUSE", 0.01)
    monkeypatch.delenv(chat_server.KEY, raising=False)


def model(server, timeout=5.0):
    return load_chat_model(server.address, timeout=timeout)


def test_it_sends_turns_and_pictures_and_hears_the_answer(server):
    server.answer = "  a red plate "
    asked = model(server)
    talk = [*TALK, Turn("assistant", ("a plate",)), Turn("user", ("which colour?",))]
    assert asked.answer(talk, 77) == "a red plate"
    (body,) = server.asked
    assert body["path"] == "/v1/chat/completions"
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny", 77, 0)
    first, second, third = body["messages"]
    assert [part["type"] for part in first["content"]] == ["text", "image_url", "text"]
    head, _, data = first["content"][1]["image_url"]["url"].partition(",")
    assert head == "data:image/jpeg;base64"
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert seen.shape == (20, 30, 3) and abs(seen.mean((0, 1)) - (200, 30, 30)).max() < 6
    assert (second["role"], second["content"]) == ("assistant", "a plate")
    assert third["content"] == "which colour?"
    assert asked.leaves_process and asked.where == server.host and asked.name == "tiny"
    assert "Authorization" not in server.headers[0]


def test_nothing_is_sent_before_a_question(server):
    model(server)
    assert not server.asked


def test_the_key_comes_from_the_environment_and_stands_in_no_error(server, monkeypatch):
    monkeypatch.setenv(chat_server.KEY, " secret-7 \n")
    asked = model(server)
    error = json.dumps({"error": {"message": "wrong key secret-7 given"}}).encode()
    server.behave = lambda handler: reply(handler, error, 401)
    with pytest.raises(
        ChatRefusedError, match=r"does not accept the key of ZERODEFECT_CHAT_KEY"
    ) as e:
        asked.answer(TALK)
    assert server.headers[0]["Authorization"] == "Bearer secret-7"
    assert "secret-7" not in str(e.value) and "***" in str(e.value)
    monkeypatch.setenv(chat_server.KEY, "a\nb")
    with pytest.raises(ValueError, match="signs that no key has"):
        model(server)


def test_text_in_parts_is_joined(server):
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "plate"}, {"type": "other"}]
    server.behave = lambda handler: reply(handler, said(parts))
    assert model(server).answer(TALK) == "a plate"


def test_the_kind_of_content_is_not_believed(server):
    server.behave = lambda handler: reply(handler, said("fine"), kind="text/html")
    assert model(server).answer(TALK) == "fine"


MALFORMED = {
    "no JSON": b"<html>hello</html>",
    "cut JSON": said("whole")[:-9],
    "nothing": b"",
    "no choices": b'{"choices": []}',
    "a list": b"[1, 2]",
    "a number": b"3",
    "no message": b'{"choices": [{"text": "old protocol"}]}',
    "a message that is text": b'{"choices": [{"message": "hi"}]}',
    "bytes that are no text": b"\xff\xfe\x00",
    "depth": b"[" * 100_000,
    "empty": said(""),
    "blank": said(" \n "),
    "none": said(None),
    "parts that are none": said([1, 2]),
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_answer_is_told(server, content):
    server.behave = lambda handler: reply(handler, content)
    with pytest.raises(ChatMalformedError, match="tiny at http://127"):
        model(server).answer(TALK)
    assert len(server.asked) == 1


def test_a_huge_answer_is_not_read_to_its_end(server, monkeypatch):
    monkeypatch.setattr(chat_server, "_LARGEST", 2**20)
    server.behave = lambda handler: reply(handler, said("x" * 2**21))
    with pytest.raises(ChatMalformedError, match="more than 1 MiB"):
        model(server).answer(TALK)


@pytest.mark.parametrize(
    "content",
    [said(None, message={"refusal": "I must not."}), said("x", finish_reason="content_filter")],
)
def test_a_refusal_is_told(server, content):
    server.behave = lambda handler: reply(handler, content)
    with pytest.raises(ChatRefusedError, match="would not answer"):
        model(server).answer(TALK)


@pytest.mark.parametrize("status", [400, 404, 413, 500, 501])
def test_errors_that_stay_are_not_tried_again(server, status):
    server.behave = lambda handler: reply(handler, b'{"detail": "no pictures\\u001b[31m"}', status)
    with pytest.raises(ChatRefusedError, match=rf"{status}: no pictures\\u001b\[31m") as error:
        model(server).answer(TALK)
    assert "\x1b" not in str(error.value) and len(server.asked) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_errors_that_may_pass_are_tried_three_times(server, status):
    server.behave = lambda handler: reply(handler, b"", status)
    with pytest.raises(ChatRefusedError, match=f"no room for a request now \\({status}\\)"):
        model(server).answer(TALK)
    assert len(server.asked) == 3


def test_the_second_try_may_succeed(server):
    def busy_once(handler):
        if len(server.asked) == 1:
            reply(handler, b"", 429, Retry_After="0.01")
        else:
            reply(handler, said("now"))

    server.behave = busy_once
    assert model(server).answer(TALK) == "now"


def test_a_pause_beyond_the_deadline_is_not_waited_for(server):
    server.behave = lambda handler: reply(handler, b"", 503, Retry_After="3600")
    with pytest.raises(ChatTimeoutError, match="no answer within 5 seconds"):
        model(server).answer(TALK)
    server.behave = lambda handler: reply(handler, b"", 503, Retry_After="Wed, 21 Oct 2015")
    with pytest.raises(ChatRefusedError, match="no room"):
        model(server).answer(TALK)


@pytest.mark.parametrize("how", [hang, drip], ids=["hang", "drip"])
def test_a_server_that_does_not_come_to_an_end_is_left(server, how):
    server.behave = how(server)
    with pytest.raises(ChatTimeoutError, match=r"no answer within 0\.3 seconds"):
        model(server, 0.3).answer(TALK)


def test_a_connection_that_is_cut_is_told(server):
    server.behave = cut
    with pytest.raises(ChatRefusedError, match="no connection"):
        model(server).answer(TALK)
    assert len(server.asked) == 3
    server.behave = cut_within
    with pytest.raises(ChatRefusedError, match="no connection"):
        model(server).answer(TALK)


def test_no_server_at_all_is_told():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = load_chat_model(f"http://127.0.0.1:{port}/v1#tiny", timeout=5)
    with pytest.raises(ChatRefusedError, match=r"no connection \(.*refused"):
        asked.answer(TALK)
    unknown = load_chat_model("http://no-such-host.invalid/v1#tiny", timeout=5)
    with pytest.raises(ChatRefusedError, match="no connection"):
        unknown.answer(TALK)


def test_a_server_without_encryption_is_told(server):
    asked = load_chat_model(server.address.replace("http", "https", 1), timeout=5)
    with pytest.raises(ChatRefusedError, match="no safe connection"):
        asked.answer(TALK)


def test_no_picture_goes_to_another_host(server, monkeypatch):
    """Neither by a redirection nor through a proxy."""
    with stand_in() as other:
        server.behave = lambda handler: reply(handler, b"", 307, Location=other.host)
        monkeypatch.setenv("http_proxy", other.host)
        monkeypatch.setenv("HTTP_PROXY", other.host)
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(ChatRefusedError, match="points to another address"):
            model(server).answer(TALK)
        assert len(server.asked) == 1 and not other.asked


@pytest.mark.parametrize(
    "address",
    ["http://host:8000/v1", "http://#tiny", "http://host:99999/v1#tiny", "http://host:x/v1#tiny"],
)
def test_addresses_that_name_no_server_and_model_are_refused(address):
    with pytest.raises(ValueError, match=r"write a chat server as|port is no number") as error:
        load_chat_model(address)
    assert "http:/models" not in str(error.value)  # an address that nobody has


def test_passwords_in_addresses_are_refused_and_not_repeated():
    with pytest.raises(ValueError, match="write the key into the environment") as error:
        load_chat_model("https://me:hunter2@host/v1#tiny")
    assert "hunter2" not in str(error.value)


def test_it_does_not_tell_chances(server):
    from zerodefect.backbones.chat_model import ChatModelError

    with pytest.raises(ChatModelError, match="does not tell how likely"):
        model(server).chances(TALK, "", ["Yes", "No"])


def test_nothing_heavy_is_imported_for_a_server():
    import subprocess
    import sys

    code = (
        "import sys; from zerodefect.backbones.chat_model import load_chat_model;"
        "load_chat_model('http://host/v1#tiny');"
        "print(sorted({'torch', 'transformers', 'numpy', 'PIL'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert found.stdout.strip() == "[]"
