"""Real searches: real Ray, real Optuna, real files, started as a user starts them."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import optuna
import pandas as pd
import pytest
import ray
import torch
import yaml
from optuna.trial import TrialState
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tune_srs import checkpoint, export, outcome, results
from tune_srs.config import TrialConfig
from tune_srs.datasets.prepare import prepare
from tune_srs.evaluate import Evaluator
from tune_srs.plan import Plan, Resources
from tune_srs.search import local_ray
from tune_srs.space import Space
from tune_srs.train import train

pytestmark = pytest.mark.slow

COMMAND = str(Path(sys.executable).parent / "tune-srs")
METRIC = "val/ndcg@10"
SPACE = {
    "description": "a tiny search",
    "search": {
        "metric": METRIC,
        "trials": 5,
        "scheduler": {"type": "asha", "grace_period": 1, "reduction_factor": 2},
    },
    "fixed": {
        "data.name": "synthetic",
        "data.num_futures": 3,
        "data.synthetic.users": 60,
        "data.synthetic.items": 60,
        "data.synthetic.mean_length": 16,
        "model.hidden_units": 8,
        "model.max_length": 16,
        "train.batch_size": 16,
        "train.max_epochs": 4,
    },
    "params": {
        "train.lr": {"type": "categorical", "choices": [0.01, 1e-7]},
        "loss.num_positives": {"type": "categorical", "choices": [1, 2]},
        "loss.relevance": {
            "type": "categorical",
            "choices": ["linear", "power"],
            "when": {"loss.num_positives": [2]},
        },
    },
    "baselines": [{"train.lr": 0.01, "loss.num_positives": 2, "loss.relevance": "power"}],
}


DATA = TrialConfig().with_overrides(SPACE["fixed"]).data  # type: ignore[arg-type]


def write_space(folder: Path, **changes: object) -> None:
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE | changes), encoding="utf-8")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a finished search `tiny`, and what it printed."""
    folder = tmp_path_factory.mktemp("searched")
    write_space(folder)
    done = run(folder, "search", "space.yaml", "--name", "tiny")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, done.stdout


def test_the_folder_holds_what_the_design_says(searched: tuple[Path, str]) -> None:
    folder = searched[0] / "results" / "tiny"
    assert {path.name for path in folder.iterdir()} == {
        "search.yaml", "yardsticks.json", "trials.csv", "study.db", "ray.log", "tune", "best",
    }  # fmt: skip
    assert {path.name for path in (folder / "best").iterdir()} == {
        "config.yaml", "model.safetensors", "items.parquet", "metrics.json", "README.md",
    }  # fmt: skip
    plan = results.settings(folder)
    assert plan["space"]["fixed"] == SPACE["fixed"]
    assert set(plan["versions"]) >= {"python", "torch", "ray", "optuna", "tune-srs"}
    data = prepare(
        TrialConfig.from_yaml(folder / "best" / "config.yaml").data, searched[0] / "data"
    )
    assert plan["data"]["fingerprint"] == data.fingerprint


def test_every_trial_is_in_the_table_with_the_metrics_of_its_best_epoch(
    searched: tuple[Path, str],
) -> None:
    folder = searched[0] / "results" / "tiny"
    table, epochs = results.trials(folder), results.epochs(folder)
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
    study = optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder / 'study.db'}")
    table = results.trials(folder).set_index("trial_id")
    assert len(study.trials) == 5
    for trial in study.trials:
        row = table.loc[trial.user_attrs["trial_id"]]
        expected = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED}
        assert trial.state == expected[row["status"]]
        assert len(trial.intermediate_values) == row["epochs"]


