"""From a batch to its loss: the scores of what is compared, their weights, the loss.

Shapes: T positions, P positives, N negatives, D units, I items.
"""

import torch
from torch import Tensor

from tune_srs.config.settings import LossConfig, TrialConfig
from tune_srs.datasets.histories import Histories
from tune_srs.errors import ConfigError
from tune_srs.model.sasrec import SASRec
from tune_srs.relevance import LearnedRelevance, loss_weights, time_weights
from tune_srs.tensors import tensor_of
from tune_srs.training import losses
from tune_srs.training.batch_negatives import Negatives, num_negatives
from tune_srs.training.batches import Batch
from tune_srs.training.lazy_adam import touched_rows
from tune_srs.training.products import row_products

SECONDS_PER_DAY = 86_400


class BatchLoss:
    """Computes the configured loss of one batch of training histories."""

    def __init__(
        self,
        config: TrialConfig,
        histories: Histories,
        device: torch.device,
        touched: bool = False,
        relevance: LearnedRelevance | None = None,
    ) -> None:
        """With `touched` the item embeddings get a sparse gradient; `relevance` if learned."""
        loss = config.loss
        self._loss = loss
        self._bfloat16 = config.train.precision == "bfloat16"
        self._touched = touched
        self._learned = relevance
        self._factor = _factor(loss, histories.num_items)
        self.negatives = Negatives(config, histories, device)
        self._times: Tensor | None = None
        self._weights: Tensor | None = None  # (P,), where it depends on j alone
        if loss.relevance == "time":
            self._times = _times(histories, device)
        elif loss.relevance != "learned":
            self._weights = loss_weights(
                loss.relevance, loss.num_positives, loss.rate, loss.normalization
            ).to(device)

    def __call__(self, model: SASRec, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss, a scalar with gradients; negatives are drawn from `generator`."""
        positives, exists = batch.positives(self._loss.num_positives)  # (T, P)
        weights, penalty = self._relevance(batch, exists)
        pairs = losses.pair_weights(weights, exists, self._loss.normalization)
        if self._loss.type == "softmax":
            loss = self._full(model, batch, positives, pairs)
        else:
            loss = self._with_negatives(model, batch, positives, exists, pairs, generator)
        return loss + penalty

    def _relevance(self, batch: Batch, exists: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return weights of the positives, (P,) or (T, P), and the penalty of learning them."""
        if self._weights is not None:
            return self._weights, 0.0
        if self._learned is not None:
            learned: tuple[Tensor, Tensor] = self._learned(exists, self._factor)
            return learned
        assert self._times is not None
        days = batch.waits(self._times, self._loss.num_positives) / SECONDS_PER_DAY  # (T, P)
        return time_weights(days, exists, self._loss.rate, self._loss.normalization), 0.0

    def _full(self, model: SASRec, batch: Batch, positives: Tensor, pairs: Tensor) -> Tensor:
        table: Tensor = model.items.weight
        features, table = model.scoring(self._encode(model, table, batch.items, batch), table)
        (scores,) = row_products(features, table, positives)  # (T, P)
        return losses.softmax(features, table[1:], scores, pairs, self._loss.label_smoothing)

    def _with_negatives(
        self,
        model: SASRec,
        batch: Batch,
        positives: Tensor,
        exists: Tensor,
        pairs: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        loss = self._loss
        negatives, counted, log_q = self.negatives(batch.users, positives, exists, generator)
        table, (inputs, nearer, others) = self._rows(model, batch.items, positives, negatives)
        features, table = model.scoring(self._encode(model, table, inputs, batch), table)
        if loss.share_negatives:
            (near,) = row_products(features, table, nearer)  # (T, P)
            far = features @ table[others].T  # (T, N)
        else:
            near, far = row_products(features, table, nearer, others)
        if loss.type == "sampled_softmax":
            if log_q is not None:
                far = far - log_q
            far = far.masked_fill(~counted, -torch.inf)
            different = _different(positives, exists)
            smoothing = loss.label_smoothing
            return losses.sampled_softmax(
                features, table[1:], near, different, far, pairs, smoothing
            )
        draws = losses.draw_weights(counted, exists[:, 0])
        match loss.type:
            case "bce":
                balance = (loss.positive_weight, loss.label_smoothing)
                return losses.bce(near, far, pairs, draws, *balance)
            case "gbce":
                of_catalogue = (model.num_items, loss.calibration, loss.positive_weight)
                return losses.gbce(near, far, pairs, draws, *of_catalogue)
            case "bpr":
                return losses.bpr(near, far, pairs, draws)
        raise ValueError(f"unknown loss {loss.type}")

    def _rows(self, model: SASRec, *indexes: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the item embeddings that `indexes` point into: all, or the touched, renumbered."""
        table: Tensor = model.items.weight
        return touched_rows(table, *indexes) if self._touched else (table, indexes)

    def _encode(self, model: SASRec, table: Tensor, items: Tensor, batch: Batch) -> Tensor:
        """Return the features of the tokens: (T, D)."""
        with torch.autocast(table.device.type, torch.bfloat16, enabled=self._bfloat16):
            features = model.encode(table, items, batch.rows)
        return features.float().view(-1, table.shape[1])


def _factor(config: LossConfig, num_items: int) -> float:
    """Return the factor that a loss gives to all its positives."""
    match config.type:
        case "bce":
            return config.positive_weight
        case "gbce":
            count = num_negatives(config)
            power = losses.gbce_power(count, num_items, config.calibration)
            return config.positive_weight * power / (count + 1)
    return 1.0


def _times(histories: Histories, device: torch.device) -> Tensor:
    """Return the times of the interactions in seconds: (interactions,)."""
    times = histories.times
    if times is None:
        raise ConfigError(
            "loss.relevance: time needs the times of the interactions, which this data set does "
            "not have; use another relevance"
        )
    return tensor_of(times, device)


def _different(positives: Tensor, exists: Tensor) -> Tensor:
    """Return where a positive exists and has not occurred further left in its row: (T, P).

    The first of a row is among them even if it does not exist: a position without positives has
    no weight, and its sum is finite then.
    """
    same = positives[:, :, None] == positives[:, None, :]  # (T, P, P)
    different = exists & ~same.tril(-1).any(dim=2)
    different[:, 0] = True
    return different
