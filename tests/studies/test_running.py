"""Studies as a user runs them: killed and resumed, with runs that fail, and refused."""

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
import pytest
import torch
from support import driver
from support.moments import ended
from support.searches import run
from support.small_study import METRICS, OF_DATA, STUDY, TUNE, write_study

import tune_srs as ts
from tune_srs.config.settings import TrialConfig
from tune_srs.config.yaml import read_yaml
from tune_srs.datasets.prepare import prepare
from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import reason_of
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.runs.plan import Plan
from tune_srs.studies import run as runs
from tune_srs.studies import running
from tune_srs.studies.plan import StudyPlan
from tune_srs.studies.pool import Failure
from tune_srs.studies.run import Score, Task
from tune_srs.studies.spec import Study
from tune_srs.training.loop import train

pytestmark = pytest.mark.slow
RUNS = 12
CONFIGURATIONS = {  # one is tuned, one diverges
    "plain": {"fixed": {"loss.num_positives": 1}},
    "wide": {"fixed": {"loss.num_positives": 2, "train.lr": 0.01}},
    "wild": {"fixed": {"train.lr": 1e30}},
}


def run_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("runs/*/*/*.parquet"))


def test_a_study_killed_and_interrupted_ends_like_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path, configurations=CONFIGURATIONS, tune=TUNE)
    cut, whole = (tmp_path / "results" / name for name in ("cut", "whole"))
    written = "a run is written"
    killed = ended(tmp_path, "SIGKILL", written, "study", "study.yaml", "--name", "cut")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(run_files(cut)) == 1
    assert f"of {RUNS} runs" in run(tmp_path, "results", "cut").stdout
    stopped = ended(tmp_path, "SIGTERM", written, "study", "--resume", "--name", "cut")
    assert (stopped.returncode, stopped.stderr) == (130, "")
    assert "study --resume --name cut" in stopped.stdout
    kept = {path: path.stat().st_mtime_ns for path in run_files(cut)}
    assert len(kept) == 2
    done = run(tmp_path, "study", "--resume", "--name", "cut")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())  # none ran twice

    study_without_ray(tmp_path, "whole", monkeypatch)
    for name in ("table.csv", "changes.csv", "tuned.yaml"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert not list(cut.rglob(".aside-*"))
    check_chosen(whole)
    check_runs(whole)
    check_failures(whole, done.stdout)
    refuse_other_data(tmp_path, whole)


def study_without_ray(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, resume: bool = False
) -> None:
    """Run the study in `folder`, or resume it, to its end, one thing at a time."""

    def search(plan: Plan, _data: object, place: Path, *_: object, **__: object) -> bool:
        driver.search(place, plan.space, seed=plan.seed)
        return True

    def outcomes(
        configs: Mapping[Task, TrialConfig],
        plan: StudyPlan,
        data: Mapping[str, PreparedData],
        *_: object,
    ) -> Iterator[tuple[Task, Score | Failure]]:
        for task, config in configs.items():
            splits = data[task.dataset]
            try:
                yield task, runs.score(config, plan.study, splits.validation, splits.test)
            except ts.TuneSRSError as error:
                yield task, Failure(reason_of(error))

    monkeypatch.setattr(running, "search", search)
    monkeypatch.setattr(running, "outcomes", outcomes)
    monkeypatch.chdir(folder)
    assert ts.study(None if resume else "study.yaml", name=name, resume=resume)


def check_chosen(folder: Path) -> None:
    """A configuration runs with what its tuning found best, on the validation futures."""
    tuned = read_yaml(folder / "tuned.yaml")
    assert list(tuned) == ["plain"]  # the others fix what would be tuned
    trials = pd.read_csv(folder / "searches" / "tuning-1" / "clean" / "plain" / "trials.csv")
    best = trials.sort_values("val/ndcg@10").iloc[-1]
    (chosen,) = tuned["plain"]["clean"]
    assert (chosen["tuning"], chosen["values"]) == (1, {"train.lr": best["train.lr"]})
    for dataset in ("clean", "noisy"):
        facts = runs.read_facts(Task(1, dataset, "plain").path(folder))
        assert facts is not None
        assert facts.config["train"]["lr"] == best["train.lr"]


def test_each_tuning_has_a_winner_of_its_own_that_runs_with_every_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning_rate = {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}
    tune = TUNE | {"tunings": 2, "params": {"train.lr": learning_rate}}
    of_data = {"clean": OF_DATA}
    write_study(tmp_path, configurations=CONFIGURATIONS, datasets=of_data, tune=tune, seeds=1)
    folder = tmp_path / "results" / "tuned"
    with monkeypatch.context() as interrupted:
        interrupt_the_second_tuning(interrupted, tmp_path)
    assert [path.parts[-4] for path in folder.glob("searches/*/clean/plain/best")] == ["tuning-1"]
    first = (folder / "tuned.yaml").read_text()
    study_without_ray(tmp_path, "tuned", monkeypatch, resume=True)
    tuned = read_yaml(folder / "tuned.yaml")["plain"]["clean"]
    assert (folder / "tuned.yaml").read_text().startswith(first)  # it was not tuned again
    assert [trial["tuning"] for trial in tuned] == [1, 2]
    assert tuned[0]["values"] != tuned[1]["values"]  # another seed proposes other trials
    for trial, seed in zip(tuned, (1, 3), strict=True):
        task = Task(seed, "clean", "plain", trial["tuning"])
        facts = runs.read_facts(task.path(folder))
        assert facts is not None
        assert (facts.tuning, facts.config["train"]["seed"]) == (trial["tuning"], seed)
        assert facts.config["train"]["lr"] == trial["values"]["train.lr"]
    text = (folder / "table.md").read_text()
    assert "6 of 6 runs, 2 of them failed" in text
    assert "- plain on clean, tuning 2: train.lr=" in text


def interrupt_the_second_tuning(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Begin the study and interrupt it there."""

    def search(plan: Plan, _data: object, place: Path, *_: object, **__: object) -> bool:
        if plan.seed == 0:
            driver.search(place, plan.space)
        return plan.seed == 0

    monkeypatch.setattr(running, "search", search)
    monkeypatch.chdir(folder)
    assert ts.study("study.yaml", name="tuned") is None


def check_runs(folder: Path) -> None:
    """A run is what `score` gives, and its users' values have the mean that is in the table."""
    study = Study.from_dict(read_yaml(folder / "study.yaml")["study"], "study.yaml")
    task = Task(2, "noisy", "plain")
    facts, users = runs.read_facts(task.path(folder)), runs.read_users(task.path(folder))
    assert facts is not None
    config = TrialConfig.from_dict(facts.config)
    data = prepare(config.data, folder.parent.parent / "data")
    score = runs.score(config, study, data.validation, data.test)
    assert users["user"].tolist() == data.user_ids.tolist()
    for metric in METRICS:
        assert users[metric].tolist() == score.per_user[metric].tolist()
    table = pd.read_csv(folder / "table.csv")
    mine = table[(table["dataset"] == "noisy") & (table["configuration"] == "plain")]
    first = runs.read_users(Task(1, "noisy", "plain").path(folder))
    mean = (users[METRICS].mean() + first[METRICS].mean()) / 2
    assert mine["mean"].tolist() == pytest.approx(mean.tolist())


def check_failures(folder: Path, printed: str) -> None:
    """A run that fails is recorded with its reason and does not stop the others."""
    table = pd.read_csv(folder / "table.csv")
    wide, wild = (table[table["configuration"] == name] for name in ("wide", "wild"))
    assert wild["failed"].tolist() == wide["runs"].tolist() == [2, 2, 2, 2]
    assert wide["p_users"].notna().all()
    reason = "the loss is nan; lower train.lr"
    assert f"- wild on noisy, seed 2: epoch 1: {reason}" in (folder / "table.md").read_text()
    assert f"seed 2 failed: epoch 1: {reason}" in printed


def refuse_other_data(place: Path, folder: Path) -> None:
    path = folder / "study.yaml"
    path.write_text(path.read_text().replace("synthetic.users: 60", "synthetic.users: 61"))
    refused = run(place, "study", "--resume", "--name", folder.name)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "began on data with fingerprint" in refused.stderr


def test_a_refit_learns_the_validation_before_the_test_is_scored(tmp_path: Path) -> None:
    values = STUDY | {"refit": True, "configurations": {"plain": {}}}
    study = Study.from_dict(values, "study")
    config = study.config("plain", "clean", 1)
    data = prepare(config.data, tmp_path)
    validation, test = runs.splits_of(data, study)
    score = runs.score(config, study, validation, test)
    for report in train(
        config.with_overrides({"train.last_epoch": score.epoch}), data.test.histories
    ):
        model = report.state.model.eval()
    means = Evaluator(data.test, config.evaluation, torch.device("cpu"))(model).means()
    other = Study.from_dict(values | {"refit": False}, "study")
    plain = runs.score(config, other, *runs.splits_of(data, other))
    assert score.metrics["test/ndcg@10"] == pytest.approx(means["ndcg@10"])
    assert score.metrics["test/ndcg@10"] != plain.metrics["test/ndcg@10"]
    assert score.metrics["val/ndcg@10"] == plain.metrics["val/ndcg@10"]
    values = values | {"fixed": STUDY["fixed"] | {"loss.relevance": "time"}}
    with pytest.raises(ts.TuneSRSError, match="the times of the futures that a refit learns"):
        Study.from_dict(values, "study")


def test_patience_ends_a_run(tmp_path: Path) -> None:
    values = STUDY | {"patience": 1, "fixed": STUDY["fixed"] | {"train.max_epochs": 30}}
    values["configurations"] = {"plain": {}}
    study = Study.from_dict(values, "study")
    config = study.config("plain", "clean", 1)
    data = prepare(config.data, tmp_path)
    score = runs.score(config, study, data.validation, data.test)
    assert score.epochs == score.epoch + 1 < 30
    assert score.metrics["val/ndcg@10"] > 0
    assert score.per_user["test/ndcg@10"].shape == (data.test.num_users,)
