"""What ten thousand trials cost the driver: suggesting, noting, reading, memory and disk.

python benchmarks/search_scaling.py searcher --sampler tpe --trials 100 500 1000 2000 10000
python benchmarks/search_scaling.py records --trials 10000 --epochs 50
"""

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from optuna.samplers import RandomSampler

from tune_srs.runs import tables
from tune_srs.runs.journal import Journal, Status, TrialRecord
from tune_srs.runs.optuna_study import new_study, write_study
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.run import Run
from tune_srs.space.space import Space
from tune_srs.tuning import tensorboard
from tune_srs.tuning.early_stopping import Judge, rule
from tune_srs.tuning.planner import Planner

SPACE = Path(__file__).parents[1] / "search_spaces" / "relevance.yaml"
STOPPED = 0.7  # share of the trials that are stopped early, after a fifth of the epochs
METRICS = 40  # reported each epoch


def past_trials(space: Space, count: int, epochs: int) -> list[TrialRecord]:
    """Return trials of random points with random curves, most of them stopped early."""
    dice = random.Random(0)
    study = new_study(space.search.objectives)
    study.sampler = RandomSampler(seed=0)
    trials = []
    for number in range(count):
        status: Status = "stopped" if dice.random() < STOPPED else "complete"
        length = epochs // 5 if status == "stopped" else epochs
        height = dice.random()
        curve = [(epoch, (height * (1 - 1 / epoch),)) for epoch in range(1, length + 1)]
        values = space.suggest(study.ask())
        trials.append(TrialRecord(number, values, 0.0, status, reports=list(curve)))
    return trials


def suggesting(sampler: str, counts: Sequence[int], epochs: int, times: int = 11) -> None:
    """Milliseconds that a plan takes after so many trials."""
    search = {"sampler": {"type": sampler}, "trials": 10**6}
    space = Space.from_yaml(SPACE, search=search)
    past = past_trials(space, max(counts), epochs)
    for count in counts:
        known = past[:count]
        planner = Planner(space, known, Judge(space, known), seed=0)
        taken = [timed(planner.next) for _ in range(times)]
        print(f"{sampler}, {count} trials: {1000 * median(taken):.1f} ms a suggestion", flush=True)


def records(count: int, epochs: int) -> None:
    """What the journal and all that is made from it take for `count` trials."""
    space = Space.from_yaml(SPACE)
    past = past_trials(space, count, epochs)
    names = [f"val/metric{number}@10" for number in range(METRICS - 1)]
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        paths = RunPaths(folder)
        journal = Journal(folder, space.search.objectives)
        stopping = rule(space.search.scheduler)
        reports, started = 0, time.perf_counter()
        for number, trial in enumerate(past):
            journal.begin(number, trial.values)
            for epoch, (value,) in trial.reports:
                metrics = dict.fromkeys(names, value) | {space.search.metrics[0]: value}
                stopping.takes(number, epoch, value)
                journal.report(number, epoch, metrics)
                reports += 1
            assert trial.status in ("complete", "stopped")
            journal.end(number, trial.status)
        noting = time.perf_counter() - started
        print(f"{count} trials, {reports} reports of {METRICS} metrics")
        print(f"noting a report: {1e6 * noting / reports:.0f} us")
        size = paths.journal.stat().st_size
        print(f"journal: {size / 2**20:.0f} MiB")
        event = timed(lambda: tensorboard.write_epoch(paths.trial(0), 1, metrics))
        print(f"TensorBoard events of a report: {1e6 * event:.0f} us")
        reread = timed(lambda: Journal(folder, space.search.objectives))
        print(f"reading the journal to resume: {reread:.1f} s")
        print_time("trials.csv", lambda: tables.write_trials(paths.trials, journal.trials, space))
        print_time("trials of a run", lambda: Run(folder).trials)
        print_time(
            "optuna.db", lambda: write_study(journal.trials, space, paths.optuna, "benchmark")
        )
        print(f"optuna.db: {paths.optuna.stat().st_size / 2**20:.0f} MiB")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of this process: {peak:.2f} GiB")


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def print_time(what: str, call: Callable[[], object]) -> None:
    print(f"{what}: {timed(call):.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    searcher = parts.add_parser("searcher")
    searcher.add_argument("--sampler", default="tpe")
    searcher.add_argument("--trials", type=int, nargs="+", default=[100, 500, 1000, 2000, 10000])
    searcher.add_argument("--epochs", type=int, default=50)
    recording = parts.add_parser("records")
    recording.add_argument("--trials", type=int, default=10000)
    recording.add_argument("--epochs", type=int, default=50)
    options = parser.parse_args()
    if options.part == "searcher":
        suggesting(options.sampler, options.trials, options.epochs)
    else:
        records(options.trials, options.epochs)


if __name__ == "__main__":
    main()
