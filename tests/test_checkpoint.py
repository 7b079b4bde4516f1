"""A run that was saved and loaded goes on as if it had never stopped."""

from itertools import islice
from pathlib import Path

import pytest
import torch

from tune_srs import checkpoint
from tune_srs.checkpoint import Checkpoint
from tune_srs.config import TrialConfig
from tune_srs.datasets.prepare import prepare
from tune_srs.datasets.sequences import Sequences
from tune_srs.errors import SearchError
from tune_srs.train import EpochReport, train

METRIC = "val/ndcg@10"


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Sequences:
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


def test_resuming_changes_nothing(sequences: Sequences, tmp_path: Path) -> None:
    config = config_of()
    undisturbed = [scores(report) for report in train(config, sequences)]

    best = checkpoint.Best(METRIC, "max")
    for report in islice(train(config, sequences), 2):
        best.update(report)
        Checkpoint.of(config, report, best).write(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder == checkpoint.last(tmp_path)
    again, loaded = checkpoint.load(config, sequences.num_items, folder)
    assert (again.epoch, again.metrics) == (2, report.metrics)
    resumed = [scores(report) for report in train(config, sequences, again.state)]
    assert resumed == undisturbed[2:]
    assert (loaded.epoch, loaded.metrics) == (best.epoch, best.metrics)


def test_the_best_epoch_keeps_its_own_weights(sequences: Sequences, tmp_path: Path) -> None:
    config = config_of()
    best = checkpoint.Best(METRIC, "max")
    weights, values = {}, {}
    for report in train(config, sequences):
        best.update(report)
        values[report.epoch] = report.metrics[METRIC]
        weights[report.epoch] = report.state.model.items.weight.detach().clone()
    Checkpoint.of(config, report, best).write(tmp_path)
    progress = checkpoint.progress_of(tmp_path)
    folder = checkpoint.last(tmp_path)
    assert progress is not None
    assert folder is not None
    loaded = checkpoint.load_best(folder)
    first_of_the_best = min(epoch for epoch in values if values[epoch] == max(values.values()))
    assert (progress.config, progress.epoch) == (config, 4)
    assert progress.best.epoch == loaded.epoch == first_of_the_best
    assert torch.equal(loaded.weights["items.weight"], weights[loaded.epoch])


@pytest.mark.parametrize(("mode", "expected"), [("max", 2), ("min", 3)])
def test_better_is_what_the_mode_says(sequences: Sequences, mode: str, expected: int) -> None:
    (report,) = islice(train(config_of(), sequences), 1)
    best = checkpoint.Best("train/loss", mode)
    for epoch, value in enumerate((0.2, 0.9, 0.1, 0.9), start=1):
        best.update(EpochReport(epoch, {"train/loss": value}, report.state))
    assert best.epoch == expected


def test_before_the_first_epoch_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.last(tmp_path) is None
    assert checkpoint.progress_of(tmp_path) is None


def test_one_that_cannot_be_written_leaves_the_one_before(
    sequences: Sequences, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, best = config_of(), checkpoint.Best(METRIC, "max")
    reports = train(config, sequences)
    report = next(reports)
    best.update(report)
    Checkpoint.of(config, report, best).write(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="No space"):
        Checkpoint.of(config, next(reports), best).write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_000001"]
    assert (
        checkpoint.load(config, sequences.num_items, tmp_path / "checkpoint_000001")[0].epoch == 1
    )


def test_a_checkpoint_without_its_progress_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_000003").mkdir()
    with pytest.raises(SearchError, match=r"progress\.json is missing"):
        checkpoint.progress_of(tmp_path)
