"""The sequence of a search: connect, go on from the journal, let Tune run trials, export the best.

A search resumes from the journal and never from Tune's own state. A trial ends by itself (its last
epoch, patience, an exception: `worker.py`), by the scheduler (`early_stopping.py`), with the search
(`recorder.py`), or when its worker has died too often (`adapters.py`).
"""

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from ray import tune
from ray.tune.experiment import Trial

from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import ConfigError, DataError, SearchError
from tune_srs.runs import begin
from tune_srs.runs.journal import Journal
from tune_srs.runs.optuna_study import write_study
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.plan import Plan
from tune_srs.runs.resources import Resources
from tune_srs.space.space import Space
from tune_srs.storage import trial_name
from tune_srs.training.loop import compile_kernels
from tune_srs.tuning import extension, winner
from tune_srs.tuning.adapters import EarlyStopping, Ending, PlanningSearcher, Recording
from tune_srs.tuning.cluster import check_storage, connected, logged, node_resources
from tune_srs.tuning.console import Console
from tune_srs.tuning.early_stopping import Judge
from tune_srs.tuning.planner import Planner
from tune_srs.tuning.recorder import Recorder
from tune_srs.tuning.retries import RETRIES
from tune_srs.tuning.worker import run_trial


def search(
    plan: Plan,
    data: PreparedData,
    folder: Path,
    console: Console,
    resume: bool,
    extends: bool = False,
    retry_failed: bool = False,
) -> bool:
    """Run `plan` in the new `folder`; with `resume`, continue the run that is there.

    With `extends` it may have ended, and `plan` has larger limits than it had; with `retry_failed`
    trials that have failed are trained again.

    Returns True if the search ended, False if it was interrupted. Raises `ConfigError` if a new
    run's `folder` exists or the resources are missing. Raises `SearchError` if no trial reported a
    metric, or if the disk or the storage fails.
    """
    plan.check(folder, resume, extends)
    settings = RunPaths(folder).settings
    try:
        with ExitStack() as held:
            if resume:
                held.enter_context(alone(folder))  # before Ray starts, which takes seconds
            if extends:
                extension.begin(plan, data, folder, retry_failed)
            return _search(plan, data, folder, console, resume, held)
    except KeyboardInterrupt:  # a second one, or one outside Tune, which ends well after the first
        if settings.exists():
            console.say(f"interrupted; {plan.how_to_resume(folder)}")
        raise
    except OSError as error:
        if not settings.is_file():  # it has not begun
            raise
        place = error.filename or folder
        raise SearchError(
            f"{place}: {error.strerror or error}; fix that, then {plan.how_to_resume(folder)}"
        ) from error


def _search(
    plan: Plan,
    data: PreparedData,
    folder: Path,
    console: Console,
    resume: bool,
    held: ExitStack,
) -> bool:
    space = plan.space
    with connected(plan.resources, data.validation):
        _check_cluster(plan, folder, resume)
        if not resume:
            begin.make_folder(plan, data, folder)
            held.enter_context(alone(folder))
        held.enter_context(logged(RunPaths(folder).log))
        compile_kernels(space.base, console.say)  # before several workers do
        recorder, judge, planner = open_session(plan, folder, console)
        if not planner.is_done() and not recorder.is_over():
            with console.watching(recorder.journal, space), terminated_as_interrupted():
                _tune(plan, data, recorder, judge, planner)
    return conclude(plan, data, recorder, planner, console)  # no worker writes any more


def open_session(plan: Plan, folder: Path, console: Console) -> tuple[Recorder, Judge, Planner]:
    """Return what a session goes on with: all of it stands where the journal left it."""
    space = plan.space
    journal = open_journal(folder, space)
    recorder = Recorder(journal, space, folder, plan.storage(folder), console)
    recorder.sweep()
    judge = Judge(space, journal.trials)
    extension.take_up(recorder.paths, journal, judge)
    return recorder, judge, Planner(space, journal.trials, judge, plan.seed)


