"""The parts of a search as Tune takes them: each passes on what it is told, and decides nothing."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tune_srs.space.parameters import Values
from tune_srs.tuning import retries
from tune_srs.tuning.early_stopping import Judge
from tune_srs.tuning.messages import from_result
from tune_srs.tuning.planner import Planner
from tune_srs.tuning.recorder import Recorder


class PlanningSearcher(Searcher):
    """A `Planner` as Tune's searcher; has each trial noted before it may start.

    A trial of Tune is one turn of ours: from its beginning, or from where it waited, until it waits
    or ends. Those that a session before this one left unfinished come first.
    """

    def __init__(
        self, planner: Planner, recorder: Recorder, at_once: Callable[[], float] = lambda: math.inf
    ) -> None:
        """`at_once`: no suggestion while so many run; each one has then seen every ended trial."""
        super().__init__()
        self._planner, self._recorder, self._at_once = planner, recorder, at_once
        self._running: dict[str, int] = {}  # by Tune's id
        self._unfinished = [
            one.number for one in recorder.journal.trials if one.status == "unfinished"
        ]

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self._recorder.cannot_go_on or len(self._running) >= self._at_once():
            return None
        planned = self._next()
        if planned is None:
            return str(Searcher.FINISHED) if self._planner.is_done() else None
        number, values = planned
        if not self._recorder.begin(number, values):
            return None
        self._running[trial_id] = number
        return {"trial": number, **values}

    def _next(self) -> tuple[int, Values] | None:
        if not self._unfinished:
            return self._planner.next()
        number = self._unfinished.pop(0)
        return number, self._recorder.journal.trials[number].values

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._running.pop(trial_id, None)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the next session plans from the journal."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a search goes on from its journal")


class EarlyStopping(FIFOScheduler):
    """A `Judge` as Tune's scheduler."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._judge = judge

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        verdict = self._judge.of(trial.config["trial"], from_result(result))
        return TrialScheduler.CONTINUE if verdict == "go on" else TrialScheduler.STOP


class Recording(tune.Callback):
    """A `Recorder` as Tune's callback."""

    def __init__(self, recorder: Recorder, judge: Judge) -> None:
        self._recorder, self._judge = recorder, judge

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        self._recorder.take(trial.config["trial"], from_result(result))

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        last = from_result(trial.last_result)
        self._recorder.complete(trial.config["trial"], last, self._judge)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        self._recorder.end(trial.config["trial"], "failed", _reason(trial))


class Ending(tune.Stopper):
    """Whether a search is over before all its trials are, as Tune asks for it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Return nothing, for Tune's snapshot, which is never read."""
        return {}

    def stop_all(self) -> bool:
        return self._recorder.is_over()


def _reason(trial: Trial) -> str:
    """Return what Ray tells of a worker's end: it writes that here first, and stores it later."""
    local = Path(trial.error_file or "")
    text = local.read_text(encoding="utf-8") if local.is_file() else str(trial.get_error() or "")
    lines = [line.strip() for line in text.splitlines() if "Error:" in line or "died" in line]
    return retries.died((lines or ["no reason was given"])[-1])
