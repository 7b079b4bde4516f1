"""A run that was saved and loaded goes on as if it had never stopped."""

import os
import pickle
from itertools import islice
from pathlib import Path

import pytest
import torch

from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.histories import Split
from tune_srs.datasets.prepare import prepare
from tune_srs.errors import DataError
from tune_srs.space.objective import Mode, Objective
from tune_srs.storage import Storage, trial_name
from tune_srs.training.checkpoint import Best, Checkpoint, forget_last, load_best, load_last
from tune_srs.training.loop import EpochReport, train

METRIC = "val/ndcg@10"


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("data")
    return prepare(config_of().data, folder).validation


def config_of(**overrides: object) -> TrialConfig:
    settings = {
        "data.name": "synthetic",
        "data.num_futures": 2,
        "data.synthetic.users": 40,
        "data.synthetic.items": 50,
        "data.synthetic.mean_length": 12,
        "model.hidden_units": 8,
        "model.max_length": 10,
        "train.batch_size": 16,
        "train.max_epochs": 4,
        "loss.num_positives": 2,
    }
    return TrialConfig().with_overrides(settings | overrides)


def scores(report: EpochReport) -> dict[str, float]:
    return {key: value for key, value in report.metrics.items() if not key.startswith("time/")}


def saved(
    config: TrialConfig, split: Split, epochs: int, storage: Storage
) -> tuple[list[EpochReport], Best]:
    """Reports and the best of a trial 7 that was cut after so many epochs."""
    best, reports = Best(Objective(METRIC)), []
    for report in islice(train(config, split), epochs):
        best.update(report)
        Checkpoint.of(config, report, best).write(storage, 7)
        reports.append(report)
    return reports, best


def test_resuming_changes_nothing(split: Split, tmp_path: Path) -> None:
    config, storage = config_of(), Storage(str(tmp_path))
    undisturbed = [scores(report) for report in train(config, split)]

    reports, best = saved(config, split, 2, storage)
    loaded = Best(Objective(METRIC))
    again = load_last(storage, 7, config, split.num_items, loaded)
    assert again is not None
    assert (again.epoch, again.metrics) == (2, reports[-1].metrics)
    resumed = [scores(report) for report in train(config, split, again.state)]
    assert resumed == undisturbed[2:]
    assert (loaded.epoch, loaded.metrics) == (best.epoch, best.metrics)


def test_the_best_epoch_keeps_its_own_weights(split: Split, tmp_path: Path) -> None:
    config, storage = config_of(), Storage(str(tmp_path))
    best = Best(Objective(METRIC))
    weights, values = {}, {}
    for report in train(config, split):
        best.update(report)
        Checkpoint.of(config, report, best).write(storage, 7)
        values[report.epoch] = report.metrics[METRIC]
        weights[report.epoch] = report.state.model.items.weight.detach().clone()
    loaded = Best(Objective(METRIC))
    assert load_best(storage, 7, loaded) == config
    first_of_the_best = min(epoch for epoch in values if values[epoch] == max(values.values()))
    assert loaded.epoch == first_of_the_best
    assert loaded.metrics[METRIC] == values[first_of_the_best]
    assert torch.equal(loaded.weights["items.weight"], weights[loaded.epoch])


@pytest.mark.parametrize(("mode", "expected"), [("max", 2), ("min", 3)])
def test_better_is_what_the_mode_says(split: Split, mode: Mode, expected: int) -> None:
    (report,) = islice(train(config_of(), split), 1)
    best = Best(Objective("train/loss", mode))
    for epoch, value in enumerate((0.2, 0.9, 0.1, 0.9), start=1):
        best.update(EpochReport(epoch, {"train/loss": value}, report.state))
    assert best.epoch == expected


def test_before_the_first_epoch_there_is_none(tmp_path: Path) -> None:
    storage, best = Storage(str(tmp_path)), Best(Objective(METRIC))
    assert load_last(storage, 7, config_of(), 50, best) is None
    assert best.epoch == 0
    with pytest.raises(DataError, match="missing"):
        load_best(storage, 7, best)


def test_one_of_another_configuration_counts_as_none(split: Split, tmp_path: Path) -> None:
    storage, best = Storage(str(tmp_path)), Best(Objective(METRIC))
    saved(config_of(), split, 1, storage)
    other = config_of(**{"train.lr": 0.5})
    assert load_last(storage, 7, other, split.num_items, best) is None
    assert best.epoch == 0


def test_what_a_trial_keeps_is_bounded(split: Split, tmp_path: Path) -> None:
    saved(config_of(), split, 4, Storage(str(tmp_path)))
    folder = tmp_path / trial_name(7)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(sizes) == {"last.safetensors", "best.safetensors"}
    forget_last(Storage(str(tmp_path)), 7)
    forget_last(Storage(str(tmp_path)), 7)  # nothing is left to forget
    assert [path.name for path in folder.iterdir()] == ["best.safetensors"]


def test_one_that_cannot_be_written_leaves_the_one_before(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, best, storage = config_of(), Best(Objective(METRIC)), Storage(str(tmp_path))
    reports = train(config, split)
    report = next(reports)
    best.update(report)
    Checkpoint.of(config, report, best).write(storage, 7)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        Checkpoint.of(config, next(reports), best).write(storage, 7)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_damaged_ones_are_refused_wherever_they_are_cut(split: Split, tmp_path: Path) -> None:
    config, storage = config_of(), Storage(str(tmp_path))
    saved(config, split, 1, storage)
    path = tmp_path / trial_name(7) / "last.safetensors"
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"last\.safetensors: damaged"):
            load_last(storage, 7, config, split.num_items, Best(Objective(METRIC)))
    path.write_bytes(pickle.dumps({"model": Planted()}))
    with pytest.raises(DataError, match="damaged"):
        load_last(storage, 7, config, split.num_items, Best(Objective(METRIC)))


class Planted:
    """Ends whoever unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (1,)
