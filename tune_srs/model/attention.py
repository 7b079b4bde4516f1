"""Causal multi-head attention, on padded rows or on packed ones.

Shapes: B rows, L columns, T tokens of all rows without padding, H heads, D hidden units, E = D / H.
(…) is (B, L) of padded rows, (T,) of packed ones.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tune_srs.config.settings import ModelConfig
from tune_srs.model.dropout import Dropout
from tune_srs.tensors import rows_between


class CausalAttention(nn.Module):
    """Multi-head attention of a query on what stands at its place or before."""

    def __init__(self, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        units, dropout = config.hidden_units, config.attention_dropout
        self.num_heads = config.num_heads
        self.query = nn.Linear(units, units)
        self.key_value = nn.Linear(units, 2 * units)
        self.output = nn.Linear(units, units)
        self.dropout = Dropout(config.dropout if dropout is None else dropout, generator)
        self.fused = False  # torch's kernel, whose dropout draws from torch's global generator

    def forward(
        self,
        query: Tensor,
        x: Tensor,
        offsets: Tensor | None = None,
        turns: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """What each query (…, D) sees of `x` (…, D) of its row up to its own place: (…, D).

        `offsets` (B + 1,) where packed rows begin; `turns` as in `rotated`.
        """
        key, value = self.key_value(x).chunk(2, dim=-1)
        parts = (self.query(query), key, value)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)) for part in parts)  # (…, H, E)
        if turns is not None:
            q, k = rotated(q, *turns), rotated(k, *turns)
        if offsets is None:
            mixed = self._padded(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        else:
            from tune_srs.model.packed_attention import packed_attention  # a GPU needs no Numba

            mixed = packed_attention(q, k, v, offsets, self.dropout)
        output: Tensor = self.output(mixed.flatten(-2))
        return output

    def last(
        self,
        query: Tensor,
        x: Tensor,
        offsets: Tensor,
        turns: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """`forward` where only the last token of each packed row asks: `query` (B, D) → (B, D).

        What is seen is mixed first and projected to values then, once a row: the weights' sum is 1.
        """
        starts, ends = offsets[:-1], offsets[1:]
        seen, there = rows_between(x, starts, ends)  # (B, L, D)
        (to_key, to_value), bias = self.key_value.weight.chunk(2), self.key_value.bias.chunk(2)
        q = self.query(query).unflatten(-1, (self.num_heads, -1))  # (B, H, E)
        k = functional.linear(seen, to_key, bias[0])
        k = k.view(*k.shape[:2], self.num_heads, -1)  # (B, L, H, E)
        parts = [(q, k)]
        if turns is not None:
            of_last = (turn[ends - 1] for turn in turns)
            of_rows = (rows_between(turn, starts, ends)[0] for turn in turns)
            parts = list(zip(turned(q, *of_last), turned(k, *of_rows), strict=True))
        scores = torch.stack([(one[:, None] * other).sum(-1) for one, other in parts]).sum(0)
        scores = scores.transpose(1, 2) / math.sqrt(q.shape[-1])  # (B, H, L)
        weights = scores.masked_fill(~there[:, None], -math.inf).softmax(dim=-1)
        mixed = weights @ seen  # (B, H, D)
        of_head = to_value.view(self.num_heads, -1, seen.shape[2])  # (H, E, D)
        values = torch.einsum("bhd,hed->bhe", mixed, of_head).flatten(1) + bias[1]
        output: Tensor = self.output(values)
        return output

    def _padded(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, H, L, E) each → (B, L, H, E)"""
        if self.fused:
            p = self.dropout.p if self.training else 0
            mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        else:
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (B, H, L, L)
            later = torch.full(scores.shape[-2:], -math.inf, device=q.device).triu(1)
            mixed = self.dropout((scores + later).softmax(dim=-1)) @ v
        return mixed.transpose(1, 2)


def turns_of(place: Tensor, units: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine of place / base^(2 e / E) for each pair e of `units` = E: `place` (…) →

    (…, 1, E / 2) each, for all heads alike (Su et al., RoFormer, arXiv 2104.09864, section 3.2).
    """
    steps = torch.arange(0, units, 2, device=place.device) / units
    angle = place[..., None, None] * base**-steps
    return angle.cos(), angle.sin()


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Each pair of units of `x` (…, H, E) turned: q . k then depends on how far they are apart."""
    return torch.cat(turned(x, cosine, sine), dim=-1)


def turned(x: Tensor, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second of each pair of units, turned: (…, H, E / 2) both."""
    one, other = x.chunk(2, dim=-1)
    first = torch.addcmul(one * cosine, other, sine, value=-1)
    return first, torch.addcmul(one * sine, other, cosine)
