"""Ray on this machine or a cluster that runs already, and what there is room for."""

import logging
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tune_srs.datasets.histories import Split
from tune_srs.errors import ConfigError
from tune_srs.runs.resources import Resources, available_cpus
from tune_srs.storage import Storage

OBJECT_STORE_SLACK = 128 * 2**20


@contextmanager
def connected(resources: Resources, *splits: Split) -> Iterator[None]:
    """Ray, with room for `splits`, for as long as the block lasts.

    What it would print goes to its loggers.

    On this machine it listens on loopback only and has no dashboard.
    """
    if resources.address is None:
        ray.init(
            address="local",
            num_cpus=available_cpus(),
            object_store_memory=OBJECT_STORE_SLACK + 2 * sum(split.nbytes for split in splits),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    else:
        _join(resources.address)
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str) -> None:
    if address.startswith("ray://"):
        raise ConfigError(
            f"--address: {address} is a Ray client's; run this command on a node of the cluster, "
            f"for instance with `ray job submit`, and give --address auto"
        )
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():  # where nothing listens, Ray would try for a quarter of an hour
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, OverflowError, RayError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ConfigError(
            f"--address: no Ray cluster at {address} that lets us in ({reason}); start one with "
            f"`ray start --head`, or give its token in RAY_AUTH_TOKEN"
        ) from error


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """What Ray and Optuna tell goes to the file `path` and not to the console."""
    log = logging.FileHandler(path)
    loggers = [logging.getLogger(name) for name in ("ray", "optuna")]
    before = [(logger.handlers, logger.level) for logger in loggers]
    for logger in loggers:
        logger.handlers = [log]
    loggers[0].setLevel(logging.INFO)
    try:
        with redirect_stdout(log.stream):  # Ray prints what it tells of workers that died
            yield
    finally:
        for logger, (handlers, level) in zip(loggers, before, strict=True):
            logger.handlers = handlers
            logger.setLevel(level)
        log.close()


def node_resources() -> list[Mapping[str, float]]:
    """What each node of the cluster has: `CPU` and, if any, `GPU`."""
    return [node["Resources"] for node in _nodes()]


def check_storage(storage: Storage | None) -> None:
    """A `ConfigError` unless each node of the cluster sees what is written to `storage`."""
    nodes = _nodes()
    if storage is None:
        if len(nodes) > 1:
            raise ConfigError(
                f"--storage: the cluster has {len(nodes)} nodes; give a place that all of them "
                f"reach, a shared folder, s3://BUCKET/PATH or gs://BUCKET/PATH"
            )
        return
    name = f".seen-{uuid.uuid4().hex}"
    try:
        storage.write(name, b"by all?")
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())[:300]
        raise ConfigError(
            f"--storage: {storage.place} cannot be written ({reason}); mend that, or give another"
        ) from error
    try:
        for node in nodes:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            look = _sees.options(scheduling_strategy=here).remote(storage, name)
            if not ray.get(look):
                raise ConfigError(
                    f"--storage: {storage.place} is not the same place on node "
                    f"{node['NodeManagerAddress']}; give one that all nodes reach"
                )
    finally:
        storage.delete(name)


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


@ray.remote(num_cpus=0)
def _sees(storage: Storage, name: str) -> bool:
    return storage.read(name) is not None
