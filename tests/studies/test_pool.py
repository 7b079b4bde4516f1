"""Runs that end, fail and die, on a Ray that is made up."""

from collections import deque
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from tune_srs.errors import DataError
from tune_srs.studies.pool import Failure, work_off
from tune_srs.studies.run import Score, Task
from tune_srs.tuning.retries import RETRIES

GOOD = Score(1, 2, {}, {})


def test_a_task_whose_worker_died_runs_again_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[Any] = []  # what each start gives: a score, or the error that Ray would raise

    def get(number: int) -> Any:
        if isinstance(begun[number], Exception):
            raise begun[number]
        return begun[number]

    monkeypatch.setattr(ray, "wait", lambda running: ([running[0]], running[1:]))
    monkeypatch.setattr(ray, "get", get)
    lucky, luckless, wrong = (Task(1, "clean", name) for name in ("lucky", "luckless", "wrong"))
    died = WorkerCrashedError()
    raised = RayTaskError("score", "Traceback", DataError("the loss is nan"))  # type: ignore[no-untyped-call]
    given: dict[Task, deque[Any]] = {
        lucky: deque([died] * RETRIES + [GOOD]),
        luckless: deque([died] * (RETRIES + 1)),
        wrong: deque([raised]),
    }

    def start(task: Task) -> int:
        begun.append(given[task].popleft())
        return len(begun) - 1

    outcomes = dict(work_off([lucky, luckless, wrong], start, room=2))
    assert outcomes[lucky] == GOOD
    assert outcomes[wrong] == Failure("the loss is nan")
    reason = outcomes[luckless]
    assert isinstance(reason, Failure)
    assert reason.reason.startswith(f"the worker died {RETRIES + 1} times: ")
    assert not any(given.values())  # as often as that, and no oftener
