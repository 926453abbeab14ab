"""A chat model that says what a test tells it to, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zerodefect.backbones.chat_model import LONGEST, ChatModel, Turn


class ScriptedChat(ChatModel):
    """Answers by a function of the turns.

    Args:
        say: gives the answer, or an error that is raised.
        leaves: whether it is like a server.
    """

    def __init__(self, say: Callable[[Sequence[Turn]], Any], leaves: bool = False) -> None:
        self.name, self.fingerprint, self.say = "scripted", "7" * 64, say
        self.leaves_process = leaves  # type: ignore[misc]
        self.where = "http://there" if leaves else "this process"
        self.precision = "float32"
        self.asked: list[Sequence[Turn]] = []

    def answer(self, turns: Sequence[Turn], max_tokens: int = LONGEST) -> str:
        self.asked.append(turns)
        said = self.say(turns)
        if isinstance(said, Exception):
            raise said
        return said
