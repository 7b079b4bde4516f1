"""Nodes of a Ray cluster on this machine, by `ray start`."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from filelock import FileLock

from support.searches import FIXED

BIN = Path(sys.executable).parent
EPOCHS = 250
SPACE = {
    "description": "two trials that last for seconds",
    "search": {
        "metric": "val/ndcg@10",
        "sampler": {"type": "grid"},
        "scheduler": {"type": "none"},
    },
    "fixed": FIXED | {"train.max_epochs": EPOCHS},
    "params": {"train.lr": {"type": "categorical", "choices": [0.01, 0.001]}},
}
# A user's shell has none of what `tune_srs.tuning` sets for Ray in the process that imports it.
# With that, `ray start` would listen on loopback only, and no other node could join.
SHELL = {
    name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))
}
ENVIRONMENT = SHELL | {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # workers are as nice as `ray start`, and not nicer
    "RAY_AUTH_MODE": "token",  # Ray listens on every interface; strangers are turned away
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
Process = subprocess.Popen[str]


@contextmanager
def only_cluster() -> Iterator[None]:
    """One cluster at a time on this machine: nodes that start beside others may join too late."""
    with FileLock(Path(tempfile.gettempdir()) / "tune-srs-tests-cluster.lock"):
        yield


@contextmanager
def node(*options: str) -> Iterator[Process]:
    """`ray start`, from when the node runs; in the end all its processes are killed."""
    command = [str(BIN / "ray"), "start", "--block", "--num-cpus=1", *options]
    with subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as started:
        try:
            assert started.stdout is not None
            assert any("will now block" in line for line in started.stdout)
            yield started
        finally:
            kill(started)


def kill(node: Process) -> None:
    """All processes of a node at once, as when its machine is gone."""
    for pid in sorted(int(path.name) for path in Path("/proc").glob("[0-9]*")):
        with suppress(ProcessLookupError):
            if os.getsid(pid) == node.pid:
                os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def search(
    folder: Path, *options: str, command: Sequence[str | Path] = (BIN / "tune-srs",)
) -> Process:
    """A search of `SPACE` by the name `run`, as it starts."""
    folder.mkdir(exist_ok=True)
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE), encoding="utf-8")
    return subprocess.Popen(
        [*command, "search", "space.yaml", "--name", "run", *options],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
