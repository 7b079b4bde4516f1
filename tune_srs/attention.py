"""Causal multi-head attention. Shapes: B rows, L columns, H heads, D hidden units, E = D / H."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from tune_srs.config import ModelConfig
from tune_srs.dropout import Dropout


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

    def forward(self, query: Tensor, x: Tensor) -> Tensor:
        """What each query (B, L, D) sees of `x` (B, L, D) up to its own column: (B, L, D)."""
        key, value = self.key_value(x).chunk(2, dim=-1)
        q, k, v = (self._by_head(part) for part in (self.query(query), key, value))  # (B, H, L, E)
        if self.fused:
            p = self.dropout.p if self.training else 0
            mixed = functional.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        else:
            scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (B, H, L, L)
            later = torch.full(scores.shape[-2:], -math.inf, device=x.device).triu(1)
            mixed = self.dropout((scores + later).softmax(dim=-1)) @ v
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return output

    def _by_head(self, x: Tensor) -> Tensor:
        """(B, L, D) → (B, H, L, E)"""
        rows, columns, _ = x.shape
        return x.view(rows, columns, self.num_heads, -1).transpose(1, 2)

    def last(self, query: Tensor, x: Tensor, visible: Tensor) -> Tensor:
        """What one query a row (B, D) sees of `x` (B, L, D) where `visible` (B, L): (B, D).

        One query needs no keys and values of its own for every x: q (W x + b)^T = (q W) x^T + c,
        and c is the same for all x; a mean of W x + b is W times the mean, + b.
        """
        heads, units = self.num_heads, query.shape[-1]
        by_head = (heads, units // heads, units)
        key_weight, value_weight = self.key_value.weight.chunk(2)  # (D, D)
        q = self.query(query).view(-1, *by_head[:2])  # (B, H, E)
        q = torch.einsum("bhd,hde->bhe", q, key_weight.view(by_head))  # (B, H, D)
        hidden = torch.zeros_like(visible, dtype=x.dtype).masked_fill_(~visible, -math.inf)
        scale = 1 / math.sqrt(by_head[1])
        scores = torch.baddbmm(hidden[:, None], q, x.transpose(1, 2), alpha=scale)  # (B, H, L)
        seen = scores.softmax(dim=-1) @ x  # (B, H, D)
        mixed = torch.einsum("bhe,hde->bhd", seen, value_weight.view(by_head)).flatten(1)  # (B, D)
        output: Tensor = self.output(mixed + self.key_value.bias[units:])
        return output
