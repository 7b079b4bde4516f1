"""A search on a Ray cluster: two nodes of one CPU each, which `ray start` puts on this machine."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from searches import FIXED

from tune_srs.datasets.prepare import prepare
from tune_srs.journal import Event, events
from tune_srs.space import Space
from tune_srs.storage import Storage
from tune_srs.training.checkpoint import last_name
from tune_srs.training.loop import train

pytestmark = pytest.mark.slow

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
ENVIRONMENT = os.environ | {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # Ray listens on every interface; strangers are turned away
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
BLIND = """
from tune_srs.cli import main
from tune_srs.storage import Storage

Storage.write = lambda *_: None  # what the head writes does not reach the other node
main()
"""
Process = subprocess.Popen[str]


@dataclass(frozen=True)
class Cluster:
    address: str
    worker: Process  # the node that is not the head


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    client = f"--ray-client-server-port={free_port()}"
    with (
        tempfile.TemporaryDirectory(prefix="ray-") as folder,  # paths of sockets must be short
        node("--head", "--port=0", client, f"--temp-dir={folder}"),
    ):
        address = Path(folder, "ray_current_cluster").read_text()
        with node(f"--address={address}") as worker:
            yield Cluster(address, worker)


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


REFUSED = {
    "the CPUs of a trial": (
        ["--storage=kept", "--cpus-per-trial=7"],
        "--cpus-per-trial: 7 asked, but the largest node has 1",
    ),
    "the GPUs of a trial": (
        ["--storage=kept", "--gpus-per-trial=1"],
        "--gpus-per-trial: 1 asked, but the largest node has 0",
    ),
    "the trials at once": (
        ["--storage=kept", "--at-once=5"],
        "--at-once: 5 asked, but there is room for 2",
    ),
    "no storage": ([], "--storage: the cluster has 2 nodes"),
    "a storage that is not shared": (["--storage=kept"], "is not the same place on node"),
    "an address where nothing listens": (
        ["--address=127.0.0.1:1"],
        "no Ray cluster at 127.0.0.1:1",
    ),
    "an address of Ray's client": (["--address=ray://127.0.0.1:1"], "--address auto"),
}


@pytest.fixture(scope="module")
def refusals(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Process, Path]]:
    """All of them at once, since each takes long to import Ray."""
    begun = {}
    for case, (options, _) in REFUSED.items():
        folder = tmp_path_factory.mktemp("refused")
        blind = [sys.executable, "-c", BLIND]
        command = blind if "not shared" in case else [BIN / "tune-srs"]
        begun[case] = (
            search(folder, f"--address={cluster.address}", *options, command=command),
            folder,
        )
    return begun


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_cluster_cannot_do_is_refused_before_anything_starts(
    case: str, refusals: dict[str, tuple[Process, Path]]
) -> None:
    process, folder = refusals[case]
    _, told = process.communicate()
    assert process.returncode == 2, told
    assert REFUSED[case][1] in told
    assert told.count("\n") == 1
    assert not (folder / "results").exists()


def test_a_trial_goes_on_elsewhere_when_its_node_dies(cluster: Cluster, tmp_path: Path) -> None:
    storage = tmp_path / "kept"
    saved: dict[int, list[int]] = {0: [], 1: []}  # epochs of checkpoints, after the node has died
    with search(tmp_path, f"--address={cluster.address}", f"--storage={storage}") as process:
        while min(saved_epoch(storage / "run", trial) for trial in saved) < 20:
            assert runs(process)
        kill(cluster.worker)  # and one of the two trials with it: a node has one CPU
        while runs(process):
            for trial, epochs in saved.items():
                epochs.append(saved_epoch(storage / "run", trial))
        _, told = process.communicate()
    assert (process.returncode, told) == (0, "")

    happened = list(events(tmp_path / "results" / "run"))
    ends = [number for number, event in enumerate(happened) if "end" in event]
    assert [happened[number]["end"] for number in ends] == ["complete", "complete"]
    cut = happened[ends[1]]["trial"]
    # it waited until there was room; of what was saved, the last epoch may not have been told
    assert 19 <= len(curve(happened[: ends[0]], cut)) < EPOCHS
    assert all(epoch == 0 or epoch >= 20 for epoch in saved[cut])  # and did not begin again

    space = Space.from_yaml(tmp_path / "space.yaml")
    data = prepare(space.base.data, tmp_path / "data").validation
    for trial in saved:
        values = next(event["begin"] for event in happened if event["trial"] == trial)
        undisturbed = train(space.config(values, f"trial {trial}"), data)
        assert curve(happened, trial) == [
            (report.epoch, untimed(report.metrics)) for report in undisturbed
        ]


def runs(process: Process) -> bool:
    """Whether it still does in a moment."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.05)
    return process.returncode is None


def saved_epoch(storage: Path, trial: int) -> int:
    """Of the checkpoint that a trial would go on from; 0 if there is none."""
    content = Storage(str(storage)).read(last_name(trial))
    if content is None:
        return 0
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return int(json.loads(header["__metadata__"]["facts"])["epoch"])


def curve(happened: list[Event], trial: int) -> list[tuple[int, dict[str, float]]]:
    return [
        (event["epoch"], untimed(event["metrics"]))
        for event in happened
        if event["trial"] == trial and "epoch" in event
    ]


def untimed(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}
