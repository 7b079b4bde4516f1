"""Does a search pay? Best validation metric against epochs spent, for four ways to search.

A trial's epochs come out the same whenever it is run. So every point of a grid is trained once, its
curve kept in `--curves`, where an interrupted run goes on. Then the searches, which are the real
ones, meet these curves in place of workers, in simulated time. `--real N` runs N trials of ours
with workers instead, and compares: with `--at-once 1` all reports should be the same.

    python benchmarks/search_quality.py --curves curves.csv
    python benchmarks/search_quality.py --curves curves.csv --ours "{sampler: {type: gp}}"
"""

import argparse
import heapq
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import pandas as pd
import rich.console
import yaml
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from tune_srs.datasets.prepare import prepare
from tune_srs.files import write_aside
from tune_srs.runs.journal import TrialRecord
from tune_srs.runs.plan import Plan
from tune_srs.runs.resources import Resources
from tune_srs.runs.run import Run
from tune_srs.space.parameters import Values
from tune_srs.space.space import Space
from tune_srs.training.loop import compile_kernels, train
from tune_srs.tuning.console import Console
from tune_srs.tuning.early_stopping import Judge
from tune_srs.tuning.messages import EpochDone
from tune_srs.tuning.planner import Planner
from tune_srs.tuning.search import search

METRIC = "val/ndcg_rel@10"
PARAMS = {
    "train.lr": {"type": "categorical", "choices": [3e-4, 1e-3, 3e-3, 1e-2]},
    "model.dropout": {"type": "categorical", "choices": [0.2, 0.4, 0.6]},
    "loss.num_positives": {"type": "categorical", "choices": [1, 5, 10]},
    "loss.relevance": {
        "type": "categorical",
        "choices": ["fixed", "linear", "power", "exponential"],
        "when": {"loss.num_positives": [5, 10]},
    },
}
BUDGETS = (0.05, 0.1, 0.2, 0.5)  # shares of the whole grid's epochs
MOST_TRIALS = 10**6
GRID = {"sampler": {"type": "grid"}, "scheduler": {"type": "none"}}

Report = tuple[int, int, float]  # trial, epoch, value


@dataclass(frozen=True)
class Curve:
    """What training a point gives: the metric after each epoch, and the seconds of an epoch."""

    values: Sequence[float]
    seconds: float


Curves = dict[str, Curve]  # by the `key` of a point


def key(values: Values) -> str:
    return json.dumps(values, sort_keys=True)


