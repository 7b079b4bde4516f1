"""The search: Ray Tune runs trials of `train`, Optuna proposes, ASHA stops the poor ones early.

Ray is imported here and in `searcher.py` only.
"""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

# Ray reads these when it is imported, or later; workers import this module, too
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # no tables of Tune's own
    # how long a worker waits for a stopped trial to end its step; less, and the next trial fails
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "86400",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # off, Ray binds to loopback on every system
}

import pandas as pd
import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from tune_srs import checkpoint, outcome, results
from tune_srs.checkpoint import Checkpoint
from tune_srs.config import TrialConfig
from tune_srs.datasets.sequences import PreparedData, Sequences
from tune_srs.plan import Plan, available_cpus
from tune_srs.searcher import OptunaSearcher, write_study
from tune_srs.space import Space
from tune_srs.train import EpochReport, clear_device, compile_kernels, train

Say = Callable[[str], None]
OBJECT_STORE_SLACK = 128 * 2**20


def run(plan: Plan, data: PreparedData, folder: Path, say: Say = print) -> bool:
    """Run `plan` into the new `folder`. True if it ended, False if it was interrupted.

    Raises `ConfigError` if `folder` exists or the resources are not there, `SearchError` if no
    trial gave a metric.
    """
    plan.check(folder, resume=False)
    yardsticks = outcome.yardsticks(data, plan.space.base.evaluation)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".aside-", dir=folder.parent) as parent:
        aside = Path(parent) / folder.name
        aside.mkdir()
        plan.write(data, aside / "search.yaml")
        (aside / "yardsticks.json").write_text(json.dumps(yardsticks, indent=2), encoding="utf-8")
        aside.rename(folder)
    return _fit(plan, data, folder, say)


def resume(plan: Plan, data: PreparedData, folder: Path, say: Say = print) -> bool:
    """Go on with an interrupted `plan`, from whatever there is of it; see `run`."""
    plan.check(folder, resume=True)
    return _fit(plan, data, folder, say)


def _fit(plan: Plan, data: PreparedData, folder: Path, say: Say) -> bool:
    path = str((folder / "tune").resolve())
    compile_kernels(plan.space.base.train, say)  # before several workers do at the same time
    # all workers start together; one after another, a short trial's ends before the next is there
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(plan.resources.at_once())
    try:
        with local_ray(data, folder):
            if tune.Tuner.can_restore(path):
                tuner = tune.Tuner.restore(path, _trainable(plan, data, folder.resolve()))
            else:
                tuner = _new_tuner(plan, data, folder.resolve(), say)
            tuner.fit()
    except KeyboardInterrupt:  # twice, or while Ray starts: once, Tune ends well by itself
        say(f"interrupted; {plan.how_to_resume(folder)}")
        raise
    return _conclude(plan, data, folder, say)


def _new_tuner(plan: Plan, data: PreparedData, folder: Path, say: Say) -> tune.Tuner:
    return tune.Tuner(
        _trainable(plan, data, folder),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearcher(plan.space, plan.seed, plan.resources.at_once()),
            scheduler=_scheduler(plan.space),
            num_samples=plan.space.trials,
            reuse_actors=True,
            trial_dirname_creator=_trial_folder,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            verbose=0,
            sync_config=tune.SyncConfig(sync_period=5),
            callbacks=[Recorder(folder, plan.space, say)],
        ),
    )


def run_trial(config: dict[str, Any], space: Space, sequences: Sequences, run: Path) -> None:
    """One trial, in a worker that other trials share."""
    try:
        _train_and_report(config, space, sequences, run)
    finally:
        clear_device()


def _train_and_report(
    config: dict[str, Any], space: Space, sequences: Sequences, run: Path
) -> None:
    """Train, save and report every epoch.

    The next epoch is trained while the last one is saved and Tune takes its report.
    """
    values = {key: value for key, value in config.items() if key != "trial"}
    trial = space.config(values, f"trial {config['trial']}")
    folder = outcome.trial_folder(run, config["trial"])
    state, best = None, checkpoint.Best(space.search.metric, space.search.mode)
    saved = checkpoint.last(folder)
    if saved and checkpoint.load_progress(saved).config == trial:
        before, best = checkpoint.load(trial, sequences.num_items, saved)
        state = before.state
        _tell(before, best, config, trial, folder)  # it may have been cut off before that
    else:  # left by a trial that Tune no longer knew of, and proposed anew
        checkpoint.forget(folder)
        results.forget_epochs(folder)
    stop = Event()
    epochs = train(trial, sequences, state, stop)
    with ThreadPoolExecutor(1) as ahead:
        try:
            following = ahead.submit(next, epochs, None)
            while (report := following.result()) is not None:
                best.update(report)
                saved_epoch = Checkpoint.of(trial, report, best)
                following = ahead.submit(next, epochs, None)
                saved_epoch.write(folder)
                _tell(report, best, config, trial, folder)
        finally:
            stop.set()  # nobody waits for the epoch that has begun


def _tell(
    report: EpochReport,
    best: checkpoint.Best,
    config: dict[str, Any],
    trial: TrialConfig,
    folder: Path,
) -> None:
    """Note an epoch and report it; leaves by SystemExit when Tune stops the trial."""
    results.append_epoch(folder, config | report.metrics | {"epoch": report.epoch})
    progress = {
        "epoch": report.epoch,
        "best_epoch": best.epoch,
        "finished": report.epoch == trial.train.max_epochs,
    }
    tune.report(report.metrics | progress)


