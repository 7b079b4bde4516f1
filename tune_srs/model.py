"""SASRec: self-attention over a user's history, scored against the item embeddings.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (arXiv 1808.09781).

Sequences are aligned left: item t of a row stands at column t, padding (0) follows the last item.
Under the causal mask no item ever attends to padding. Positions count back from the end, so that
the item a prediction starts from has the same position whatever the length, as in the original.

Shapes: B rows, L columns, D hidden units, H heads, I items.
"""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tune_srs.config import ModelConfig


class Dropout(nn.Module):
    """Inverted dropout whose masks come from one generator and cost 16 random bits an element.

    The probability is rounded to a multiple of 2^-16, and the scale uses the rounded one, so the
    expectation is exact. (On CPU `torch.bernoulli` costs more than the layer it regularises.)
    """

    def __init__(self, p: float, generator: torch.Generator) -> None:
        super().__init__()
        self.kept = max(1, round((1 - p) * 2**16))  # of 2^16 equally likely draws
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.kept == 2**16:
            return x
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device)
        words.random_(-(2**63), None, generator=self.generator)
        draws = words.view(torch.int16)[: x.numel()].view(x.shape)
        keep = (draws < self.kept - 2**15).view(torch.uint8)  # of a bool, the next line is slow
        return x * keep.to(x.dtype).mul_(2**16 / self.kept)


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

    def forward(self, query: Tensor, x: Tensor, visible: Tensor | None = None) -> Tensor:
        """What each query (B, Q, D) sees of `x` (B, L, D): (B, Q, D).

        Query t sees columns up to t, or those that are True in `visible` (B, L).
        """
        q = self._by_head(self.query(query))  # (B, H, Q, D / H)
        k, v = (self._by_head(part) for part in self.key_value(x).chunk(2, dim=-1))
        if visible is not None:
            mask = visible[:, None, None]  # (B, 1, 1, L)
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        elif self.training:
            mixed = self._with_dropout(q, k, v)
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        output: Tensor = self.output(mixed.transpose(1, 2).reshape(query.shape))
        return output

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, L, D) → (B, H, L, D / H)"""
        return x.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)

    def _with_dropout(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        columns = q.shape[2]
        later = torch.full((columns, columns), -math.inf, dtype=q.dtype, device=q.device).triu(1)
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1) + later  # (B, H, L, L)
        attention = scores.softmax(dim=-1)
        dropped: Tensor = self.dropout(attention)
        return dropped @ v


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
        query = self.attention_norm(x[rows, lengths - 1])[:, None]  # (B, 1, D)
        visible = columns < lengths[:, None]
        return self._feed(query + self.attention(query, x, visible))[:, 0]

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

    def encode(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Features that predict what follows each item.

        `embedded` (B, L, D) item embeddings, `lengths` (B,) items before the padding, both of at
        most `max_length`. Returns (B, L, D); what stands at padding is meaningless.
        """
        x = self._placed(embedded, lengths)
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.norm(x)
        return features

    def _placed(self, embedded: Tensor, lengths: Tensor) -> Tensor:
        """Item embeddings with their positions: (B, L, D)."""
        column = torch.arange(embedded.shape[1], device=embedded.device)
        position = (self.max_length - lengths[:, None] + column).clamp_(max=self.max_length - 1)
        x = embedded * math.sqrt(embedded.shape[-1]) + self.positions(position)
        placed: Tensor = self.dropout(x)
        return placed

    def score(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Scores of every item as the next one: `items` (B, L), `lengths` (B,) → (B, I + 1).

        Column 0 is padding and means nothing.
        """
        x = self._placed(self.items(items), lengths)
        for block in self.blocks[:-1]:
            x = block(x)
        last_block = cast(Block, self.blocks[-1])
        last = self.norm(last_block.last(x, lengths))  # (B, D)
        scores: Tensor = last @ self.items.weight.T
        return scores
