"""A search without Ray: the parts that decide are real, and this file stands in for Tune.

One trial trains at a time. What Tune does between a worker and a driver is tested with Ray, in
`tuning/test_search.py` and `tuning/test_kills.py`.
"""

import itertools
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import rich.console

from tune_srs.datasets.prepare import prepare
from tune_srs.runs import begin
from tune_srs.runs.journal import Journal
from tune_srs.runs.paths import RunPaths
from tune_srs.runs.plan import Plan
from tune_srs.runs.resources import Resources
from tune_srs.runs.run import Run
from tune_srs.space.space import Space
from tune_srs.tuning import extension
from tune_srs.tuning.adapters import PlanningSearcher
from tune_srs.tuning.console import Console
from tune_srs.tuning.messages import Message, TrialFailed
from tune_srs.tuning.search import conclude, open_session
from tune_srs.tuning.worker import messages


class Killed(BaseException):
    """As sudden as SIGKILL: nobody catches it."""


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int, after: bool) -> None:
    """The process ends before, or right after, the event of this number is written."""
    write, written = Journal._write, itertools.count()

    def writing(journal: Journal, event: dict[str, Any], lasting: bool = False) -> None:
        this = next(written) == number
        if this and not after:
            raise Killed
        write(journal, event, lasting)
        if this:
            raise Killed

    monkeypatch.setattr(Journal, "_write", writing)


class Lines(Console):
    """Keeps what a search says."""

    def __init__(self) -> None:
        super().__init__(rich.console.Console(quiet=True))
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


def search(
    folder: Path,
    space: Space,
    most_messages: int | None = None,
    seed: int = 0,
    extends: bool = False,
    retry_failed: bool = False,
) -> tuple[Run, list[str]]:
    """Search `space` in `folder`, or go on there; the run, and what the console said.

    With `most_messages` it is interrupted after as many: the trial that runs does not end. With
    `extends` it may have ended.
    """
    plan = Plan(folder.name, space, seed, Resources())
    data = prepare(space.base.data, folder.parent / "data", lambda message: None)
    console = Lines()
    if not RunPaths(folder).settings.exists():
        begin.make_folder(plan, data, folder)
    if extends:
        extension.begin(plan, data, folder, retry_failed)
    recorder, judge, planner = open_session(plan, folder, console)
    searcher = PlanningSearcher(planner, recorder, at_once=lambda: 1)
    for turn in map(str, itertools.count()):
        config = None if recorder.is_over() else searcher.suggest(turn)
        if not isinstance(config, dict):  # the search is done, or the trial could not be noted
            break
        number = config.pop("trial")
        last: Message | None = None
        told = messages(number, config, space, data.validation, recorder.storage)
        with closing(told):
            for last in told:
                verdict = judge.of(number, last)
                recorder.take(number, last)
                if verdict != "go on" or recorder.is_over():
                    break
                if (most_messages := most_messages and most_messages - 1) == 0:
                    conclude(plan, data, recorder, planner, console)
                    return Run(folder), console.said
        assert last is not None
        by_itself = isinstance(last, TrialFailed) or last.finished
        if recorder.is_over() and not by_itself:
            break
        searcher.on_trial_complete(turn)
        recorder.complete(number, last, judge)
    conclude(plan, data, recorder, planner, console)
    return Run(folder), console.said