class Recorder(tune.Callback):
    """Keeps `trials.csv` current and says a line for each trial that ends."""

    def __init__(self, folder: Path, space: Space, say: Say) -> None:
        self._folder = folder
        self._space = space
        self._say = say
        self._ended: dict[str, dict[str, Any]] = {}  # rows that change no more, by Ray's id

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._record(trials, trial)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._record(trials, trial)

    def _record(self, trials: list[Trial], over: Trial) -> None:
        """`over` has ended, though Tune sets its status only after telling of it."""
        unfinished = []
        for trial in trials:
            status = _status(trial, trial is over)
            if status == "unfinished":
                unfinished.append(trial_row(trial, status, self._folder))
            elif trial.trial_id not in self._ended:
                self._ended[trial.trial_id] = trial_row(trial, status, self._folder)
        self._write([*self._ended.values(), *unfinished])
        row, ended = self._ended[over.trial_id], len(self._ended)
        metric = self._space.search.metric
        result = f"{metric} {row[metric]:.4f}" if metric in row else row["error"]
        self._say(
            f"[{ended}/{self._space.trials}] trial {row['trial']} {row['status']} "
            f"after {row['epochs']} epochs: {result}"
        )

    def _write(self, rows: list[dict[str, Any]]) -> None:
        table = pd.DataFrame(rows).sort_values("trial")
        first = ["trial", "trial_id", "status", "epochs", "best_epoch", "seconds", "error"]
        params = [name for name in self._space.params if name in table]
        metrics = [name for name in table if name not in (*first, *params)]
        table = table[[*first, *params, *metrics]]
        results.write_aside(
            self._folder / "trials.csv", lambda aside: table.to_csv(aside, index=False)
        )


def trial_row(trial: Trial, status: str, run: Path) -> dict[str, Any]:
    """What `trials.csv` tells of one trial; its metrics are those of its best epoch."""
    row: dict[str, Any] = {"trial_id": trial.trial_id, **trial.config}
    row |= {"status": status, "error": None, "epochs": 0, "best_epoch": None}
    row["seconds"] = trial.last_result.get("time_total_s", 0.0)
    if progress := checkpoint.progress_of(outcome.trial_folder(run, trial.config["trial"])):
        best = progress.best
        row |= {"epochs": progress.epoch, "best_epoch": best.epoch, **best.metrics}
    if status == "failed":
        row["error"] = _reason(trial)
    return row


def _reason(trial: Trial) -> str:
    """The last line of the traceback, which Tune writes here first and stores a little later."""
    local = Path(trial.error_file or "")
    text = local.read_text(encoding="utf-8") if local.is_file() else str(trial.get_error() or "")
    return (text.strip().splitlines() or ["the worker ended without a reason"])[-1]


def _status(trial: Trial, over: bool = False) -> str:
    if trial.status == Trial.ERROR:
        return "failed"
    if trial.status != Trial.TERMINATED and not over:
        return "unfinished"
    return "complete" if trial.last_result.get("finished") else "stopped"


def _conclude(plan: Plan, data: PreparedData, folder: Path, say: Say) -> bool:
    """After Tune: the copy of the study and, if every trial has ended, the winner's export."""
    searcher = OptunaSearcher(plan.space, plan.seed, plan.resources.at_once())
    searcher.restore_from_dir(str(folder / "tune"))
    write_study(searcher.study, folder / "study.db")
    ended = int((results.trials(folder)["status"] != "unfinished").sum())
    if ended < plan.space.trials:
        say(
            f"interrupted: {ended} of {plan.space.trials} trials have ended and are kept; "
            f"{plan.how_to_resume(folder)}"
        )
        return False
    outcome.export_winner(folder, plan.name, plan.space.search.metric, plan.space.search.mode, data)
    return True


@contextmanager
def local_ray(data: PreparedData, folder: Path) -> Iterator[None]:
    """Ray on this machine, on loopback only, without a dashboard; what it says is in `ray.log`."""
    train_part = data.validation
    arrays = (train_part.items, train_part.offsets, train_part.futures)
    ray.init(
        num_cpus=available_cpus(),
        object_store_memory=OBJECT_STORE_SLACK + 2 * sum(array.nbytes for array in arrays),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    logger, log = logging.getLogger("ray"), logging.FileHandler(folder / "ray.log")
    console, logger.handlers = logger.handlers, [log]
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        ray.shutdown()
        logger.handlers = console
        log.close()


def _trainable(plan: Plan, data: PreparedData, folder: Path) -> Any:
    """The trial function with the data in Ray's object store: one copy for all trials.

    The validation split only: the test futures never reach a worker.
    """
    bound = tune.with_parameters(run_trial, space=plan.space, sequences=data.validation, run=folder)
    resources = {"cpu": plan.resources.cpus_per_trial}
    if plan.resources.gpus_per_trial:
        resources["gpu"] = plan.resources.gpus_per_trial
    return tune.with_resources(bound, resources)


def _trial_folder(trial: Trial) -> str:
    return outcome.trial_folder(Path(), trial.config["trial"]).name


def _scheduler(space: Space) -> TrialScheduler:
    settings = space.search.scheduler
    if settings.type == "none":
        return FIFOScheduler()  # type: ignore[no-untyped-call]
    max_epochs = space.base.train.max_epochs
    return ASHAScheduler(
        time_attr="epoch",
        metric=space.search.metric,
        mode=space.search.mode,
        max_t=max_epochs,
        grace_period=min(settings.grace_period, max_epochs),
        reduction_factor=settings.reduction_factor,
    )
