"""One trial, in a worker process of Ray that other trials share.

If the process dies, Tune starts the trial again, here or elsewhere (`RETRIES` times), and the trial
resumes from its last checkpoint.
"""

import traceback
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event
from typing import Any

from ray import tune

from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.histories import Split
from tune_srs.errors import DataError, one_line, reason_of
from tune_srs.space.space import Space
from tune_srs.storage import Storage
from tune_srs.training.checkpoint import Best, Checkpoint, load_last
from tune_srs.training.loop import EpochReport, clear_device, train
from tune_srs.tuning.messages import EpochDone, Message, TrialFailed, to_result


def run_trial(config: dict[str, Any], space: Space, split: Split, storage: Storage) -> None:
    """Report every message of a trial to Tune, which stops it by raising SystemExit here."""
    values = {key: value for key, value in config.items() if key != "trial"}
    with closing(messages(config["trial"], values, space, split, storage)) as told:
        for message in told:
            tune.report(to_result(message))


def messages(
    number: int, values: dict[str, Any], space: Space, split: Split, storage: Storage
) -> Generator[Message]:
    """Train, save and tell every epoch; go on from the last checkpoint where there is one.

    If the trial raises, its last message is a `TrialFailed`.
    """
    try:
        yield from _epochs(number, values, space, split, storage)
    except Exception as error:
        fatal = isinstance(error, OSError)  # a full disk, a storage that cannot be reached
        yield TrialFailed(_reason(error, storage), traceback.format_exc(), fatal)
    finally:
        clear_device()


def _reason(error: Exception, storage: Storage) -> str:
    if isinstance(error, OSError):
        return one_line(f"{error.filename or storage.place}: {error.strerror or error}")
    return reason_of(error)


def _epochs(
    number: int, values: dict[str, Any], space: Space, split: Split, storage: Storage
) -> Iterator[EpochDone]:
    """Train the next epoch while the last one is saved and Tune takes its message."""
    trial = space.config(values, f"trial {number}")
    best = Best(space.search.objectives[0])
    before, note = _checkpoint(storage, number, trial, split.num_items, best)

    def done(report: EpochReport) -> EpochDone:
        patience = space.search.patience
        worn_out = patience is not None and report.epoch - best.epoch >= patience
        finished = worn_out or report.epoch == trial.train.max_epochs
        return EpochDone(report.epoch, report.metrics, finished, note)

    if before:  # the worker may have died between saving and reporting it
        message = done(before)
        yield message
        if message.finished:
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
                message = done(report)
                yield message
                if message.finished:
                    return
        finally:
            stop.set()  # nobody waits for the epoch that has begun


def _checkpoint(
    storage: Storage, number: int, trial: TrialConfig, num_items: int, best: Best
) -> tuple[EpochReport | None, str | None]:
    """Return the epoch to continue from, if any, and a note if a checkpoint cannot be read."""
    try:
        return load_last(storage, number, trial, num_items, best), None
    except DataError as error:  # training from the start gives the same epochs
        return None, f"trial {number} trains anew: {error}"
