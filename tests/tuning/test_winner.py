"""What an ended run gives: the winner, another trial, one trained on everything."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import driver
from support.exports import EPOCHS, EPOCHS_OF_THE_STOPPED, silent, write_run
from support.searches import FIXED, METRIC

import tune_srs as ts
from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.prepare import prepare
from tune_srs.datasets.prepared import PreparedData
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.exports import exported
from tune_srs.space.space import Space
from tune_srs.training.loop import train

METRICS = ("ndcg@10", "ndcg_rel@5", "hr@20", "next/ndcg@10", "next/mrr@5")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreparedData]:
    """A folder with `data` and the run `results/tiny`, and its data."""
    folder = tmp_path_factory.mktemp("ended")
    return folder, write_run(folder)


@pytest.fixture
def export(ended: tuple[Path, PreparedData], tmp_path: Path) -> Callable[..., Path]:
    def call(**options: object) -> Path:
        folder = ended[0]
        to = tmp_path / "model"
        given = {"data_folder": folder / "data", "say": silent} | options
        ts.export(folder / "results" / "tiny", to, **given)  # type: ignore[arg-type]
        return to

    return call


def test_an_evaluation_of_the_winner_gives_the_figures_of_the_search(
    ended: tuple[Path, PreparedData], export: Callable[..., Path]
) -> None:
    best = ended[0] / "results" / "tiny" / "best"
    told = json.loads((best / "metrics.json").read_text())
    reported = [
        json.loads(line)
        for line in (best.parent / "journal.jsonl").read_text().splitlines()
        if '"epoch"' in line
    ]
    of_winner = {event["epoch"]: event["metrics"] for event in reported if event["trial"] == 0}
    for folder in (best, export()):
        model = ts.load(folder)
        overrides = {"evaluation.num_candidates": 5}
        summary = model.evaluate(overrides, ended[0] / "data", silent).summary
        summary = summary[summary["candidates"] == "all"]
        for split, prefix in (("validation", "val"), ("test", "test")):
            means = summary[summary["split"] == split].set_index("metric")
            assert len(means) == 48
            for name, row in means.iterrows():
                assert row["mean"] == pytest.approx(
                    told[split]["best"][f"{prefix}/{name}"], abs=1e-6
                )
                if split == "validation":
                    reported_value = of_winner[told["epoch"]][f"val/{name}"]
                    assert row["mean"] == pytest.approx(reported_value, abs=1e-6)
                    assert np.isnan([row["low"], row["high"]]).all()  # it was selected
                else:
                    interval = told["intervals"]["best"][f"{prefix}/{name}"]
                    assert [row["low"], row["high"]] == pytest.approx(interval, abs=1e-6)
        assert model.contents.facts["won"]
    assert set(told["intervals"]) == set(told["test"]) == {"best", "popularity", "markov"}


def test_another_trial_is_exported_by_its_number(export: Callable[..., Path]) -> None:
    folder = export(trial=1)
    other = exported.read(folder)
    assert other.facts["trial"] == other.metrics["trial"] == 1
    assert not other.facts["won"]
    assert other.config.train.lr == 1e-7
    assert "do not use them" in " ".join((folder / "README.md").read_text().split())


def test_damaged_weights_are_trained_again(
    ended: tuple[Path, PreparedData], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(ended[0], tmp_path / "copy")) / "results" / "tiny"
    (run / "tune" / "trial_00000" / "best.safetensors").write_bytes(b"x")
    said: list[str] = []
    ts.export(run, tmp_path / "model", data_folder=ended[0] / "data", say=said.append)
    assert any("training trial 0 again" in line for line in said)
    again, best = exported.read(tmp_path / "model"), exported.read(run / "best")
    for name, weight in best.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], weight)


def test_a_refit_has_learned_from_every_interaction(
    ended: tuple[Path, PreparedData], export: Callable[..., Path]
) -> None:
    folder = export(refit="all")
    refit, best = exported.read(folder), exported.read(ended[0] / "results" / "tiny" / "best")
    assert refit.facts["refit"] == "all"
    assert refit.metrics == best.metrics
    assert refit.config.train.last_epoch == best.facts["epoch"]
    assert refit.config.train.max_epochs == EPOCHS  # on which its learning rate depended
    assert refit.items["count"].sum() == ended[1].manifest["interactions"]
    assert best.items["count"].sum() == ended[1].manifest["training_interactions"]
    assert not torch.equal(refit.model.items.weight, best.model.items.weight)
    said: list[str] = []
    ts.load(folder).evaluate({"evaluation.num_candidates": 5}, ended[0] / "data", said.append)
    assert any("say nothing about how good it is" in line for line in said)


def test_a_refit_before_the_test_learns_the_validation_and_is_scored(
    ended: tuple[Path, PreparedData], export: Callable[..., Path]
) -> None:
    folder, data = export(refit="validation"), ended[1]
    refit, best = exported.read(folder), exported.read(ended[0] / "results" / "tiny" / "best")
    assert refit.facts["refit"] == "validation"
    assert (
        refit.items["count"].sum() == len(data.before_test.items) == len(data.test.histories.items)
    )
    assert refit.metrics["validation"] == best.metrics["validation"]
    config = refit.config
    assert config.train.last_epoch == best.facts["epoch"]
    for report in train(config, data.before_test):
        model = report.state.model
    means = Evaluator(data.test, config.evaluation, torch.device("cpu"))(model.eval()).means()
    of_test = refit.metrics["test"]
    assert of_test["best"] == pytest.approx({f"test/{name}": mean for name, mean in means.items()})
    assert of_test["best"] != best.metrics["test"]["best"]
    assert of_test["markov"] != best.metrics["test"]["markov"]  # which learns the same
    text = " ".join((folder / "README.md").read_text().split())
    assert "trained on training and validation" in text
    assert "--refit validation --to ANOTHER" in text
    said: list[str] = []
    ts.load(folder).evaluate({"evaluation.num_candidates": 5}, ended[0] / "data", said.append)
    assert any("its validation scores say nothing" in line for line in said)


@pytest.mark.parametrize("kind", ["last", "users"])
def test_everything_is_every_interaction_of_every_user(tmp_path: Path, kind: str) -> None:
    split = {"kind": kind, "share": None if kind == "last" else 0.2}
    config = TrialConfig().with_overrides(
        {"data.name": "synthetic", "data.num_futures": 2, "data.synthetic.users": 30}
    )
    settings = config.data.model_dump() | {"split": split}
    data = prepare(type(config.data).model_validate(settings), tmp_path, silent)
    everything = data.everything
    assert everything.num_users == data.manifest["users"]
    assert len(everything.items) == data.manifest["interactions"]
    test = data.test
    ends = everything.offsets[1:][-test.num_users :]  # in both kinds those who test come last
    for user, end in enumerate(ends):
        start, stop = test.histories.offsets[user : user + 2]
        whole = np.concatenate([test.histories.items[start:stop], test.futures[user]])
        assert everything.items[end - len(whole) : end].tolist() == whole.tolist()


def test_after_a_moment_not_all_interactions_are_there(tmp_path: Path) -> None:
    config = TrialConfig().with_overrides({"data.name": "synthetic", "data.num_futures": 2})
    settings = config.data.model_dump() | {"split": {"kind": "time", "share": 0.2}}
    data = prepare(type(config.data).model_validate(settings), tmp_path, silent)
    with pytest.raises(
        ts.TuneSRSError, match=r"data\.split\.kind=time: the prepared data lack some interactions"
    ):
        _ = data.everything


def test_a_refit_that_would_need_more_than_is_kept_is_refused(
    ended: tuple[Path, PreparedData], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(ended[0] / "results" / "tiny", tmp_path / "tiny"))
    journal = (run / "journal.jsonl").read_text()
    (run / "journal.jsonl").write_text(journal.replace('"power"', '"time"'))
    with pytest.raises(ts.TuneSRSError, match=r"trial \d: loss\.relevance=time"):
        ts.export(run, tmp_path / "model", refit="all", data_folder=ended[0] / "data", say=silent)


@pytest.mark.parametrize(("trial", "epochs"), [(0, EPOCHS), (2, EPOCHS_OF_THE_STOPPED)])
def test_the_configuration_of_an_export_trains_to_its_figures(
    ended: tuple[Path, PreparedData], export: Callable[..., Path], trial: int, epochs: int
) -> None:
    model = exported.read(export(trial=trial))
    reports = list(train(model.config, ended[1].validation))
    assert len(reports) == epochs
    told = model.metrics["validation"]["best"]
    again = reports[model.facts["epoch"] - 1].metrics
    for name in METRICS:
        assert again[f"val/{name}"] == pytest.approx(told[f"val/{name}"], abs=1e-6)


def test_what_cannot_be_exported_is_refused(
    ended: tuple[Path, PreparedData], tmp_path: Path
) -> None:
    run = ended[0] / "results" / "tiny"
    with pytest.raises(ts.TuneSRSError, match="has no trial 7; it has 0 to 2"):
        ts.export(run, tmp_path / "model", trial=7)
    with pytest.raises(ts.TuneSRSError, match="never overwritten"):
        ts.export(run, tmp_path)
    other = Path(shutil.copytree(run, tmp_path / "running"))
    shutil.rmtree(other / "best")
    with pytest.raises(ts.TuneSRSError, match="has not ended"):
        ts.export(other, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_search_may_score_the_test_with_a_winner_that_learned_the_validation(
    tmp_path: Path,
) -> None:
    """As an export with `--refit validation` does."""
    plain, _ = driver.search(tmp_path / "results" / "plain", space_of({}))
    refit, _ = driver.search(tmp_path / "results" / "refit", space_of({"refit": True}))
    assert any("learned from training and validation" in line for line in refit.conclusion())
    assert any("learned from the training histories" in line for line in plain.conclusion())
    ts.export(
        plain.folder,
        tmp_path / "model",
        refit="validation",
        data_folder=tmp_path / "results" / "data",
        say=silent,
    )
    again, best = exported.read(tmp_path / "model"), exported.read(refit.paths.best)
    assert best.facts["refit"] == "validation"
    assert best.metrics["test"] == again.metrics["test"]
    assert torch.equal(best.model.items.weight, again.model.items.weight)
    assert exported.read(plain.paths.best).metrics["test"] != best.metrics["test"]


def space_of(search: dict[str, object]) -> Space:
    values = {
        "fixed": FIXED | {"train.max_epochs": 2},
        "search": {"metric": METRIC, "trials": 2, "scheduler": "none"} | search,
        "params": {"train.lr": {"type": "categorical", "choices": [0.01, 0.001]}},
    }
    return Space.from_dict(values, "space")


def test_a_refit_over_times_is_refused_before_it_begins() -> None:
    values = space_of({"refit": True}).to_dict()
    values["params"]["loss.relevance"] = {"type": "categorical", "choices": ["linear", "time"]}
    values["fixed"]["loss.num_positives"] = 2
    with pytest.raises(ts.TuneSRSError, match="the times of the futures that a refit learns"):
        Space.from_dict(values, "space")
