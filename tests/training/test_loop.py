"""Training: repeatable, separate from other runs, and it learns."""

import math
import subprocess
import sys
from itertools import islice
from pathlib import Path
from threading import Event

import pytest
import torch
from support.small_data import random_split, split_of
from torch import Tensor

from tune_srs.config.data import DataConfig
from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.prepare import prepare
from tune_srs.errors import ConfigError, SearchError
from tune_srs.evaluation.baselines import BASELINES
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.space.objective import Objective
from tune_srs.storage import Storage
from tune_srs.training.batch_loss import BatchLoss
from tune_srs.training.batches import Batch, Batches
from tune_srs.training.checkpoint import Best, Checkpoint, load_last
from tune_srs.training.loop import (
    EpochReport,
    TrainState,
    clip_gradients,
    compile_kernels,
    new_state,
    touches_few,
    train,
    train_step,
)

CPU = torch.device("cpu")
SPLIT = random_split(seed=0, users=30)


def config_of(**overrides: object) -> TrialConfig:
    settings = {
        "preset": "original",
        "model.hidden_units": 8,
        "model.max_length": 6,
        "loss.num_positives": 2,
        "train.batch_size": 8,
        "train.max_epochs": 3,
    }
    return TrialConfig().with_overrides(settings | overrides)


def scores(report: EpochReport) -> dict[str, float]:
    return {key: value for key, value in report.metrics.items() if not key.startswith("time/")}


def run(**overrides: object) -> list[dict[str, float]]:
    return [scores(report) for report in train(config_of(**overrides), SPLIT)]


def test_a_seed_repeats_a_run_and_another_does_not() -> None:
    assert run() == run()
    assert run() != run(**{"train.seed": 1})


def test_the_seed_decides_weights_masks_and_order_each() -> None:
    first, second = (new_state(config_of(**{"train.seed": seed}), 20) for seed in (0, 1))
    assert not torch.equal(first.model.items.weight, second.model.items.weight)
    assert not torch.equal(first.generator.get_state(), second.generator.get_state())
    assert not torch.equal(first.order.get_state(), second.order.get_state())


def test_steps_have_dropout_and_evaluation_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []

    def watched(state: TrainState, batch: Batch, loss_of: BatchLoss, _: None) -> Tensor:
        modes.append(state.model.training)
        return train_step(state, batch, loss_of)

    monkeypatch.setattr("tune_srs.training.loop.train_step", watched)
    config = config_of(**{"model.dropout": 0.5})
    evaluator = Evaluator(SPLIT, config.evaluation, torch.device("cpu"))
    for report in train(config, SPLIT):
        again = evaluator(report.state.model.eval()).means()
        assert {name: report.metrics[f"val/{name}"] for name in again} == again
    assert modes
    assert all(modes)


def test_the_loss_reported_is_the_mean_of_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []

    def watched(state: TrainState, batch: Batch, loss_of: BatchLoss, _: None) -> Tensor:
        losses.append(train_step(state, batch, loss_of))
        return losses[-1]

    monkeypatch.setattr("tune_srs.training.loop.train_step", watched)
    report = next(train(config_of(), SPLIT))
    assert len(losses) > 1
    assert report.metrics["train/loss"] == pytest.approx(torch.stack(losses).mean().item())


def test_a_step_forgets_the_gradient_before_and_goes_as_far_as_the_rate() -> None:
    config = config_of(**{"train.lr": 0.01})
    cpu = torch.device("cpu")
    loss_of = BatchLoss(config, SPLIT.training, cpu)
    clean, polluted = (new_state(config, SPLIT.num_items) for _ in range(2))
    for parameter in polluted.model.parameters():
        parameter.grad = torch.full_like(parameter, 100)
    before = clean.model.items.weight.detach().clone()
    for state in (clean, polluted):
        batches = Batches(SPLIT.training, 100, 6, cpu)
        (users,) = batches.epoch(state.order)
        train_step(state, batches.batch(users), loss_of)
    for one, other in zip(clean.model.parameters(), polluted.model.parameters(), strict=True):
        assert torch.equal(one, other)
    # Adam's first step moves a weight by its rate, however large the gradient
    moved = (clean.model.items.weight - before).abs().max().item()
    assert moved == pytest.approx(0.01, rel=0.01)


def test_what_else_draws_random_numbers_does_not_matter() -> None:
    alone = run()
    torch.manual_seed(99)
    first, second = train(config_of(), SPLIT), train(config_of(), SPLIT)
    for expected, one, two in zip(alone, first, second, strict=True):
        torch.rand(7)
        assert scores(one) == scores(two) == expected


def test_reports_count_epochs_and_name_metrics() -> None:
    reports = list(train(config_of(), SPLIT))
    assert [report.epoch for report in reports] == [1, 2, 3]
    assert {"train/loss", "time/train_s", "time/evaluate_s"} < set(reports[0].metrics)
    assert {"val/ndcg@10", "val/ndcg_rel@5", "val/next/hr@20"} < set(reports[0].metrics)
    assert all(math.isfinite(value) for value in reports[0].metrics.values())


