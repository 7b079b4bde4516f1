"""What `padded.py` computes, on rows without padding, by compiled kernels: the CPU's way.

Each operation is one matrix product of torch and one kernel that does the rest. A
`torch.autograd.Function` wraps each kernel and its gradient. float32 only. The causal mask is in
`kernels/attention.py`.

Shapes: B rows, T tokens of all rows, H heads, D hidden units, E = D / H, F inner units.
"""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tune_srs.kernels import attention as attention_kernels
from tune_srs.kernels import sublayers
from tune_srs.kernels.arithmetic import ALL, Mask
from tune_srs.kernels.attention import TILE, Attention, Room, Slopes
from tune_srs.kernels.compiled import Array, Integers
from tune_srs.kernels.sublayers import Sublayer
from tune_srs.kernels.threads import in_threads, over_tokens
from tune_srs.model.attention import CausalAttention, angles_of
from tune_srs.model.dropout import Dropout

KINDS = {"relu": sublayers.RELU, "gelu": sublayers.GELU, "swiglu": sublayers.SWIGLU}


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
        of_places, places = positions or (table.new_empty(0, table.shape[1]), items)
        where = torch.stack([items, places])
        embedded: Tensor = _Embed.apply(mask_of(dropout), scale, where, table, of_places)  # type: ignore[no-untyped-call]
        return embedded

    def attend(self, attention: CausalAttention, query: Tensor, x: Tensor) -> Tensor:
        to_query, to_both = attention.query, attention.key_value
        bias = torch.cat([to_query.bias, to_both.bias])  # (3 D,)
        parts: list[Tensor]
        if query is x:  # then one product is quicker than two
            parts = [x @ torch.cat([to_query.weight, to_both.weight]).T]  # (T, 3 D)
        else:
            parts = [query @ to_query.weight.T, x @ to_both.weight.T]  # (T, D), (T, 2 D)
        mask, angles = mask_of(attention.dropout), self._angles(attention)
        given = (self, attention.num_heads, mask, angles, bias)
        mixed: Tensor = _Attend.apply(*given, *parts)  # type: ignore[no-untyped-call]
        return mixed

    def attend_last(self, attention: CausalAttention, query: Tensor, x: Tensor) -> Tensor:
        to_query, to_both = attention.query, attention.key_value
        to_key, bias = to_both.weight.chunk(2)[0], torch.cat([to_query.bias, to_both.bias])
        heads, units = attention.num_heads, x.shape[1] // attention.num_heads
        parts = (query @ to_query.weight.T, x @ to_key.T)
        angles, none = self._angles(attention), np.empty(0, np.float32)
        given = _attention(self, parts, bias, angles, self.offsets[:0], none, False, none)
        mixed = x.new_empty(len(query), heads, x.shape[1])
        seen, result = _arrays(x, mixed)

        def run(first: int, last: int) -> None:
            room = _room(self.longest, units, heads)
            attention_kernels.attend_last(first, last, given, seen, room, result)

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

    def _angles(self, attention: CausalAttention) -> Array:
        """(2, longest row, E / 2), or (2, 0, 0): of rotary positions only distances count."""
        if not attention.rotary:
            return np.empty((2, 0, 0), np.float32)
        units = attention.query.out_features // attention.num_heads
        return torch.stack(angles_of(torch.arange(self.longest), units)).numpy()


def num_pairs(lengths: Integers) -> Integers:
    """Return how many attention weights each row stores per head.

    Queries go in tiles; each tile stores a weight for every key up to its end.
    """
    tiles, rest = np.divmod(lengths, TILE)
    pairs: Integers = TILE * TILE * tiles * (tiles + 1) // 2 + rest * lengths
    return pairs


