"""One trial, in a worker process of Ray that other trials share."""

import os

# Ray reads these when it is imported, or later, in the driver and in its workers
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # no tables of Tune's own
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # off, Ray binds to loopback on every system
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the journal and our own events take their place
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # what reports a failure has no metric
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # Tune's own state is not what a search goes on from
    # how long a worker waits for a stopped trial to end its step; less, and the next trial fails
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "86400",
}

import traceback
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

from ray import tune

from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.histories import Split
from tune_srs.errors import DataError, TuneSRSError
from tune_srs.space.space import Space
from tune_srs.storage import Storage
from tune_srs.training.checkpoint import Best, Checkpoint, load_last
from tune_srs.training.loop import EpochReport, clear_device, train


def run_trial(config: dict[str, Any], space: Space, split: Split, storage: Storage) -> None:
    """Train, save and report every epoch; go on from the last checkpoint where there is one.

    A report holds the epoch's metrics, `epoch`, and `finished`: whether the trial ends by itself
    with it. What the trial raises is reported as `error`, with its `traceback`, since Tune would
    run it again; only a worker that died should be. With `fatal` the search cannot go on, either.
    """
    try:
        _train_and_report(config, space, split, storage)
    except Exception as error:
        fatal = isinstance(error, OSError)  # a full disk, a storage that cannot be reached
        reason = _reason(error, storage)
        tune.report({"error": reason, "fatal": fatal, "traceback": traceback.format_exc()})
    finally:
        clear_device()


def _reason(error: Exception, storage: Storage) -> str:
    match error:
        case TuneSRSError():
            text = str(error)
        case OSError():
            text = f"{error.filename or storage.place}: {error.strerror or error}"
        case _:
            text = f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


def _train_and_report(config: dict[str, Any], space: Space, split: Split, storage: Storage) -> None:
    """The next epoch is trained while the last one is saved and Tune takes its report."""
    number = config["trial"]
    values = {key: value for key, value in config.items() if key != "trial"}
    trial = space.config(values, f"trial {number}")
    best = Best(space.search.objectives[0])
    before, note = _checkpoint(storage, number, trial, split.num_items, best)
    # it may have been cut off before it was told
    if before and _tell(before, best, space, trial, note):
        return
    stop = Event()
    epochs = train(trial, split, before.state if before else None, stop)
    with ThreadPoolExecutor(1) as ahead:
        try:
            following = ahead.submit(next, epochs, None)
            while (report := following.result()) is not None:
                best.update(report)
                checkpoint = Checkpoint.of(trial, report, best)
                following = ahead.submit(next, epochs, None)
                checkpoint.write(storage, number)
                if _tell(report, best, space, trial, note):
                    return
        finally:
            stop.set()  # nobody waits for the epoch that has begun


def _checkpoint(
    storage: Storage, number: int, trial: TrialConfig, num_items: int, best: Best
) -> tuple[EpochReport | None, str | None]:
    """The epoch to go on from, if there is one, and why there is none although there should be."""
    try:
        return load_last(storage, number, trial, num_items, best), None
    except DataError as error:  # the epochs before it come out the same again
        return None, f"trial {number} trains anew: {error}"


def _tell(
    report: EpochReport, best: Best, space: Space, trial: TrialConfig, note: str | None
) -> bool:
    """Report an epoch; True if it was the last. Leaves by SystemExit when Tune stops the trial."""
    patience = space.search.patience
    worn_out = patience is not None and report.epoch - best.epoch >= patience
    finished = worn_out or report.epoch == trial.train.max_epochs
    tune.report(report.metrics | {"epoch": report.epoch, "finished": finished, "note": note})
    return finished
