"""Causal attention on rows without padding, by the kernels in `kernels/`, as a torch function.

Shapes: T tokens of all rows, H heads, E units of a head, B rows.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tune_srs.kernels.encoder import (
    TILE,
    Scratch,
    attend_rows,
    attend_rows_back,
    attention_starts,
    num_pairs,
)
from tune_srs.kernels.threads import in_threads
from tune_srs.model.dropout import Dropout


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor, dropout: Dropout
) -> Tensor:
    """softmax(query key^T / root of E, causal) dropped, times value, in each row: (T, H, E) all.

    Row b's tokens are `offsets[b]` to `offsets[b + 1]`. Nothing of size L x L is made but the
    weights that going back needs, half of them.
    """
    query = query * query.shape[2] ** -0.5
    by_head = (part.transpose(0, 1).contiguous() for part in (query, key, value))  # (H, T, E)
    mixed: Tensor = _Attend.apply(offsets, dropout, *by_head)  # type: ignore[no-untyped-call]
    return mixed.transpose(0, 1)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, offsets: Tensor, dropout: Dropout, query: Tensor, key: Tensor, value: Tensor
    ) -> Tensor:
        heads, _, units = query.shape
        lengths = np.diff(offsets.numpy())
        longest = int(lengths.max())
        starts = attention_starts(lengths, heads)
        mixed = torch.empty_like(query)
        arrays = [part.detach().numpy() for part in (query, key, value)]
        backward = any(ctx.needs_input_grad)
        if backward:
            words, scale = dropout.words(int(starts[-1, 2]))
            pairs = np.empty((heads, int(starts[-1, 1])), np.float32)
        else:  # without words nothing is dropped, and every row's weights take the same room
            words, scale = np.empty(0, np.uint32), np.float32(1)
            starts[:, 1] = 0

        def run(_: int, first: int, last: int) -> None:
            kept = pairs if backward else np.empty((heads, num_pairs(longest)), np.float32)
            room = (kept, mixed.numpy(), _scratch(units, longest))
            given: tuple[Any, ...] = (first, last, starts, *arrays, words, scale, *room)
            attend_rows(*given)

        in_threads(starts[:, 0], run)
        if backward:
            ctx.given, ctx.longest = (starts, *arrays, words, scale, pairs, mixed.numpy()), longest
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.contiguous()
        of = [torch.empty_like(grad) for _ in range(3)]
        into = (grad.numpy(), *(part.numpy() for part in of))

        def run(_: int, first: int, last: int) -> None:
            room = _scratch(grad.shape[2], ctx.longest)
            given: tuple[Any, ...] = (*ctx.given, room, *into)
            attend_rows_back(first, last, *given)

        in_threads(ctx.given[0][:, 0], run)
        return None, None, *of


def _scratch(units: int, length: int) -> Scratch:
    """Room for one row's attention; the rest of it, which only whole blocks need, is empty."""
    return Scratch(
        rows=np.empty((5, 0, 0), np.float32),
        heads=np.empty((5, length * units), np.float32),
        both=np.empty(0, np.float32),
        tiles=np.empty((2, length * TILE), np.float32),
        turned=np.empty(units * TILE, np.float32),
        lanes=np.empty((3, TILE), np.float32),
        exponents=np.empty(TILE, np.int32),
        mask=np.empty((0, 32), np.float32),
        square=np.empty(0, np.float32),
    )
