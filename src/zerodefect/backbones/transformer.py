"""The transformer that CLIP's towers share: blocks, second streams, deep prompts.

Tensors are batch first ``(B, L, W)``. Blocks are numbered from 1, as in the papers: tap ``n`` is
the state after block ``n``; an edit keyed ``n`` happens before block ``n`` (``layers + 1``: after
the last block).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["gelu", "quick_gelu"]

# --- correlation rules of a second stream --------------------------------------------------------

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``rule(q, k, v, h)``: per-head ``(B, heads, L, d)`` and the block's normalised input
``h (B, L, W)`` -> attention output ``(B, heads, L, d)``."""


def attend(a: Tensor, b: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """``softmax(scale * a b^T) v`` per head; scale defaults to ``1/sqrt(d)``."""
    return F.scaled_dot_product_attention(a, b, v, scale=scale)


def _self_correlation(*names: str) -> Rule:
    """Sum (not mean) of the self-attentions of the named projections, applied to v."""

    def rule(q: Tensor, k: Tensor, v: Tensor, h: Tensor) -> Tensor:
        parts = {"q": q, "k": k, "v": v}
        return torch.stack([attend(parts[n], parts[n], v) for n in names]).sum(0)

    return rule


def _concatenated(q: Tensor, k: Tensor, v: Tensor, h: Tensor) -> Tensor:
    """Crane's ``(q+k+v)^2``: one softmax over ``[q, k, v]`` joined per head."""
    joined = torch.cat([q, k, v], dim=-1)
    return attend(joined, joined, v)


def _echo(q: Tensor, k: Tensor, v: Tensor, h: Tensor) -> Tensor:
    """LECLIP: mean of the three cosine self-attentions, sharpened by the mean token norm."""
    temperature = (q.shape[-1] ** -0.5 * h.norm(dim=-1).mean(dim=-1))[:, None, None, None]
    units = [F.normalize(z, dim=-1) for z in (q, k, v)]
    return torch.stack([attend(z * temperature, z, v, scale=1.0) for z in units]).mean(0)


CORRELATIONS: dict[str, Rule] = {
    "qk": lambda q, k, v, h: attend(q, k, v),
    "vv": _self_correlation("v"),  # AnomalyCLIP, CLIP Surgery, AnoVL, CoPS
    "qq": _self_correlation("q"),
    "kk": _self_correlation("k"),
    "qq+kk": _self_correlation("q", "k"),
    "qq+kk+vv": _self_correlation("q", "k", "v"),  # Crane
    "concat": _concatenated,
    "echo": _echo,  # LECLIP
}


@dataclass(frozen=True)
class _ByRule:
    """A correlation rule, and where it begins."""

    rule: str | Rule = "vv"  # a name from CORRELATIONS or a function of the same form
    start: int = 1  # first block (from 1) that has it

    def function(self) -> Rule:
        """The rule itself; ValueError where none has that name."""
        if callable(self.rule):
            return self.rule
        if self.rule not in CORRELATIONS:
            raise ValueError(f"unknown rule {self.rule!r}; known: {', '.join(CORRELATIONS)}")
        return CORRELATIONS[self.rule]


@dataclass(frozen=True)
class SecondStream(_ByRule):
    """A second residual stream beside CLIP's own.

    From block ``start`` on, every block adds ``out_proj(rule(q, k, v))`` to it, with q, k, v taken
    from the ORDINARY stream; there is no MLP and no LayerNorm on it, and it never feeds back. It
    starts as the ordinary stream that enters block ``start``.
    """


@dataclass(frozen=True)
class OtherAttention(_ByRule):
    """From block ``start`` on, the ordinary stream itself attends by the rule; its MLP stays."""


# --- deep prompts: edits of the token sequence between blocks -------------------------------------


@dataclass(frozen=True)
class Edit:
    """One change of the sequence ``(B, L, W)``, applied before a block."""

    tokens: Tensor  # (M, W) for every item of the batch, or (B, M, W)
    half: bool = False  # round the tokens through float16 and back, as several official codes do

    def prepared(self, x: Tensor) -> Tensor:
        """The tokens as ``(B, M, W)`` in the precision of ``x``."""
        tokens = (self.tokens.half() if self.half else self.tokens).to(x.dtype)
        return tokens.expand(x.shape[0], -1, -1) if tokens.dim() == 2 else tokens

    def apply(self, x: Tensor) -> Tensor:
        """Return the changed sequence."""
        raise TypeError("use Append, Overwrite, Insert or Remove")


@dataclass(frozen=True)
class Append(Edit):
    """Put the tokens behind the sequence."""

    def apply(self, x: Tensor) -> Tensor:
        """``(B, L, W) -> (B, L + M, W)``."""
        return torch.cat([x, self.prepared(x)], dim=1)


@dataclass(frozen=True)
class Overwrite(Edit):
    """Replace the ``M`` positions from ``at`` on; a negative ``at`` counts from the end."""

    at: int = 0

    def apply(self, x: Tensor) -> Tensor:
        """``(B, L, W) -> (B, L, W)``."""
        tokens = self.prepared(x)
        start, end = _span(x, self.at, tokens.shape[1])
        return torch.cat([x[:, :start], tokens, x[:, end:]], dim=1)


def _span(x: Tensor, at: int, count: int) -> tuple[int, int]:
    """First position and the one behind the last of ``count`` positions from ``at`` on."""
    start = at if at >= 0 else x.shape[1] + at
    if start < 0 or start + count > x.shape[1]:
        raise ValueError(
            f"positions {start}..{start + count - 1} lie outside a sequence of {x.shape[1]}"
        )
    return start, start + count


@dataclass(frozen=True)
class Insert(Edit):
    """Insert the tokens at ``at``."""

    at: int = 0

    def apply(self, x: Tensor) -> Tensor:
        """``(B, L, W) -> (B, L + M, W)``."""
        return torch.cat([x[:, : self.at], self.prepared(x), x[:, self.at :]], dim=1)


@dataclass(frozen=True)
class Remove:
    """Take out the ``count`` positions from ``at`` on; a negative ``at`` counts from the end."""

    at: int
    count: int

    def apply(self, x: Tensor) -> Tensor:
        """``(B, L, W) -> (B, L - count, W)``."""
        start, end = _span(x, self.at, self.count)
        return torch.cat([x[:, :start], x[:, end:]], dim=1)


@dataclass(frozen=True)
class Apply:
    """Change the whole sequence ``(B, L, W)`` by a function that keeps its shape (adapters)."""

    function: Callable[[Tensor], Tensor]

    def apply(self, x: Tensor) -> Tensor:
        """``(B, L, W) -> (B, L, W)``, in the precision of ``x``."""
        return self.function(x).to(x.dtype)


Edits = Mapping[int, Sequence["Edit | Remove | Apply"]]


# --- the shared transformer ----------------------------------------------------------------------


class QuickGELU(nn.Module):
    """``x * sigmoid(1.702 x)``, the activation of OpenAI's weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply element by element."""
        return x * torch.sigmoid(1.702 * x)


def activation_layer(activation: Activation) -> nn.Module:
    """The function between the two layers of every block's MLP."""
    return QuickGELU() if activation == "quick_gelu" else nn.GELU()


class Attention(nn.Module):
    """Multi-head attention with its projections laid open; parameter names of torch's own."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """``(B, L, W) -> (B, heads, L, d)``."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def project(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, L, W)`` -> q, k, v, each ``(B, heads, L, d)``."""
        q, k, v = F.linear(h, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        return self.split(q), self.split(k), self.split(v)

    def join(self, per_head: Tensor) -> Tensor:
        """``(B, heads, L, d)`` -> ``out_proj`` of the joined heads, ``(B, L, W)``."""
        return self.out_proj(per_head.transpose(1, 2).flatten(-2))


class MLP(nn.Module):
    """Two linear layers with the tower's activation between them."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, hidden)
        self.activation = activation_layer(activation)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., W) -> (..., W)``."""
        return self.c_proj(self.activation(self.c_fc(x)))


class Block(nn.Module):
    """Pre-norm residual block: ``x + attn(ln_1 x)``, then ``x + mlp(ln_2 x)``."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, activation: Activation) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)  # truncated, as open_clip does for ViT-g
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = MLP(width, hidden, activation)

    def forward_first(self, x: Tensor, causal: bool) -> Tensor:
        """Last block when only the first token is read: ``(B, L, W) -> (B, 1, W)``.

        Keys and values still come from every token; the query, output projection and MLP of the
        others would be thrown away.
        """
        h = self.ln_1(x)
        if causal:  # the first token then sees itself alone
            h = h[:, :1]
        width = x.shape[-1]
        weight, bias = self.attn.in_proj_weight, self.attn.in_proj_bias
        q = self.attn.split(F.linear(h[:, :1], weight[:width], bias[:width]))
        k, v = F.linear(h, weight[width:], bias[width:]).chunk(2, dim=-1)
        x = x[:, :1] + self.attn.join(attend(q, self.attn.split(k), self.attn.split(v)))
        return x + self.mlp(self.ln_2(x))


@dataclass
class States:
    """What a run of the blocks leaves behind; all tensors ``(B, L, W)``.

    Both streams stand after the last block, their taps after each requested one; where the second
    stream has not started, its tap is the ordinary one. ``middle`` is the state inside each
    requested block, after attention and before the MLP.
    """

    tokens: Tensor
    second: Tensor | None = None
    taps: dict[int, Tensor] = field(default_factory=dict)
    second_taps: dict[int, Tensor] = field(default_factory=dict)
    middle: dict[int, Tensor] = field(default_factory=dict)

    def class_and_second(self) -> Tensor:
        """Class token of the ordinary stream joined with the patches of the second one."""
        if self.second is None:
            raise ValueError("no second stream was run")
        return torch.cat([self.tokens[:, :1], self.second[:, 1:]], dim=1)


def same_depth(block: int, of: int, layers: int) -> int:
    """Block of a tower of ``layers`` that lies as deep as ``block`` does in one of ``of`` blocks.

    Rounded to the nearest (halves up), at least 1; with ``layers == of`` it is ``block`` itself.
    """
    return max(1, (2 * block * layers + of) // (2 * of))


def _attended(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    h: Tensor,
    causal: bool,
    other: OtherAttention | None,
    block: int,
) -> Tensor:
    """Attention of the ordinary stream in a block, ``(B, heads, L, d)``."""
    if other and block >= other.start:
        return other.function()(q, k, v, h)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


class Transformer(nn.Module):
    """The stack of blocks that both towers share."""

    def __init__(
        self, width: int, layers: int, heads: int, mlp_ratio: float, activation: Activation
    ) -> None:
        super().__init__()
        self.width = width
        self.resblocks = nn.ModuleList(
            Block(width, heads, mlp_ratio, activation) for _ in range(layers)
        )

    @property
    def layers(self) -> int:
        """Number of blocks."""
        return len(self.resblocks)

    @property
    def blocks(self) -> list[Block]:
        """The blocks in order."""
        return [cast(Block, block) for block in self.resblocks]

    def forward(
        self,
        x: Tensor,
        *,
        causal: bool = False,
        taps: Sequence[int] = (),
        second: SecondStream | None = None,
        edits: Edits | None = None,
        other: OtherAttention | None = None,
        first_only: bool = False,
    ) -> States:
        """Run the blocks.

        Args:
            x: ``(B, L, W)``.
            causal: a token attends to itself and earlier ones.
            taps: blocks (from 1) whose states are kept.
            second: run a second residual stream.
            edits: deep prompts, block number -> edits applied before it.
            other: attend by another rule.
            first_only: read only the first token of the last block; ``tokens`` is ``(B, 1, W)``,
                and so is the ordinary stream's tap there. A second stream and the states between
                attention and MLP stay whole.

        Raises:
            ValueError: a block number outside the tower, or options that exclude each other.
        """
        edits = edits or {}
        self._check(taps, second, edits, other, first_only)
        rule = second.function() if second else None
        states, w = States(x), None
        for number, block in enumerate(self.blocks, start=1):
            for edit in edits.get(number, ()):
                x = edit.apply(x)
            last = first_only and number == self.layers
            if last and second is None:
                x = block.forward_first(x, causal)
                break
            h = block.ln_1(x)
            q, k, v = block.attn.project(h)
            if second and rule and number >= second.start:
                w = (x if w is None else w) + block.attn.join(rule(q, k, v, h))
            if last and number not in taps:  # the other tokens' queries would be thrown away
                x, q = x[:, :1], q[:, :, :1]
            x = x + block.attn.join(_attended(q, k, v, h, causal, other, number))
            if number in taps:
                states.middle[number] = x
            if last:
                x = x[:, :1]
            x = x + block.mlp(block.ln_2(x))
            if number in taps:
                states.taps[number] = x
                if second:
                    states.second_taps[number] = x if w is None else w
        for edit in edits.get(self.layers + 1, ()):
            x = edit.apply(x)
        states.tokens, states.second = x, w
        return states

    def _check(
        self,
        taps: Sequence[int],
        second: SecondStream | None,
        edits: Edits,
        other: OtherAttention | None,
        first_only: bool,
    ) -> None:
        outside = [n for n in taps if not 1 <= n <= self.layers]
        outside += [n for n in edits if not 1 <= n <= self.layers + 1]
        outside += [s.start for s in (second, other) if s and not 1 <= s.start <= self.layers]
        if outside:
            raise ValueError(f"block {outside[0]} asked for, but the tower has 1..{self.layers}")
        if second and edits:
            raise ValueError("a second stream and deep prompts in one tower are not defined")
        if other and (second or first_only):
            raise ValueError("another attention goes with neither a second stream nor first_only")
        if first_only and taps and second is None:
            raise ValueError("first_only keeps one token: no taps with it")
