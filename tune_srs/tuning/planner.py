"""What a free worker of a search does next: go on with a trial that waits, or begin a new one.

That depends on the records of the trials and on the seed alone, so that a search that was cut goes
on as if it had not been.
"""

import json
from collections.abc import Sequence

from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from tune_srs.runs.journal import TrialRecord
from tune_srs.runs.optuna_study import frozen, new_study
from tune_srs.space.parameters import Values
from tune_srs.space.space import Space
from tune_srs.tuning.early_stopping import Judge
from tune_srs.tuning.samplers import make_sampler

LEARNING = ("tpe", "gp", "cmaes")  # the samplers that look at trials
ATTEMPTS = 20  # of the sampler at a point that is new
RANDOM_ATTEMPTS = 1000  # after them


class Planner:
    """Plans over `records`, the live ones of a search, one per trial that has begun."""

    def __init__(
        self, space: Space, records: Sequence[TrialRecord], judge: Judge, seed: int
    ) -> None:
        self._space, self._records, self._judge, self._seed = space, records, judge, seed
        self._sampler = make_sampler(space, seed)
        self._points = space.points()
        self._frozen: dict[int, FrozenTrial] = {}  # of ended trials, which stay as they are
        self._exhausted = False  # every point has been tried

    def next(self) -> tuple[int, Values] | None:
        """Return the number and the values of the trial to train; None if there is none for now.

        A trial that waits and belongs to the best of its rung comes first, then a new one. When
        none is left to begin, none runs and none is complete, the best that waits goes on.
        """
        number = self._judge.promoted()
        if number is None and self._begins():
            if (values := self._proposed()) is not None:
                return len(self._records), values
            self._exhausted = True
        if number is None:
            number = self._last_resort()
        return None if number is None else (number, self._records[number].values)

    def is_done(self) -> bool:
        """Return whether nothing runs and nothing is left to train."""
        left = self._begins() or self._runs() or self._judge.promoted() is not None
        return not left and self._last_resort() is None

    def _last_resort(self) -> int | None:
        """Return the trial that goes on so that one is complete, in a search of few trials."""
        if self._runs() or any(one.status == "complete" for one in self._records):
            return None
        return self._judge.promoted(at_least_one=True)

    def _begins(self) -> bool:
        return not self._exhausted and len(self._records) < self._space.trials

    def _runs(self) -> bool:
        return any(one.status == "unfinished" for one in self._records)

    def _proposed(self) -> Values | None:
        """Return the values of the next new trial; None if every point has been tried."""
        number = len(self._records)
        study = new_study(self._space.search.objectives)
        if self._space.search.sampler.type in LEARNING:
            study.add_trials([self._told(record) for record in self._records])
        study.sampler = self._sampler(number)
        if number < len(self._points):  # what it leaves open, the sampler fills in
            study.enqueue_trial(dict(self._points[number]))
            return self._space.suggest(study.ask())
        tried = {json.dumps(one.values, sort_keys=True) for one in self._records}
        for attempt in range(ATTEMPTS + RANDOM_ATTEMPTS):
            if attempt == ATTEMPTS:
                study.sampler = RandomSampler(seed=self._seed + number)
            values = self._space.suggest(study.ask())
            if json.dumps(values, sort_keys=True) not in tried:
                return values
        return None

    def _told(self, record: TrialRecord) -> FrozenTrial:
        if not record.ended:
            return frozen(record, self._space)
        if record.number not in self._frozen:
            self._frozen[record.number] = frozen(record, self._space)
        return self._frozen[record.number]
