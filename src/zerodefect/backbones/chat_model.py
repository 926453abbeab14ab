"""Chat models: turns of words and pictures to an answer in words.

What the rest asks of one, whether it runs in this process (``local_chat.py``) or on a server
(``chat_server.py``). Neither is imported before it is asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from PIL import Image

Role = Literal["system", "user", "assistant"]

LONGEST = 512
"""Tokens that an answer has at most, unless it is asked otherwise."""


class ChatModelError(RuntimeError):
    """A chat model gave no answer; the message says which, why, and what can be done."""


class ChatTimeoutError(ChatModelError):
    """It did not answer in time."""


class ChatRefusedError(ChatModelError):
    """It, or the server it runs on, would not answer: no connection, an error, a filter."""


class ChatMalformedError(ChatModelError):
    """What came back is no answer: not what the protocol says, or nothing at all."""


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation.

    Attributes:
        role: who speaks.
        parts: words and pictures (RGB, of any size) in their order.
    """

    role: Role
    parts: tuple[str | Image.Image, ...]

    @property
    def text(self) -> str:
        """Its words, without the pictures."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """Its pictures, without the words."""
        return tuple(part for part in self.parts if not isinstance(part, str))


class ChatModel(ABC):
    """A model that sees pictures and answers in words.

    Answers are the likeliest ones (temperature 0), so that the same turns give the same answer
    where the model itself is deterministic.

    Attributes:
        name: as the user would name it again.
        where: ``this process``, or the host that pictures are sent to.
        address: by which ``load_chat_model`` finds it on a server; empty in this process.
        leaves_process: whether pictures are sent to another process or machine.
        gives_chances: whether ``chances`` works.
        licence: of the weights, where it is known.
        fingerprint: SHA-256 of the weights, hexadecimal; empty where they are on a server.
        file: of the weights, where it is on this machine.
        precision: of the weights, as torch names it; empty where they are on a server.
        activation: None; no file of learned values hangs on it.
    """

    leaves_process: ClassVar[bool]
    gives_chances: ClassVar[bool] = False
    activation: ClassVar[None] = None
    name: str
    where: str = "this process"
    address: str = ""
    licence: str | None = None
    fingerprint: str = ""
    file: Path | None = None
    precision: str = ""

    @abstractmethod
    def answer(self, turns: Sequence[Turn], max_tokens: int = LONGEST) -> str:
        """What it says next.

        Args:
            turns: the conversation so far; the last one is the user's.
            max_tokens: where the answer is cut off.

        Returns:
            Text without special tokens, stripped; never empty. It can hold anything: whoever shows
            it makes it ``printable``.

        Raises:
            ChatModelError: there is no answer.
        """

    def answers(self, chats: Sequence[Sequence[Turn]], max_tokens: int = LONGEST) -> list[str]:
        """``answer`` of several conversations, which know nothing of each other.

        Raises:
            ChatModelError: one of them has no answer.
        """
        return [self.answer(turns, max_tokens) for turns in chats]

    def chances(self, turns: Sequence[Turn], begun: str, options: Sequence[str]) -> list[float]:
        """How likely it goes on with each of these texts, where its answer has begun so.

        Args:
            turns: as of ``answer``.
            begun: how the answer begins, such as ``<think>...</think><answer>``; may be empty.
            options: such as ``Yes`` and ``No``.

        Returns:
            Probability of each option among them; they add up to 1.

        Raises:
            ChatModelError: it does not tell (``gives_chances``).
        """
        raise ChatModelError(
            f"{self.name} does not tell how likely an answer is. Use a model in this process"
        )


def load_chat_model(
    name: str, *, timeout: float | None = None, device: Any = "cpu", dtype: Any = None
) -> ChatModel:
    """Load a chat model by name; nothing is downloaded.

    Args:
        name: local folder, or repository in the hub's cache, of a vision-language model (extra
            ``vlm``); or ``http://HOST:PORT/v1#MODEL`` for a server that speaks OpenAI's chat
            protocol, which is not asked before it has a question.
        timeout: seconds that an answer may take; None for 300 in this process, 60 from a server.
        device, dtype: where and how a model in this process runs; None for float32.

    Raises:
        WeightsError: of a model in this process, see ``load_local_chat``.
        ValueError: an address that names no server and model.
    """
    waiting: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
    if name.lower().startswith(("http://", "https://")):
        from zerodefect.backbones.chat_server import ServerChat

        return ServerChat(name, **waiting)
    import torch

    from zerodefect.backbones.local_chat import load_local_chat

    return load_local_chat(name, device=device, dtype=dtype or torch.float32, **waiting)