def mask_of(dropout: Dropout | None) -> Mask:
    """Return the mask of one call, from 64 random bits: a key, and an odd step between draws.

    A hash of both gives the same bits per element again in the backward pass.
    """
    if dropout is None or not dropout.drops:
        return Mask(np.uint32(0), np.uint32(1), np.uint32(ALL), np.float32(1))
    key, step = divmod(dropout.key(), 2**32)
    kept, scale = np.uint32(dropout.kept), np.float32(dropout.scale)
    return Mask(np.uint32(key), np.uint32(step | 1), kept, scale)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, mask: Mask, scale: float, where: Tensor, table: Tensor, positions: Tensor
    ) -> Tensor:
        """`where` (2, T): which rows of `table` (I, D) and of `positions` (places or 0, D)."""
        items = where[0]
        if not 0 <= int(items.min()) <= int(items.max()) < len(table):
            raise IndexError(f"items must be 0 ... {len(table) - 1}, but got {items}")
        x = table.new_empty(len(items), table.shape[1])
        rows, *tables, result = _arrays(where, table, positions, x)
        sublayers.embed(rows, tables[0], tables[1], np.float32(scale), mask, result)
        ctx.given = (rows, np.float32(scale), mask, table.shape, positions.shape)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_x: Tensor) -> tuple[Tensor | None, ...]:
        rows, scale, mask, *shapes = ctx.given
        d_table, d_positions = (np.zeros(shape, np.float32) for shape in shapes)
        sublayers.embed_back(rows, d_table, d_positions, scale, mask, *_arrays(d_x))
        return None, None, None, torch.from_numpy(d_table), torch.from_numpy(d_positions)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: PackedRows,
        heads: int,
        mask: Mask,
        angles: Array,
        bias: Tensor,
        *parts: Tensor,
    ) -> Tensor:
        """`parts`: queries, keys and values (T, 3 D), or queries (T, D) and the others (T, 2 D)."""
        longest, units = rows.longest, len(bias) // 3 // heads
        mixed = bias.new_empty(len(parts[0]), heads * units)
        keeps = any(ctx.needs_input_grad)
        starts = heads * rows.pair_starts
        pairs = _taken(int(starts[-1])) if keeps else np.empty(longest * TILE, np.float32)
        given = _attention(rows, parts, bias, angles, starts, pairs, keeps, *_arrays(mixed))

        def run(first: int, last: int) -> None:
            own = given if keeps else given._replace(pairs=np.empty_like(pairs))  # of this thread
            attention_kernels.attend(first, last, own, mask, _room(longest, units))

        in_threads(rows.offsets, run)
        ctx.given, ctx.mask, ctx.room = given, mask, (longest, units)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mixed: Tensor) -> tuple[Tensor | None, ...]:
        given: Attention | None = ctx.given
        if given is None:
            raise RuntimeError("attention on packed rows can be gone back through once only")
        d_query = np.empty_like(given.query)
        both = given.query is given.key_value
        d_key_value = d_query if both else np.empty_like(given.key_value)
        (grad,) = _arrays(d_mixed)

        def run(first: int, last: int) -> Array:
            slopes = Slopes(grad, d_query, d_key_value, np.zeros_like(given.bias))
            attention_kernels.attend_back(first, last, given, ctx.mask, _room(*ctx.room), slopes)
            return slopes.bias

        d_bias = np.add.reduce(in_threads(given.offsets, run)).reshape(-1)
        _free.append(given.pairs)
        ctx.given = None
        d_parts = (d_query,) if both else (d_query, d_key_value)
        return None, None, None, None, *map(torch.from_numpy, (d_bias, *d_parts))


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mask: Mask, kind: int, x: Tensor, bias: Tensor) -> Tensor:
        active = x.new_empty(len(x), x.shape[1] // (2 if kind == sublayers.SWIGLU else 1))
        given, of_bias, result = _arrays(x, bias, active)

        def run(first: int, last: int) -> None:
            sublayers.activate(first, last, given, of_bias, kind, mask, result)

        over_tokens(len(x), run)
        ctx.given = (given, of_bias, kind, mask)
        return active

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_active: Tensor) -> tuple[Tensor | None, ...]:
        x, bias, kind, mask = ctx.given
        (grad,), d_x = _arrays(d_active), np.empty_like(x)

        def run(first: int, last: int) -> Array:
            d_bias: Array = np.zeros_like(bias)
            sublayers.activate_back(first, last, x, bias, kind, mask, grad, d_x, d_bias)
            return d_bias

        d_bias = np.add.reduce(over_tokens(len(x), run))
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
        *norm: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """`norm`: gain and bias. Returns the sum and its norm."""
        total, normed = torch.empty_like(base), torch.empty_like(base)
        both = (torch.stack(norm), total, base.new_empty(len(base), 2))
        *given, result = _arrays(base, added, bias, gate, gate_bias, *both, normed)
        sublayer = Sublayer(*given)

        def run(first: int, last: int) -> None:
            sublayers.join(first, last, sublayer, mask, result)

        over_tokens(len(base), run)
        ctx.given, ctx.mask = sublayer, mask
        ctx.set_materialize_grads(False)  # of the sum, there may be none
        return total, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor | None, d_normed: Tensor) -> tuple[Tensor | None, ...]:
        given, mask = ctx.given, ctx.mask
        units, none = len(given.bias), given.base[:0]
        (grad, of_total) = (none if d is None else _arrays(d)[0] for d in (d_normed, d_total))
        plain = mask.kept == ALL and not len(given.gate)  # then both summands have one gradient
        d_base, d_gate = np.empty_like(given.base), np.empty_like(given.gate)
        d_added = none if plain else np.empty_like(d_base)

        def run(first: int, last: int) -> Array:
            sums = np.zeros((4, units), np.float32)
            slopes = Sublayer(d_base, d_added, sums[0], d_gate, sums[1], sums[2:], none, none)
            sublayers.join_back(first, last, given, mask, of_total, grad, slopes)
            return sums

        sums = torch.from_numpy(np.add.reduce(over_tokens(len(d_base), run)))
        d_sum = torch.from_numpy(d_base)  # one tensor for both: autograd adds to what it owns alone
        summands = (d_sum, d_sum if plain else torch.from_numpy(d_added))
        return None, *summands, sums[0], torch.from_numpy(d_gate), sums[1], sums[2], sums[3]


_free: list[Array] = []  # memory of attention weights that have served, for the next batch's


def _taken(size: int) -> Array:
    """Memory for `size` numbers, old if possible: fresh pages cost a tenth of a step."""
    try:
        memory = _free.pop()
    except IndexError:
        memory = np.empty(0, np.float32)
    return memory if len(memory) >= size else np.empty(size * 5 // 4, np.float32)


def _attention(
    rows: PackedRows,
    parts: tuple[Tensor, ...],
    bias: Tensor,
    angles: Array,
    starts: Integers,
    pairs: Array,
    keeps: bool,
    mixed: Array,
) -> Attention:
    query, *others, of_all = _arrays(*parts, bias)
    units = len(of_all) // 3
    both, key = (others[0], 0) if others else (query, units)
    of_parts = of_all.reshape(3, units)
    given = (rows.offsets, starts, query, both, key, of_parts, angles, pairs, int(keeps), mixed)
    return Attention(*given)


def _room(longest: int, units: int, heads: int = 1) -> Room:
    tile = longest * max(TILE, heads)
    shapes = (3, longest * units), (4, longest * units), (2, tile), (2, TILE * units), TILE, TILE
    return Room(*(np.empty(shape, np.float32) for shape in shapes))


def _arrays(*tensors: Tensor) -> list[npt.NDArray[Any]]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