def test_without_futures_it_trains_the_same_and_scores_nothing() -> None:
    scored, alone = train(config_of(), SPLIT), train(config_of(), SPLIT.training)
    for one, other in zip(scored, alone, strict=True):
        assert one.metrics["train/loss"] == other.metrics["train/loss"]
        assert not [name for name in other.metrics if name.startswith("val/")]


def test_the_generator_stops_where_its_caller_does() -> None:
    assert [report.epoch for report in islice(train(config_of(), SPLIT), 2)] == [1, 2]


def test_stopped_by_another_thread_it_ends_within_the_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop, steps = Event(), []

    def watched(state: TrainState, batch: Batch, loss_of: BatchLoss, _: None) -> Tensor:
        steps.append(train_step(state, batch, loss_of))
        if len(steps) == 6:  # the second of the second epoch
            stop.set()
        return steps[-1]

    monkeypatch.setattr("tune_srs.training.loop.train_step", watched)
    reports = list(train(config_of(), SPLIT, stop=stop))
    assert [report.epoch for report in reports] == [1]
    assert len(steps) == 6


def test_a_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"train\.device: cuda is set"):
        next(train(config_of(**{"train.device": "cuda"}), SPLIT))


def test_a_loss_that_is_no_number_ends_the_run() -> None:
    with pytest.raises(SearchError, match=r"lower train\.lr"):
        run(**{"train.lr": 1e30})


def test_it_learns_and_beats_the_baselines_on_synthetic_data(tmp_path: Path) -> None:
    data = prepare(DataConfig(name="synthetic", num_futures=3), tmp_path)
    config = config_of(
        **{
            "evaluation.cutoffs": [10],
            "model.hidden_units": 50,
            "model.max_length": 50,
            "model.dropout": 0.2,
            "loss.num_positives": 3,
            "loss.num_negatives": 8,
            "train.lr": 0.005,
            "train.batch_size": 32,
            "train.max_epochs": 12,
        }
    )
    reports = list(train(config, data.validation))
    assert reports[-1].metrics["train/loss"] < 0.9 * reports[0].metrics["train/loss"]
    evaluator = Evaluator(data.test, config.evaluation, torch.device("cpu"))
    model = evaluator(reports[-1].state.model.eval()).means()["ndcg@10"]
    baselines = {
        name: evaluator(make(data.validation.training)).means()["ndcg@10"]
        for name, make in BASELINES.items()
    }
    assert model > 1.3 * baselines["popularity"]
    assert model > 1.1 * baselines["markov"]


def test_the_training_core_needs_neither_ray_nor_optuna() -> None:
    code = "import sys, tune_srs.training.loop; print(*{'ray', 'optuna'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_touched_embeddings_move_and_no_other() -> None:
    split = split_of([[1, 2, 3], [2, 1]], [[4], [4]], 500)
    config = config_of(**{"train.embedding_update": "touched"})
    state = new_state(config, 500)
    before = state.model.items.weight.detach().clone()
    loss_of = BatchLoss(config, split.training, CPU, touched=True)
    batches = Batches(split.training, 2, 6, CPU)
    (users,) = batches.epoch(state.order)
    train_step(state, batches.batch(users), loss_of)
    moved = (state.model.items.weight != before).any(dim=1)
    assert moved[[1, 2, 3]].all()
    assert 3 < int(moved.sum()) < 20  # the negatives, too
    assert not moved[0]


def test_a_large_catalogue_moves_touched_embeddings_only() -> None:
    config = config_of()
    assert [touches_few(config, items) for items in (200_000, 200_001)] == [False, True]
    everything = config_of(**{"train.embedding_update": "all"})
    assert not touches_few(everything, 10**6)


def test_where_all_is_touched_the_first_step_is_the_same() -> None:
    split = split_of([list(range(1, 9)) * 3] * 4, [[9]] * 4, 9)
    after = []
    for update in ("all", "touched"):
        config = config_of(**{"train.embedding_update": update, "model.max_length": 24})
        state = new_state(config, 9)
        batches = Batches(split.training, 4, 24, CPU)
        (users,) = batches.epoch(state.order)
        loss_of = BatchLoss(config, split.training, CPU, update == "touched")
        train_step(state, batches.batch(users), loss_of)
        after.append(state.model.items.weight.detach())
    torch.testing.assert_close(*after)


def test_bfloat16_trains_close_to_float32() -> None:
    still = {"model.dropout": 0}
    exact, low = (
        [report.metrics["train/loss"] for report in train(config_of(**still | changes), SPLIT)]
        for changes in ({"train.fused_attention": True}, {"train.precision": "bfloat16"})
    )
    assert exact != low
    assert sum(low) == pytest.approx(sum(exact), rel=0.02)


def test_fused_attention_repeats_itself_whatever_else_draws() -> None:
    def losses() -> list[float]:
        config = config_of(**{"train.fused_attention": True, "model.dropout": 0.5})
        return [report.metrics["train/loss"] for report in train(config, SPLIT)]

    first = losses()
    torch.rand(5)
    assert losses() == first


