"""SASRec the way such code is usually first written: what the fast code is held to, and timed by.

Users are sampled one by one in Python, every history is padded to `max_length` on the left, the
loss masks what is padding, and evaluation goes through the users one at a time. It computes the
same numbers as `tune_srs` from the same weights and negatives; it has no other purpose.
"""

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tune_srs.config.settings import LossConfig, ModelConfig
from tune_srs.datasets.histories import Histories, Split
from tune_srs.evaluation.metrics import MISSED
from tune_srs.model.sasrec import SASRec
from tune_srs.relevance import relevance


class PlainBlock(nn.Module):
    """Attention and feed-forward of torch's own layers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        units, p = config.hidden_units, config.dropout
        self.attention_norm = nn.LayerNorm(units, eps=1e-8)
        self.attention = nn.MultiheadAttention(units, config.num_heads, p, batch_first=True)
        self.feed_forward_norm = nn.LayerNorm(units, eps=1e-8)
        self.inner, self.outer = nn.Linear(units, units), nn.Linear(units, units)
        self.inner_dropout, self.outer_dropout = nn.Dropout(p), nn.Dropout(p)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        query = self.attention_norm(x)
        attended, _ = self.attention(query, x, x, attn_mask=hidden, need_weights=False)
        x = self.feed_forward_norm(query + attended)
        inner = torch.relu(self.inner_dropout(self.inner(x)))
        result: Tensor = x + self.outer_dropout(self.outer(inner))
        return result


class PlainSASRec(nn.Module):
    """(B, max_length) items, padded with 0 on the left → (B, max_length, D) features."""

    def __init__(self, config: ModelConfig, num_items: int) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.max_length = config.max_length
        self.items = nn.Embedding(num_items + 1, config.hidden_units, padding_idx=0)
        self.positions = nn.Embedding(config.max_length, config.hidden_units)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(PlainBlock(config) for _ in range(config.num_blocks))
        self.norm = nn.LayerNorm(config.hidden_units, eps=1e-8)

    def forward(self, items: Tensor) -> Tensor:
        x = self.items(items) * math.sqrt(self.items.embedding_dim)
        x = self.dropout(x + self.positions(torch.arange(self.max_length)))
        columns = torch.arange(self.max_length)
        later = columns[None, :] > columns[:, None]  # (L, L)
        hidden = later | (items == 0)[:, None, :]  # (B, L, L)
        hidden = hidden & (
            columns[None, :] != columns[:, None]
        )  # padding sees itself: no empty row
        hidden = hidden.repeat_interleave(self.num_heads, dim=0)
        for block in self.blocks:
            x = block(x, hidden)
        features: Tensor = self.norm(x)
        return features


def plain_names(values: dict[str, Tensor], num_blocks: int) -> dict[str, Tensor]:
    """Parameters of `SASRec`, or their gradients, under the names of `PlainSASRec`."""
    renamed = {}
    for name, value in values.items():
        for ours, theirs in (
            ("attention.output", "attention.out_proj"),
            ("feed_forward.0", "inner"),
            ("feed_forward.3", "outer"),
        ):
            name = name.replace(ours, theirs)
        renamed[name] = value
    for number in range(num_blocks):
        prefix = f"blocks.{number}.attention."
        for kind in ("weight", "bias"):
            parts = [renamed.pop(f"{prefix}{part}.{kind}") for part in ("query", "key_value")]
            renamed[f"{prefix}in_proj_{kind}"] = torch.cat(parts)
    return renamed


def plain_copy(model: SASRec, config: ModelConfig) -> PlainSASRec:
    """A plain model with the weights of `model`."""
    plain = PlainSASRec(config, model.items.num_embeddings - 1)
    plain.load_state_dict(plain_names(model.state_dict(), config.num_blocks))
    return plain


@dataclass(frozen=True)
class PlainBatch:
    """Padded on the left to max_length = L; 0 where nothing stands."""

    items: Tensor  # (B, L)
    positives: Tensor  # (B, L, P)
    negatives: Tensor  # (B, L, N)


def history_of(histories: Histories, user: int) -> list[int]:
    start, end = histories.offsets[user], histories.offsets[user + 1]
    items: list[int] = histories.items[start:end].tolist()
    return items


def plain_negatives(histories: Histories, user: int, rows: int, count: int) -> list[list[int]]:
    """Random items, drawn again while they are in the user's history."""
    known = set(history_of(histories, user))
    drawn = []
    for _ in range(rows):
        row: list[int] = []
        while len(row) < count:
            item = random.randint(1, histories.num_items)
            if item not in known:
                row.append(item)
        drawn.append(row)
    return drawn


