"""The search: Ray Tune runs trials, Optuna proposes them, the poor ones are stopped early.

Ray is imported here, in `searcher.py`, `worker.py` and `cluster.py` only. Tune keeps nothing that a
search goes on from: `journal.py` does, and each session begins with what stands there.
"""

import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tune_srs.tuning.worker import run_trial  # isort: skip  (sets what Ray reads when it is imported)

from filelock import FileLock, Timeout
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import ConfigError, DataError, SearchError
from tune_srs.files import sweep_aside
from tune_srs.metric_names import GROUPS
from tune_srs.runs import tables
from tune_srs.runs.journal import Journal, Status
from tune_srs.runs.optuna_study import study_of, write_study
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.plan import Plan
from tune_srs.runs.resources import Resources
from tune_srs.space.search import seconds
from tune_srs.space.space import Space
from tune_srs.storage import Storage, trial_name
from tune_srs.training.checkpoint import forget_last, last_name, saved_epochs
from tune_srs.training.loop import compile_kernels
from tune_srs.tuning import early_stopping, tensorboard, winner
from tune_srs.tuning.cluster import check_storage, connected, logged, node_resources
from tune_srs.tuning.console import Console
from tune_srs.tuning.samplers import make_sampler
from tune_srs.tuning.searcher import OptunaSearcher

RETRIES = 3  # of a trial whose worker died
FAILURES_IN_VAIN = 5  # trials that may fail before any has given a metric
logger = logging.getLogger("ray.tune_srs")  # into ray.log


def run(plan: Plan, data: PreparedData, folder: Path, console: Console) -> bool:
    """Run `plan` into the new `folder`. True if it ended, False if it was interrupted.

    Raises `ConfigError` if `folder` exists or the resources are not there, `SearchError` if no
    trial gave a metric, or if it cannot go on for want of disk or storage.
    """
    plan.check(folder, resume=False)
    return _search(plan, data, folder, console, new=True)


def resume(plan: Plan, data: PreparedData, folder: Path, console: Console) -> bool:
    """Go on with an interrupted `plan`, from whatever there is of it; see `run`."""
    plan.check(folder, resume=True)
    return _search(plan, data, folder, console, new=False)


def _search(plan: Plan, data: PreparedData, folder: Path, console: Console, new: bool) -> bool:
    try:
        return _run_or_go_on(plan, data, folder, console, new)
    except KeyboardInterrupt:  # twice, or outside of Tune: once, Tune ends well by itself
        if RunPaths(folder).settings.exists():
            console.say(f"interrupted; {plan.how_to_resume(folder)}")
        raise
    except OSError as error:
        if not RunPaths(folder).settings.is_file():  # it has not begun
            raise
        place = error.filename or folder
        raise SearchError(
            f"{place}: {error.strerror or error}; mend that, then {plan.how_to_resume(folder)}"
        ) from error


def _run_or_go_on(
    plan: Plan, data: PreparedData, folder: Path, console: Console, new: bool
) -> bool:
    space = plan.space
    with ExitStack() as held:
        with connected(plan.resources, data.validation):
            _check_cluster(plan, folder, new)
            if new:
                winner.begin(plan, data, folder)
            held.enter_context(alone(folder))
            held.enter_context(logged(RunPaths(folder).log))
            compile_kernels(space.base, console.say)  # before several workers do
            journal = _journal(folder, space)
            recorder = Recorder(journal, space, folder, plan.storage(folder), console)
            recorder.sweep()
            ending = Ending(recorder)
            missing = space.trials - journal.ended()
            if missing and not ending.stop_all():
                with console.watching(journal, space), terminated_as_interrupted():
                    _tune(plan, data, recorder, ending, missing)
        return _conclude(plan, data, recorder, ending, console)  # no worker writes any more


def _journal(folder: Path, space: Space) -> Journal:
    """The journal of the run, which belongs to `space`."""
    paths = RunPaths(folder)
    if paths.trials.exists() and not paths.journal.exists():
        raise DataError(f"{paths.journal}: missing; restore it, or search by another name")
    journal = Journal(folder, space.search.objectives)
    for record in journal.trials:
        for name, value in record.values.items():
            if name not in space.params or not space.params[name].contains(value):
                raise DataError(
                    f"{paths.journal}: trial {record.number} has {name}={value!r}, which the space "
                    f"does not; restore the file as it was"
                )
    return journal


def _check_cluster(plan: Plan, folder: Path, new: bool) -> None:
    """A `ConfigError` that says what is missing, before anything is written."""
    plan.resources.check(node_resources())
    check_storage(plan.storage(folder) if plan.resources.storage else None)
    if new and plan.storage(folder).names():
        raise ConfigError(
            f"--storage: {plan.storage(folder).place} holds another run; "
            f"choose another --name or place"
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two processes must not run the same search; the system lets go when one is killed."""
    try:
        with FileLock(RunPaths(folder).lock, timeout=0):
            yield
    except Timeout:
        raise ConfigError(
            f"{folder}: another process is running this search; wait for it"
        ) from None


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, as batch systems send it before they kill, is treated like Ctrl-C.

    Behind the block Ctrl-C does what it did before: Tune would keep its own answer to it.
    """
    before = signal.getsignal(signal.SIGINT)
    terminate = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, before)


