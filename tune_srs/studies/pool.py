"""The runs of a study on Ray: as many at once as there is room for, again where a worker died."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.histories import Split
from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import reason_of
from tune_srs.runs.paths import RunPaths
from tune_srs.studies import run as runs
from tune_srs.studies.plan import StudyPlan
from tune_srs.studies.run import Score, Task
from tune_srs.studies.spec import Study
from tune_srs.training.loop import compile_kernels
from tune_srs.tuning import retries
from tune_srs.tuning.cluster import connected, logged, node_resources
from tune_srs.tuning.search import terminated_as_interrupted

logger = logging.getLogger("ray.tune_srs")  # into ray.log


@dataclass(frozen=True)
class Failure:
    """Why a run gave no score, in one line."""

    reason: str


def outcomes(
    configs: Mapping[Task, TrialConfig],
    plan: StudyPlan,
    data: Mapping[str, PreparedData],
    folder: Path,
    say: Callable[[str], None],
) -> Generator[tuple[Task, Score | Failure]]:
    """Run `configs`, at least one, and yield each run as it ends.

    Ray lives until the iterator is closed; what it tells goes to `ray.log` in `folder`. Raises
    `ConfigError` if the resources are not there.
    """
    splits = {name: runs.splits_of(one, plan.study) for name, one in data.items()}
    every = (split for both in splits.values() for split in both)
    with connected(plan.resources, *every), logged(RunPaths(folder).log):
        nodes = node_resources()
        plan.resources.check(nodes)
        compile_kernels(next(iter(configs.values())), say)  # before several workers do
        # validation and test together, since they share the histories that train
        shared = {name: ray.put(both) for name, both in splits.items()}
        share = plan.resources.of_a_trial(nodes)
        score = _score.options(num_cpus=share["CPU"], num_gpus=share.get("GPU", 0))

        def start(task: Task) -> Any:
            return score.remote(configs[task], plan.study, shared[task.dataset])

        with terminated_as_interrupted():  # after Ray's start, which answers SIGTERM itself
            yield from work_off(list(configs), start, plan.resources.room(nodes))


@ray.remote(max_retries=0)  # retried here: Ray would do so forever where memory is short
def _score(config: TrialConfig, study: Study, splits: tuple[Split, Split]) -> Score:
    return runs.score(config, study, *splits)


def work_off(
    tasks: Sequence[Task], start: Callable[[Task], Any], room: int
) -> Generator[tuple[Task, Score | Failure]]:
    """Keep `room` tasks running, each started with `start`, and yield each one as it ends."""
    waiting = deque(tasks)
    running: dict[Any, Task] = {}
    deaths: Counter[Task] = Counter()
    while waiting or running:
        while waiting and len(running) < room:
            task = waiting.popleft()
            running[start(task)] = task
        ended = ray.wait(list(running))[0][0]
        task = running.pop(ended)
        outcome = _outcome(task, ended)
        if isinstance(outcome, RayError):
            deaths[task] += 1
            if deaths[task] <= retries.RETRIES:
                waiting.appendleft(task)
                continue
            outcome = Failure(retries.died(str(outcome).strip().splitlines()[0]))
        yield task, outcome


def _outcome(task: Task, ended: Any) -> Score | Failure | RayError:
    """Return what came of a task that has ended; a `RayError` if its worker died."""
    try:
        score: Score = ray.get(ended)
        return score
    except RayTaskError as error:
        logger.error("%s failed:\n%s", task, error)
        return Failure(reason_of(error.cause))
    except RayError as error:
        return error
