"""SASRec: self-attention over a user's history, scored against the item embeddings.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (arXiv 1808.09781).

Sequences of similar length form a group of rows, aligned left: what is padding follows the last
item, where under the causal mask no item attends to it. Groups lie one after another, so that all
that looks at one item alone is computed for every group at once. Positions count back from the
end: the item a prediction starts from has the same position whatever the length, as in the
original.

Shapes: S slots, of which each group takes rows x columns; B rows, L columns of one group,
D hidden units, I items.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn

from tune_srs.attention import CausalAttention, Shapes
from tune_srs.config import ModelConfig
from tune_srs.dropout import Dropout


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

    def forward(self, x: Tensor, shapes: Shapes) -> Tensor:
        """(S, D) → (S, D)"""
        query = self.attention_norm(x)
        return self._feed(query + self.attention(query, x, shapes))

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

    def encode(self, embedded: Tensor, following: Tensor, shapes: Shapes) -> Tensor:
        """Features that predict what follows each item.

        `embedded` (S, D) item embeddings in groups of `shapes`; `following` (S,) of how many items
        a slot's is the first to be predicted: 1 at the last input of a row, at most `max_length`.
        Returns (S, D); what stands where `following` is 0 is meaningless.
        """
        x = self._placed(embedded, following)
        for block in self.blocks:
            x = block(x, shapes)
        features: Tensor = self.norm(x)
        return features

    def _placed(self, embedded: Tensor, following: Tensor) -> Tensor:
        """Item embeddings with their positions: (S, D)."""
        position = (self.max_length - following).clamp_(max=self.max_length - 1)
        x = embedded * math.sqrt(embedded.shape[-1]) + self.positions(position)
        placed: Tensor = self.dropout(x)
        return placed

    def queries(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Histories as what items are scored against: `items` (B, L), `lengths` (B,) → (B, D)."""
        rows, columns = items.shape
        following = lengths[:, None] - torch.arange(columns, device=items.device)  # (B, L)
        x = self._placed(self.items(items.reshape(-1)), following.reshape(-1).clamp_(min=0))
        for block in self.blocks[:-1]:
            x = block(x, ((rows, columns),))
        last_block = cast(Block, self.blocks[-1])
        last: Tensor = self.norm(last_block.last(x.view(rows, columns, -1), lengths))
        return last

    def scores(self, queries: Tensor, items: slice) -> Tensor:
        """Scores of `items` as the next one: `queries` (B, D) → (B, number of items)."""
        scores: Tensor = queries @ self.items.weight[items].T
        return scores
