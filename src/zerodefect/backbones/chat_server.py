"""Chat models on a server that speaks OpenAI's chat protocol: vLLM, llama.cpp, Ollama and others.

Pictures leave this process, to the host of the base URL and to no other: redirections are not
followed and proxies of the environment are not used. The key is read from the environment
(``ZERODEFECT_CHAT_KEY``) and stands in no output. Every request has one deadline for all of it,
retries among them.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from zerodefect.backbones.chat_model import (
    LONGEST,
    ChatMalformedError,
    ChatModel,
    ChatRefusedError,
    ChatTimeoutError,
    Turn,
)
from zerodefect.types import printable
from zerodefect.version import __version__

if TYPE_CHECKING:
    from PIL import Image

KEY = "ZERODEFECT_CHAT_KEY"
"""Environment variable of the key that the server asks for, if it does."""

_PATIENCE = 60.0  # seconds
_TRIES = 3
_PAUSE = 0.5  # seconds before the second try; twice as long before the third
_LARGEST = 2**22  # bytes of a response
_AGAIN = (429, 502, 503, 504)  # what may be over in a moment
_SHOWN = 200  # characters of what a server says of an error


class ServerChat(ChatModel):
    """A model behind ``POST <base>/chat/completions``.

    Args:
        address: ``http://host:8000/v1#model``: base URL and the model's name there.
        timeout: seconds that an answer may take, retries among them.
        key: sent as bearer token; None for that of the environment.

    Raises:
        ValueError: an address without host or model, or with a password in it.
    """

    leaves_process: ClassVar[bool] = True

    def __init__(self, address: str, timeout: float = _PATIENCE, key: str | None = None) -> None:
        base, _, model = address.partition("#")
        url = urlsplit(base)
        if "@" in url.netloc:
            raise ValueError(f"write the key into the environment ({KEY}), not into the address")
        port = _port(url, address)
        if url.scheme not in ("http", "https") or not url.hostname or not model:
            there = base.rstrip("/") if url.hostname else "http://HOST:PORT/v1"
            raise ValueError(
                f"{address}: write a chat server as http://HOST:PORT/v1#MODEL; "
                f"{there}/models lists what it has"
            )
        self.name, self.where, self.timeout = model, f"{url.scheme}://{url.netloc}", timeout
        self._secure, self._host, self._port = url.scheme == "https", url.hostname, port
        self._base, self.address = url.path.rstrip("/"), address
        self._key = (os.environ.get(KEY, "") if key is None else key).strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ValueError(f"the key in {KEY} has signs that no key has. Set it anew")

    def answer(self, turns: Sequence[Turn], max_tokens: int = LONGEST) -> str:
        """What the server's model says, see ``ChatModel.answer``."""
        body = {
            "model": self.name,
            "messages": [_message(turn) for turn in turns],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": False,
        }
        status, kind, content = self._asked(json.dumps(body).encode())
        return self._text(status, kind, content)

    # --- the request ----------------------------------------------------------------------------

    def _asked(self, body: bytes) -> tuple[int, str, bytes]:
        """Status, media type and content of the response; what may pass is tried again."""
        end = time.monotonic() + self.timeout
        for number in range(_TRIES):
            last, asked_pause = number == _TRIES - 1, None
            try:
                status, headers, content = self._once(body, end)
                if status not in _AGAIN or last:
                    return status, headers.get_content_type(), content
                asked_pause = headers.get("Retry-After")
            except (ConnectionError, http.client.RemoteDisconnected) as error:
                if last:
                    raise ChatRefusedError(
                        f"{self._told}: no connection ({_line(error)})"
                    ) from None
            pause = _seconds(asked_pause, _PAUSE * 2**number)
            if time.monotonic() + pause >= end:
                raise self._late()
            time.sleep(pause)
        raise AssertionError("the last try returns or raises")

    def _once(self, body: bytes, end: float) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request, cut off at a moment of the monotonic clock however the server behaves."""
        left = end - time.monotonic()
        if left <= 0:
            raise self._late()
        connection = self._connection(left)
        cut = threading.Timer(left, _cut, [connection])
        cut.daemon = True
        cut.start()
        try:
            connection.request("POST", f"{self._base}/chat/completions", body, self._headers())
            response = connection.getresponse()
            content = response.read(_LARGEST + 1)
            if response.length and len(content) <= _LARGEST:
                raise ConnectionResetError("cut off within the answer")
        except ConnectionRefusedError:
            raise
        except ssl.SSLError as error:
            raise ChatRefusedError(f"{self._told}: no safe connection ({_line(error)})") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= end or isinstance(error, TimeoutError):
                raise self._late() from None
            if isinstance(error, ConnectionError):
                raise
            raise ChatRefusedError(f"{self._told}: no connection ({_line(error)})") from None
        finally:
            cut.cancel()
            connection.close()
        if time.monotonic() >= end:
            raise self._late()
        if len(content) > _LARGEST:
            raise ChatMalformedError(f"{self._told}: an answer of more than {_LARGEST >> 20} MiB")
        return response.status, response.headers, content

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self._secure:
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": f"zerodefect/{__version__}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return headers

    # --- the response ---------------------------------------------------------------------------

    def _text(self, status: int, kind: str, content: bytes) -> str:
        if 300 <= status < 400:
            raise ChatRefusedError(
                f"{self._told}: it points to another address, where no picture is sent unasked. "
                "Name that address"
            )
        if status != 200:
            told = _told(content)
            told = told.replace(self._key, "***") if self._key else told
            raise ChatRefusedError(f"{self._told}: {_remedy(status)} ({status}{told})")
        try:
            choice = json.loads(content)["choices"][0]
            message = choice["message"]
            refusal, text = message.get("refusal"), _joined(message.get("content"))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ChatMalformedError(
                f"{self._told}: it answered {kind} that is not the chat protocol. Its base path is "
                f"usually /v1, and {self._base or 'none'} was given"
            ) from None
        if refusal or choice.get("finish_reason") == "content_filter":
            why = f" ({_cut_off(str(refusal))})" if refusal else ""
            raise ChatRefusedError(f"{self._told}: the model would not answer{why}")
        if not text.strip():
            raise ChatMalformedError(f"{self._told}: the model gave an empty answer")
        return text.strip()

    @property
    def _told(self) -> str:
        return f"{self.name} at {self.where}"

    def _late(self) -> ChatTimeoutError:
        return ChatTimeoutError(f"{self._told}: no answer within {self.timeout:g} seconds")


def _port(url: Any, address: str) -> int | None:
    try:
        return url.port
    except ValueError:
        raise ValueError(f"{address}: the port is no number below 65536") from None


def _cut(connection: http.client.HTTPConnection) -> None:
    """End whatever a connection waits for."""
    if connection.sock is not None:
        with contextlib.suppress(OSError):
            connection.sock.shutdown(socket.SHUT_RDWR)


def _message(turn: Turn) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": _address(part)}}
        for part in turn.parts
    ]
    if all(isinstance(part, str) for part in turn.parts):  # what every server reads
        return {"role": turn.role, "content": turn.text}
    return {"role": turn.role, "content": parts}


def _address(picture: Image.Image) -> str:
    """A picture as an address that holds it whole."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _joined(content: Any) -> str:
    """Text of a message: one, or several parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text") or "" for part in content)


def _seconds(asked: str | None, usual: float) -> float:
    """How long to wait, where a server says; what is no number of seconds is passed over."""
    try:
        return max(0.0, float(asked)) if asked is not None else usual
    except ValueError:
        return usual


def _remedy(status: int) -> str:
    if status in (401, 403):
        return f"it does not accept the key of {KEY}"
    if status == 404:
        return "it knows no such model or path"
    if status in _AGAIN:
        return "it has no room for a request now"
    return "it refused the request" if status < 500 else "it failed"


def _told(content: bytes) -> str:
    """What a response says of an error, cut to a line."""
    try:
        found = json.loads(content)
        error = found.get("error", found.get("detail", found))
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except (ValueError, AttributeError, RecursionError):
        text = content[: 4 * _SHOWN].decode("utf-8", "replace")
    text = _cut_off(text)
    return f": {text}" if text else ""


def _cut_off(text: str) -> str:
    text = printable(" ".join(text.split()))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _line(error: Exception) -> str:
    return printable(str(error).splitlines()[0] if str(error) else type(error).__name__)
