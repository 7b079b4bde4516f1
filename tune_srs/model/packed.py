"""What `padded.py` computes, on rows without padding, by compiled kernels: the CPU's way.

Each operation is torch's matrix product and one kernel for all that stands around it, with the
kernel's gradient as a torch function. float32 only.

Shapes: B rows, T tokens of all rows, H heads, D hidden units, E = D / H, F inner units.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tune_srs.kernels import layers
from tune_srs.kernels.compiled import Integers
from tune_srs.kernels.layers import ALL, TILE, Mask, Projected, Room, Sublayer
from tune_srs.kernels.threads import in_threads, over_tokens
from tune_srs.model.attention import CausalAttention, angles_of
from tune_srs.model.dropout import Dropout

KINDS = {"relu": layers.RELU, "gelu": layers.GELU, "swiglu": layers.SWIGLU}


class PackedRows:
    """Rows one after another, without padding."""

    def __init__(self, following: Tensor, offsets: Tensor) -> None:
        """Row b's tokens are `offsets[b]` to `offsets[b + 1]`."""
        self.following = following  # (T,)
        self.offsets: Integers = offsets.numpy()  # (B + 1,)
        lengths = np.diff(self.offsets)
        self.longest = int(lengths.max())
        self.pair_starts = np.append(0, num_pairs(lengths).cumsum())  # (B + 1,)

    @classmethod
    def of(cls, items: Tensor, lengths: Tensor) -> tuple[Self, Tensor]:
        following = lengths[:, None] - torch.arange(items.shape[1])
        there = following > 0
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return cls(following[there], offsets), items[there]

    def embed(
        self,
        table: Tensor,
        items: Tensor,
        scale: float,
        positions: tuple[Tensor, Tensor] | None,
        dropout: Dropout,
    ) -> Tensor:
        where, places = positions or (table.new_empty(0, table.shape[1]), items)
        given = (mask_of(dropout), scale, items, places, table, where)
        embedded: Tensor = _Embed.apply(*given)  # type: ignore[no-untyped-call]
        return embedded

    def attend(self, attention: CausalAttention, query: Tensor, x: Tensor) -> Tensor:
        to_query, to_both = attention.query, attention.key_value
        bias = torch.cat([to_query.bias, to_both.bias])  # (3 D,)
        if query is x:  # then one product is quicker than two
            parts = (x @ torch.cat([to_query.weight, to_both.weight]).T,)  # (T, 3 D)
        else:
            parts = (query @ to_query.weight.T, x @ to_both.weight.T)  # (T, D), (T, 2 D)
        mask, angles = mask_of(attention.dropout), self._angles(attention)
        given = (self, attention.num_heads, mask, angles, bias)
        mixed: Tensor = _Attend.apply(*given, *parts)  # type: ignore[no-untyped-call]
        return mixed

    def attend_last(self, attention: CausalAttention, query: Tensor, x: Tensor) -> Tensor:
        weight, bias = attention.key_value.weight.chunk(2)[0], attention.key_value.bias.chunk(2)[0]
        given = _arrays(attention.query(query), x @ weight.T, bias)
        angles, heads = self._angles(attention), attention.num_heads
        mixed = x.new_empty(len(query), heads, x.shape[1])

        def run(first: int, last: int) -> None:
            room = _room(self.longest, x.shape[1] // heads, heads)
            into = (*_arrays(x), room, mixed.numpy())
            layers.attend_last(first, last, self.offsets, *given, angles, *into)

        in_threads(self.offsets, run)
        return mixed

    def last(self, x: Tensor) -> Tensor:
        return x[torch.from_numpy(self.offsets[1:]) - 1]

    def activate(self, x: Tensor, linear: nn.Linear, activation: str, dropout: Dropout) -> Tensor:
        given = (mask_of(dropout), KINDS[activation], x @ linear.weight.T, linear.bias)
        active: Tensor = _Activate.apply(*given)  # type: ignore[no-untyped-call]
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
        mask = mask_of(dropout)
        opening, bias = base[:0], linear.bias  # no gate
        if gate is not None:
            opening, bias = gate[1] @ gate[0].weight.T, gate[0].bias
        given = (mask, base, inner @ linear.weight.T, linear.bias, opening, bias)
        both: tuple[Tensor, Tensor] = _Join.apply(*given, norm.weight, norm.bias)  # type: ignore[no-untyped-call]
        return both

    def _angles(self, attention: CausalAttention) -> npt.NDArray[np.float32]:
        """(2, longest row, E / 2), or (2, 0, 0): of rotary positions only distances count."""
        if not attention.rotary:
            return np.empty((2, 0, 0), np.float32)
        units = attention.query.out_features // attention.num_heads
        return torch.stack(angles_of(torch.arange(self.longest), units)).numpy()


def num_pairs(lengths: Integers) -> Integers:
    """Return how many attention weights rows take per head: each tile of queries with all keys so far."""
    tiles, rest = np.divmod(lengths, TILE)
    return TILE * TILE * tiles * (tiles + 1) // 2 + rest * lengths


def mask_of(dropout: Dropout | None) -> Mask:
    if dropout is None or not dropout.drops:
        return Mask(np.uint32(0), np.uint32(1), np.uint32(ALL), np.float32(1))
    key, step = divmod(dropout.key(), 2**32)
    kept, scale = np.uint32(dropout.kept), np.float32(dropout.scale)
    return Mask(np.uint32(key), np.uint32(step | 1), kept, scale)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mask: Mask,
        scale: float,
        items: Tensor,
        places: Tensor,
        table: Tensor,
        positions: Tensor,
    ) -> Tensor:
        if len(items) and not 0 <= int(items.min()) <= int(items.max()) < len(table):
            raise IndexError(f"items must be 0 ... {len(table) - 1}, but got {items}")
        x = table.new_empty(len(items), table.shape[1])
        ctx.given = (*_arrays(items, places), np.float32(scale), mask)
        ctx.shapes = (table.shape, positions.shape)
        where = _arrays(items, places, table, positions)
        layers.embed(*where, np.float32(scale), mask, x.numpy())
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_x: Tensor) -> tuple[Tensor | None, ...]:
        d_table, d_positions = (d_x.new_zeros(shape) for shape in ctx.shapes)
        layers.embed_back(*ctx.given, *_arrays(d_x, d_table, d_positions))
        return None, None, None, None, d_table, d_positions


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: PackedRows,
        heads: int,
        mask: Mask,
        angles: npt.NDArray[np.float32],
        bias: Tensor,
        *parts: Tensor,
    ) -> Tensor:
        """`parts`: queries, keys and values (T, 3 D), or queries (T, D) and the others (T, 2 D)."""
        units = len(bias) // 3
        mixed = bias.new_empty(len(parts[0]), units)
        given = _projected(parts, bias, angles)
        keeps = any(ctx.needs_input_grad)
        starts = heads * rows.pair_starts if keeps else rows.offsets[:0]
        pairs = np.empty(starts[-1] if keeps else 0, np.float32)

        def run(first: int, last: int) -> None:
            room = _room(rows.longest, units // heads, 1)
            own = pairs if keeps else np.empty(rows.longest * TILE, np.float32)
            args = (rows.offsets, starts, given, mask, own, room, mixed.numpy())
            layers.attend(first, last, *args)

        in_threads(rows.offsets, run)
        ctx.given = (rows.offsets, starts, given, mask, pairs)
        ctx.mixed, ctx.room = mixed.numpy(), (rows.longest, units // heads, 1)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mixed: Tensor) -> tuple[Tensor | None, ...]:
        offsets, _, given, *_ = ctx.given
        fused = given.query is given.key_value
        d_parts = [np.empty_like(part) for part in given[: 1 if fused else 2]]
        grad = d_mixed.contiguous().numpy()

        def run(first: int, last: int) -> npt.NDArray[np.float32]:
            d_bias = np.zeros_like(given.bias)
            d_given = Projected(d_parts[0], d_parts[-1], given.key, d_bias, given.angles)
            layers.attend_back(first, last, *ctx.given, _room(*ctx.room), ctx.mixed, grad, d_given)
            return d_bias

        d_bias = sum(in_threads(offsets, run)).reshape(-1)
        return None, None, None, None, torch.from_numpy(d_bias), *map(torch.from_numpy, d_parts)


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mask: Mask, kind: int, x: Tensor, bias: Tensor) -> Tensor:
        units = x.shape[1] // (2 if kind == layers.SWIGLU else 1)
        result = x.new_empty(len(x), units)
        ctx.given = (*_arrays(x, bias), kind, mask)
        over_tokens(len(x), lambda *share: layers.activate(*share, *ctx.given, result.numpy()))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_result: Tensor) -> tuple[Tensor | None, ...]:
        x, bias, *_ = ctx.given
        grad, d_x = d_result.contiguous().numpy(), np.empty_like(x)

        def run(first: int, last: int) -> npt.NDArray[np.float32]:
            d_bias = np.zeros_like(bias)
            layers.activate_back(first, last, *ctx.given, grad, d_x, d_bias)
            return d_bias

        d_bias = sum(over_tokens(len(x), run))
        return None, None, torch.from_numpy(d_x), torch.from_numpy(d_bias)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mask: Mask,
        base: Tensor,
        added: Tensor,
        bias: Tensor,
        gate: Tensor,
        gate_bias: Tensor,
        gain: Tensor,
        shift: Tensor,
    ) -> tuple[Tensor, Tensor]:
        total, normed, moments = (
            torch.empty_like(base),
            torch.empty_like(base),
            base.new_empty(len(base), 2),
        )
        given = Sublayer(
            *_arrays(base, added, bias, gate, gate_bias, torch.stack([gain, shift]), total, moments)
        )
        over_tokens(len(base), lambda *share: layers.join(*share, given, mask, normed.numpy()))
        ctx.given, ctx.mask = given, mask
        ctx.set_materialize_grads(False)
        return total, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor | None, d_normed: Tensor) -> tuple[Tensor | None, ...]:
        given, mask = ctx.given, ctx.mask
        none = given.base[:0]
        grads = [none if d is None else d.contiguous().numpy() for d in (d_total, d_normed)]
        plain = mask.kept == ALL and not len(given.gate)
        d_base = np.empty_like(given.base)
        d_added = none if plain else np.empty_like(given.base)
        d_gate = np.empty_like(given.gate)

        def run(first: int, last: int) -> npt.NDArray[np.float32]:
            sums = np.zeros((4, given.base.shape[1]), np.float32)
            d_given = Sublayer(d_base, d_added, sums[0], d_gate, sums[1], sums[2:], none, none)
            layers.join_back(first, last, given, mask, *grads, d_given)
            return sums

        sums = torch.from_numpy(sum(over_tokens(len(d_base), run)))
        d_x = torch.from_numpy(d_base)
        d_added_ = d_x if plain else torch.from_numpy(d_added)
        return None, d_x, d_added_, sums[0], torch.from_numpy(d_gate), sums[1], sums[2], sums[3]


def _projected(
    parts: tuple[Tensor, ...], bias: Tensor, angles: npt.NDArray[np.float32]
) -> Projected:
    query, *others = _arrays(*parts, bias)
    units = len(bias) // 3
    both, key = (others[0], 0) if len(parts) == 2 else (query, units)
    return Projected(query, both, key, others[-1].reshape(3, units), angles)


def _room(longest: int, units: int, heads: int) -> Room:
    shapes = (
        (3, longest * units),
        (4, longest * units),
        (2, longest * max(TILE, heads)),
        (2, TILE * units),
        (TILE,),
        (TILE,),
    )
    return Room(*(np.empty(shape, np.float32) for shape in shapes))


def _arrays(*tensors: Tensor) -> list[npt.NDArray[Any]]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
