"""Records what happens in a search, and decides from the records whether it should end early.

The records are the journal, `trials.csv`, TensorBoard's files and the lines on the console.

Nothing here knows Ray.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tune_srs.files import sweep_aside
from tune_srs.runs import tables
from tune_srs.runs.journal import Journal, Status
from tune_srs.runs.paths import RunPaths
from tune_srs.space.search import seconds
from tune_srs.space.space import Space
from tune_srs.storage import Storage
from tune_srs.training.checkpoint import forget_last, last_name, saved_epochs
from tune_srs.tuning import retries, tensorboard
from tune_srs.tuning.console import Console
from tune_srs.tuning.early_stopping import EARLY, Judge
from tune_srs.tuning.messages import Message, TrialFailed

TABLE_SHARE = 20  # a table of many trials is slow to write: at most 1/20 of the time goes there
logger = logging.getLogger("ray.tune_srs")  # into ray.log


class Recorder:
    """Notes every message and every end of a trial before anything goes on from it."""

    def __init__(
        self, journal: Journal, space: Space, folder: Path, storage: Storage, console: Console
    ) -> None:
        self.journal = journal
        self.space = space
        self.paths = RunPaths(folder)
        self.storage = storage
        self.cannot_go_on: str | None = None  # the reason, if so
        self._console = console
        self._table_due = 0.0
        self._noted: set[int] = set()  # trials whose note the user has seen

    def sweep(self) -> None:
        """Delete what a session that was killed could not."""
        sweep_aside(self.paths.folder)
        self.storage.sweep()
        names = set(self.storage.names())
        for record in self.journal.trials:
            if not record.ended:
                tensorboard.mend(self.paths.trial(record.number))
            elif last_name(record.number) in names:
                forget_last(self.storage, record.number)

    def begin(self, number: int, values: dict[str, Any]) -> bool:
        """Record that a trial begins, or goes on. Return False if that cannot be written.

        Then the trial must not start.
        """
        with self._writing():
            if number == len(self.journal.trials):
                tensorboard.write_start(self.paths.trial(number), self.space.params, values)
                self.journal.begin(number, values)
            elif self.journal.trials[number].status == "waiting":
                self.journal.go_on(number)
        return self.cannot_go_on is None

    def take(self, number: int, message: Message) -> None:
        """Note what the worker of a trial has told."""
        if isinstance(message, TrialFailed):
            logger.error("trial %s failed:\n%s", number, message.traceback)
            if message.fatal:
                self.cannot_go_on = message.reason
            return
        if message.note and number not in self._noted:
            self._noted.add(number)
            self._console.say(message.note)
        with self._writing():
            if self.journal.report(number, message.epoch, message.metrics):
                tensorboard.write_epoch(self.paths.trial(number), message.epoch, message.metrics)

    def complete(self, number: int, last: Message, judge: Judge) -> None:
        """Record that the worker of a trial is free; `last`: its last message.

        A trial that was not through waits or is over, as the `judge` says. A fatal failure leaves
        it unfinished, so that it can be resumed.
        """
        if isinstance(last, TrialFailed):
            if not last.fatal:
                self.end(number, "failed", last.reason)
        elif last.finished:
            self.end(number, "complete", None)
        elif judge.waits:
            with self._writing():
                self.journal.wait(number)
            if (worst := judge.superfluous()) is not None:
                self.end(worst, "stopped", EARLY)
        else:
            self.end(number, "stopped", EARLY)

    def end(self, number: int, status: Status, reason: str | None) -> None:
        """Record the end of a trial; of its checkpoints only the best weights stay."""
        with self._writing():
            self.journal.end(number, status, reason)
            forget_last(self.storage, number)
            tensorboard.write_end(self.paths.trial(number), failed=status == "failed")
            self._console.trial_ended(self.journal.trials[number], self.journal, self.space)
            if self.journal.elapsed >= self._table_due:
                began = self.journal.elapsed
                self.write_table()
                taken = self.journal.elapsed - began
                self._table_due = self.journal.elapsed + TABLE_SHARE * taken

    def end_waiting(self) -> None:
        """End the trials that wait: nobody will take them up."""
        for record in self.journal.trials:
            if record.status == "waiting":
                self.end(record.number, "stopped", EARLY)

    def end_all(self, reason: str) -> None:
        """End the trials that are unfinished when the search is over; their workers have exited."""
        self.end_waiting()
        for record in self.journal.trials:
            if not record.ended:
                for epoch, metrics in saved_epochs(self.storage, record.number):
                    self.journal.report(record.number, epoch, metrics)  # saved, but not told
                self.end(record.number, "stopped", reason)

    def write_table(self) -> None:
        """Write `trials.csv`."""
        tables.write_trials(self.paths.trials, self.journal.trials, self.space)

    def is_over(self) -> bool:
        """Return whether no trial may begin or go on."""
        return bool(self.cannot_go_on or self.in_vain() or self.spent())

    def spent(self) -> str | None:
        """Return which limit of the search is reached, if one is."""
        search = self.space.search
        if search.time_budget and self.journal.elapsed >= seconds(search.time_budget):
            return f"the time budget of {search.time_budget} is spent"
        if search.stale_trials and self.journal.stale() >= search.stale_trials:
            return f"{search.stale_trials} trials in a row have not improved {search.metrics[0]}"
        return None

    def in_vain(self) -> str | None:
        """Return why going on would waste the budget, if so."""
        trials = self.journal.trials
        # this runs after every message; `any` usually stops at the first trial
        succeeded = any(record.status in ("complete", "stopped") for record in trials)
        failures = [] if succeeded else [one.reason for one in trials if one.status == "failed"]
        return retries.in_vain(failures, succeeded, "trials")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn a write error into `cannot_go_on`: Tune would count it as a failure of the trial."""
        try:
            yield
        except OSError as error:
            self.cannot_go_on = f"{error.filename or self.paths.folder}: {error.strerror or error}"