def open_journal(folder: Path, space: Space) -> Journal:
    """Return the journal of the run in `folder`; a `DataError` if it does not belong to `space`."""
    paths = RunPaths(folder)
    if paths.trials.exists() and not paths.journal.exists():
        raise DataError(f"{paths.journal}: missing; restore it, or search by another name")
    journal = Journal(folder, space.search.objectives)
    for record in journal.trials:
        for name, value in record.values.items():
            if name not in space.params or not space.params[name].contains(value):
                raise DataError(
                    f"{paths.journal}: trial {record.number} has {name}={value!r}, which the space "
                    f"does not allow; restore the original file"
                )
    return journal


def _check_cluster(plan: Plan, folder: Path, resume: bool) -> None:
    """Raise a `ConfigError` if resources or storage are missing, or the storage is not free."""
    plan.resources.check(node_resources())
    check_storage(plan.storage(folder) if plan.resources.storage else None)
    if not resume and plan.storage(folder).names():
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

    After the block the old handler of Ctrl-C is back; Tune would leave its own in place.
    """
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:  # as a shell leaves it for what it starts with &
        signal.signal(signal.SIGINT, signal.default_int_handler)
    terminate = signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, terminate)
        signal.signal(signal.SIGINT, before)


def _tune(
    plan: Plan, data: PreparedData, recorder: Recorder, judge: Judge, planner: Planner
) -> None:
    """Let Ray Tune run what is planned; trials that an earlier session left running come first."""
    nodes = node_resources()
    resources = plan.resources
    # all workers start together: one by one, a short trial would end before the next is up
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
            search_alg=PlanningSearcher(
                planner, recorder, at_once=lambda: resources.room(node_resources())
            ),
            scheduler=EarlyStopping(judge),
            num_samples=-1,  # until the searcher says that it is done
            max_failures=RETRIES,
            stop=Ending(recorder),
            callbacks=[Recording(recorder, judge), *_trackers(resources, recorder.paths.folder)],
            reuse_actors=True,
            raise_on_failed_trial=False,
            trial_name_creator=_turn,
            trial_dirname_creator=_turn,
            verbose=0,
        )


def _turn(trial: Trial) -> str:
    """The name of a turn of a trial, which may have several."""
    return f"{trial_name(trial.config['trial'])}_{trial.trial_id}"


def _trackers(resources: Resources, folder: Path) -> list[tune.Callback]:
    if not resources.trackers:
        return []
    from tune_srs.tuning.trackers import callbacks  # imports the trackers, which takes long

    return callbacks(resources.trackers, folder)


def conclude(
    plan: Plan, data: PreparedData, recorder: Recorder, planner: Planner, console: Console
) -> bool:
    """Write what the trials have come to, and export the best if the search is over.

    Returns whether it is over.
    """
    journal, paths = recorder.journal, recorder.paths
    if in_vain := recorder.in_vain():
        recorder.write_table()
        raise SearchError(f"{paths.folder}: {in_vain}; fix the space and search by another name")
    spent = None if recorder.cannot_go_on else recorder.spent()
    done = recorder.cannot_go_on is None and (bool(spent) or planner.is_done())
    if spent:
        recorder.end_all(spent)
    elif done:
        recorder.end_waiting()
    if recorder.cannot_go_on:
        raise SearchError(
            f"{recorder.cannot_go_on}; fix that, then {plan.how_to_resume(paths.folder)}"
        )
    recorder.write_table()
    write_study(journal.trials, plan.space, paths.optuna, plan.name)
    ended = journal.ended()
    if not done:
        console.say(
            f"interrupted: {ended} of {plan.space.trials} trials have ended and are kept; "
            f"{plan.how_to_resume(paths.folder)}"
        )
        return False
    if spent or ended < plan.space.trials:
        reason = spent or "every point of the space has been tried"
        console.say(f"over after {ended} trials: {reason}")
    winner.export_winner(paths.folder, plan, journal, recorder.storage, data, console.say)
    paths.extending.unlink(missing_ok=True)
    return True
