"""`journal.jsonl`: each trial that began, each epoch, each end, as they happen; only ever added to.

A search that was cut off goes on from it. Optuna's own storage would not do: it keeps one value per
step, none of them where several metrics are searched, and a resumed trial needs all. A line is an
event of one trial:

    {"at": 0.1, "trial": 3, "begin": {dotted name: value, …}}
    {"at": 4.2, "trial": 3, "epoch": 1, "metrics": {name: value, …}}
    {"at": 5.1, "trial": 3, "waits": true}
    {"at": 7.7, "trial": 3, "waits": false}
    {"at": 9.8, "trial": 3, "end": "stopped", "reason": "early stopping"}

A trial that waits keeps its checkpoint, and nobody trains it, until it goes on or is ended. `at`:
seconds that the search has run, pauses between sessions left out.
"""

import json
import os
import time
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from tune_srs.errors import DataError
from tune_srs.runs.paths import RunPaths
from tune_srs.space.objective import Objective

Status = Literal["complete", "stopped", "failed"]
Event = dict[str, Any]


@dataclass
class TrialRecord:
    """What became of one trial so far."""

    number: int
    values: dict[str, Any]  # what was suggested, by dotted name
    began: float
    status: Status | Literal["unfinished", "waiting"] = "unfinished"
    reason: str | None = None  # why it stopped or failed
    seconds: float = 0.0
    reports: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)  # searched metrics
    passed: int = 0  # the epoch at which it waited last, if it has gone on since
    best_epoch: int | None = None
    best_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        return self.reports[-1][0] if self.reports else 0

    @property
    def ended(self) -> bool:
        return self.status not in ("unfinished", "waiting")


@dataclass
class Curves:
    """Every reported epoch, in the order of the reports: one column per metric, of equal lengths.

    Kept as plain arrays: a large search has hundreds of thousands of reports.
    """

    trial: "array[int]" = field(default_factory=lambda: array("q"))
    epoch: "array[int]" = field(default_factory=lambda: array("q"))
    metrics: "defaultdict[str, array[float]]" = field(
        default_factory=lambda: defaultdict(lambda: array("d"))
    )

    def add(self, trial: int, epoch: int, metrics: dict[str, float]) -> None:
        for name in metrics.keys() - self.metrics.keys():
            self.metrics[name].extend([float("nan")] * len(self.epoch))
        self.trial.append(trial)
        self.epoch.append(epoch)
        for name, column in self.metrics.items():
            column.append(metrics.get(name, float("nan")))

    def table(self) -> pd.DataFrame:
        """One row per trial and epoch, in this order: `trial`, `epoch` and the metrics."""
        columns: dict[str, Any] = {"trial": self.trial, "epoch": self.epoch, **self.metrics}
        table = pd.DataFrame({name: np.asarray(column) for name, column in columns.items()})
        return table.sort_values(["trial", "epoch"], ignore_index=True)


@dataclass
class History:
    """What a journal tells: a record of each trial, every reported epoch, and the time it took."""

    trials: list[TrialRecord] = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)
    elapsed: float = 0.0  # seconds

    def apply(self, event: Event, objectives: Sequence[Objective]) -> None:
        """Take an event over into the records; a `KeyError` if a report lacks a searched metric."""
        self.elapsed = event["at"]
        if "begin" in event:
            self.trials.append(TrialRecord(event["trial"], event["begin"], event["at"]))
            return
        record = self.trials[event["trial"]]
        if record.status == "waiting":  # then it takes no time
            record.began += event["at"] - record.began - record.seconds
        record.seconds = event["at"] - record.began
        if "waits" in event:
            record.status = "waiting" if event["waits"] else "unfinished"
            record.passed = 0 if event["waits"] else record.epochs
            return
        if "end" in event:
            record.status, record.reason = event["end"], event.get("reason")
            return
        reported, first = event["metrics"], objectives[0]
        record.reports.append((event["epoch"], tuple(reported[one.metric] for one in objectives)))
        best = record.best_metrics
        if not best or first.better(reported[first.metric], best[first.metric]):
            record.best_epoch, record.best_metrics = event["epoch"], reported