def _tune(
    plan: Plan, data: PreparedData, recorder: "Recorder", ending: "Ending", missing: int
) -> None:
    """Let Ray Tune run the `missing` trials, those first that an earlier session has begun."""
    nodes = node_resources()
    resources = plan.resources
    # all workers start together; one after another, a short trial's ends before the next is there
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(resources.room(nodes))
    # one copy of the data on each machine; the test futures never reach a worker
    trainable = tune.with_parameters(
        run_trial, space=plan.space, split=data.validation, storage=recorder.storage
    )
    share = {kind.lower(): amount for kind, amount in resources.of_a_trial(nodes).items()}
    with tempfile.TemporaryDirectory(prefix="tune-srs-") as scratch:
        tune.run(
            trainable,
            name="tune",
            storage_path=scratch,
            resources_per_trial=share,
            search_alg=RecordingSearcher(plan, recorder),
            scheduler=EarlyStopping(plan.space, recorder.journal),
            num_samples=missing,
            max_failures=RETRIES,
            stop=ending,
            callbacks=[recorder, *_trackers(resources, recorder.folder)],
            reuse_actors=True,
            raise_on_failed_trial=False,
            trial_name_creator=lambda trial: trial_name(trial.config["trial"]),
            trial_dirname_creator=lambda trial: trial_name(trial.config["trial"]),
            verbose=0,
        )


def _trackers(resources: Resources, folder: Path) -> list[tune.Callback]:
    if not resources.trackers:
        return []
    from tune_srs.tuning.trackers import (
        callbacks,  # imports what is installed of them, which takes long
    )

    return callbacks(resources.trackers, folder)


class RecordingSearcher(OptunaSearcher):
    """Begins with what the journal holds, and has each trial noted before it may start."""

    def __init__(self, plan: Plan, recorder: "Recorder") -> None:
        records = recorder.journal.trials
        super().__init__(
            study_of(records, plan.space),
            plan.space.suggest,
            plan.space.search.metrics,
            plan.space.search.modes,
            make_sampler(plan.space, plan.seed),
            time_attr="epoch",
            points=plan.space.points(),
            at_once=lambda: plan.resources.room(node_resources()),
            unfinished={one.number: one.reports for one in records if not one.ended},
        )
        self._recorder = recorder

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self._recorder.cannot_go_on or (config := super().suggest(trial_id)) is None:
            return None
        return config if self._recorder.begin(config) else None


class EarlyStopping(FIFOScheduler):
    """A rule of `early_stopping.py` as Tune's scheduler."""

    def __init__(self, space: Space, journal: Journal) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._objective = space.search.objectives[0]
        self._journal = journal
        self._rule = early_stopping.rule(space.search.scheduler)
        for record in journal.trials:
            for epoch, values in record.reports:
                self._rule.stops(record.number, epoch, self._objective.sign * values[0])

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        number = trial.config["trial"]
        if "error" in result or result["epoch"] < self._journal.trials[number].epochs:
            return TrialScheduler.CONTINUE  # it ends by itself, or repeats what has been judged
        value = self._objective.sign * result[self._objective.metric]
        stops = self._rule.stops(number, result["epoch"], value)
        return TrialScheduler.STOP if stops else TrialScheduler.CONTINUE


