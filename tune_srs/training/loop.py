"""One training run: `train` yields a report after each epoch. Knows nothing of Ray.

Training draws its random numbers from generators of its own, which `train.seed` seeds. It therefore
repeats itself on the same machine, and resumes from a saved state as if never interrupted. (Torch's
fused attention draws from torch's global generator, which each epoch seeds.)
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Event, Timer
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tune_srs.config.settings import TrainConfig, TrialConfig
from tune_srs.datasets.histories import Histories, Split
from tune_srs.errors import ConfigError, SearchError
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.model.sasrec import SASRec
from tune_srs.relevance import LearnedRelevance
from tune_srs.training.batch_loss import BatchLoss
from tune_srs.training.batches import Batch, Batches
from tune_srs.training.cuda_graph import GraphedStep
from tune_srs.training.lazy_adam import LazyAdam
from tune_srs.training.schedule import learning_rate, set_learning_rate

MANY_ITEMS = 200_000  # above it, a CPU is quicker when it updates the touched rows only
BETAS = (0.9, 0.98)


@dataclass
class TrainState:
    """Everything that changes in training; see `checkpoint.py` for its file."""

    model: SASRec
    optimizers: tuple[torch.optim.Optimizer, ...]
    generator: torch.Generator  # negatives and dropout, on the model's device
    order: torch.Generator  # the order of the users, on the CPU
    relevance: LearnedRelevance | None = None  # if it is learned
    epoch: int = 0  # epochs done

    def parameters(self) -> list[Tensor]:
        """Return everything that is trained."""
        learned = [] if self.relevance is None else [*self.relevance.parameters()]
        return [*self.model.parameters(), *learned]


@dataclass(frozen=True)
class EpochReport:
    """The result of an epoch. The next epoch changes `state`."""

    epoch: int  # from 1
    metrics: dict[str, float]  # train/loss, val/…, time/train_s, time/evaluate_s
    state: TrainState


def device_of(config: TrainConfig) -> torch.device:
    """Return the device to train on; `auto` is a GPU where there is one."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "train.device: cuda is set, but torch sees no GPU here; use auto or cpu, "
            "or install a torch build with CUDA"
        )
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(auto if config.device == "auto" else config.device)
    if config.cuda_graph and device.type != "cuda":
        raise ConfigError("train.cuda_graph: true needs a GPU, but this runs on the CPU; leave it")
    return device


def new_state(config: TrialConfig, num_items: int) -> TrainState:
    """Return a model with fresh weights, its optimisers and its random generators."""
    device = device_of(config.train)
    seed = config.train.seed
    weights = torch.Generator().manual_seed(seed)
    generator = torch.Generator(device).manual_seed(seed)
    model = SASRec(config.model, num_items, weights, device)
    model.draw_dropout_from(generator)
    model.to(device)
    if config.train.fused_attention:
        model.fuse_attention()
    relevance = None
    if config.loss.relevance == "learned":
        relevance = LearnedRelevance(config.loss.num_positives, config.loss.rate).to(device)
    order = torch.Generator().manual_seed(seed + 1)
    optimizers = _optimizers(model, relevance, config)
    return TrainState(model, optimizers, generator, order, relevance)


def _optimizers(
    model: SASRec, relevance: LearnedRelevance | None, config: TrialConfig
) -> tuple[torch.optim.Optimizer, ...]:
    """Return the optimisers of all that is trained.

    One AdamW trains everything. If `touches_few`, a `LazyAdam` trains the item embeddings instead
    and updates only the rows that a step uses.
    """
    train = config.train
    rest, optimizers = [*model.parameters()], []
    if touches_few(config, model.num_items):
        decay = train.weight_decay
        optimizers.append(LazyAdam([model.items.weight], train.lr, BETAS, weight_decay=decay))
        rest = [parameter for parameter in rest if parameter is not model.items.weight]
    matrices = [parameter for parameter in rest if parameter.dim() > 1]
    vectors = [parameter for parameter in rest if parameter.dim() == 1]
    vectors += [] if relevance is None else [*relevance.parameters()]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    # a recorded step reads its rate from the device
    device = model.items.weight.device
    rate = torch.tensor(train.lr, device=device) if train.cuda_graph else train.lr
    adam = torch.optim.AdamW(
        groups,
        rate,
        BETAS,
        weight_decay=train.weight_decay,
        fused=True,
        capturable=train.cuda_graph,
    )
    return (*optimizers, adam)


def compile_kernels(config: TrialConfig, say: Callable[[str], None]) -> None:
    """Compile the kernels, if `config` uses them, by one step of the default configuration.

    It takes half a minute the first time on a machine, and a moment after that.
    """
    if not packs(config.train):
        return
    histories = Histories(np.array([1, 2, 3], dtype=np.int32), np.array([0, 3]), num_items=5)
    split = Split(histories, histories, futures=np.array([[4]], dtype=np.int32))
    compiled = TrialConfig()
    device, generator = torch.device("cpu"), torch.Generator()
    notice = Timer(2, say, ["compiling for this machine, once: about half a minute"])
    notice.start()
    try:  # without an optimiser, because its import alone takes seconds
        model = SASRec(compiled.model, split.num_items, generator)
        model.draw_dropout_from(generator)
        batches = Batches(histories, 1, compiled.model.max_length, device, padded=False)
        loss_of = BatchLoss(compiled, histories, device)
        loss_of(model, batches.batch(torch.arange(1)), generator).backward()  # type: ignore[no-untyped-call]
        Evaluator(split, compiled.evaluation, device)(model.eval())
    finally:
        notice.cancel()


