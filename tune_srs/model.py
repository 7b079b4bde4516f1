"""SASRec: self-attention over a user's history, scored against the item embeddings.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (arXiv 1808.09781).

Sequences are aligned left: what is padding follows the last item, where under the causal mask no
item attends to it. Positions count back from the end: the item a prediction starts from has the
same position whatever the length, as in the original.

The same numbers come in two ways: in torch on padded rows, on any device (`encode`), and on the
CPU by compiled kernels on rows without padding (`packed.py`), several times as quick.

Shapes: B rows, L columns, T tokens of all rows without padding, D hidden units, I items.
"""

import math
from functools import cached_property
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from tune_srs.attention import CausalAttention
from tune_srs.config import ModelConfig
from tune_srs.dropout import Dropout

if TYPE_CHECKING:
    from tune_srs.packed import PackedEncoder


class Block(nn.Module):
    """Attention and a point-wise feed-forward, each with its residual, normed as in the original:

    the residual of the attention starts from the normed query.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        units = config.hidden_units
        self.attention_norm = nn.LayerNorm(units, eps=1e-8)
        self.attention = CausalAttention(config, generator)
        self.feed_forward_norm = nn.LayerNorm(units, eps=1e-8)
        self.feed_forward = nn.Sequential(
            nn.Linear(units, units),
            Dropout(config.dropout, generator),
            nn.ReLU(),
            nn.Linear(units, units),
            Dropout(config.dropout, generator),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) → (B, L, D)"""
        query = self.attention_norm(x)
        return self._feed(query + self.attention(query, x))

    def last(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The same at the last column before the padding only: (B, L, D) → (B, D)."""
        rows, columns = (torch.arange(size, device=x.device) for size in x.shape[:2])
        query = self.attention_norm(x[rows, lengths - 1])  # (B, D)
        return self._feed(query + self.attention.last(query, x, columns < lengths[:, None]))

    def _feed(self, x: Tensor) -> Tensor:
        x = self.feed_forward_norm(x)
        result: Tensor = x + self.feed_forward(x)
        return result


class SASRec(nn.Module):
    """The model. `generator` (CPU) draws the initial weights, and the dropout masks of a model

    that stays on the CPU.
    """

    def __init__(self, config: ModelConfig, num_items: int, generator: torch.Generator) -> None:
        super().__init__()
        self.max_length = config.max_length
        self.num_items = num_items
        self.items = nn.Embedding(num_items + 1, config.hidden_units, padding_idx=0)
        self.positions = nn.Embedding(config.max_length, config.hidden_units)
        self.dropout = Dropout(config.dropout, generator)
        self.blocks = nn.ModuleList(Block(config, generator) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(config.hidden_units, eps=1e-8)
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
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

    @cached_property
    def packed(self) -> "PackedEncoder":
        """The encoder by compiled kernels, on the CPU."""
        from tune_srs.packed import PackedEncoder  # here: training on a GPU needs no Numba

        return PackedEncoder()

    def place(self, following: Tensor) -> Tensor:
        """The position of an item which is the first of `following` items to be predicted, >= 1.

        1 at the last item of a row, at most `max_length`; at padding, 0, anything.
        """
        return (self.max_length - following).clamp(max=self.max_length - 1)

    def encode(self, embedded: Tensor, following: Tensor) -> Tensor:
        """Features that predict what follows each item: (B, L, D).

        `embedded` (B, L, D) item embeddings, `following` (B, L) as in `place`; what stands at
        padding is meaningless.
        """
        x = self._placed(embedded, following)
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.norm(x)
        return features

    def _placed(self, embedded: Tensor, following: Tensor) -> Tensor:
        """Item embeddings with their positions: (B, L, D)."""
        x = embedded * math.sqrt(embedded.shape[-1]) + self.positions(self.place(following))
        placed: Tensor = self.dropout(x)
        return placed

    def queries(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Histories as what items are scored against: `items` (B, L), `lengths` (B,) → (B, D).

        Without gradients and dropout on the CPU this is the packed encoder's work.
        """
        if items.device.type == "cpu" and not (self.training or torch.is_grad_enabled()):
            return self.packed.last(self, items, lengths)
        following = lengths[:, None] - torch.arange(items.shape[1], device=items.device)  # (B, L)
        x = self._placed(self.items(items), following.clamp(min=0))
        for block in self.blocks[:-1]:
            x = block(x)
        last_block = cast(Block, self.blocks[-1])
        last: Tensor = self.norm(last_block.last(x, lengths))
        return last

    def scores(self, queries: Tensor, items: slice) -> Tensor:
        """Scores of `items` as the next one: `queries` (B, D) → (B, number of items)."""
        scores: Tensor = queries @ self.items.weight[items].T
        return scores
