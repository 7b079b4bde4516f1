"""SASRec: self-attention over a user's history, scored against the item embeddings.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (arXiv 1808.09781), and what
later work changed in its parts: see `ModelConfig`.

Sequences are aligned left: what is padding follows the last item, where under the causal mask no
item attends to it. Positions count back from the end: the item a prediction starts from has the
same position whatever the length, as in the original.

A `Rows` object computes. `PaddedRows` (`padded.py`) use plain torch on any device and are the
reference; `PackedRows` (`packed.py`) have no padding and use compiled kernels on the CPU. What
predicts uses the kind that `rows_for` picks for the device, once per model; what trains passes its
rows, whose kind `training.loop.packs` picks.

Shapes: B rows, L columns, T tokens of all rows without padding, D hidden units, I items. (…) is
(B, L) of padded rows, (T,) of packed ones.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from tune_srs.config.settings import ModelConfig
from tune_srs.model.attention import CausalAttention, angles_of
from tune_srs.model.dropout import Dropout
from tune_srs.model.padded import PaddedRows, Rows

EPSILON = 1e-8  # of the layer norms, as in the original; the kernels know it, too
MAX_ROWS = 64  # encoded at once where nothing is trained
CPU = torch.device("cpu")
Stream = tuple[Tensor, Tensor]  # what enters a block or sublayer, and its norm: (…, D) each
Layers = tuple[nn.Linear, nn.Module, Dropout, nn.Linear, Dropout]  # of a feed-forward


class Gate(nn.Module):
    """A sublayer's gate: sigmoid(W x + b) of what entered it times what it adds, as in LiGR.

    Borisyuk et al. 2025, arXiv 2502.03417; in sequential models: eSASRec, arXiv 2508.06450.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(units, units)


