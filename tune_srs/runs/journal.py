"""`journal.jsonl`: each trial that began, each epoch, each end, as they happen; only ever added to.

It is what a search that was cut off goes on from. A line is an event of one trial:

    {"at": 0.1, "trial": 3, "begin": {dotted name: value, …}}
    {"at": 4.2, "trial": 3, "epoch": 1, "metrics": {name: value, …}}
    {"at": 9.8, "trial": 3, "end": "stopped", "reason": "early stopping"}

`at`: seconds that the search has run, pauses between sessions left out.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tune_srs.errors import DataError

FILE = "journal.jsonl"
Status = Literal["complete", "stopped", "failed"]
Event = dict[str, Any]


@dataclass
class TrialRecord:
    """What became of one trial so far."""

    number: int
    values: dict[str, Any]  # what was suggested, by dotted name
    began: float
    status: Status | Literal["unfinished"] = "unfinished"
    reason: str | None = None  # why it stopped or failed
    seconds: float = 0.0
    reports: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)  # searched metrics
    best_epoch: int | None = None
    best_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        return self.reports[-1][0] if self.reports else 0

    @property
    def ended(self) -> bool:
        return self.status != "unfinished"


class Journal:
    """The events of a run, on disk and as a record of each trial.

    Of several metrics the first one decides which epoch is a trial's best.
    """

    def __init__(self, folder: Path, metrics: Sequence[str], modes: Sequence[str]) -> None:
        self._path = folder / FILE
        self._metrics = metrics
        self._sign = 1 if modes[0] == "max" else -1
        self.trials: list[TrialRecord] = []
        before = 0.0
        if self._path.exists():
            _drop_what_was_cut_off(self._path)
            self.trials, before = replay(folder, metrics, modes)
        self._started = time.monotonic() - before

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

    def end(self, trial: int, status: Status, reason: str | None = None) -> None:
        self._write({"trial": trial, "end": status, "reason": reason}, lasting=True)

    def best(self) -> TrialRecord | None:
        """See `best_of`."""
        return best_of(self.trials, self._metrics[0], self._sign)

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
        _apply(event, self.trials, self._metrics, self._sign)


def best_of(trials: Sequence[TrialRecord], metric: str, sign: int) -> TrialRecord | None:
    """The trial with the best epoch so far that has not failed, the earlier one of equals.

    `sign` is 1 if more of the metric is better, -1 if less is.
    """
    scored = [record for record in trials if record.status != "failed"]
    scored = [record for record in scored if record.best_epoch is not None]
    return max(scored, key=lambda r: sign * r.best_metrics[metric], default=None)


def replay(
    folder: Path, metrics: Sequence[str], modes: Sequence[str]
) -> tuple[list[TrialRecord], float]:
    """The trials of the run in `folder`, which may be running, and the seconds it has run."""
    trials: list[TrialRecord] = []
    elapsed = 0.0
    sign = 1 if modes[0] == "max" else -1
    for line, event in enumerate(events(folder), start=1):
        try:
            _apply(event, trials, metrics, sign)
        except KeyError as error:  # not the metrics of this search
            raise _damaged(folder / FILE, line) from error
        elapsed = event["at"]
    return trials, elapsed


def _apply(event: Event, trials: list[TrialRecord], metrics: Sequence[str], sign: int) -> None:
    if "begin" in event:
        trials.append(TrialRecord(event["trial"], event["begin"], event["at"]))
        return
    record = trials[event["trial"]]
    record.seconds = event["at"] - record.began
    if "end" in event:
        record.status, record.reason = event["end"], event.get("reason")
        return
    reported = event["metrics"]
    record.reports.append((event["epoch"], tuple(reported[name] for name in metrics)))
    first = metrics[0]
    if not record.best_metrics or sign * reported[first] > sign * record.best_metrics[first]:
        record.best_epoch, record.best_metrics = event["epoch"], reported


def events(folder: Path) -> Iterator[Event]:
    """The events so far, also while they are written: a last line may be cut off."""
    path = folder / FILE
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
        trial, kinds = event["trial"], {"begin", "epoch", "end"} & set(event)
        known = trial == begun if kinds == {"begin"} else 0 <= trial < begun
        (kind,) = kinds
        match kind:
            case "begin":
                right = isinstance(event["begin"], dict)
            case "epoch":
                numbers = [event["epoch"], *event["metrics"].values()]
                right = all(isinstance(number, int | float) for number in numbers)
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
