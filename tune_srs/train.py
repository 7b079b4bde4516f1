"""One training run: `train` yields a report after each epoch. Knows nothing of Ray.

Its random numbers come from generators of its own, all seeded by `train.seed`, so that a run
repeats itself on the same machine and can go on from a saved state as if never interrupted.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tune_srs.batches import Batches, Group, NegativeSampler
from tune_srs.config import LossConfig, TrainConfig, TrialConfig
from tune_srs.datasets.sequences import Sequences
from tune_srs.errors import ConfigError, SearchError
from tune_srs.evaluate import Evaluator
from tune_srs.losses import multi_positive_bce
from tune_srs.model import SASRec
from tune_srs.relevance import loss_weights


@dataclass
class TrainState:
    """All that changes while training; see `checkpoint.py` for its file."""

    model: SASRec
    optimizer: torch.optim.Optimizer
    generator: torch.Generator  # negatives and dropout, on the model's device
    order: torch.Generator  # the order of the users, on the CPU
    epoch: int = 0  # epochs done


@dataclass(frozen=True)
class EpochReport:
    """What an epoch gave. `state` is alive: the next epoch changes it."""

    epoch: int  # from 1
    metrics: dict[str, float]  # train/loss, val/…, time/train_s, time/evaluate_s
    state: TrainState


def device_of(config: TrainConfig) -> torch.device:
    """The device asked for; `auto` is a GPU where there is one."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "train.device: cuda asked, but torch sees no GPU here; use auto or cpu, "
            "or install a torch build with CUDA"
        )
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def new_state(config: TrialConfig, num_items: int) -> TrainState:
    """A model with fresh weights, its optimiser and its random numbers."""
    device = device_of(config.train)
    seed = config.train.seed
    weights = torch.Generator().manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    model = SASRec(config.model, num_items, weights)
    model.draw_dropout_from(generator)
    model.to(device)
    optimizer = torch.optim.Adam(
        model.parameters(), lr=config.train.lr, betas=(0.9, 0.98), fused=True
    )
    return TrainState(model, optimizer, generator, torch.Generator().manual_seed(seed + 1))


def train(
    config: TrialConfig, sequences: Sequences, state: TrainState | None = None
) -> Iterator[EpochReport]:
    """Train on the histories of `sequences`, score its futures after every epoch.

    Yields one report an epoch, from `state.epoch` + 1 to `train.max_epochs`. `sequences` is the
    validation split: the test futures are not in it. Raises `ConfigError` for a GPU that is not
    there, `SearchError` when the loss is no longer a number.
    """
    torch.set_num_threads(config.train.num_threads)
    state = state or new_state(config, sequences.num_items)
    device = device_of(config.train)
    batches = Batches(sequences, config.train.batch_size, config.model.max_length, device)
    negatives = NegativeSampler(sequences, device)
    evaluator = Evaluator(sequences, config.evaluation, device)
    loss_of = BatchLoss(config.loss, negatives, device)

    for epoch in range(state.epoch + 1, config.train.max_epochs + 1):
        started = time.perf_counter()
        loss = _train_epoch(state, batches, loss_of)
        trained = time.perf_counter()
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise SearchError(f"epoch {epoch}: the loss is {loss}; lower train.lr")
        state.model.eval()
        metrics = {f"val/{name}": value for name, value in evaluator(state.model).means().items()}
        evaluated = time.perf_counter()
        metrics["train/loss"] = loss
        metrics["time/train_s"] = trained - started
        metrics["time/evaluate_s"] = evaluated - trained
        state.epoch = epoch
        yield EpochReport(epoch, metrics, state)


def _train_epoch(state: TrainState, batches: Batches, loss_of: "BatchLoss") -> float:
    """One pass over all users; the mean loss of its steps."""
    state.model.train()
    total = torch.zeros((), device=state.generator.device)
    for groups in batches.epoch(state.order):
        total += train_step(state, groups, loss_of)
    return (total / len(batches)).item()


def train_step(state: TrainState, groups: list[Group], loss_of: "BatchLoss") -> Tensor:
    """One step of the optimiser on one batch; its loss, on the device and without a gradient."""
    loss = loss_of(state.model, groups, state.generator)
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    return loss.detach()


class BatchLoss:
    """The loss of a batch: scores of positives and negatives at every position, then the loss."""

    def __init__(
        self, config: LossConfig, negatives: NegativeSampler, device: torch.device
    ) -> None:
        self._num_positives = config.num_positives
        self._num_negatives = config.num_negatives or config.num_positives
        self._positive_weight = config.positive_weight
        self._negatives = negatives
        self._weights = loss_weights(
            config.relevance, config.num_positives, config.rate, config.normalization
        ).to(device)  # (P,)

    def __call__(self, model: SASRec, groups: list[Group], generator: torch.Generator) -> Tensor:
        positives, exists, negatives = [], [], []
        for group in groups:
            tokens = group.tokens  # (B, L)
            embedded = model.items(group.items)  # (B, L + 1, D)
            features = model.encode(embedded[:, :-1], group.lengths)  # (B, L, D)
            positives.append(self._positive_scores(features, embedded)[tokens])
            exists.append(group.positives(self._num_positives)[tokens])
            users = group.users[:, None].expand_as(tokens)[tokens]  # (T,)
            drawn = self._negatives.sample(users, self._num_negatives, generator)
            # summed products: one small matrix product a token would take twice the time
            negatives.append((model.items(drawn) * features[tokens][:, None]).sum(-1))  # (T, N)
        return multi_positive_bce(
            torch.cat(positives),
            torch.cat(negatives),
            torch.cat(exists),
            self._weights,
            self._positive_weight,
        )

    def _positive_scores(self, features: Tensor, embedded: Tensor) -> Tensor:
        """(B, L, D) features, (B, L + 1, D) items → (B, L, P) scores of the next P items.

        Neighbouring positions share their positives: all are in one product of features and
        items of the row, of which a band is read.
        """
        count = self._num_positives
        scores = features @ embedded.transpose(1, 2)  # (B, L, L + 1)
        columns = torch.arange(features.shape[1], device=features.device)
        ahead = columns[:, None] + 1 + torch.arange(count, device=features.device)  # (L, P)
        band = ahead.clamp(max=features.shape[1]).expand(len(features), -1, -1)
        return scores.gather(2, band)
