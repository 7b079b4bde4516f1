"""Splits to measure on, and how a time is taken."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tune_srs.datasets.histories import Histories, Split
from tune_srs.datasets.prepared import PreparedData

DATASETS = "ml-1m-shaped and tiny are random, of a shape; or a known data set; or the path of a log"


def split_named(name: str) -> Split:
    """One of `DATASETS`, with one future per user."""
    if name == "ml-1m-shaped":
        return random_split(users=6040, items=3416, mean_length=165)
    if name == "tiny":
        return random_split(users=60, items=60, mean_length=12)
    return prepared_named(name).validation


def prepared_named(name: str) -> PreparedData:
    """A known data set, the path of a log, or `tiny` generated data; with one future per user."""
    from tune_srs.config.data import DataConfig
    from tune_srs.datasets.prepare import prepare

    if name != "tiny":
        return prepare(DataConfig(name=name, num_futures=1), Path("data"))
    with tempfile.TemporaryDirectory() as folder:
        settings = {"name": "synthetic", "num_futures": 1, "synthetic": {"users": 60}}
        return prepare(DataConfig.model_validate(settings), Path(folder))


def random_split(users: int, items: int, mean_length: int, num_futures: int = 1) -> Split:
    """Log-normal lengths and Zipf popularity; there is nothing to learn in it."""
    random = np.random.default_rng(0)
    drawn_lengths = random.lognormal(np.log(mean_length) - 0.5, 1.0, users)
    lengths = np.clip(drawn_lengths, 5, items // 2).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    popularity = 1 / np.arange(10, items + 10)
    size = offsets[-1] + users * num_futures
    drawn = 1 + random.choice(items, size, p=popularity / popularity.sum()).astype(np.int32)
    futures = drawn[offsets[-1] :].reshape(users, num_futures)
    histories = Histories(drawn[: offsets[-1]], offsets, items)
    return Split(histories, histories, futures)


def median_ms(step: Callable[[], object], repeats: int, warm_up: int = 1) -> float:
    """Median time of a call in this process, after `warm_up` calls that do not count."""
    times = []
    for _ in range(warm_up + repeats):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times[warm_up:])
