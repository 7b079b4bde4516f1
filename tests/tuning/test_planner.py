"""What comes next in a search, from its records alone."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_srs.runs.journal import TrialRecord
from tune_srs.space.space import Space
from tune_srs.tuning.early_stopping import Judge
from tune_srs.tuning.messages import EpochDone
from tune_srs.tuning.planner import Planner

LR = {"train.lr": {"type": "float", "low": 0.001, "high": 0.01}}
FEW = {
    "train.lr": {"type": "categorical", "choices": [0.1, 0.2]},
    "loss.num_positives": {"type": "int", "low": 1, "high": 3},
    "loss.relevance": {
        "type": "categorical",
        "choices": ["linear", "power"],
        "when": {"train.lr": [0.2]},
    },
}
POINTS = 2 * 3 + 3  # of FEW: 3 with 0.1, 6 with 0.2


def space_of(
    params: dict[str, Any], first: list[dict[str, Any]] | None = None, **search: Any
) -> Space:
    values = {"params": params, "first": first or [], "search": {"scheduler": "none"} | search}
    return Space.from_dict(values, "space")


def planner_of(space: Space, records: list[TrialRecord], seed: int = 0) -> Planner:
    return Planner(space, records, Judge(space, records), seed)


def begun(number: int, values: dict[str, Any], status: Any, *reports: float) -> TrialRecord:
    told: list[tuple[int, tuple[float, ...]]] = [
        (epoch, (value,)) for epoch, value in enumerate(reports, start=1)
    ]
    return TrialRecord(number, values, 0.0, status, reports=told)


def searched(space: Space, seed: int = 0) -> list[TrialRecord]:
    """A search of trials of one epoch, one after another; the planner is made anew for each."""
    records: list[TrialRecord] = []
    while (planned := planner_of(space, records, seed).next()) is not None:
        number, values = planned
        assert number == len(records)
        records.append(begun(number, values, "complete", 10 * values["train.lr"]))
    return records


def test_points_come_first_and_what_they_leave_open_is_filled_in() -> None:
    space = space_of(FEW, first=[{"train.lr": 0.2}, {"train.lr": 0.1, "loss.num_positives": 2}])
    first, second, *_ = searched(space)
    assert first.values["train.lr"] == 0.2
    assert set(first.values) == set(FEW)
    assert second.values == {"train.lr": 0.1, "loss.num_positives": 2}


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "cmaes", "qmc"])
def test_no_point_is_proposed_twice_and_the_search_ends_when_all_are_tried(sampler: str) -> None:
    space = space_of(FEW, sampler=sampler, trials=POINTS + 5)
    records = searched(space)
    assert len({str(sorted(one.values.items())) for one in records}) == len(records) == POINTS
    planner = planner_of(space, records)
    assert not planner.is_done()  # it does not know yet
    assert planner.next() is None
    assert planner.is_done()


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "qmc"])
def test_an_undisturbed_planner_proposes_what_one_made_anew_would(sampler: str) -> None:
    settings_of: dict[str, Any] = {"type": sampler}
    if sampler in ("tpe", "gp"):
        settings_of["startup_trials"] = 2
    space = space_of(LR, sampler=settings_of, trials=6)
    records: list[TrialRecord] = []
    planner = planner_of(space, records, seed=3)
    while (planned := planner.next()) is not None:
        records.append(begun(planned[0], planned[1], "complete", planned[1]["train.lr"]))
    again = searched(space, seed=3)
    assert [one.values for one in records] == [one.values for one in again]
    assert [one.values for one in records] != [one.values for one in searched(space, seed=4)]


def test_a_trial_of_the_best_of_its_rung_comes_before_a_new_one() -> None:
    space = space_of(
        LR, scheduler={"type": "asha", "grace_period": 2, "reduction_factor": 2}, trials=4
    )
    records = [
        begun(0, {"train.lr": 0.001}, "waiting", 0.1, 0.2),
        begun(1, {"train.lr": 0.002}, "waiting", 0.1, 0.3),
        begun(2, {"train.lr": 0.003}, "unfinished", 0.1),
    ]
    planner = planner_of(space, records)
    assert planner.next() == (1, {"train.lr": 0.002})
    records[1].status = "unfinished"
    number, _ = planner.next() or (None, None)
    assert number == 3
    records.append(begun(3, {"train.lr": 0.004}, "failed"))
    assert planner.next() is None  # trials 1 and 2 run
    assert not planner.is_done()
    records[1].status = records[2].status = "failed"
    assert planner.next() is None  # trial 1 had reached the rung, trial 0 is the worse half
    assert planner.is_done()


def test_when_nothing_else_is_left_the_best_that_waits_goes_on_to_the_end() -> None:
    space = space_of(LR, scheduler={"type": "asha", "grace_period": 2}, trials=2)
    records = [
        begun(0, {"train.lr": 0.001}, "waiting", 0.1, 0.2),
        begun(1, {"train.lr": 0.002}, "waiting", 0.1, 0.1),
    ]
    planner = planner_of(space, records)
    assert planner.next() == (0, {"train.lr": 0.001})
    records[0] = begun(0, {"train.lr": 0.001}, "complete", 0.1, 0.2, 0.3)
    assert planner.next() is None
    assert planner.is_done()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), at_once=st.integers(1, 3), data=st.data())
def test_every_search_ends_with_trials_that_are_through(
    seed: int, at_once: int, data: st.DataObject
) -> None:
    """Whatever comes of the epochs: at least one trial reaches the last one, all others wait."""
    last = 9
    space = space_of(
        LR,
        trials=data.draw(st.integers(1, 8)),
        scheduler={"type": "asha", "grace_period": 1, "reduction_factor": 3},
        sampler="random",
    )
    records: list[TrialRecord] = []
    judge = Judge(space, records)
    planner = Planner(space, records, judge, seed)
    running: list[int] = []
    while True:
        while len(running) < at_once and (planned := planner.next()) is not None:
            number, values = planned
            if number == len(records):
                records.append(begun(number, values, "unfinished"))
            else:
                records[number].status, records[number].passed = (
                    "unfinished",
                    records[number].epochs,
                )
            running.append(number)
        if not running:
            break
        number = running[data.draw(st.integers(0, len(running) - 1))]
        record, epoch = records[number], records[number].epochs + 1
        value = data.draw(st.integers(0, 5)) / 5
        finished = epoch == last
        verdict = judge.of(number, EpochDone(epoch, {"val/ndcg_rel@10": value}, finished))
        record.reports.append((epoch, (value,)))
        if finished or verdict != "go on":
            record.status = "complete" if finished else "waiting"
            running.remove(number)
    assert planner.is_done()
    assert len(records) == space.trials
    statuses = [record.status for record in records]
    assert set(statuses) <= {"complete", "waiting"}
    assert "complete" in statuses
