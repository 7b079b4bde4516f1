"""The reference: what the model computes on padded rows, in plain torch, on any device.

`packed.py` computes the same on the CPU by compiled kernels; the tests hold it to this file.

Shapes: B rows, L columns, H heads, D hidden units, E = D / H, F inner units. (…) is (B, L), or (B,)
where only the last item of each row is asked about.
"""

import math
from collections.abc import Callable
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from tune_srs.model.attention import CausalAttention, angles_of, turned
from tune_srs.model.dropout import Dropout


def swiglu(x: Tensor) -> Tensor:
    """swish(first half) times second half (Shazeer 2020, arXiv 2002.05202): (…, 2 F) → (…, F)."""
    gate, value = x.chunk(2, dim=-1)
    return functional.silu(gate) * value


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "swiglu": swiglu,
}


class Rows(Protocol):
    """The rows of a batch: how they lie in memory, and what computes on them."""

    following: Tensor  # (…) items from this one to the end of its row; 0 at padding

    @classmethod
    def of(cls, items: Tensor, lengths: Tensor) -> tuple[Self, Tensor]:
        """Return rows of `items` (B, L), aligned left, and their items (…)."""
        ...

    def embed(
        self,
        table: Tensor,
        items: Tensor,
        scale: float,
        positions: tuple[Tensor, Tensor] | None,
        dropout: Dropout,
    ) -> Tensor:
        """Embed `items` (…) by `table` (I, D) times `scale`, plus `positions`, dropped: (…, D).

        `positions`: a table (places, D), and the place of each item (…).
        """
        ...

    def attend(self, attention: CausalAttention, query: Tensor, x: Tensor) -> Tensor:
        """Mix the values of `x` (…, D) of a row up to the place of each `query` (…, D): (…, D)."""
        ...

    def attend_last(self, attention: CausalAttention, query: Tensor, x: Tensor) -> Tensor:
        """Mix `x` (…, D) itself for the last item of each row: `query` (B, D) → (B, H, D)."""
        ...

    def last(self, x: Tensor) -> Tensor:
        """Return the last item's of each row: (…, D) → (B, D)."""
        ...

    def activate(self, x: Tensor, linear: nn.Linear, activation: str, dropout: Dropout) -> Tensor:
        """Apply `linear` to `x` (…, D), then the activation, then dropout: (…, F)."""
        ...

    def join(
        self,
        base: Tensor,
        inner: Tensor,
        linear: nn.Linear,
        dropout: Dropout | None,
        gate: tuple[nn.Linear, Tensor] | None,
        norm: nn.LayerNorm,
    ) -> tuple[Tensor, Tensor]:
        """Add to `base` (…, D) what `linear` makes of `inner` (…, F), dropped, and norm the sum.

        With `gate`, a linear map and its input, times the sigmoid of that. Returns the sum and its
        norm.
        """
        ...


class PaddedRows:
    """Rows aligned left and padded to one length: what is computed at padding is meaningless."""

    def __init__(self, following: Tensor) -> None:
        self.following = following  # (B, L)

    @classmethod
    def of(cls, items: Tensor, lengths: Tensor) -> tuple[Self, Tensor]:
        column = torch.arange(items.shape[1], device=items.device)
        return cls((lengths[:, None] - column).clamp(min=0)), items

    def embed(
        self,
        table: Tensor,
        items: Tensor,
        scale: float,
        positions: tuple[Tensor, Tensor] | None,
        dropout: Dropout,
    ) -> Tensor:
        x = functional.embedding(items.view(self.following.shape), table)  # (B, L, D)
        if scale != 1:
            x = x * scale
        if positions is not None:
            x = x + functional.embedding(positions[1], positions[0])
        embedded: Tensor = dropout(x)
        return embedded

    def attend(self, attention: CausalAttention, query: Tensor, x: Tensor) -> Tensor:
        key, value = attention.key_value(x).chunk(2, dim=-1)
        parts = (attention.query(query), key, value)
        q, k, v = (self._by_head(attention, part) for part in parts)  # (B, H, L, E)
        if attention.rotary:
            angles = self._angles(q.shape[-1])
            q, k = turned(q, *angles), turned(k, *angles)
        p = attention.dropout.p if attention.training else 0
        if attention.fused:
            mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        else:
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (B, H, L, L)
            later = torch.full(scores.shape[-2:], -math.inf, device=q.device).triu(1)
            mixed = attention.dropout((scores + later).softmax(dim=-1)) @ v
        return mixed.transpose(1, 2).flatten(-2)

    def attend_last(self, attention: CausalAttention, query: Tensor, x: Tensor) -> Tensor:
        weight, bias = attention.key_value.weight.chunk(2)[0], attention.key_value.bias.chunk(2)[0]
        q = attention.query(query)[:, None]  # (B, 1, D)
        k = functional.linear(x, weight, bias)
        q, k = self._by_head(attention, q), self._by_head(attention, k)  # (B, H, 1 or L, E)
        if attention.rotary:
            cosine, sine = self._angles(q.shape[-1])  # (B, 1, L, E / 2)
            last = self._ends()[:, None, :, None].expand(-1, -1, -1, cosine.shape[-1])
            q = turned(q, cosine.gather(2, last), sine.gather(2, last))
            k = turned(k, cosine, sine)
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (B, H, 1, L)
        scores = scores.masked_fill(self.following[:, None, None] == 0, -math.inf)
        return (scores.softmax(dim=-1) @ x[:, None]).squeeze(2)

    def last(self, x: Tensor) -> Tensor:
        return x.gather(1, self._ends()[..., None].expand(-1, -1, x.shape[-1])).squeeze(1)

    def activate(self, x: Tensor, linear: nn.Linear, activation: str, dropout: Dropout) -> Tensor:
        active: Tensor = dropout(ACTIVATIONS[activation](linear(x)))
        return active

    def join(
        self,
        base: Tensor,
        inner: Tensor,
        linear: nn.Linear,
        dropout: Dropout | None,
        gate: tuple[nn.Linear, Tensor] | None,
        norm: nn.LayerNorm,
    ) -> tuple[Tensor, Tensor]:
        added = linear(inner)
        if dropout is not None:
            added = dropout(added)
        if gate is not None:
            added = torch.sigmoid(gate[0](gate[1])) * added
        total = base + added
        return total, norm(total)

    def _ends(self) -> Tensor:
        """(B, 1) the column of each row's last item; 0 of a row without any."""
        return ((self.following > 0).sum(dim=1, keepdim=True) - 1).clamp(min=0)

    def _angles(self, units: int) -> tuple[Tensor, Tensor]:
        """Rotary positions (B, 1, L, E / 2): only their distances count."""
        cosine, sine = angles_of(-self.following, units)
        return cosine[:, None], sine[:, None]

    def _by_head(self, attention: CausalAttention, x: Tensor) -> Tensor:
        """(B, L, D) → (B, H, L, E)"""
        return x.view(*x.shape[:-1], attention.num_heads, -1).transpose(1, 2)
