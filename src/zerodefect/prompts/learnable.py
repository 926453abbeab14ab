"""Learned sentences: context vectors in place of words, and deep tokens inside the text tower.

The object-agnostic prompts of AnomalyCLIP (Zhou et al., ICLR 2024, arXiv 2310.18961) and of the
methods built on it (GlocalCLIP, Crane, LECLIP, CoPS): a sentence is
``[start][contexts][words][end]`` where the contexts are learned, and before some of the text
tower's blocks the tokens behind the start are replaced by further learned ones.

Symbols: S the number of sentences, n the vectors of a context, W the text tower's width, D the
joint dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerodefect.backbones.clip import TextTower, tokenize
from zerodefect.backbones.transformer import Edits, Overwrite, same_depth

Place = Literal["pad_suffix", "pad_prefix", "replace_suffix", "replace_prefix"]


@dataclass(frozen=True)
class Sentence:
    """One learned sentence."""

    name: str  # as the official checkpoints call its token buffers (token_prefix_<name>)
    contexts: tuple[str, ...]  # names of the learned contexts, in order; sentences may share one
    words: str  # what follows them, ending with a full stop
    placeholder: str = "X"  # word that stands for a context vector in the official token ids


NORMAL_AND_DAMAGED = (
    Sentence("pos", ("ctx_pos",), "object."),
    Sentence("neg", ("ctx_neg",), "damaged object."),
)

GLOBAL_AND_LOCAL = (
    Sentence("global_pos", ("ctx_global_pos",), "object.", "G"),
    Sentence("global_neg", ("ctx_global_pos", "ctx_global_neg"), "damaged object.", "G"),
    Sentence("local_pos", ("ctx_local_pos",), "object.", "L"),
    Sentence("local_neg", ("ctx_local_pos", "ctx_local_neg"), "damaged object.", "L"),
)
"""A pair for the whole picture and one for its patches (GlocalCLIP, arXiv 2411.06071).