class Journal:
    """The events of a run, on disk and as a record of each trial.

    Of several objectives the first one decides which epoch is a trial's best.
    """

    def __init__(self, folder: Path, objectives: Sequence[Objective]) -> None:
        self._path = RunPaths(folder).journal
        self._objectives = objectives
        self._history = History()
        if self._path.exists():
            _drop_what_was_cut_off(self._path)
            self._history = replace(read(folder, objectives), curves=Curves())  # for readers only
        self._started = time.monotonic() - self._history.elapsed

    @property
    def trials(self) -> list[TrialRecord]:
        """One record per trial, by number."""
        return self._history.trials

    @property
    def elapsed(self) -> float:
        """Seconds that the search has run, pauses left out."""
        return time.monotonic() - self._started

    def begin(self, trial: int, values: dict[str, Any]) -> None:
        """Note a trial; one that goes on in a new session begins only once."""
        if trial == len(self.trials):
            self._write({"trial": trial, "begin": values}, lasting=True)

    def report(self, trial: int, epoch: int, metrics: dict[str, float]) -> bool:
        """Note an epoch, unless it repeats one; True if it was new."""
        if epoch <= self.trials[trial].epochs:
            return False
        self._write({"trial": trial, "epoch": epoch, "metrics": metrics})
        return True

    def wait(self, trial: int) -> None:
        """Note that a trial waits from now on."""
        self._write({"trial": trial, "waits": True}, lasting=True)

    def go_on(self, trial: int) -> None:
        """Note that a trial that waited is trained again."""
        self._write({"trial": trial, "waits": False}, lasting=True)

    def end(self, trial: int, status: Status, reason: str | None = None) -> None:
        self._write({"trial": trial, "end": status, "reason": reason}, lasting=True)

    def best(self) -> TrialRecord | None:
        """Return the best trial; see `best_trial`."""
        return best_trial(self.trials, self._objectives[0])

    def ended(self) -> int:
        """How many trials have ended."""
        return sum(record.ended for record in self.trials)

    def stale(self) -> int:
        """How many trials have ended since the best one began."""
        best = self.best()
        later = self.trials[best.number + 1 :] if best else self.trials
        return sum(record.ended for record in later)

    def _write(self, event: Event, lasting: bool = False) -> None:
        event = {"at": round(self.elapsed, 3)} | event
        line = json.dumps(event) + "\n"
        with self._path.open("ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(line.encode()) < len(line):
                    raise OSError(28, "No space left on device", str(self._path))
                if lasting:
                    os.fsync(file.fileno())
            except OSError as error:
                file.truncate(end)
                raise OSError(error.errno, error.strerror, str(self._path)) from error
        self._history.apply(event, self._objectives)


def best_trial(trials: Sequence[TrialRecord], objective: Objective) -> TrialRecord | None:
    """Return the trial with the best epoch so far that has not failed, the earlier one of equals.

    None if no such trial has reported an epoch.
    """
    scored = (
        record for record in trials if record.status != "failed" and record.best_epoch is not None
    )
    return objective.best(scored, lambda record: record.best_metrics[objective.metric])


def read(folder: Path, objectives: Sequence[Objective]) -> History:
    """Read the journal of the run in `folder`, which may be running, in one pass."""
    history = History()
    for line, event in enumerate(events(folder), start=1):
        try:
            history.apply(event, objectives)
            if "epoch" in event:
                history.curves.add(event["trial"], event["epoch"], event["metrics"])
        except KeyError as error:  # the report has other metrics than this search
            raise _damaged(RunPaths(folder).journal, line) from error
    return history


def events(folder: Path) -> Iterator[Event]:
    """The events so far, also while they are written: a last line may be cut off."""
    path = RunPaths(folder).journal
    begun = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            event = _parsed(line, begun)
            if event is None:
                raise _damaged(path, number)
            begun += "begin" in event
            yield event


def _damaged(path: Path, line: int) -> DataError:
    return DataError(
        f"{path}: damaged in line {line}; cut the file off before it to go on from there, "
        f"or search again"
    )


def _parsed(line: str, begun: int) -> Event | None:
    """The event in `line`, or None if it is none that can follow when `begun` trials have begun."""
    try:
        event = json.loads(line)
        trial, kinds = event["trial"], {"begin", "epoch", "waits", "end"} & set(event)
        known = trial == begun if kinds == {"begin"} else 0 <= trial < begun
        (kind,) = kinds
        match kind:
            case "begin":
                right = isinstance(event["begin"], dict)
            case "epoch":
                numbers = [event["epoch"], *event["metrics"].values()]
                right = all(isinstance(number, int | float) for number in numbers)
            case "waits":
                right = isinstance(event["waits"], bool)
            case "end":
                right = event["end"] in get_args(Status)
        return event if right and known and event["at"] >= 0 else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _drop_what_was_cut_off(path: Path) -> None:
    """A last line without its end, left by a writer that was killed."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - 2**20)  # no line is that long
        file.seek(start)
        file.truncate(start + file.read().rfind(b"\n") + 1)
