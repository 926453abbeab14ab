"""A chat server on this machine that answers, or misbehaves, as a test asks it to."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def said(text: Any, **choice: Any) -> bytes:
    """A response of the chat protocol whose message has this content."""
    message = {"role": "assistant", "content": text, **choice.pop("message", {})}
    return json.dumps({"choices": [{"message": message, **choice}]}).encode()


class StandIn:
    """What the server does and what it was asked.

    Attributes:
        behave: gets the handler of a request; None: answers ``answer``.
        answer: text of the usual answer, or what makes it of the request's body.
        asked: bodies of the requests, as they came.
        headers: theirs.
    """

    def __init__(self) -> None:
        self.behave: Callable[[BaseHTTPRequestHandler], None] | None = None
        self.answer: str | Callable[[dict[str, Any]], str] = "{}"
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.over = threading.Event()  # ends whatever hangs
        self.address = ""

    @property
    def host(self) -> str:
        """As outputs name it."""
        return self.address.partition("/v1")[0]

    def texts(self) -> list[str]:
        """All words of the last request."""
        parts: list[str] = []
        for message in self.asked[-1]["messages"]:
            content = message["content"]
            given = [content] if isinstance(content, str) else content
            parts += [one if isinstance(one, str) else one.get("text", "") for one in given]
        return parts

    def pictures(self) -> list[str]:
        """Addresses of all pictures of the last request."""
        return [
            part["image_url"]["url"]
            for message in self.asked[-1]["messages"]
            if not isinstance(message["content"], str)
            for part in message["content"]
            if part["type"] == "image_url"
        ]


def reply(
    handler: BaseHTTPRequestHandler,
    content: bytes,
    status: int = 200,
    kind: str = "application/json",
    **headers: str,
) -> None:
    """Send one response."""
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(content)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    with contextlib.suppress(OSError):
        handler.wfile.write(content)


def cut(handler: BaseHTTPRequestHandler) -> None:
    """End the connection without a word."""
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)


def cut_within(handler: BaseHTTPRequestHandler) -> None:
    """End the connection in the middle of the content."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(said("{")[:20])
    cut(handler)


@contextlib.contextmanager
def stand_in(model: str = "tiny") -> Iterator[StandIn]:
    """Run a server; its ``address`` is what ``--explain`` takes."""
    state = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append({**body, "path": self.path})
            state.headers.append(dict(self.headers))
            if state.behave:
                state.behave(self)
                return
            answer = state.answer
            reply(self, said(answer if isinstance(answer, str) else answer(body)))

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            """Clients that went away are what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}/v1#{model}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def hang(state: StandIn) -> Callable[[BaseHTTPRequestHandler], None]:
    """Read the request and never answer."""

    def hanging(handler: BaseHTTPRequestHandler) -> None:
        state.over.wait(30)
        cut(handler)

    return hanging


def drip(state: StandIn) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer with a byte now and then, so that no single wait is long."""

    def dripping(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        with contextlib.suppress(OSError):
            while not state.over.is_set():
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.02)
        cut(handler)

    return dripping