A damaged sentence is its pair's normal context plus a further one.
"""


class _Checked(Protocol):
    """What is needed of the checker of official checkpoints (``detector/official_files.py``)."""

    def take(self, key: str, shape: Sequence[int]) -> Tensor: ...
    def ignore(self, pattern: str) -> None: ...
    def fault(self, text: str) -> None: ...


class LearnedPrompts(nn.Module):
    """Learned contexts and deep tokens; all values are drawn from N(0, std²).

    Parameters carry the names of the official checkpoints: each context ``(1, 1, n, W)`` under its
    own name, ``compound_prompts_text.i`` ``(deep_length, W)``. The text tower stays outside, so
    that it is nobody's copy; it is handed in where it is run.

    Args:
        text: the tower the sentences are for.
        sentences: in the order of the rows of the result.
        lengths: vectors per context name.
        depth: how many text blocks read learned tokens: the first reads the contexts, each further
            one starts with deep tokens in place of positions ``1..deep_length``. None for 9 of 12
            blocks, at this tower's depth.
        deep_length: deep tokens per block.
        generator: source of the initial values.
        std: their standard deviation.
        in_front: whether the contexts stand before the start instead of behind it (AF-CLIP).

    Raises:
        ValueError: sizes that the text tower cannot read.
    """

    compound_prompts_text: nn.ParameterList
    texts: Tensor

    def __init__(
        self,
        text: TextTower,
        sentences: Sequence[Sentence] = NORMAL_AND_DAMAGED,
        *,
        lengths: Mapping[str, int],
        depth: int | None = None,
        deep_length: int = 4,
        generator: torch.Generator,
        std: float = 0.02,
        in_front: bool = False,
    ) -> None:
        super().__init__()
        self.in_front = in_front
        self.sentences = tuple(sentences)
        self.lengths = dict(lengths)
        self._context_length = text.config.context_length
        ids = tokenize([sentence.words for sentence in self.sentences], self._context_length)
        ends = TextTower.ends(ids).tolist()
        self._words = [row[: end + 1] for row, end in zip(ids, ends, strict=True)]  # start to end
        depth = same_depth(9, 12, text.config.layers) if depth is None else depth
        self._check(text, depth, deep_length)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(std * torch.randn(*shape, generator=generator))

        width = text.config.width
        for name, length in self.lengths.items():
            self.register_parameter(name, drawn(1, 1, length, width))
        self.compound_prompts_text = nn.ParameterList(
            drawn(deep_length, width) for _ in range(depth - 1)
        )
        joint = text.text_projection.shape[1]
        self.register_buffer("texts", torch.empty(0, joint), persistent=False)  # see cached

    def _check(self, text: TextTower, depth: int, deep_length: int) -> None:
        if min(self.lengths.values()) < 1 or deep_length < 1:
            raise ValueError("a learned context and a deep prompt have at least one vector")
        blocks = text.config.layers
        if not 1 <= depth <= blocks:
            raise ValueError(
                f"depth {depth}: the learned tokens reach into 1..{blocks} blocks of this text "
                "tower; choose a depth among them or leave it out"
            )
        both = zip(self.sentences, self._words, strict=True)
        ends = [self._vectors(sentence) + len(words) - 1 for sentence, words in both]
        if max(ends) >= text.config.context_length:
            raise ValueError(
                f"a learned sentence has {max(ends) + 1} tokens, but the text tower reads "
                f"{text.config.context_length}; choose shorter contexts"
            )
        if depth > 1 and deep_length >= min(ends):
            raise ValueError(
                f"{deep_length} deep tokens would overwrite the end of a sentence of "
                f"{min(ends) + 1} tokens; choose fewer"
            )

    def _vectors(self, sentence: Sentence) -> int:
        """Number of vectors in a sentence's own contexts."""
        return sum(self.lengths[name] for name in sentence.contexts)

    # --- text features ------------------------------------------------------------------------

    def context(self, name: str) -> Tensor:
        """A learned context ``(n, W)``."""
        return self.get_parameter(name)[0, 0]

    def forward(self, text: TextTower, contexts: Mapping[str, Tensor] | None = None) -> Tensor:
        """Text features of the sentences, differentiable.

        Args:
            text: the frozen tower.
            contexts: values ``(..., n, W)`` in place of the learned ones of that name, of any
                length n; the leading dimensions (images, samples) broadcast among the contexts.

        Returns:
            ``(..., S, D)`` float32, not normalised.
        """
        embeddings, ends = self.embeddings(text, contexts)
        return text.encode(embeddings, ends, edits=self.edits()).float()

    def embeddings(
        self, text: TextTower, contexts: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Token embeddings ``(..., S, L, W)`` without positions, and end positions ``(..., S)``.

        The sequences end with the last end-of-text token: under the causal mask nothing behind it
        can reach it.
        """
        table = text.token_embedding.weight
        values = {name: self.context(name) for name in self.lengths} | dict(contexts or {})
        lead = torch.broadcast_shapes(*(value.shape[:-2] for value in values.values()))
        rows = []
        for sentence, words in zip(self.sentences, self._words, strict=True):
            fixed = text.token_embedding(words.to(table.device))
            start = 0 if self.in_front else 1
            own = (values[name] for name in sentence.contexts)
            parts = [fixed[:start], *own, fixed[start:]]
            parts = [part.to(table.dtype).expand(*lead, -1, -1) for part in parts]
            rows.append(torch.cat(parts, dim=-2))
        lengths = [row.shape[-2] for row in rows]
        padded = [F.pad(row, (0, 0, 0, max(lengths) - row.shape[-2])) for row in rows]
        ends = torch.tensor(lengths, device=table.device) - 1
        return torch.stack(padded, dim=-3), ends.expand(*lead, -1)

    def edits(self) -> Edits:
        """Deep tokens, rounded through float16 as the official codes do."""
        return {
            number: [Overwrite(tokens, half=True, at=1)]
            for number, tokens in enumerate(self.compound_prompts_text, start=2)
        }

    def cached(self, text: TextTower) -> Tensor:
        """``forward`` of the learned values ``(S, D)``, computed once; ``clear`` drops it."""
        if not len(self.texts):
            # no inference tensor: what is kept may meet gradients later
            with torch.inference_mode(False), torch.no_grad():
                self.texts = self(text)
        return self.texts

    def clear(self) -> None:
        """Drop what was computed from values that have changed."""
        self.texts = self.texts[:0]

    # --- official checkpoints -------------------------------------------------------------------

    def token_ids(self) -> Tensor:
        """Token ids ``(S, context length)`` with placeholders, as the official codes store them."""
        texts = []
        for sentence in self.sentences:
            vectors = self._vectors(sentence)
            texts.append(" ".join([*[sentence.placeholder] * vectors, sentence.words]))
        return tokenize(texts, self._context_length)

    def published(
        self, checked: _Checked, text: TextTower, *, tokens: bool = True
    ) -> dict[str, Tensor]:
        """Learned values by parameter name, from an official checkpoint's ``prompt_learner``.

        Args:
            checked: its entries; faults are noted there.
            text: the tower that the values are to be used with.
            tokens: the file also carries slices of its CLIP's token embedding and the token ids;
                they must be those of this tower and of these sentences.
        """
        state = {name: checked.take(name, value.shape) for name, value in self.named_parameters()}
        checked.ignore("compound_prompt_projections.*")  # in the official module, but never used
        if tokens:
            for row, sentence in zip(self.token_ids(), self.sentences, strict=True):
                self._check_tokens(checked, text, sentence, row)
        return state

    def _check_tokens(
        self, checked: _Checked, text: TextTower, sentence: Sentence, ids: Tensor
    ) -> None:
        table, name = text.token_embedding.weight, sentence.name
        found = checked.take(f"tokenized_prompts_{name}", (1, 1, len(ids)))
        if not torch.equal(found.flatten().long(), ids):
            checked.fault(f"tokenized_prompts_{name} are not the tokens of {sentence.words!r}")
        parts = {"prefix": ids[:1], "suffix": ids[1 + self._vectors(sentence) :]}
        for part, places in parts.items():
            key = f"token_{part}_{name}"
            stored = checked.take(key, (1, 1, len(places), table.shape[1]))[0, 0]
            own = table[places.to(table.device)].detach().to("cpu", torch.float32)
            # wide enough for weights that are run in bfloat16, far from those of another CLIP
            if not torch.allclose(stored, own, atol=1e-3, rtol=1e-2):
                checked.fault(f"{key} is not this backbone's token embedding")


def published_sizes(published: Mapping[str, Any], context: str = "ctx_pos") -> dict[str, int]:
    """``context_length``, ``depth`` and ``deep_length`` of an official ``prompt_learner``."""
    vectors, first = published.get(context), published.get("compound_prompts_text.0")
    if not isinstance(vectors, Tensor) or vectors.dim() != 4:
        return {}
    deep = [key for key in published if key.startswith("compound_prompts_text.")]
    sizes = {"context_length": vectors.shape[2], "depth": len(deep) + 1}
    if isinstance(first, Tensor) and first.dim() == 2:
        sizes["deep_length"] = first.shape[0]
    return sizes


def with_token(context: Tensor, token: Tensor, place: Place) -> Tensor:
    """A context ``(n, W)`` with one further ``token (B, W)`` per image (Crane).

    ``pad_suffix`` puts it behind the context and ``pad_prefix`` before it, ``(B, n + 1, W)``;
    ``replace_suffix`` and ``replace_prefix`` in place of its last or first vector, ``(B, n, W)``.
    """
    if token.shape[-1] != context.shape[-1]:
        raise ValueError(
            f"a token of width {token.shape[-1]} cannot stand in a text of width "
            f"{context.shape[-1]}"
        )
    many, one = context.expand(len(token), -1, -1), token[:, None].to(context.dtype)
    parts = {
        "pad_suffix": (many, one),
        "pad_prefix": (one, many),
        "replace_suffix": (many[:, :-1], one),
        "replace_prefix": (one, many[:, 1:]),
    }
    if place not in parts:
        raise ValueError(f"place is one of {', '.join(parts)}, not {place!r}")
    return torch.cat(parts[place], dim=1)
