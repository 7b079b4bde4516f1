"""A search on a Ray cluster: two nodes of one CPU each, which `ray start` puts on this machine."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.nodes import BIN, EPOCHS, Process, free_port, kill, node, only_cluster, search

from tune_srs.datasets.prepare import prepare
from tune_srs.runs.journal import Event, events
from tune_srs.space.space import Space
from tune_srs.storage import Storage
from tune_srs.training.checkpoint import last_name
from tune_srs.training.loop import train

pytestmark = pytest.mark.slow

BLIND = """
from tune_srs.cli.app import main
from tune_srs.storage import Storage

Storage.write = lambda *_: None  # what the head writes does not reach the other node
main()
"""


@dataclass(frozen=True)
class Cluster:
    address: str
    worker: Process  # the node that is not the head


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    client = f"--ray-client-server-port={free_port()}"
    with (
        only_cluster(),
        tempfile.TemporaryDirectory(prefix="ray-") as folder,  # paths of sockets must be short
        node("--head", "--port=0", client, f"--temp-dir={folder}"),
    ):
        address = Path(folder, "ray_current_cluster").read_text()
        with node(f"--address={address}") as worker:
            yield Cluster(address, worker)


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