class Recorder(tune.Callback):
    """Notes what happens: in the journal, in `trials.csv`, for TensorBoard and on the console."""

    def __init__(
        self, journal: Journal, space: Space, folder: Path, storage: Storage, console: Console
    ) -> None:
        self.journal = journal
        self.space = space
        self.folder = folder
        self.paths = RunPaths(folder)
        self.storage = storage
        self.cannot_go_on: str | None = None  # why, if so
        self._console = console
        self._table_due = 0.0
        self._noted: set[int] = set()  # trials that said that they train anew

    def sweep(self) -> None:
        """Delete what a session that was killed could not."""
        sweep_aside(self.folder)
        self.storage.sweep()
        names = set(self.storage.names())
        for record in self.journal.trials:
            if not record.ended:
                tensorboard.mend(self.paths.trial(record.number))
            elif last_name(record.number) in names:
                forget_last(self.storage, record.number)

    def begin(self, config: dict[str, Any]) -> bool:
        """Note a trial, or that one goes on; False if it cannot be noted, and must not start."""
        number: int = config["trial"]
        values = {name: value for name, value in config.items() if name != "trial"}
        with self._writing():
            if number == len(self.journal.trials):
                tensorboard.write_start(self.paths.trial(number), self.space.params, values)
                self.journal.begin(number, values)
        return number < len(self.journal.trials)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        if "error" in result:
            logger.error("trial %s failed:\n%s", trial.config["trial"], result["traceback"])
            if result["fatal"]:
                self.cannot_go_on = result["error"]
            return
        number, epoch = trial.config["trial"], result["epoch"]
        if result["note"] and number not in self._noted:
            self._noted.add(number)
            self._console.say(result["note"])
        metrics = {name: result[name] for name in result if name.startswith(GROUPS)}
        with self._writing():
            if self.journal.report(number, epoch, metrics):
                tensorboard.write_epoch(self.paths.trial(number), epoch, metrics)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        result = trial.last_result
        if "error" not in result:
            by_itself = result.get("finished")
            status: Status = "complete" if by_itself else "stopped"
            self.end(trial.config["trial"], status, None if by_itself else early_stopping.EARLY)
        elif not result["fatal"]:
            self.end(trial.config["trial"], "failed", result["error"])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self.end(trial.config["trial"], "failed", _reason(trial))

    def end(self, number: int, status: Status, reason: str | None) -> None:
        with self._writing():
            self.journal.end(number, status, reason)
            forget_last(self.storage, number)
            tensorboard.write_end(self.paths.trial(number), failed=status == "failed")
            self._console.trial_ended(self.journal.trials[number], self.journal, self.space)
            if self.journal.elapsed >= self._table_due:
                began = self.journal.elapsed
                self.write_table()
                # of many trials the table takes long: a twentieth of the time at most
                self._table_due = self.journal.elapsed + 20 * (self.journal.elapsed - began)

    def end_all(self, reason: str) -> None:
        """End the trials that a search leaves behind which is over; their workers are gone."""
        for record in self.journal.trials:
            if not record.ended:
                for epoch, metrics in saved_epochs(self.storage, record.number):
                    self.journal.report(record.number, epoch, metrics)  # it was cut off untold
                self.end(record.number, "stopped", reason)

    def write_table(self) -> None:
        tables.write_trials(self.paths.trials, self.journal.trials, self.space)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Tune would take what is raised here for a failure of the trial."""
        try:
            yield
        except OSError as error:
            self.cannot_go_on = f"{error.filename or self.folder}: {error.strerror or error}"


class Ending(tune.Stopper):
    """Whether the search is over before all its trials are."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, for Tune's snapshot, which is never read."""
        return {}

    def stop_all(self) -> bool:
        return bool(self._recorder.cannot_go_on or self.in_vain() or self.reason())

    def reason(self) -> str | None:
        journal, search = self._recorder.journal, self._recorder.space.search
        if search.time_budget and journal.elapsed >= seconds(search.time_budget):
            return f"the time budget of {search.time_budget} is spent"
        if search.stale_trials and journal.stale() >= search.stale_trials:
            return f"{search.stale_trials} trials in a row have not improved {search.metrics[0]}"
        return None

    def in_vain(self) -> str | None:
        """Why going on would burn the budget, if so."""
        journal = self._recorder.journal
        if any(record.status in ("complete", "stopped") for record in journal.trials):
            return None  # asked after each event, and mostly answered by the first trial
        failed = [record for record in journal.trials if record.status == "failed"]
        if len(failed) >= FAILURES_IN_VAIN:
            return f"all of {len(failed)} trials failed, the first for this: {failed[0].reason}"
        return None


def _reason(trial: Trial) -> str:
    """What Ray tells of a worker's end, which it writes here first and stores a little later."""
    local = Path(trial.error_file or "")
    text = local.read_text(encoding="utf-8") if local.is_file() else str(trial.get_error() or "")
    lines = [line.strip() for line in text.splitlines() if "Error:" in line or "died" in line]
    return f"the worker died {RETRIES + 1} times: {(lines or ['no reason was given'])[-1][:300]}"


def _conclude(
    plan: Plan, data: PreparedData, recorder: Recorder, ending: Ending, console: Console
) -> bool:
    """After Tune: what each trial has come to, and the export of the best if the search is over."""
    journal, folder = recorder.journal, recorder.folder
    if in_vain := ending.in_vain():
        recorder.write_table()
        raise SearchError(f"{folder}: {in_vain}; mend the space and search by another name")
    reason = None if recorder.cannot_go_on else ending.reason()
    if reason:
        recorder.end_all(reason)
    if recorder.cannot_go_on:
        raise SearchError(f"{recorder.cannot_go_on}; mend that, then {plan.how_to_resume(folder)}")
    recorder.write_table()
    write_study(journal.trials, plan.space, RunPaths(folder).optuna, plan.name)
    ended = journal.ended()
    if ended < plan.space.trials and not reason:
        console.say(
            f"interrupted: {ended} of {plan.space.trials} trials have ended and are kept; "
            f"{plan.how_to_resume(folder)}"
        )
        return False
    if reason:
        console.say(f"over after {ended} trials: {reason}")
    winner.export_winner(folder, plan, journal, recorder.storage, data, console.say)
    return True
