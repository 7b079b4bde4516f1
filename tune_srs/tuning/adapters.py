"""The parts of a search as Tune takes them: each passes on what it is told, and decides nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune_srs.runs.optuna_study import study_of
from tune_srs.tuning import retries
from tune_srs.tuning.early_stopping import Judge
from tune_srs.tuning.messages import from_result
from tune_srs.tuning.recorder import Recorder
from tune_srs.tuning.samplers import make_sampler
from tune_srs.tuning.searcher import OptunaSearcher


class RecordingSearcher(OptunaSearcher):
    """Begins with what the journal holds, and has each trial noted before it may start."""

    def __init__(self, recorder: Recorder, seed: int, at_once: Callable[[], float]) -> None:
        space, records = recorder.space, recorder.journal.trials
        super().__init__(
            study_of(records, space),
            space.suggest,
            space.search.objectives,
            make_sampler(space, seed),
            points=space.points(),
            at_once=at_once,
            unfinished={one.number: one.reports for one in records if not one.ended},
        )
        self._recorder = recorder

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self._recorder.cannot_go_on or (config := super().suggest(trial_id)) is None:
            return None
        values = {name: value for name, value in config.items() if name != "trial"}
        return config if self._recorder.begin(config["trial"], values) else None


class EarlyStopping(FIFOScheduler):
    """A `Judge` as Tune's scheduler."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._judge = judge

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        stops = self._judge.stops(trial.config["trial"], from_result(result))
        return TrialScheduler.STOP if stops else TrialScheduler.CONTINUE


class Recording(tune.Callback):
    """A `Recorder` as Tune's callback."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        self._recorder.take(trial.config["trial"], from_result(result))

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        self._recorder.complete(trial.config["trial"], from_result(trial.last_result))

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
