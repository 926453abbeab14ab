"""Chat models in this process: vision-language models through transformers (extra ``vlm``).

Any network that transformers' ``AutoModelForImageTextToText`` builds and whose folder holds a
processor with a chat template: SmolVLM, LLaVA-OneVision, Qwen2-VL, Qwen2.5-VL and others. No code
of a folder is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from zerodefect.backbones.chat_model import (
    LONGEST,
    ChatMalformedError,
    ChatModel,
    ChatRefusedError,
    ChatTimeoutError,
    Turn,
)
from zerodefect.backbones.hub_models import (
    hub_facts,
    hub_network,
    transformers_package,
    weights_folder,
)
from zerodefect.backbones.weight_files import WeightsError

if TYPE_CHECKING:
    from PIL import Image

_KINDS = {"": "AutoModelForImageTextToText"}
_AT_ONCE = 4  # conversations that are answered at a time
_PATIENCE = 300.0  # seconds; a processor takes minutes for a few pictures


class LocalChat(ChatModel):
    """A vision-language model of transformers.

    Args:
        network: what ``AutoModelForImageTextToText`` gave.
        processor: its ``AutoProcessor``, with a chat template.
        facts: ``name``, ``fingerprint``, ``file``, ``licence``.
        timeout: seconds that answers to one batch of conversations may take.
    """

    leaves_process: ClassVar[bool] = False
    gives_chances: ClassVar[bool] = True

    def __init__(
        self, network: Any, processor: Any, facts: dict[str, Any], timeout: float = _PATIENCE
    ) -> None:
        self.network, self.processor, self.timeout = network, processor, timeout
        self.name, self.fingerprint = facts["name"], facts["fingerprint"]
        self.file, self.licence = facts.get("file"), facts.get("licence")
        self.precision = str(network.dtype).removeprefix("torch.")

    def answer(self, turns: Sequence[Turn], max_tokens: int = LONGEST) -> str:
        """The likeliest answer (greedy decoding), see ``ChatModel.answer``."""
        return self.answers([turns], max_tokens)[0]

    def answers(self, chats: Sequence[Sequence[Turn]], max_tokens: int = LONGEST) -> list[str]:
        """Several answers, a few conversations at a time."""
        found: list[str] = []
        for first in range(0, len(chats), _AT_ONCE):
            found += self._answers(chats[first : first + _AT_ONCE], max_tokens)
        return found

    def chances(self, turns: Sequence[Turn], begun: str, options: Sequence[str]) -> list[float]:
        """From the products of the probabilities of each option's tokens, see ``ChatModel``."""
        try:
            logs = [self._log_likelihood(turns, begun, option) for option in options]
        except Exception as error:  # networks and processors of others raise dozens of types
            raise self._failed(error) from error
        return torch.tensor(logs, dtype=torch.float64).softmax(0).tolist()

    @torch.inference_mode()
    def _answers(self, chats: Sequence[Sequence[Turn]], max_tokens: int) -> list[str]:
        try:
            inputs = self._prepared(chats)
            told = self.network.generate(
                **inputs,
                max_new_tokens=max_tokens,
                max_time=self.timeout,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
            )
            heard = 0 if self.network.config.is_encoder_decoder else inputs["input_ids"].shape[1]
            told = told[:, heard:]
            texts = self.processor.batch_decode(told, skip_special_tokens=True)
        except Exception as error:  # networks and processors of others raise dozens of types
            raise self._failed(error) from error
        ends = self._ends()
        for row, text in zip(told, texts, strict=True):
            if len(row) < max_tokens and not (set(row.tolist()) & ends):
                raise ChatTimeoutError(
                    f"{self.name} did not answer within {self.timeout:g} seconds"
                )
            if not text.strip():
                raise ChatMalformedError(f"{self.name} gave an empty answer")
        return [text.strip() for text in texts]

    def _log_likelihood(self, turns: Sequence[Turn], begun: str, option: str) -> float:
        """Logarithm of the probability that the answer goes on so."""
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        own = tokenizer(option, add_special_tokens=False, return_tensors="pt")["input_ids"]
        if own.shape[1] == 0:
            raise ValueError(f"{option!r} has no tokens")
        inputs = self._prepared([turns], begun)
        for name, values in (
            ("input_ids", own),
            ("attention_mask", torch.ones_like(own)),
            ("mm_token_type_ids", torch.zeros_like(own)),  # where a processor gives it: text
            ("token_type_ids", torch.zeros_like(own)),
        ):
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], values.to(inputs[name])], dim=1)
        with torch.inference_mode():
            logits = self.network(**inputs).logits[0, -own.shape[1] - 1 : -1].double()
        chosen = logits.log_softmax(-1).gather(1, own[0, :, None].to(logits.device))
        return float(chosen.sum())

    def _prepared(self, chats: Sequence[Sequence[Turn]], begun: str = "") -> dict[str, Tensor]:
        """What the network takes for conversations; ``begun`` is how the answer begins."""
        texts = [
            self.processor.apply_chat_template(
                [_message(turn) for turn in turns], add_generation_prompt=True, tokenize=False
            )
            + begun
            for turns in chats
        ]
        pictures = [_pictures(turns) for turns in chats]
        seen: dict[str, Any] = {"images": pictures} if any(pictures) else {}
        inputs = self.processor(
            text=texts, return_tensors="pt", padding=True, padding_side="left", **seen
        )
        device, dtype = self.network.device, self.network.dtype
        return {
            name: values.to(device, dtype if values.is_floating_point() else None)
            for name, values in inputs.items()
            if isinstance(values, Tensor)
        }

    def _ends(self) -> set[int]:
        """Tokens that end an answer."""
        ends = self.network.generation_config.eos_token_id
        return set() if ends is None else {ends} if isinstance(ends, int) else set(ends)

    def _failed(self, error: Exception) -> ChatRefusedError:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return ChatRefusedError(f"{self.name} could not answer ({reason})")


