"""The original encoder on rows without padding, by the kernels in `kernels/`, as a torch function.

One pass through all blocks, row by row in the cache: twice as quick as torch's operations on packed
rows, which is how the other architectures are computed.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tune_srs.kernels.compiled import Array
from tune_srs.kernels.encoder import (
    TILE,
    Saved,
    Scratch,
    Turned,
    Weights,
    encode_last_rows,
    encode_rows,
    encode_rows_back,
    num_pairs,
    row_starts,
)
from tune_srs.kernels.threads import in_threads
from tune_srs.model.dropout import Dropout

if TYPE_CHECKING:
    from tune_srs.model.sasrec import Block, SASRec

Shape = tuple[int, ...]  # N blocks, H heads, D units, E = D / H units a head


class PackedEncoder:
    """Encodes the rows of a batch with a model's weights; its memory serves batch after batch.

    It does not hold the model: in a cycle both would stay until Python looks for such.
    """

    def __init__(self) -> None:
        self._room: dict[str, Array] = {}
        self.passes = 0

    def __call__(
        self, model: "SASRec", table: Tensor, items: Tensor, following: Tensor, offsets: Tensor
    ) -> Tensor:
        """Features that predict what follows each of T tokens: (T, D), with gradients.

        `table` (I, D) item embeddings, `items` (T,) rows of it, `following` (T,) as in
        `SASRec.place`; row b's tokens are `offsets[b]` to `offsets[b + 1]`. Gradients can be had
        for the last batch only: the next one takes its room.
        """
        positions = cast(nn.Embedding, model.positions)
        given = (items, model.place(following), offsets, table, positions.weight)
        features: Tensor = _Encode.apply(  # type: ignore[no-untyped-call]
            self, model.dropout, *given, *weights_of(model)
        )
        return features

    @torch.no_grad()
    def last(self, model: "SASRec", items: Tensor, lengths: Tensor) -> Tensor:
        """Features (B, D) of the last item of each row: `items` (B, L) aligned left, `lengths`."""
        if items.numel() and not 0 <= int(items.min()) <= int(items.max()) <= model.num_items:
            raise IndexError(f"items must be 0 ... {model.num_items}, but got {items}")
        if not 1 <= int(lengths.min()) <= int(lengths.max()) <= model.max_length:
            raise IndexError(f"lengths must be 1 ... {model.max_length}, but got {lengths}")
        weights = _arrays(weights_of(model))
        shape, turned = weights.query.shape, _turned(weights)
        most = int(lengths.max())
        features = torch.empty(len(items), shape[2])
        positions = cast(nn.Embedding, model.positions)
        tables = (model.items.weight.numpy(), positions.weight.numpy())

        def run(thread: int, first: int, last: int) -> None:
            saved = self.saved(shape, most, num_pairs(most), f"last {thread}")
            room = self.scratch(shape, most, thread)
            room.mask.fill(1)
            given = (items.numpy(), lengths.numpy(), *tables, weights, turned, saved, room)
            encode_last_rows(first, last, *given, features.numpy())

        in_threads(np.append(0, lengths.cumsum(0).numpy()), run)
        return features

    def saved(self, shape: Shape, tokens: int, pairs: int, name: str) -> Saved:
        blocks, heads, units, of_head = shape
        shapes = (
            (blocks + 1, tokens, units),
            *[(blocks, heads, tokens, of_head)] * 4,
            *[(blocks, tokens, units)] * 2,
            (blocks, heads, pairs),
            (blocks, 2, tokens, 2),
            (tokens, 2),
        )
        return Saved(*self._take(name, shapes))

    def scratch(self, shape: Shape, length: int, thread: int) -> Scratch:
        _, _, units, of_head = shape
        shapes = (
            (5, length, units),
            (5, length * of_head),
            (length * 2 * of_head,),
            (2, length * TILE),
            (of_head * TILE,),
            (3, TILE),
            (TILE,),
            (-(-length * units // 32), 32),
            (2 * units * units,),
        )
        room = Scratch(*self._take(f"scratch {thread}", shapes))  # type: ignore[arg-type]
        return room._replace(exponents=room.exponents.view(np.int32))

    def __deepcopy__(self, memo: dict[int, Any]) -> "PackedEncoder":
        return PackedEncoder()

    def _take(self, name: str, shapes: Sequence[Shape]) -> list[Array]:
        """Arrays with arbitrary content; the same memory under the same name."""
        sizes = [math.prod(shape) for shape in shapes]
        starts = np.cumsum([0] + [-(-size // 16) * 16 for size in sizes])  # whole cache lines
        if name not in self._room or len(self._room[name]) < starts[-1]:
            self._room[name] = np.empty(starts[-1] * 5 // 4, np.float32)
        room = self._room[name]
        return [
            room[start : start + size].reshape(shape)
            for start, size, shape in zip(starts, sizes, shapes, strict=False)
        ]


def weights_of(model: "SASRec") -> tuple[Tensor, ...]:
    """The weights of its encoder as `Weights` has them."""
    blocks = [cast("Block", block) for block in model.blocks]
    attentions = [block.attention for block in blocks]
    inner = [cast(nn.Linear, block.feed_forward[0]) for block in blocks]
    outer = [cast(nn.Linear, block.feed_forward[3]) for block in blocks]
    heads = attentions[0].num_heads

    def norm(module: nn.LayerNorm) -> Tensor:
        return torch.stack([module.weight, module.bias])

    def by_head(weight: Tensor, parts: int = 1) -> Tensor:
        """(parts D, ...) → (H, parts E, ...)"""
        split = weight.view(parts, heads, -1, *weight.shape[1:])
        return split.transpose(0, 1).flatten(1, 2)

    return (
        torch.stack([norm(block.attention_norm) for block in blocks]),
        torch.stack([by_head(each.query.weight).mT for each in attentions]),
        torch.stack([by_head(each.query.bias) for each in attentions]),
        torch.stack([by_head(each.key_value.weight, 2).mT for each in attentions]),
        torch.stack([by_head(each.key_value.bias, 2) for each in attentions]),
        torch.stack([by_head(each.output.weight.T) for each in attentions]),
        torch.stack([each.output.bias for each in attentions]),
        torch.stack([norm(block.feed_forward_norm) for block in blocks]),
        torch.stack([each.weight.T for each in inner]),
        torch.stack([each.bias for each in inner]),
        torch.stack([each.weight.T for each in outer]),
        torch.stack([each.bias for each in outer]),
        norm(cast(nn.LayerNorm, model.norm)),
    )


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        encoder: PackedEncoder,
        dropout: Dropout,
        items: Tensor,
        place: Tensor,
        offsets: Tensor,
        table: Tensor,
        positions: Tensor,
        *stacked: Tensor,
    ) -> Tensor:
        weights = _arrays(stacked)
        blocks, heads, units, _ = shape = weights.query.shape
        lengths = np.diff(offsets.numpy())
        starts = row_starts(lengths, units, blocks, heads)
        words, scale = dropout.words(int(starts[-1, 2]))
        saved = encoder.saved(shape, len(items), int(starts[-1, 1]), "batch")
        features = torch.empty(len(items), units)
        tokens = (starts, items.numpy(), place.numpy())
        tables = (table.detach().numpy(), positions.detach().numpy())

        def run(thread: int, first: int, last: int) -> None:
            room = encoder.scratch(shape, int(lengths.max()), thread)
            result = features.numpy()
            encode_rows(first, last, *tokens, *tables, weights, words, scale, saved, room, result)

        in_threads(starts[:, 0], run)
        encoder.passes += 1
        ctx.encoder, ctx.passes, ctx.tables = encoder, encoder.passes, tables
        ctx.given = (*tokens, weights, _turned(weights), words, scale, saved)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        encoder, (starts, _, _, weights, *_) = ctx.encoder, ctx.given
        if encoder.passes != ctx.passes:
            raise RuntimeError("only the last batch of a packed encoder can be gone back through")
        shape, most = weights.query.shape, int(np.diff(starts[:, 0]).max())
        array = grad.contiguous().numpy()

        def run(thread: int, first: int, last: int) -> list[Array]:
            of = [np.zeros_like(part) for part in (*ctx.tables, *weights)]
            room = encoder.scratch(shape, most, thread)
            into = (array, of[0], of[1], Weights(*of[2:]))
            given: tuple[Any, ...] = (first, last, *ctx.given, room, *into)
            encode_rows_back(*given)
            return of

        total, *others = in_threads(starts[:, 0], run)
        for part in others:
            for one, other in zip(total, part, strict=True):
                one += other
        return None, None, None, None, None, *(torch.from_numpy(part) for part in total)


def _arrays(stacked: Sequence[Tensor]) -> Weights:
    return Weights(*(tensor.detach().contiguous().numpy() for tensor in stacked))


def _turned(weights: Weights) -> Turned:
    matrices = (getattr(weights, name) for name in Turned._fields)
    return Turned(*(np.ascontiguousarray(matrix.swapaxes(-1, -2)) for matrix in matrices))
