"""Causal multi-head attention on groups of sequences that lie one after another in memory.

Shapes: S slots, of which each group takes rows x columns; B rows and L columns of one group,
H heads, D hidden units.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tune_srs.config import ModelConfig
from tune_srs.dropout import Dropout

STRETCH = 64  # queries at a time
Shapes = tuple[tuple[int, int], ...]  # (rows, columns) of each group, in the order of the slots


class CausalAttention(nn.Module):
    """Multi-head attention of a normed query on what stands at its place or before."""

    def __init__(self, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        units = config.hidden_units
        self.num_heads = config.num_heads
        self.query = nn.Linear(units, units)
        self.key_value = nn.Linear(units, 2 * units)
        self.output = nn.Linear(units, units)
        self.dropout = Dropout(config.dropout, generator)
        self.fused = False  # torch's kernel, whose dropout draws from torch's global generator

    def forward(self, query: Tensor, x: Tensor, shapes: Shapes) -> Tensor:
        """What each query (S, D) sees of `x` (S, D), up to its own column of its row: (S, D)."""
        q, key_value = self.query(query), self.key_value(x)
        mixed: Tensor
        if self.fused:
            mixed = self._fused(q, key_value, shapes)
        else:
            mixed = Mixed.apply(  # type: ignore[no-untyped-call]
                q, key_value, shapes, self.num_heads, self.dropout
            )
        output: Tensor = self.output(mixed)
        return output

    def _fused(self, q: Tensor, key_value: Tensor, shapes: Shapes) -> Tensor:
        p = self.dropout.p if self.training else 0
        parts = []
        for slots, rows in _groups(shapes):
            parts_of = (q[slots], *_halves(key_value[slots]))
            query, key, value = _by_head(rows, self.num_heads, *parts_of)
            out = functional.scaled_dot_product_attention(
                query, key, value, dropout_p=p, is_causal=True
            )
            parts.append(_by_slot(rows, out))
        return torch.cat(parts)

    def last(self, query: Tensor, x: Tensor, visible: Tensor) -> Tensor:
        """What one query a row (B, D) sees of `x` (B, L, D) where `visible` (B, L): (B, D).

        One query needs no keys and values of its own for every x: q (W x + b)^T = (q W) x^T + c,
        and c is the same for all x; a mean of W x + b is W times the mean, + b.
        """
        heads, units = self.num_heads, query.shape[-1]
        by_head = (heads, units // heads, units)
        key_weight, value_weight = self.key_value.weight.chunk(2)  # (D, D)
        q = self.query(query).view(-1, *by_head[:2])  # (B, H, D / H)
        q = torch.einsum("bhd,hde->bhe", q, key_weight.view(by_head))  # (B, H, D)
        hidden = torch.zeros_like(visible, dtype=x.dtype).masked_fill_(~visible, -math.inf)
        scale = 1 / math.sqrt(by_head[1])
        scores = torch.baddbmm(hidden[:, None], q, x.transpose(1, 2), alpha=scale)  # (B, H, L)
        seen = scores.softmax(dim=-1) @ x  # (B, H, D)
        mixed = torch.einsum("bhe,hde->bhd", seen, value_weight.view(by_head)).flatten(1)  # (B, D)
        output: Tensor = self.output(mixed + self.key_value.bias[units:])
        return output


class Mixed(torch.autograd.Function):
    """softmax(q k^T / sqrt(D / H), causal), dropped, times v, in every group.

    By hand because it takes a few queries at a time with what stands before them only, keeps two
    tensors of weights where autograd keeps five, and its gradient works in place: the scores' is
    dropped (x) g - weights (x) rowsum(grad (x) mixed), of g = grad v^T.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, key_value: Tensor, shapes: Shapes, num_heads: int, dropout: Dropout
    ) -> Tensor:
        """`q` (S, D), `key_value` (S, 2 D) → (S, D)"""
        ctx.scale = 1 / math.sqrt(q.shape[1] // num_heads)
        ctx.shapes, ctx.num_heads = shapes, num_heads
        q, mixed, saved = q * ctx.scale, torch.empty_like(q), []
        later = q.new_full((STRETCH, STRETCH), -math.inf).triu(1)
        with torch.autocast(q.device.type, enabled=False):
            for slots, rows in _groups(shapes):
                query, key, value = _by_head(rows, num_heads, q[slots], *_halves(key_value[slots]))
                out = torch.empty_like(query)  # (B H, L, D / H)
                for now, past in _stretches(query.shape[1]):
                    weights = query[:, now] @ key[:, past].transpose(1, 2)  # (B H, n, m)
                    size = weights.shape[1]
                    weights[:, :, now].add_(later[:size, :size])
                    torch.softmax(weights, dim=-1, out=weights)
                    dropped = dropout(weights)
                    out[:, now] = dropped @ value[:, past]
                    if ctx.needs_input_grad[0]:
                        saved += [weights, dropped]
                mixed[slots] = _by_slot(rows, out)
        ctx.save_for_backward(q, key_value, mixed, *saved)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, key_value, mixed, *saved = ctx.saved_tensors
        weights_of = zip(saved[::2], saved[1::2], strict=True)
        of_q, of_key_value = torch.empty_like(q), torch.empty_like(key_value)
        for slots, rows in _groups(ctx.shapes):
            parts = (q[slots], *_halves(key_value[slots]), mixed[slots], grad[slots])
            query, key, value, out, into = _by_head(rows, ctx.num_heads, *parts)
            of_query, of_key, of_value = (torch.zeros_like(part) for part in (query, key, value))
            sums = (into * out).sum(-1, keepdim=True)  # (B H, L, 1)
            for now, past in _stretches(query.shape[1]):
                weights, dropped = next(weights_of)
                slope = (into[:, now] @ value[:, past].transpose(1, 2)).mul_(dropped)
                slope.addcmul_(weights, sums[:, now], value=-1)
                of_query[:, now] = slope @ key[:, past]
                of_key[:, past] += slope.transpose(1, 2) @ query[:, now]
                of_value[:, past] += dropped.transpose(1, 2) @ into[:, now]
            of_q[slots] = _by_slot(rows, of_query)
            for half, part in zip(_halves(of_key_value[slots]), (of_key, of_value), strict=True):
                half.copy_(_by_slot(rows, part))
        return of_q.mul_(ctx.scale), of_key_value, None, None, None


def _groups(shapes: Shapes) -> Iterator[tuple[slice, int]]:
    """The slots of each group, and its rows."""
    start = 0
    for rows, columns in shapes:
        yield slice(start, start + rows * columns), rows
        start += rows * columns


def _stretches(columns: int) -> Iterator[tuple[slice, slice]]:
    """Some columns, and all up to the last of them."""
    for start in range(0, columns, STRETCH):
        stop = min(start + STRETCH, columns)
        yield slice(start, stop), slice(stop)


def _halves(key_value: Tensor) -> tuple[Tensor, Tensor]:
    """(S, 2 D) → (S, D) twice"""
    key, value = key_value.chunk(2, dim=-1)
    return key, value


def _by_head(rows: int, num_heads: int, *parts: Tensor) -> Iterator[Tensor]:
    """(B L, D) → (B H, L, D / H) each"""
    for part in parts:
        units = part.shape[1] // num_heads
        yield part.reshape(rows, -1, num_heads, units).transpose(1, 2).flatten(0, 1)


def _by_slot(rows: int, x: Tensor) -> Tensor:
    """(B H, L, D / H) → (B L, D)"""
    return x.view(rows, -1, *x.shape[1:]).transpose(1, 2).flatten(2).flatten(0, 1)