def load_local_chat(
    name: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    timeout: float = _PATIENCE,
) -> LocalChat:
    """Load a vision-language model, frozen and in eval mode; nothing is downloaded.

    Args:
        name: local folder as ``save_pretrained`` writes it, with its processor; or a repository on
            the hub whose files are in its cache.
        device: where it goes.
        dtype: its precision.
        timeout: seconds that an answer may take.

    Raises:
        WeightsError: transformers is not installed; weights, processor or chat template are
            absent, damaged, or of another kind.
    """
    package = transformers_package("vlm")
    folder = weights_folder(name)
    processor = _processor(package, folder)
    network = hub_network(folder, _KINDS, dtype, "vlm").to(device)
    return LocalChat(network, processor, hub_facts(name, folder), timeout)


def _processor(package: Any, folder: Path) -> Any:
    """The processor of a folder: tokeniser, pictures' preparation and chat template."""
    try:
        processor = package.AutoProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, LookupError, TypeError, ImportError) as error:
        raise _no_processor(folder, str(error).strip().splitlines()[0]) from None
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None or not getattr(processor, "chat_template", None):
        raise WeightsError(
            f"{folder}: no chat template in it, so that it is no model to talk to about pictures. "
            "Take an instruction-tuned one, with its chat_template file"
        )
    if not tokenizer("a")["input_ids"]:  # made of nothing, where its files are missing
        raise _no_processor(folder, "its tokeniser knows no words")
    return processor


def _no_processor(folder: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"{folder}: no processor in it that can be used ({reason}). Copy the *.json, *.txt and "
        "*.jinja files from where the weights are from"
    )


def _message(turn: Turn) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
        for part in turn.parts
    ]
    return {"role": turn.role, "content": parts}


def _pictures(turns: Sequence[Turn]) -> list[Image.Image]:
    return [picture.convert("RGB") for turn in turns for picture in turn.pictures]