def plain_batch(
    histories: Histories,
    users: list[int],
    max_length: int,
    num_positives: int,
    negatives: dict[int, list[list[int]]],
) -> PlainBatch:
    """The batch of `users`; `negatives` of each user, position by position."""
    num_negatives = len(next(iter(negatives.values()))[0])
    items = np.zeros((len(users), max_length), dtype=np.int64)
    positives = np.zeros((len(users), max_length, num_positives), dtype=np.int64)
    drawn = np.zeros((len(users), max_length, num_negatives), dtype=np.int64)
    for row, user in enumerate(users):
        window = history_of(histories, user)[-(max_length + 1) :]
        inputs = window[:-1]
        for t in range(len(inputs)):
            column = max_length - len(inputs) + t
            items[row, column] = inputs[t]
            for j, item in enumerate(window[t + 1 : t + 1 + num_positives]):
                positives[row, column, j] = item
            drawn[row, column] = negatives[user][t]
    return PlainBatch(*(torch.from_numpy(array) for array in (items, positives, drawn)))


def plain_loss(model: PlainSASRec, batch: PlainBatch, config: LossConfig) -> Tensor:
    """Binary cross-entropy on all positions, masked where padding stands."""
    weights = relevance(config.relevance, config.num_positives, config.rate)
    if config.normalization == "mean":
        weights = weights / weights.mean()
    elif config.relevance != "fixed":
        weights = weights / (config.num_positives * (config.num_positives + 1) / 2)
    features = model(batch.items)[:, :, None]  # (B, L, 1, D)
    near = (features * model.items(batch.positives)).sum(-1)  # (B, L, P)
    far = (features * model.items(batch.negatives)).sum(-1)  # (B, L, N)
    exists, drawn = batch.positives > 0, batch.negatives > 0
    attracted = functional.binary_cross_entropy_with_logits(
        near, torch.ones_like(near), reduction="none"
    )
    attracted = (attracted * weights.float())[exists].mean()
    repelled = functional.binary_cross_entropy_with_logits(far[drawn], torch.zeros_like(far[drawn]))
    return config.positive_weight * attracted + repelled


def plain_train_step(
    model: PlainSASRec,
    optimizer: torch.optim.Optimizer,
    histories: Histories,
    users: list[int],
    config: LossConfig,
) -> float:
    negatives = {
        user: plain_negatives(
            histories,
            user,
            len(history_of(histories, user)),
            config.num_negatives or config.num_positives,
        )
        for user in users
    }
    batch = plain_batch(histories, users, model.max_length, config.num_positives, negatives)
    optimizer.zero_grad()
    loss = plain_loss(model, batch, config)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


@torch.no_grad()
def plain_ranks(model: PlainSASRec, split: Split) -> list[list[int]]:
    """Of each user's futures, the rank in the catalogue without the history, one by one.

    `MISSED` for a future that stands in the history.
    """
    model.eval()
    ranks = []
    for user in range(split.num_users):
        history = history_of(split.histories, user)
        window = history[-model.max_length :]
        items = torch.zeros(1, model.max_length, dtype=torch.int64)
        items[0, model.max_length - len(window) :] = torch.tensor(window)
        scores = model.items.weight @ model(items)[0, -1]  # (I + 1,)
        futures = split.futures[user].tolist()
        scores[[0, *history]] = -math.inf
        ranks.append(
            [
                MISSED if item in history else int((scores >= scores[item]).sum()) - 1
                for item in futures
            ]
        )
    return ranks