def clear_device() -> None:
    """Release the GPU memory that torch keeps of a run that has ended."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def packs(config: TrainConfig) -> bool:
    """Return whether training uses packed rows: on the CPU, in float32, no fused attention."""
    plain = config.precision == "float32" and not config.fused_attention
    return device_of(config).type == "cpu" and plain


def touches_few(config: TrialConfig, num_items: int) -> bool:
    """Return whether a step moves only the item embeddings that it touches."""
    train = config.train
    if train.embedding_update == "auto":
        many = num_items > MANY_ITEMS and device_of(train).type == "cpu"
        return many and config.needs_all_rows is None
    return train.embedding_update == "touched"


def train(
    config: TrialConfig,
    split: Split | Histories,
    state: TrainState | None = None,
    stop: Event | None = None,
) -> Iterator[EpochReport]:
    """Train on the training histories of a split, and score its futures after every epoch.

    A split holds three things: the histories to train on, the histories to predict from, and the
    futures to predict. The validation split never holds test futures. Of each training history the
    last `model.max_length` + 1 items train; users with one item do not. With only `Histories`, all
    of them train and nothing is scored: the reports have no metrics of `val/`.

    Yields one report per epoch, from `state.epoch` + 1 to `train.last_epoch`, or else
    `train.max_epochs`. Once `stop` is set, by another thread, the generator ends at its next step,
    and the epoch is not reported. Raises `ConfigError` for a GPU that is not there, `SearchError`
    when the loss is no longer a number.
    """
    torch.set_num_threads(config.train.num_threads)
    histories = split.training if isinstance(split, Split) else split
    state = state or new_state(config, histories.num_items)
    device = device_of(config.train)
    batches = Batches(
        histories,
        config.train.batch_size,
        config.model.max_length,
        device,
        padded=not packs(config.train),
    )
    evaluator = Evaluator(split, config.evaluation, device) if isinstance(split, Split) else None
    touched = touches_few(config, histories.num_items)
    loss_of = BatchLoss(config, histories, device, touched, state.relevance)
    step = step_of(config.train, state, batches, loss_of)
    stop = stop or Event()

    last = config.train.last_epoch or config.train.max_epochs
    for epoch in range(state.epoch + 1, last + 1):
        if config.train.fused_attention:  # it draws from the global generator: resumable like this
            torch.manual_seed(int(torch.randint(2**62, (), generator=state.order)))
        started = time.perf_counter()
        loss = _train_epoch(config.train, state, batches, step, stop)
        if stop.is_set():
            return
        trained = time.perf_counter()
        if not math.isfinite(loss):
            raise SearchError(f"epoch {epoch}: the loss is {loss}; lower train.lr")
        state.model.eval()
        means = evaluator(state.model).means() if evaluator is not None else {}
        metrics = {f"val/{name}": value for name, value in means.items()}
        evaluated = time.perf_counter()
        metrics["train/loss"] = loss
        if state.relevance is not None:
            weights = state.relevance.weights().tolist()
            metrics |= {f"train/relevance_{j}": w for j, w in enumerate(weights, start=1)}
        metrics["time/train_s"] = trained - started
        metrics["time/evaluate_s"] = evaluated - trained
        if bad := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise SearchError(f"epoch {epoch}: {bad[0]} is {metrics[bad[0]]}; lower train.lr")
        state.epoch = epoch
        yield EpochReport(epoch, metrics, state)


def clip_gradients(parameters: Iterable[Tensor], most: float) -> None:
    """Scale all gradients by one factor such that their norm together is at most `most`.

    As `torch.nn.utils.clip_grad_norm_`, but for sparse gradients, too.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    values = [grad._values() if grad.is_sparse else grad for grad in gradients]
    factor = most / (torch.nn.utils.get_total_norm(values) + 1e-6)
    torch._foreach_mul_(values, factor.clamp(max=1.0))


def step_of(
    config: TrainConfig, state: TrainState, batches: Batches, loss_of: BatchLoss
) -> Callable[[Tensor], Tensor]:
    """Return the function that takes one optimiser step for a batch of users, and returns its loss.

    Recorded as a CUDA graph if `train.cuda_graph` is set.
    """

    def step(users: Tensor) -> Tensor:
        return train_step(state, batches.batch(users), loss_of, config.clip_norm)

    return GraphedStep(step, state.generator) if config.cuda_graph else step


def _train_epoch(
    config: TrainConfig,
    state: TrainState,
    batches: Batches,
    step: Callable[[Tensor], Tensor],
    stop: Event,
) -> float:
    """Train on all users once, or until `stop` is set; return the mean loss of the steps."""
    state.model.train()
    total = torch.zeros((), device=state.generator.device)
    before = state.epoch * len(batches)
    for number, users in enumerate(batches.epoch(state.order), start=before):
        if stop.is_set():
            break
        set_learning_rate(state.optimizers, learning_rate(config, number, len(batches)))
        total += step(users)
    return (total / len(batches)).item()


def train_step(
    state: TrainState, batch: Batch, loss_of: BatchLoss, clip_norm: float | None = None
) -> Tensor:
    """Take one optimiser step on one batch; return its loss, on the device, without a gradient."""
    loss = loss_of(state.model, batch, state.generator)
    for optimizer in state.optimizers:
        optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if clip_norm is not None:
        clip_gradients(state.parameters(), clip_norm)
    for optimizer in state.optimizers:
        optimizer.step()
    return loss.detach()