def test_a_cuda_graph_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"train\.cuda_graph"):
        next(train(config_of(**{"train.cuda_graph": True, "train.device": "cpu"}), SPLIT))


def test_kernels_are_compiled_where_they_are_used_and_nothing_else_changes() -> None:
    told: list[str] = []
    threads = torch.get_num_threads()
    compile_kernels(config_of(), told.append)
    compile_kernels(config_of(**{"model.norm": "pre"}), told.append)
    compile_kernels(config_of(**{"train.fused_attention": True}), told.append)
    assert torch.get_num_threads() == threads
    assert told in ([], ["compiling for this machine, once: about half a minute"])


@pytest.mark.parametrize(
    "overrides",
    [
        {"loss.type": "softmax", "loss.relevance": "learned", "model.item_bias": True},
        {"preset": "esasrec", "train.schedule": "cosine", "train.warmup_epochs": 1},
        {"loss.type": "gbce", "loss.num_negatives": 8, "train.weight_decay": 0.1},
        {"loss.type": "bpr", "loss.share_negatives": True, "train.clip_norm": 0.5},
    ],
    ids=str,
)
def test_a_state_saved_after_an_epoch_goes_on_as_if_never_interrupted(
    overrides: dict[str, object], tmp_path: Path
) -> None:
    config = config_of(**overrides)
    whole = run(**overrides)
    storage = Storage(str(tmp_path))
    best = Best(Objective("train/loss", "min"))
    first = next(train(config, SPLIT))
    best.update(first)
    Checkpoint.of(config, first, best).write(storage, 0)
    again = load_last(storage, 0, config, SPLIT.num_items, Best(Objective("train/loss", "min")))
    assert again is not None
    rest = [scores(report) for report in train(config, SPLIT, again.state)]
    assert [scores(first), *rest] == whole


def test_weight_decay_shrinks_matrices_and_spares_biases_and_padding() -> None:
    """Next to a gradient of 0, Adam moves nothing: what shrinks, decay has shrunk."""
    config = config_of(**{"train.weight_decay": 0.5, "train.lr": 0.1, "model.item_bias": True})
    state = new_state(config, SPLIT.num_items)
    before = {name: value.detach().clone() for name, value in state.model.named_parameters()}
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in state.optimizers:
        optimizer.step()
    for name, value in state.model.named_parameters():
        factor = 0.95 if value.dim() > 1 else 1
        torch.testing.assert_close(value, before[name] * factor)


def test_a_clipped_gradient_has_the_norm_asked_for() -> None:
    config = config_of(**{"train.clip_norm": 1e-3})
    state = new_state(config, SPLIT.num_items)
    batches = Batches(SPLIT.training, 100, 6, CPU)
    (users,) = batches.epoch(state.order)
    train_step(state, batches.batch(users), BatchLoss(config, SPLIT.training, CPU), 1e-3)
    norms = [p.grad.norm() for p in state.model.parameters() if p.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_the_rate_of_a_schedule_reaches_the_optimiser() -> None:
    states = [
        report.state.optimizers[-1].param_groups[0]["lr"]
        for report in train(config_of(**{"train.schedule": "cosine"}), SPLIT)
    ]
    assert states == sorted(states, reverse=True)
    assert states[-1] < 0.1 * states[0]


def test_sparse_gradients_are_clipped_with_the_others() -> None:
    dense, table, other = (torch.nn.Parameter(torch.zeros(3, 2)) for _ in range(3))
    dense.grad = torch.full((3, 2), 2.0)
    rows = torch.tensor([[0, 2]])
    table.grad = torch.sparse_coo_tensor(
        rows, torch.full((2, 2), 3.0), (3, 2), check_invariants=False
    )
    copies = [torch.nn.Parameter(torch.zeros(3, 2)) for _ in range(2)]
    copies[0].grad, copies[1].grad = dense.grad.clone(), table.grad.to_dense()
    torch.nn.utils.clip_grad_norm_(copies, 0.5)
    clip_gradients([dense, table, other], 0.5)
    torch.testing.assert_close(dense.grad, copies[0].grad)
    torch.testing.assert_close(table.grad.to_dense(), copies[1].grad)
    assert other.grad is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"loss.type": "softmax"}, "loss.type: softmax"),
        ({"loss.type": "sampled_softmax", "loss.label_smoothing": 0.1}, "loss.label_smoothing"),
        ({"model.item_bias": True}, "model.item_bias"),
    ],
)
def test_what_moves_every_embedding_cannot_touch_few(
    changes: dict[str, object], reason: str
) -> None:
    assert not touches_few(config_of(**changes), 10**6)
    with pytest.raises(ConfigError, match=reason):
        config_of(**changes | {"train.embedding_update": "touched"})


def test_learned_relevance_is_reported_and_moves() -> None:
    reports = run(**{"loss.relevance": "learned", "train.lr": 0.05})
    weights = [[report[f"train/relevance_{j}"] for j in (1, 2)] for report in reports]
    assert sum(weights[-1]) == pytest.approx(2, rel=1e-5)
    assert weights[-1] != [1, 1]
