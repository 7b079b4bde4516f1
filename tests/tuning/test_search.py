"""Real searches: real Ray, real Optuna, real files, started as a user starts them."""

import json
import os
import signal
from pathlib import Path

import pandas as pd
import pytest
import ray
import torch
from support.moments import ended
from support.searches import (
    FIXED,
    METRIC,
    ONE_WORKER,
    SPACE,
    check_study,
    family,
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
    noted = "an end is noted and its checkpoint kept"
    cut = ended(tmp_path, "SIGINT", noted, "search", "space.yaml", "--name", "cut")
    assert cut.returncode == 130, cut.stderr
    assert "search --resume --name cut" in cut.stdout
    folder = tmp_path / "results" / "cut"
    before = Run(folder).trials
    earlier = before[before["status"] != "unfinished"]
    assert 1 <= len(earlier) < 4
    assert not (folder / "best").exists()

    other = run(tmp_path, "search", "space.yaml", "--resume", "--name", "cut", "--num-trials", "9")
    assert other.returncode == 2
    done = run(tmp_path, "search", "--resume", "--name", "cut")
    assert (done.returncode, done.stderr) == (0, "")
    after = Run(folder).trials
    assert list(after["trial"]) == [0, 1, 2, 3]
    assert set(after["status"]) <= {"complete", "stopped"}
    kept = after[after["trial"].isin(earlier["trial"])].reset_index(drop=True)
    earlier = earlier.reset_index(drop=True)
    pd.testing.assert_frame_equal(kept[earlier.columns], earlier, check_dtype=False)
    curves = Run(folder).epochs.groupby("trial")["epoch"]
    assert curves.count().tolist() == after["epochs"].tolist()
    assert curves.max().tolist() == after["epochs"].tolist()
    assert (folder / "best" / "config.yaml").exists()


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


def test_a_worker_that_dies_costs_no_epoch(tmp_path: Path) -> None:
    longer = FIXED | {"train.max_epochs": 150}
    rates = {"train.lr": {"type": "categorical", "choices": [0.01, 0.02]}}
    search = {"metric": METRIC, "sampler": {"type": "grid"}, "scheduler": {"type": "none"}}
    write_space(tmp_path, fixed=longer, params=rates, search=search, first=[])
    with started(tmp_path, "search", "space.yaml", "--name", "hit") as process:
        wait_for(tmp_path / "results" / "hit", process, '"epoch"', 5)
        assert not listening_beyond_loopback(process.pid)
        names = {pid: named(pid) for pid in family(process.pid)}
        trainers = [pid for pid, name in names.items() if "ImplicitFunc" in name]  # of Tune
        assert trainers, names
        os.kill(trainers[0], signal.SIGKILL)
        _, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert set(Run(tmp_path / "results" / "hit").trials["status"]) == {"complete"}
    same_as_trained_here(tmp_path / "results" / "hit", tmp_path / "data")


def test_only_one_process_runs_a_search(tmp_path: Path) -> None:
    longer = FIXED | {"train.max_epochs": 1000000}
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
