"""Sequences to measure on, and how a time is taken."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tune_srs.config import DataConfig
from tune_srs.datasets.prepare import prepare
from tune_srs.datasets.sequences import Sequences

NAMES = ("ml-100k", "ml-1m-shaped", "tiny")


def sequences_named(name: str) -> Sequences:
    """`ml-100k` is the real one, with one future; the others are random, of a shape."""
    if name == "ml-100k":
        return prepare(DataConfig(num_futures=1), Path("data")).validation
    if name == "ml-1m-shaped":
        return random_sequences(users=6040, items=3416, mean_length=165)
    return random_sequences(users=60, items=60, mean_length=12)


def random_sequences(users: int, items: int, mean_length: int) -> Sequences:
    """Log-normal lengths and Zipf popularity, one future each; there is nothing to learn in it."""
    random = np.random.default_rng(0)
    drawn_lengths = random.lognormal(np.log(mean_length) - 0.5, 1.0, users)
    lengths = np.clip(drawn_lengths, 5, items // 2).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    popularity = 1 / np.arange(10, items + 10)
    popularity /= popularity.sum()
    drawn = 1 + random.choice(items, size=offsets[-1] + users, p=popularity).astype(np.int32)
    return Sequences(drawn[:-users], offsets, drawn[-users:, None], items)


def median_ms(step: Callable[[], object], repeats: int, warm_up: int = 1) -> float:
    """Median time of a call in this process, after `warm_up` calls that do not count."""
    times = []
    for _ in range(warm_up + repeats):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times[warm_up:])
