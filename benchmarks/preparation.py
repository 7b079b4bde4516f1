"""Preparing a generated log of the shape of MovieLens 25M, whole, against a plain read of it.

Each part runs in a process of its own on one core; memory is the peak of that process. What is
compared with is `pandas.read_csv` of the same file and nothing else, on the same core, before and
after; the ratio is of CPU times, since others may use the machine.

    python benchmarks/preparation.py --interactions 25000000
    python benchmarks/preparation.py --interactions 100000000
    python benchmarks/preparation.py --interactions 5000000 --text-ids
"""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from tune_srs.config.settings import DataConfig
from tune_srs.datasets.prepare import prepare
from tune_srs.datasets.prepared import load

CHUNK = 2_000_000
FIRST, LAST = 789_652_009, 1_574_327_703  # s since 1970: the span of MovieLens 25M


def generate(path: Path, interactions: int, users: int, items: int, text_ids: bool) -> None:
    """Random users, Zipf items and times, in no order, as `userId,movieId,rating,timestamp`."""
    random = np.random.default_rng(0)
    popularity = np.cumsum(1 / np.arange(10, items + 10))
    writer = None
    for start in range(0, interactions, CHUNK):
        size = min(CHUNK, interactions - start)
        drawn = random.random(size) * popularity[-1]
        columns = {
            "userId": pa.array(random.integers(1, users + 1, size)),
            "movieId": pa.array(np.searchsorted(popularity, drawn) + 1),
            "rating": pa.array(random.integers(1, 11, size) / 2),
            "timestamp": pa.array(random.integers(FIRST, LAST, size)),
        }
        if text_ids:
            for name in ("userId", "movieId"):
                columns[name] = pa.array(
                    [f"id-{number:08x}" for number in columns[name].to_numpy()]
                )
        table = pa.table(columns)
        writer = writer or csv.CSVWriter(str(path), table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def read(path: Path) -> None:
    pd.read_csv(path)


def prepared(path: Path, filters: bool) -> None:
    """From the file to the prepared files: hashed, read, checked, sorted, split, written."""
    settings = {"min_rating": 2.0, "repeats": "keep_first", "k_core": 5} if filters else {}
    config = DataConfig.model_validate({"name": str(path), "num_futures": 1} | settings)
    prepare(config, path.parent / f"data-{filters}", silent)


def silent(message: str) -> None:
    """What preparation has to say is not of interest."""


def loaded(folder: Path) -> None:
    load(folder)


@dataclass(frozen=True)
class Cost:
    """What a part took."""

    seconds: float
    cpu_seconds: float
    peak: float  # GiB

    def __str__(self) -> str:
        return f"s {self.seconds:.3g}  CPU s {self.cpu_seconds:.3g}  peak GiB {self.peak:.3g}"


def cost(work: Callable[..., None], *arguments: object) -> Cost:
    """Of `work` in a new process on one core."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_on_one_core, (work, arguments))


def _on_one_core(work: Callable[..., None], arguments: tuple[object, ...]) -> Cost:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    started, cpu_started = time.perf_counter(), time.process_time()
    work(*arguments)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    return Cost(seconds, cpu_seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=25_000_000)
    parser.add_argument("--users", type=int, default=162_541)
    parser.add_argument("--items", type=int, default=59_047)
    parser.add_argument("--text-ids", action="store_true")
    options = parser.parse_args()
    count = options.interactions
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratings.csv"
        generate(path, count, options.users, options.items, options.text_ids)
        print(f"{count} interactions, {path.stat().st_size / 1e6:.0f} MB, one core", flush=True)
        plain = cost(read, path)
        print(f"pandas.read_csv: {plain}", flush=True)
        for name, filters in (("as it is", False), ("min_rating, keep_first, k_core", True)):
            whole = cost(prepared, path, filters)
            again = cost(read, path)
            ratio = 2 * whole.cpu_seconds / (plain.cpu_seconds + again.cpu_seconds)
            print(
                f"prepared, {name}: {whole}  rows/s {count / whole.seconds:.3g}  ratio {ratio:.3g}",
                flush=True,
            )
            plain = again
        (cache,) = (Path(folder) / "data-False" / "prepared").iterdir()
        print(f"loaded: {cost(loaded, cache)}")


if __name__ == "__main__":
    main()