def space_of(fixed: Values, search: Values) -> Space:
    """The space of all searches; ASHA's grace period is a third of the epochs."""
    grace_period = max(1, fixed["train.max_epochs"] // 3)
    usual: dict[str, Any] = {
        "metric": METRIC,
        "scheduler": {"type": "asha", "grace_period": grace_period},
    }
    if search.get("sampler", {}).get("type") != "grid":
        usual["trials"] = MOST_TRIALS  # the epochs are the budget
    return Space.from_dict(
        {"params": PARAMS, "search": usual}, "benchmark", fixed=fixed, search=search
    )


def curves_of(grid: Space, file: Path) -> Curves:
    """The curve of every point: from `file`, or else trained and put there, one line a point."""
    table = pd.read_csv(file) if file.exists() else pd.DataFrame()
    lines: dict[str, Any] = {line.pop("settings"): line for line in table.to_dict("records")}
    points = {key(grid.fixed | point): point for point in grid.points()}
    for settings, line in trained(grid, [name for name in points if name not in lines]):
        lines[settings] = line
        table = pd.DataFrame([{"settings": name} | line for name, line in lines.items()])
        write_aside(file, partial(table.to_csv, index=False))
    epochs = [str(epoch) for epoch in range(1, grid.base.train.max_epochs + 1)]
    return {
        key(point): Curve([lines[name][epoch] for epoch in epochs], lines[name]["seconds"])
        for name, point in points.items()
    }


def trained(grid: Space, missing: list[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """Each of the `missing` settings with the seconds of an epoch, and epoch → metric."""
    if not missing:
        return
    compile_kernels(grid.base, print)
    with tempfile.TemporaryDirectory() as folder:
        split = prepare(grid.base.data, Path(folder)).validation
    for number, settings in enumerate(missing, start=1):
        started = time.perf_counter()
        reports = train(grid.config(json.loads(settings)), split)
        curve = {str(report.epoch): report.metrics[METRIC] for report in reports}
        print(f"trained {number} of {len(missing)}: {max(curve.values()):.4f}", flush=True)
        yield settings, {"seconds": (time.perf_counter() - started) / len(curve)} | curve


class Search(Protocol):
    """A way to search."""

    def next(self) -> tuple[int, Values] | None:
        """Return the trial that a free worker trains, and its values; None if there is none now."""
        ...

    def goes_on(self, trial: int, epoch: int, value: float, finished: bool) -> bool:
        """Take a report; return whether the worker trains the trial further."""
        ...


class Ours:
    """What `tune-srs search` does with `space`; a grid's points come in random order."""

    def __init__(self, space: Space, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(space.points()))
        self._grid = [space.points()[i] for i in order]
        self._records: list[TrialRecord] = []
        self._judge = Judge(space, self._records)
        self._planner = Planner(space, self._records, self._judge, seed)

    def next(self) -> tuple[int, Values] | None:
        planned = self._planner.next()
        if planned is None:
            return None
        number, values = planned
        if number == len(self._records):
            values = self._grid[number] if self._grid else values
            self._records.append(TrialRecord(number, values, 0.0))
        else:
            record = self._records[number]
            record.status, record.passed = "unfinished", record.epochs
        return number, values

    def goes_on(self, trial: int, epoch: int, value: float, finished: bool) -> bool:
        record = self._records[trial]
        verdict = self._judge.of(trial, EpochDone(epoch, {METRIC: value}, finished))
        record.reports.append((epoch, (value,)))
        if finished:
            record.status = "complete"
        elif verdict != "go on":
            record.status = "waiting" if self._judge.waits else "stopped"
        return record.status == "unfinished"


class Rays:
    """Ray's own searcher and scheduler, as they come."""

    def __init__(self, space: Space, seed: int) -> None:
        self._searcher = OptunaSearch(space.suggest, metric=METRIC, mode="max", seed=seed)
        self._scheduler = ASHAScheduler(
            time_attr="epoch",
            metric=METRIC,
            mode="max",
            max_t=space.base.train.max_epochs,
            grace_period=space.search.scheduler.grace_period,  # type: ignore[union-attr]
            reduction_factor=space.search.scheduler.reduction_factor,  # type: ignore[union-attr]
        )
        self._begun = 0

    def next(self) -> tuple[int, Values] | None:
        values = self._searcher.suggest(str(self._begun))
        self._begun += 1
        return None if values is None else (self._begun - 1, values)

    def goes_on(self, trial: int, epoch: int, value: float, finished: bool) -> bool:
        as_trial: Any = SimpleNamespace(trial_id=str(trial))
        controller: Any = None  # it is never asked
        if epoch == 1:
            self._scheduler.on_trial_add(controller, as_trial)
        result = {"epoch": epoch, METRIC: value, "training_iteration": epoch}
        decision = self._scheduler.on_trial_result(controller, as_trial, result)
        if finished or decision == TrialScheduler.STOP:
            self._searcher.on_trial_complete(str(trial), result)
            return False
        self._searcher.on_trial_result(str(trial), result)
        return True


class Replay:
    """A search as Tune drives it, on curves in place of workers; iterates over its reports.

    `at_once` trials are trained at the same time.
    """

    def __init__(self, search: Search, curves: Curves, at_once: int) -> None:
        self._search, self._curves, self._at_once = search, curves, at_once
        self._trials: dict[int, Curve] = {}
        self._epochs: Counter[int] = Counter()  # that each trial has been trained

    def __iter__(self) -> Iterator[Report]:
        now = 0.0
        running: list[tuple[float, int]] = []  # a heap: when which trial's next epoch is done
        while True:
            while len(running) < self._at_once and (planned := self._search.next()) is not None:
                trial, values = planned
                curve = self._trials.setdefault(trial, self._curves[key(values)])
                heapq.heappush(running, (now + curve.seconds, trial))
            if not running:
                return
            now, trial = heapq.heappop(running)
            curve = self._trials[trial]
            self._epochs[trial] += 1
            epoch = self._epochs[trial]
            value = curve.values[epoch - 1]
            yield trial, epoch, value
            if self._search.goes_on(trial, epoch, value, epoch == len(curve.values)):
                heapq.heappush(running, (now + curve.seconds, trial))


def ours(space: Space, curves: Curves, seed: int, at_once: int) -> Replay:
    return Replay(Ours(space, seed), curves, at_once)


def rays(space: Space, curves: Curves, seed: int, at_once: int) -> Replay:
    return Replay(Rays(space, seed), curves, at_once)


def best_so_far(replay: Replay, budget: int, enough: float) -> list[float]:
    """After each epoch, until `budget` epochs are spent or `enough` is reached."""
    bests: list[float] = []
    for _, _, value in islice(replay, budget):
        bests.append(max(value, bests[-1]) if bests else value)
        if value >= enough:
            break
    return bests


def spent_until(bests: list[float], value: float) -> float:
    """Epochs; infinity if it was not reached."""
    return next((epoch for epoch, best in enumerate(bests, start=1) if best >= value), math.inf)


def quartiles(values: list[float]) -> str:
    """`median (lower quartile to upper)`, each of them one of the values, which may be infinite."""
    ordered = sorted(values)
    low, median, high = (ordered[math.ceil(q * (len(ordered) - 1))] for q in (0.25, 0.5, 0.75))
    return f"{median:.3f} ({low:.3f} to {high:.3f})"


def row(runs: list[list[float]], budget: int, best: float) -> dict[str, str]:
    """A method's line: epochs as shares of the grid's, medians over its `runs`, one a seed."""
    shares = {
        f"until {share:.0%} of the best": quartiles(
            [spent_until(bests, share * best) / budget for bests in runs]
        )
        for share in (0.99, 1)
    }
    found = {
        f"at {share:.0%}": np.median([bests[: int(share * budget)][-1] for bests in runs])
        for share in BUDGETS
    }
    return shares | {name: f"{value:.5f}" for name, value in found.items()}


def compare(
    methods: Mapping[str, Callable[[int], Replay]], seeds: int, budget: int, best: float
) -> pd.DataFrame:
    """One row a method."""
    rows = []
    for name, method in methods.items():
        replays = [method(seed) for seed in range(seeds)]
        runs = [best_so_far(replay, budget, best) for replay in replays]
        rows.append({"method": name} | row(runs, budget, best))
    return pd.DataFrame(rows)


def same_as_real(space: Space, curves: Curves, at_once: int) -> str:
    """Run ours with workers and on curves, and count the reports that are the same."""
    with tempfile.TemporaryDirectory() as parent:
        data = prepare(space.base.data, Path(parent))
        folder = Path(parent) / "real"
        plan = Plan("real", space, 0, Resources(at_once=at_once, gpus_per_trial=0))
        search(plan, data, folder, Console(rich.console.Console(quiet=True)), resume=False)
        epochs = Run(folder).epochs
    real = set(epochs[["trial", "epoch", METRIC]].itertuples(index=False, name=None))
    replayed = set(ours(space, curves, 0, at_once))
    return "\n".join(
        f"{name}: {len(reports)} reports, best {max((r[2] for r in reports), default=0):.5f}"
        for name, reports in (("real", real), ("replayed", replayed), ("in both", real & replayed))
    )


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--curves", type=Path, required=True, help="a CSV file to make or go on")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--at-once", type=int, default=2, help="trials that run at the same time")
    parser.add_argument(
        "--ours", type=yaml.safe_load, nargs="+", default=[], help="other settings of `search`, too"
    )
    parser.add_argument("--real", type=int, help="trials of a search with workers, to compare")
    parser.add_argument("--users", type=int, default=943)
    parser.add_argument("--items", type=int, default=1682)
    parser.add_argument("--mean-length", type=int, default=106)
    parser.add_argument("--epochs", type=int, default=60)
    return parser.parse_args()


def main() -> None:
    given = options()
    fixed = {
        "data.name": "synthetic",
        "data.synthetic.users": given.users,
        "data.synthetic.items": given.items,
        "data.synthetic.mean_length": given.mean_length,
        "model.max_length": 50,
        "model.hidden_units": 32,
        "model.num_blocks": 1,
        "train.max_epochs": given.epochs,
        "train.device": "cpu",
    }
    grid, usual = space_of(fixed, GRID), space_of(fixed, {})
    curves = curves_of(grid, given.curves)
    if given.real:
        print(same_as_real(space_of(fixed, {"trials": given.real}), curves, given.at_once))
        return
    spaces = {"grid": grid, "random + ASHA": space_of(fixed, {"sampler": {"type": "random"}})}
    spaces |= {"ours": usual} | {f"ours, {asked}": space_of(fixed, asked) for asked in given.ours}
    methods = {
        name: partial(ours, space, curves, at_once=given.at_once) for name, space in spaces.items()
    }
    methods["Ray's OptunaSearch + ASHA"] = partial(rays, usual, curves, at_once=given.at_once)
    budget = len(curves) * given.epochs
    best = max(max(curve.values) for curve in curves.values())
    print(f"grid: {len(curves)} points, {budget} epochs, best {best:.5f}; {given.seeds} seeds")
    with pd.option_context("display.max_colwidth", None):
        print(compare(methods, given.seeds, budget, best).to_string(index=False))


if __name__ == "__main__":
    main()
