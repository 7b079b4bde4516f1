"""Searches as a user starts them, and what several test files ask of their results."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
import pandas as pd
import yaml
from optuna.trial import TrialState

from tune_srs.datasets.prepare import prepare
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.run import Run
from tune_srs.training.loop import train

COMMAND = str(Path(sys.executable).parent / "tune-srs")
METRIC = "val/ndcg@10"
FIXED: dict[str, object] = {
    "data.name": "synthetic",
    "data.num_futures": 3,
    "data.synthetic.users": 60,
    "data.synthetic.items": 60,
    "data.synthetic.mean_length": 16,
    "model.hidden_units": 8,
    "model.max_length": 16,
    "train.batch_size": 16,
    "train.max_epochs": 4,
}
SPACE = {
    "description": "a tiny search",
    "search": {
        "metric": METRIC,
        "trials": 5,
        "scheduler": {"type": "asha", "grace_period": 1, "reduction_factor": 2},
    },
    "fixed": FIXED,
    "params": {
        "train.lr": {"type": "categorical", "choices": [0.01, 1e-7]},
        "loss.num_positives": {"type": "categorical", "choices": [1, 2]},
        "loss.relevance": {
            "type": "categorical",
            "choices": ["linear", "power"],
            "when": {"loss.num_positives": [2]},
        },
    },
    "first": [{"train.lr": 0.01, "loss.num_positives": 2, "loss.relevance": "power"}],
}


ONE_WORKER = ("--at-once", "1")  # starts sooner than two; for what does not need both


def write_space(folder: Path, **changes: object) -> None:
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE | changes), encoding="utf-8")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def check_study(folder: Path) -> None:
    """`optuna.db` tells what `trials.csv` and the journal tell."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
    study = optuna.load_study(study_name=folder.name, storage=storage)
    table, curves = Run(folder).trials, Run(folder).epochs
    states = {
        "complete": TrialState.COMPLETE,
        "stopped": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }
    assert [trial.state for trial in study.trials] == [states[word] for word in table["status"]]
    for trial, (_, row) in zip(study.trials, table.iterrows(), strict=True):
        curve = curves[curves["trial"] == trial.number].set_index("epoch")[METRIC]
        assert trial.intermediate_values == curve.to_dict()
        assert all(row[name] == value for name, value in trial.params.items())
        if trial.state == TrialState.COMPLETE:
            assert trial.value == row[METRIC]
    storage.engine.dispose()


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs for as long as the block, or shorter; all of its family ends with it."""
    with subprocess.Popen(
        [COMMAND, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                kill_family(process)


def kill_family(process: subprocess.Popen[str]) -> None:
    """SIGKILL for a process and all that it started."""
    for pid in family(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def wait_for(folder: Path, process: subprocess.Popen[str], text: str, count: int) -> None:
    """Until the journal has so many lines with `text`."""
    while lines_with(folder, text) < count:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
        assert process.poll() is None, process.communicate()


def lines_with(folder: Path, text: str) -> int:
    path = RunPaths(folder).journal
    return path.read_text().count(text) if path.exists() else 0


def same_as_trained_here(folder: Path, data_folder: Path) -> None:
    """Each trial of the run in `folder` has the epochs of its configuration, whatever happened."""
    run = Run(folder)
    data = prepare(run.space.base.data, data_folder)
    curves = run.epochs
    for record in run.records:
        trained = list(train(run.space.config(record.values), data.validation))
        expected = pd.DataFrame([{"epoch": one.epoch, **one.metrics} for one in trained])
        curve = curves[curves["trial"] == record.number].reset_index(drop=True)
        kept = [name for name in expected if "time/" not in str(name)]
        pd.testing.assert_frame_equal(curve[kept], expected[kept])


def same_curves(one: Path, other: Path) -> None:
    """Each epoch of each trial is there once, and the same, whatever happened in between."""
    curves = [Run(folder).epochs for folder in (one, other)]
    kept = [name for name in curves[0] if "time/" not in str(name)]
    pd.testing.assert_frame_equal(curves[0][kept], curves[1][kept])


def named(pid: int) -> str:
    """The command line of a process, empty when it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def family(pid: int) -> set[int]:
    """`pid` and its descendants (Linux)."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    members = {pid}
    while grown := {child for child, parent in parents.items() if parent in members} - members:
        members |= grown
    return members


def listening_beyond_loopback(pid: int) -> list[str]:
    """Addresses other than loopback on which `pid` or a descendant listens (Linux)."""
    sockets = set()
    for member in family(pid):
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