class Block(nn.Module):
    """Attention and a point-wise feed-forward, each with its residual and layer norm.

    With f a sublayer and n its norm: `pre` x + f(n(x)); `post` n(x + f(x)); `original`, of SASRec,
    n(x) + f(n(x)), where attention has only its query normed.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        units = config.hidden_units
        inner = units * config.feed_forward_factor
        self.norm = config.norm
        self.activation = config.activation
        self.attention_norm = nn.LayerNorm(units, eps=EPSILON)
        self.attention = CausalAttention(config, generator)
        self.feed_forward_norm = nn.LayerNorm(units, eps=EPSILON)
        self.feed_forward = nn.Sequential(
            nn.Linear(units, 2 * inner if config.activation == "swiglu" else inner),
            nn.Identity(),  # the activation, which has no weights
            Dropout(config.dropout, generator),
            nn.Linear(inner, units),
            Dropout(config.dropout, generator),
        )
        self.gates = nn.ModuleList(Gate(units) for _ in range(2 if config.gates else 0))

    def initialise_as_the_paper(self, generator: torch.Generator) -> None:
        """Draw again what the code of arXiv 2305.10824 draws from other distributions."""
        attention, units = self.attention, self.attention.query.in_features
        for projection in (attention.query, attention.key_value):
            width = math.sqrt(2 / (units + 3 * units))  # Xavier's, of a matrix (3 D, D)
            nn.init.normal_(projection.weight, std=width, generator=generator)
        for layer in self.feed_forward:
            if isinstance(layer, nn.Linear):
                bound = 1 / math.sqrt(layer.in_features)
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)

    def forward(self, x: Tensor, normed: Tensor, rows: Rows, behind: nn.Module) -> Stream:
        """Map the input of this block and its norm, (…, D) each, to those of the next block.

        `behind` is the first norm of the next block or, after the last block, the model's own. With
        `post` the block does not use it, and `x` and `normed` are the same tensor.
        """
        mixed = rows.attend(self.attention, normed, normed if self.norm == "pre" else x)
        return self._joined(x, normed, mixed, rows, behind)

    def last(self, x: Tensor, normed: Tensor, rows: Rows, behind: nn.Module) -> Stream:
        """As `forward`, for the last item of each row alone: (…, D) each → (B, D) each.

        Attention mixes its inputs first, and only the mix is projected to values: once per row,
        not once per item.
        """
        seen = normed if self.norm == "pre" else x
        x, normed = rows.last(x), rows.last(normed)
        mixed = self.attention.values(rows.attend_last(self.attention, normed, seen))
        return self._joined(x, normed, mixed, rows, behind)

    def _joined(
        self, x: Tensor, normed: Tensor, mixed: Tensor, rows: Rows, behind: nn.Module
    ) -> Stream:
        """Add what attention has mixed, then the feed-forward."""
        first, _, inner_dropout, second, dropout = cast(Layers, tuple(self.feed_forward))
        middle, after = self.attention_norm, self.feed_forward_norm
        if self.norm != "post":
            middle, after = after, cast(nn.LayerNorm, behind)
        x, normed = self._added(0, x, normed, rows, mixed, self.attention.output, None, middle)
        inner = rows.activate(normed, first, self.activation, inner_dropout)
        return self._added(1, x, normed, rows, inner, second, dropout, after)

    def _added(
        self,
        sublayer: int,
        x: Tensor,
        normed: Tensor,
        rows: Rows,
        inner: Tensor,
        linear: nn.Linear,
        dropout: Dropout | None,
        norm: nn.LayerNorm,
    ) -> Stream:
        """Add what a sublayer ends with: `linear` of `inner`; `norm` is the one behind it."""
        gate = (cast(Gate, self.gates[sublayer]).linear, x) if self.gates else None
        base = normed if self.norm == "original" else x
        total, normed = rows.join(base, inner, linear, dropout, gate, norm)
        return (normed if self.norm == "post" else total), normed


class Sinusoids(nn.Module):
    """Sines and cosines of a position in place of a learned embedding: `weight` (places, D).

    Vaswani et al. 2017, arXiv 1706.03762, section 3.5.
    """

    weight: Tensor

    def __init__(self, max_length: int, units: int) -> None:
        super().__init__()
        cosine, sine = angles_of(torch.arange(max_length), units)
        table = torch.cat([sine, cosine], dim=-1)[:, :units]
        self.register_buffer("weight", table, persistent=False)


# of rotary ones, attention turns its queries and keys instead
POSITIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "learned": nn.Embedding,
    "sinusoidal": Sinusoids,
}


class SASRec(nn.Module):
    """The model. `generator` (CPU) draws the initial weights.

    It also draws the dropout masks, until `draw_dropout_from` sets another. `device` is where the
    model will compute, which decides how: see `rows_for`.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_items: int,
        generator: torch.Generator,
        device: torch.device = CPU,
    ) -> None:
        super().__init__()
        units, dropout = config.hidden_units, config.embedding_dropout
        self.config = config
        self.max_length = config.max_length
        self.num_items = num_items
        self.items = nn.Embedding(num_items + 1, units, padding_idx=0)
        self.item_bias = nn.Parameter(torch.zeros(num_items + 1)) if config.item_bias else None
        positions = POSITIONS.get(config.positions)
        self.positions: nn.Module | None = positions and positions(config.max_length, units)
        self.dropout = Dropout(config.dropout if dropout is None else dropout, generator)
        self.blocks = nn.ModuleList(Block(config, generator) for _ in range(config.num_blocks))
        post = config.norm == "post"  # whose last block has been normed
        self.norm = nn.Identity() if post else nn.LayerNorm(units, eps=EPSILON)
        self.rows = rows_for(device)
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator) -> None:
        """Draw the weights; those of `norm: original` are as wide as in the paper's code.

        There query, key and value are one matrix (3 D, D), and the feed-forward's biases are those
        of torch's convolutions.
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        if self.config.norm == "original":
            for block in self.blocks:
                cast(Block, block).initialise_as_the_paper(generator)
        with torch.no_grad():
            self.items.weight[0] = 0

    def draw_dropout_from(self, generator: torch.Generator) -> None:
        """Draw the masks from `generator`, which must be on the device of the model."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator

    def fuse_attention(self) -> None:
        """Use torch's attention kernels; their dropout draws from torch's global generator."""
        for module in self.modules():
            if isinstance(module, CausalAttention):
                module.fused = True

    def place(self, following: Tensor) -> Tensor:
        """Return each item's row in the table of positions.

        `following` counts the items from this one to the end of its row: 1 at the last item, at
        most `max_length`. At padding it is 0, and the result has no meaning.
        """
        return (self.max_length - following).clamp(max=self.max_length - 1)

    def encode(self, table: Tensor, items: Tensor, rows: Rows) -> Tensor:
        """Features that predict what follows each item: (…, D).

        `items` are rows of the `table` (I, D) of item embeddings, one for each place of `rows`;
        what stands at padding is meaningless.
        """
        x, normed = self._entered(table, items, rows)
        for block, behind in self._blocks():
            x, normed = block(x, normed, rows, behind)
        return normed

    def last(self, table: Tensor, items: Tensor, rows: Rows) -> Tensor:
        """`encode`, for the last item of each row alone: (B, D)."""
        x, normed = self._entered(table, items, rows)
        *before, (top, norm) = self._blocks()
        for block, behind in before:
            x, normed = block(x, normed, rows, behind)
        return top.last(x, normed, rows, norm)[1]

    def _entered(self, table: Tensor, items: Tensor, rows: Rows) -> Stream:
        """Return the embeddings of `items` and their norm; with `post`, the embeddings twice."""
        scale = math.sqrt(table.shape[1]) if self.config.scale_embedding else 1.0
        positions = None
        if self.positions is not None:
            positions = (cast(Tensor, self.positions.weight), self.place(rows.following))
        x = rows.embed(table, items, scale, positions, self.dropout)
        if self.config.norm == "post":
            return x, x
        return x, cast(Block, self.blocks[0]).attention_norm(x)

    def _blocks(self) -> list[tuple[Block, nn.Module]]:
        """Each block with the norm behind it."""
        blocks = [cast(Block, block) for block in self.blocks]
        behind = [*(block.attention_norm for block in blocks[1:]), self.norm]
        return list(zip(blocks, behind, strict=True))

    @torch.no_grad()
    def queries(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Histories as what items are scored against: `items` (B, L), `lengths` (B,) → (B, D).

        Rows of `items` are aligned left. Without gradients, and in evaluation mode.
        """
        if not 1 <= int(lengths.min()) <= int(lengths.max()) <= self.max_length:
            raise IndexError(f"lengths must be 1 ... {self.max_length}, but got {lengths}")
        found = []
        for chunk in zip(*(torch.split(x, MAX_ROWS) for x in (items, lengths)), strict=True):
            rows, of_rows = self.rows.of(*chunk)
            found.append(self.last(self.items.weight, of_rows, rows))
        return torch.cat(found)

    def scores(self, queries: Tensor, items: slice) -> Tensor:
        """Scores of `items` as the next one: `queries` (B, D) → (B, number of items)."""
        scores: Tensor = queries @ self.items.weight[items].T
        return scores if self.item_bias is None else scores + self.item_bias[items]

    def scoring(self, features: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """`features` (T, D) and the items' `table` (I, D) such that their products are the scores.

        With a bias it is one more column, and 1 one more feature.
        """
        if self.item_bias is None:
            return features, table
        ones = features.new_ones(len(features), 1)
        return torch.cat([features, ones], 1), torch.cat([table, self.item_bias[:, None]], 1)


def rows_for(device: torch.device) -> type[Rows]:
    """How rows are computed on `device`: packed by kernels on the CPU, or else padded in torch."""
    if device.type != "cpu":
        return PaddedRows
    from tune_srs.model.packed import PackedRows  # here: training on a GPU needs no Numba

    return PackedRows