def test_the_winner_is_exported_and_scored_on_the_test_futures(searched: tuple[Path, str]) -> None:
    folder = searched[0] / "results" / "tiny"
    table = results.trials(folder)
    metrics = json.loads((folder / "best" / "metrics.json").read_text())
    assert metrics["validation"]["best"][METRIC] == table[METRIC].max()
    assert set(metrics["test"]) == {"best", "popularity", "markov"}

    config, model = export.load_model(folder / "best")
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
    assert "tensorboard --logdir results/tiny/tune" in lines[-1]
    assert "results/tiny/best" in lines[-2]
    shown = run(searched[0], "results", "tiny")
    assert shown.returncode == 0
    assert shown.stdout.strip() in searched[1]
    for row in ("popularity", "markov", "best"):
        assert any(line.startswith(row) for line in shown.stdout.splitlines())


def test_tensorboard_reads_every_trial(searched: tuple[Path, str]) -> None:
    folder = searched[0] / "results" / "tiny" / "tune"
    trials = sorted(folder.glob("trial_*"))
    assert len(trials) == 5
    for trial in trials:
        events = EventAccumulator(str(trial))
        events.Reload()
        assert "ray/tune/val/ndcg_10" in events.Tags()["scalars"]


def test_a_report_is_written(searched: tuple[Path, str]) -> None:
    done = run(searched[0], "report", "tiny")
    assert done.returncode == 0, done.stderr
    folder = searched[0] / "results" / "tiny"
    assert (folder / "learning-curves.png").read_bytes().startswith(b"\x89PNG")
    page = (folder / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "popularity" in page


def test_a_finished_search_is_neither_overwritten_nor_resumed(searched: tuple[Path, str]) -> None:
    for options, hint in (
        (("space.yaml",), "never overwritten"),
        (("--resume",), "has ended already"),
    ):
        done = run(searched[0], "search", *options, "--name", "tiny")
        assert done.returncode == 2
        assert hint in done.stderr


def test_after_ctrl_c_a_search_goes_on_where_it_was(tmp_path: Path) -> None:
    longer = SPACE["fixed"] | {"train.max_epochs": 12}  # type: ignore[operator]
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
    before = results.trials(folder)
    ended = before[before["status"] != "unfinished"]
    assert 1 <= len(ended) < 4
    assert not (folder / "best").exists()

    other = run(tmp_path, "search", "space.yaml", "--resume", "--name", "cut", "--num-trials", "9")
    assert other.returncode == 2
    done = run(tmp_path, "search", "--resume", "--name", "cut")
    assert (done.returncode, done.stderr) == (0, "")
    after = results.trials(folder)
    assert list(after["trial"]) == [0, 1, 2, 3]
    assert set(after["status"]) <= {"complete", "stopped"}
    kept = after[after["trial"].isin(ended["trial"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, ended.reset_index(drop=True), check_dtype=False)
    curves = results.epochs(folder).groupby("trial")["epoch"]
    assert curves.count().tolist() == after["epochs"].tolist()
    assert curves.max().tolist() == after["epochs"].tolist()
    assert (folder / "best" / "config.yaml").exists()


def test_what_a_forgotten_trial_left_is_not_taken_for_another_s(tmp_path: Path) -> None:
    write_space(tmp_path, search={"metric": METRIC, "trials": 1})
    space = Space.from_yaml(tmp_path / "space.yaml")
    data = prepare(space.base.data, tmp_path / "data")
    other = space.base.with_overrides({"train.lr": 0.5, "model.hidden_units": 4})
    report = next(train(other, data.validation))
    best = checkpoint.Best(METRIC, "max")
    best.update(report)
    folder = outcome.trial_folder(tmp_path / "results" / "cut", 0)
    checkpoint.Checkpoint.of(other, report, best).write(folder)
    results.append_epoch(folder, {"trial": 0, "epoch": 9, METRIC: 1.0})
    run_folder = tmp_path / "results" / "cut"
    Plan("cut", space, 0, Resources()).write(data, run_folder / "search.yaml")
    scores = outcome.yardsticks(data, space.base.evaluation)
    (run_folder / "yardsticks.json").write_text(json.dumps(scores))
    done = run(tmp_path, "search", "--resume", "--name", "cut")
    assert (done.returncode, done.stderr) == (0, "")
    assert results.epochs(run_folder)["epoch"].tolist() == [1, 2, 3, 4]
    assert TrialConfig.from_yaml(run_folder / "best" / "config.yaml").train.lr == 0.01


def test_cut_before_the_first_trial_it_begins_on_resume(tmp_path: Path) -> None:
    write_space(tmp_path, search={"metric": METRIC, "trials": 1})
    space = Space.from_yaml(tmp_path / "space.yaml")
    data = prepare(space.base.data, tmp_path / "data")
    folder = tmp_path / "results" / "cut"
    folder.mkdir(parents=True)
    Plan("cut", space, 0, Resources()).write(data, folder / "search.yaml")
    scores = outcome.yardsticks(data, space.base.evaluation)
    (folder / "yardsticks.json").write_text(json.dumps(scores))
    done = run(tmp_path, "search", "--resume", "--name", "cut")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(results.trials(folder)["status"]) == ["complete"]


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path) -> None:
    rates = {"train.lr": {"type": "categorical", "choices": [0.01, 1e30]}}
    search = {"metric": METRIC, "sampler": {"type": "grid"}}
    write_space(tmp_path, params=rates, search=search, baselines=[])
    done = run(tmp_path, "search", "space.yaml", "--name", "one")
    assert done.returncode == 0, done.stderr
    table = results.trials(tmp_path / "results" / "one").sort_values("train.lr")
    assert list(table["status"]) == ["complete", "failed"]
    assert "lower train.lr" in table["error"].iloc[1]

    rates["train.lr"]["choices"] = [1e30, 1e31]
    write_space(tmp_path, params=rates, search=search, baselines=[])
    done = run(tmp_path, "search", "space.yaml", "--name", "none")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "lower train.lr" in done.stderr


def test_a_worker_goes_on_after_a_trial_stopped_in_a_long_epoch(tmp_path: Path) -> None:
    long = {
        "data.synthetic.users": 900,
        "model.max_length": 100,
        "train.batch_size": 1,
        "train.max_epochs": 2,
    }
    write_space(
        tmp_path,
        fixed=SPACE["fixed"] | long,  # type: ignore[operator]
        params={"train.lr": {"type": "categorical", "choices": [0.01, 1e-7, 1e-8]}},
        search=SPACE["search"] | {"trials": 3, "sampler": {"type": "grid"}},  # type: ignore[operator]
        baselines=[],
    )
    done = run(tmp_path, "search", "space.yaml", "--name", "long", "--cpus-per-trial", "2")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "long"
    assert results.epochs(folder)["time/train_s"].min() > 0.5
    table = results.trials(folder)
    assert set(table["status"]) == {"complete", "stopped"}
    assert results.epochs(folder).groupby("trial").size().tolist() == table["epochs"].tolist()


def test_workers_share_one_copy_of_the_sequences(tmp_path: Path) -> None:
    data = prepare(DATA, tmp_path)
    with local_ray(data, tmp_path):
        shared = ray.get(ray.put(data.validation))
        for array in (shared.items, shared.offsets, shared.futures):
            assert not array.flags.owndata
            assert not array.flags.writeable  # it lies in the object store


def listening_beyond_loopback(pid: int) -> list[str]:
    """Addresses other than loopback on which `pid` or a descendant listens (Linux)."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except FileNotFoundError:  # it ended meanwhile
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    family = {pid}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    sockets = set()
    for member in family:
        for link in Path(f"/proc/{member}/fd").glob("*"):
            try:
                sockets.add(str(link.readlink()))
            except FileNotFoundError:
                continue
    beyond = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            address = _address(local.partition(":")[0])
            if state == "0A" and f"socket:[{inode}]" in sockets and not _is_loopback(address):
                beyond.append(address)
    return beyond


def _address(hexadecimal: str) -> str:
    """The kernel writes addresses as 32-bit words in the machine's own byte order."""
    words = [hexadecimal[start : start + 8] for start in range(0, len(hexadecimal), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _is_loopback(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"
