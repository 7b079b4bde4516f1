"""Real searches: real Ray, real Optuna, real files, started as a user starts them."""

import json
import os
import signal
import subprocess
from pathlib import Path

import optuna
import pandas as pd
import pytest
import ray
import torch
from optuna.trial import TrialState
from support.searches import (
    COMMAND,
    FIXED,
    METRIC,
    ONE_WORKER,
    SPACE,
    check_study,
    family,
    kill_family,
    listening_beyond_loopback,
    named,
    run,
    same_as_trained_here,
    started,
    wait_for,
    write_space,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.prepare import prepare
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.exports import exported
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.resources import Resources
from tune_srs.runs.run import Run
from tune_srs.tuning.cluster import connected

pytestmark = pytest.mark.slow

DATA = TrialConfig().with_overrides(FIXED).data


def test_the_folder_holds_what_the_design_says(searched: tuple[Path, str]) -> None:
    folder = searched[0] / "results" / "tiny"
    assert {path.name for path in folder.iterdir()} == {
        "search.yaml", "baselines.json", "journal.jsonl", "trials.csv", "optuna.db", "ray.log",
        "tune", "best", ".lock", "test-ranks.parquet",
    }  # fmt: skip
    assert {path.name for path in (folder / "best").iterdir()} == {
        "config.yaml", "model.safetensors", "items.parquet", "metrics.json", "manifest.json",
        "README.md",
    }  # fmt: skip
    plan = Run(folder).settings
    assert plan["space"]["fixed"] == FIXED
    assert set(plan["versions"]) >= {"python", "torch", "ray", "optuna", "tune-srs"}
    data = prepare(
        TrialConfig.from_yaml(folder / "best" / "config.yaml").data, searched[0] / "data"
    )
    assert plan["data"]["fingerprint"] == data.fingerprint


def test_every_trial_is_in_the_table_with_the_metrics_of_its_best_epoch(
    searched: tuple[Path, str],
) -> None:
    folder = searched[0] / "results" / "tiny"
    table, epochs = Run(folder).trials, Run(folder).epochs
    assert list(table["trial"]) == [0, 1, 2, 3, 4]
    assert set(table["status"]) == {"complete", "stopped"}
    for row in table.to_dict("records"):
        curve = epochs[epochs["trial"] == row["trial"]].set_index("epoch")[METRIC]
        assert len(curve) == row["epochs"]
        assert (row["status"] == "complete") == (row["epochs"] == 4)
        assert row[METRIC] == curve.max() == curve[row["best_epoch"]]
    first = table.iloc[0]
    assert (first["train.lr"], first["loss.num_positives"]) == (0.01, 2)


def test_optuna_knows_which_trials_were_stopped_early(searched: tuple[Path, str]) -> None:
    folder = searched[0] / "results" / "tiny"
    check_study(folder)


def test_the_winner_is_exported_and_scored_on_the_test_futures(searched: tuple[Path, str]) -> None:
    folder = searched[0] / "results" / "tiny"
    table = Run(folder).trials
    metrics = json.loads((folder / "best" / "metrics.json").read_text())
    assert metrics["validation"]["best"][METRIC] == table[METRIC].max()
    assert set(metrics["test"]) == {"best", "popularity", "markov"}

    best = exported.read(folder / "best")
    config, model = best.config, best.model
    data = prepare(config.data, searched[0] / "data")
    cpu = torch.device("cpu")
    for split, prefix in ((data.validation, "val"), (data.test, "test")):
        scores = Evaluator(split, config.evaluation, cpu)(model).means()
        told = metrics["validation" if prefix == "val" else "test"]["best"]
        for name, value in scores.items():
            assert value == pytest.approx(told[f"{prefix}/{name}"], abs=1e-6)
    items = pd.read_parquet(folder / "best" / "items.parquet")
    assert len(items) == data.validation.num_items


def test_training_the_best_configuration_again_gives_the_same(searched: tuple[Path, str]) -> None:
    best = Path("results") / "tiny" / "best"
    done = run(
        searched[0],
        "train",
        str(best / "config.yaml"),
        "--metric",
        METRIC,
        "--metrics-to",
        "m.json",
    )
    assert done.returncode == 0, done.stderr
    again = json.loads((searched[0] / "m.json").read_text())
    told = json.loads((searched[0] / best / "metrics.json").read_text())
    assert again["epoch"] == told["epoch"]
    for name, value in told["validation"]["best"].items():
        if name.startswith("val/"):
            assert again["metrics"][name] == pytest.approx(value, abs=1e-6)


def test_it_ends_with_the_table_the_export_and_the_tensorboard_line(
    searched: tuple[Path, str],
) -> None:
    lines = searched[1].splitlines()
    assert lines[-1].endswith("tune-srs monitor tiny")
    assert "results/tiny/best" in lines[-2]
    assert len(lines) <= 15  # though there are five trials
    assert any("results/tiny/ray.log" in line for line in lines)
    shown = run(searched[0], "results", "tiny")
    assert shown.returncode == 0
    for row in ("popularity", "markov", "best"):
        assert any(line.startswith(row) for line in shown.stdout.splitlines())


def test_tensorboard_reads_every_trial(searched: tuple[Path, str]) -> None:
    folder = searched[0] / "results" / "tiny" / "tune"
    trials = sorted(folder.glob("trial_*"))
    assert len(trials) == 5
    for trial in trials:
        events = EventAccumulator(str(trial))
        events.Reload()
        assert {METRIC, "train/loss", "time/train_s"} <= set(events.Tags()["scalars"])
        told = Run(searched[0] / "results" / "tiny").epochs
        curve = told[told["trial"] == int(trial.name[-5:])][METRIC]
        assert [e.value for e in events.Scalars(METRIC)] == pytest.approx(curve.tolist())


def test_a_report_tells_the_scores_of_the_test(searched: tuple[Path, str]) -> None:
    done = run(searched[0], "report", "tiny")
    assert done.returncode == 0, done.stderr
    folder = searched[0] / "results" / "tiny"
    assert done.stdout.split()[0] == "results/tiny/report.html"
    assert (folder / "figures" / "learning-curves.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    told = json.loads((folder / "best" / "metrics.json").read_text())["test"]
    for scorer in ("best", "popularity", "markov"):
        assert f"{told[scorer]['test/ndcg@10']:.4f} [" in page


def test_a_finished_search_is_neither_overwritten_nor_resumed(searched: tuple[Path, str]) -> None:
    for options, hint in (
        (("space.yaml",), "never overwritten"),
        (("--resume",), "has ended already"),
    ):
        done = run(searched[0], "search", *options, "--name", "tiny")
        assert done.returncode == 2
        assert hint in done.stderr


def test_after_ctrl_c_a_search_goes_on_where_it_was(tmp_path: Path) -> None:
    longer = FIXED | {"train.max_epochs": 12}
    write_space(tmp_path, fixed=longer, search={"metric": METRIC, "trials": 4})
    with subprocess.Popen(
        [COMMAND, "search", "space.yaml", "--name", "cut"],
        cwd=tmp_path, stdout=subprocess.PIPE, text=True,
    ) as search:  # fmt: skip
        assert search.stdout is not None
        for line in search.stdout:
            if line.startswith("[1/4]"):
                assert not listening_beyond_loopback(search.pid)
                search.send_signal(signal.SIGINT)
                break
        rest = search.stdout.read()
    assert search.returncode == 130
    assert "search --resume --name cut" in rest
    folder = tmp_path / "results" / "cut"
    before = Run(folder).trials
    ended = before[before["status"] != "unfinished"]
    assert 1 <= len(ended) < 4
    assert not (folder / "best").exists()

    other = run(tmp_path, "search", "space.yaml", "--resume", "--name", "cut", "--num-trials", "9")
    assert other.returncode == 2
    done = run(tmp_path, "search", "--resume", "--name", "cut")
    assert (done.returncode, done.stderr) == (0, "")
    after = Run(folder).trials
    assert list(after["trial"]) == [0, 1, 2, 3]
    assert set(after["status"]) <= {"complete", "stopped"}
    kept = after[after["trial"].isin(ended["trial"])].reset_index(drop=True)
    ended = ended.reset_index(drop=True)
    pd.testing.assert_frame_equal(kept[ended.columns], ended, check_dtype=False)
    curves = Run(folder).epochs.groupby("trial")["epoch"]
    assert curves.count().tolist() == after["epochs"].tolist()
    assert curves.max().tolist() == after["epochs"].tolist()
    assert (folder / "best" / "config.yaml").exists()


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    rates = {"train.lr": {"type": "categorical", "choices": [0.01, 1e30]}}
    search = {"metric": METRIC, "sampler": {"type": "grid"}}
    write_space(tmp_path, params=rates, search=search, first=[])
    done = run(tmp_path, "search", "space.yaml", "--name", "one", *ONE_WORKER)
    assert done.returncode == 0, done.stderr
    table = Run(tmp_path / "results" / "one").trials.sort_values("train.lr")
    assert list(table["status"]) == ["complete", "failed"]
    assert "lower train.lr" in table["reason"].iloc[1]
    check_study(tmp_path / "results" / "one")
    assert "1 complete, 0 stopped early, 1 failed" in done.stdout


def test_a_space_in_which_everything_fails_stops_early(tmp_path: Path) -> None:
    params = {
        "train.lr": {"type": "float", "low": 1e30, "high": 1e31},
        # several steps an epoch fail in the first, a single one in the second
        "train.batch_size": {"type": "categorical", "choices": [16, 1000]},
    }
    search = {"metric": METRIC, "trials": 500, "sampler": "random", "scheduler": {"type": "none"}}
    fixed = {name: value for name, value in FIXED.items() if name not in params}
    write_space(tmp_path, fixed=fixed, params=params, search=search, first=[])
    done = run(tmp_path, "search", "space.yaml", "--name", "none", *ONE_WORKER)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "lower train.lr" in done.stderr
    table = Run(tmp_path / "results" / "none").trials
    assert 5 <= len(table) < 12
    failed = table[table["status"] == "failed"]
    assert failed["epochs"].tolist() == (failed["train.batch_size"] == 1000).tolist()
    assert not (tmp_path / "results" / "none" / "best").exists()
    assert failed["reason"].str.contains("lower train.lr").all()


def test_a_worker_goes_on_after_a_trial_stopped_in_a_long_epoch(tmp_path: Path) -> None:
    long = {
        "data.synthetic.users": 900,
        "model.max_length": 100,
        "train.batch_size": 1,
        "train.max_epochs": 2,
    }
    write_space(
        tmp_path,
        fixed=FIXED | long,
        params={"train.lr": {"type": "categorical", "choices": [0.01, 1e-7, 1e-8]}},
        search=SPACE["search"] | {"trials": None, "sampler": {"type": "grid"}},  # type: ignore[operator]
        first=[],
    )
    done = run(tmp_path, "search", "space.yaml", "--name", "long", "--cpus-per-trial", "2")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "long"
    assert Run(folder).epochs["time/train_s"].min() > 0.5
    table = Run(folder).trials
    assert set(table["status"]) == {"complete", "stopped"}
    assert Run(folder).epochs.groupby("trial").size().tolist() == table["epochs"].tolist()


def test_a_spent_budget_ends_a_search_and_its_best_epoch_is_exported(tmp_path: Path) -> None:
    endless = FIXED | {"train.max_epochs": 100000}
    search = {"metric": METRIC, "scheduler": {"type": "none"}, "time_budget": "2h"}
    write_space(tmp_path, fixed=endless, search=search)
    folder = tmp_path / "results" / "timed"
    with started(tmp_path, "search", "space.yaml", "--name", "timed", *ONE_WORKER) as process:
        wait_for(folder, process, '"epoch"', 5)
        process.send_signal(signal.SIGINT)
        process.communicate()
    path = RunPaths(folder).journal
    lines = path.read_text().splitlines()
    later = json.dumps(json.loads(lines[-1]) | {"at": 2 * 3600})  # as if it had run for two hours
    path.write_text("\n".join([*lines[:-1], later]) + "\n")
    done = run(tmp_path, "search", "--resume", "--name", "timed", *ONE_WORKER)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the time budget of 2h is spent" in done.stdout
    table = Run(folder).trials
    assert set(table["status"]) == {"stopped"}
    assert set(table["reason"]) == {"the time budget of 2h is spent"}
    best = json.loads((folder / "best" / "metrics.json").read_text())
    assert best["epoch"] == table.set_index("trial").loc[best["trial"], "best_epoch"]
    assert best["validation"]["best"][METRIC] == table[METRIC].max()
    assert list((folder / "tune").rglob("last.safetensors")) == []
    check_study(folder)


def test_patience_ends_a_trial_and_stale_trials_a_search(tmp_path: Path) -> None:
    write_space(
        tmp_path,
        fixed=FIXED | {"train.max_epochs": 300},
        search={"metric": METRIC, "sampler": {"type": "random"}, "scheduler": {"type": "none"}},
        params={"train.lr": {"type": "float", "low": 1e-9, "high": 1e-8}},
        first=[{"train.lr": 1e-8}],
    )
    done = run(
        tmp_path, "search", "space.yaml", "--name", "worn", "--num-trials", "500",
        "--patience", "3", "--stale-trials", "4", *ONE_WORKER,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "4 trials in a row have not improved val/ndcg@10" in done.stdout
    folder = tmp_path / "results" / "worn"
    table = Run(folder).trials
    assert len(table) < 30
    complete = table[table["status"] == "complete"]
    assert len(complete) >= 4
    assert (complete["epochs"] == complete["best_epoch"] + 3).all()
    check_study(folder)


def test_two_metrics_give_a_pareto_set(tmp_path: Path) -> None:
    metrics = [METRIC, "val/next/ndcg@10", "time/train_s"]
    search = SPACE["search"] | {"metric": metrics, "mode": ["max", "max", "min"]}  # type: ignore[operator]
    write_space(tmp_path, search=search)
    done = run(tmp_path, "search", "space.yaml", "--name", "two", *ONE_WORKER)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "results" / "two"
    table = Run(folder).trials
    front = table[table["pareto"]]
    assert table[METRIC].idxmax() in front.index or table[METRIC].max() in set(front[METRIC])
    for _, row in table[~table["pareto"]].iterrows():
        assert any(
            other[METRIC] >= row[METRIC]
            and other[metrics[1]] >= row[metrics[1]]
            and other[metrics[2]] <= row[metrics[2]]
            for _, other in front.iterrows()
        )
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
    study = optuna.load_study(study_name="two", storage=storage)
    assert len(study.directions) == 3
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    storage.engine.dispose()
    assert "pareto" in run(tmp_path, "results", "two").stdout


def test_a_worker_that_dies_costs_no_epoch(tmp_path: Path) -> None:
    longer = FIXED | {"train.max_epochs": 60}
    rates = {"train.lr": {"type": "categorical", "choices": [0.01, 0.02]}}
    search = {"metric": METRIC, "sampler": {"type": "grid"}, "scheduler": {"type": "none"}}
    write_space(tmp_path, fixed=longer, params=rates, search=search, first=[])
    with started(tmp_path, "search", "space.yaml", "--name", "hit") as process:
        wait_for(tmp_path / "results" / "hit", process, '"epoch"', 5)
        names = {pid: named(pid) for pid in family(process.pid)}
        trainers = [pid for pid, name in names.items() if "ImplicitFunc" in name]  # of Tune
        assert trainers, names
        os.kill(trainers[0], signal.SIGKILL)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert set(Run(tmp_path / "results" / "hit").trials["status"]) == {"complete"}
    same_as_trained_here(tmp_path / "results" / "hit", tmp_path / "data")


def test_a_place_that_cannot_be_written_stops_the_search_and_loses_nothing(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "results" / "blocked"
    longer = FIXED | {"train.max_epochs": 20}
    write_space(tmp_path, fixed=longer, search={"metric": METRIC, "trials": 4})
    with started(tmp_path, "search", "space.yaml", "--name", "blocked") as process:
        wait_for(folder, process, '"epoch"', 1)
        for number in (2, 3):  # where later trials want to write
            (folder / "tune" / f"trial_{number:05d}").write_text("in the way")
        _, errors = process.communicate()
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert "trial_0000" in errors
    assert "search --resume --name blocked" in errors
    assert not (folder / "best").exists()
    for number in (2, 3):
        (folder / "tune" / f"trial_{number:05d}").unlink()
    done = run(tmp_path, "search", "--resume", "--name", "blocked", *ONE_WORKER)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(Run(folder).trials["status"]) <= {"complete", "stopped"}
    check_study(folder)


def test_what_was_damaged_meanwhile_is_made_again(tmp_path: Path) -> None:
    longer = FIXED | {"train.max_epochs": 30}
    search = {"metric": METRIC, "trials": 3, "scheduler": {"type": "none"}, "sampler": "random"}
    write_space(tmp_path, fixed=longer, search=search)
    place = "a#b é?"
    folder = tmp_path / place / "cut"
    with started(
        tmp_path, "search", "space.yaml", "--name", "cut", "--results-folder", place
    ) as process:
        wait_for(folder, process, '"end"', 1)
        wait_for(folder, process, '"epoch"', 35)
        kill_family(process)
    for path in folder.glob("tune/*/*.safetensors"):  # of trials that ended and that go on
        path.write_bytes(path.read_bytes()[:100])
    (folder / "baselines.json").unlink()
    done = run(
        tmp_path, "search", "--resume", "--name", "cut", "--results-folder", place, *ONE_WORKER
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "again" in done.stdout or "anew" in done.stdout
    same_as_trained_here(folder, tmp_path / "data")
    best = json.loads((folder / "best" / "metrics.json").read_text())
    assert best["validation"]["best"][METRIC] == Run(folder).trials[METRIC].max()


def test_without_its_journal_a_search_is_not_begun_again(tmp_path: Path) -> None:
    write_space(tmp_path)
    folder = tmp_path / "results" / "lost"
    with started(tmp_path, "search", "space.yaml", "--name", "lost", *ONE_WORKER) as process:
        wait_for(folder, process, '"end"', 1)
        kill_family(process)
    (folder / "trials.csv").touch()
    content = RunPaths(folder).journal.read_text()
    RunPaths(folder).journal.unlink()
    done = run(tmp_path, "search", "--resume", "--name", "lost", *ONE_WORKER)
    assert done.returncode == 2
    assert "journal.jsonl: missing" in done.stderr
    RunPaths(folder).journal.write_text(content.replace('"train.lr": 0.01', '"train.lr": 0.5'))
    done = run(tmp_path, "search", "--resume", "--name", "lost", *ONE_WORKER)
    assert done.returncode == 2
    assert "which the space does not" in done.stderr


def test_only_one_process_runs_a_search(tmp_path: Path) -> None:
    longer = FIXED | {"train.max_epochs": 5000}
    write_space(tmp_path, fixed=longer)
    with started(tmp_path, "search", "space.yaml", "--name", "mine", *ONE_WORKER) as process:
        wait_for(tmp_path / "results" / "mine", process, '"epoch"', 1)
        other = run(tmp_path, "search", "--resume", "--name", "mine")
        process.send_signal(signal.SIGTERM)  # as batch systems do
        output, _ = process.communicate()
    assert other.returncode == 2
    assert "another process is running this search" in other.stderr
    assert process.returncode == 130
    assert "search --resume --name mine" in output


def test_workers_share_one_copy_of_the_data(tmp_path: Path) -> None:
    data = prepare(DATA, tmp_path)
    with connected(Resources(), data.validation):
        shared = ray.get(ray.put(data.validation))
        for array in (shared.training.items, shared.training.offsets, shared.futures):
            assert not array.flags.owndata
            assert not array.flags.writeable  # it lies in the object store
