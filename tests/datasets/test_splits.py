"""The three ways to split: who learns from what, and who is scored on what; nothing leaks."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_data import (
    Row,
    in_original_ids,
    lists_of,
    silent,
    small_config,
    table_of_histories,
    table_of_rows,
)

from tune_srs.config.data import DataConfig
from tune_srs.config.settings import TrialConfig
from tune_srs.datasets import splits
from tune_srs.datasets.prepare import split
from tune_srs.datasets.prepared import PreparedData, arrays_of, fingerprint, load, save, verify
from tune_srs.errors import DataError
from tune_srs.evaluation.baselines import Popularity
from tune_srs.negatives import UnseenSampler
from tune_srs.training.batches import Batches
from tune_srs.training.loop import train

# each interaction with an item of its own, so that an item tells who and when
LOGS = st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=14), min_size=5, max_size=12)


def rows_of(log: list[list[int]]) -> list[Row]:
    """User u's interactions at the times given; item 1000 u + n is its n-th in time order."""
    return [
        (user, 1000 * user + step, 5, time)
        for user, times in enumerate(log)
        for step, time in enumerate(sorted(times))
    ]


def prepared(log: list[list[int]], num_futures: int, **settings: Any) -> PreparedData | None:
    try:
        return split(table_of_rows(rows_of(log)), small_config(num_futures, **settings), silent)
    except DataError:
        return None


def ids(data: PreparedData, items: np.ndarray[Any, Any]) -> set[int]:
    return set(data.item_ids.to_numpy()[items[items > 0] - 1].tolist())


def by_user(log: list[list[int]]) -> dict[int, list[int]]:
    return {
        user: [1000 * user + step for step in range(len(times))] for user, times in enumerate(log)
    }


# The last of each user


def test_validation_and_test_have_a_number_of_futures_each() -> None:
    table = table_of_histories({7: [10, 20, 30, 40, 50, 60], 3: [60, 50, 40, 30, 20]})
    data = split(table, small_config(1, num_validation_futures=3), silent)
    assert in_original_ids(data, data.test) == {
        3: [60, 50, 40, 30, 20],
        7: [10, 20, 30, 40, 50, 60],
    }
    assert data.validation.futures.shape == (2, 3)
    assert data.test_futures.shape == (2, 1)
    assert lists_of(data.validation.histories) == [[6], [1, 2]]
    assert data.validation.training is data.validation.histories


# Users held out


@given(log=LOGS, num_futures=st.integers(1, 3), seed=st.integers(0, 5))
@settings(max_examples=60)
def test_users_held_out_are_never_learned_from(
    log: list[list[int]], num_futures: int, seed: int
) -> None:
    how = {"kind": "users", "share": 0.2, "seed": seed}
    data = prepared(log, num_futures, split=how)
    if data is None:
        return
    whole = by_user(log)
    assert data.test_histories is not None
    validating, testing = set(data.user_ids), set(data.test_user_ids)
    assert len(validating) == len(testing) == max(1, len(log) // 5)
    assert validating.isdisjoint(testing)
    assert in_original_ids(data, data.validation) == {user: whole[user] for user in validating}
    assert in_original_ids(data, data.test) == {user: whole[user] for user in testing}

    learned = ids(data, data.validation.training.items)
    assert learned == {
        item for user in whole if user not in validating | testing for item in whole[user]
    }
    seen = learned | ids(data, data.validation.histories.items) | ids(data, data.validation.futures)
    assert seen.isdisjoint(ids(data, data.test_futures))
    assert ids(data, data.before_test.items) == seen
    assert data.before_test.num_users == len(log) - len(testing)


def test_a_seed_draws_the_users() -> None:
    log = [list(range(8))] * 12
    drawn = [
        prepared(log, 2, split={"kind": "users", "share": 0.25, "seed": seed}) for seed in (0, 0, 1)
    ]
    first, again, other = [data.fingerprint for data in drawn if data is not None]
    assert first == again
    assert first != other


# A moment for all


@given(log=LOGS, num_futures=st.integers(1, 2), share=st.sampled_from([1e-17, 0.1, 0.2, 0.3]))
@settings(max_examples=100)
def test_nothing_after_the_moment_is_learned_from(
    log: list[list[int]], num_futures: int, share: float
) -> None:
    data = prepared(log, num_futures, split={"kind": "time", "share": share})
    if data is None:
        return
    rows = rows_of(log)
    when = {item: time for _, item, _, time in rows}
    learned = ids(data, data.validation.training.items)
    first = min(when[item] for item in ids(data, data.validation.futures))
    second = min(when[item] for item in ids(data, data.test_futures))
    assert max(when[item] for item in learned) < first
    assert max(when[item] for item in ids(data, data.validation.futures)) < second
    assert max(when[item] for item in ids(data, data.test.histories.items)) < second
    assert ids(data, data.validation.histories.items) <= learned

    whole = by_user(log)
    assert data.test_histories is not None
    found = in_original_ids(data, data.validation)
    assert set(found) == set(data.user_ids)
    tested = in_original_ids(data, data.test)
    assert set(tested) == set(data.test_user_ids)
    for user, sequence in [*found.items(), *tested.items()]:
        assert sequence == whole[user][: len(sequence)]
    moment = sorted(when.values())[min(int(len(when) * (1 - 2 * share)), len(when) - 1)]
    assert learned == {item for item, time in when.items() if time < moment}
    moment = sorted(when.values())[min(int(len(when) * (1 - share)), len(when) - 1)]
    before = data.before_test
    assert ids(data, before.items) == {item for item, time in when.items() if time < moment}
    assert len(before.items) == sum(time < moment for time in when.values())


def test_a_moment_by_hand() -> None:
    """Ten interactions, the last two test, the two before them validate."""
    rows = [(1, 1, 5, 0), (2, 2, 5, 1), (1, 3, 5, 2), (2, 4, 5, 3), (3, 5, 5, 4), (1, 6, 5, 5)]
    rows += [(1, 7, 5, 6), (3, 8, 5, 7), (2, 9, 5, 8), (4, 10, 5, 9)]
    config = small_config(1, split={"kind": "time", "share": 0.2})
    said: list[str] = []
    data = split(table_of_rows(rows), config, said.append)
    assert in_original_ids(data, data.validation) == {1: [1, 3, 6, 7], 3: [5, 8]}
    assert in_original_ids(data, data.test) == {2: [2, 4, 9]}  # user 4 has no history
    assert lists_of(data.validation.training) == [[1, 3, 6], [2, 4], [5]]
    assert data.validation.num_items == 10
    assert said == [
        "toy: 3 users train before 6, 2 validate from then on and 1 test from 8 on; "
        "the others have no history or no interactions then"
    ]


def windows(
    rows: list[Row], share: float, most: int | None, drop_cold: bool
) -> list[dict[int, list[int]]] | None:
    """What `split.kind=time` is, by pandas: user → history and futures, to validate and to test."""
    log = pd.DataFrame(rows, columns=["user", "item", "rating", "time"])
    log = log.sort_values(["user", "time"], kind="stable")
    times = sorted(log["time"])
    first, second = (times[min(int(len(log) * (1 - n * share)), len(log) - 1)] for n in (2, 1))
    warm = set(log["item"][log["time"] < first])
    found = []
    for start, stop in ((first, second), (second, math.inf)):
        of_users: dict[int, list[int]] = {}
        for user in log["user"].unique().tolist():
            own = log[log["user"] == user]
            past, window = own[own["time"] < start], own[own["time"].between(start, stop, "left")]
            if drop_cold:
                window = window[window["item"].isin(warm)]
            if len(past) and len(window):
                of_users[user] = [*past["item"], *window["item"][:most]]
        found.append(of_users)
    return found if warm and all(found) else None


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 12), st.just(5), st.integers(0, 30)),
        min_size=1,
        max_size=60,
    ),
    share=st.sampled_from([0.1, 0.2, 0.4]),
    most=st.none() | st.integers(1, 3),
    cold_items=st.sampled_from(["keep", "drop"]),
)
@settings(max_examples=60)
def test_all_of_a_users_window_is_predicted(
    rows: list[Row], share: float, most: int | None, cold_items: str
) -> None:
    how = {"kind": "time", "share": share, "cold_items": cold_items}
    config = DataConfig.model_validate({"name": "toy", "num_futures": most, "split": how})
    expected = windows(rows, share, most, cold_items == "drop")
    if expected is None:
        with pytest.raises(DataError):
            split(table_of_rows(rows), config, silent)
        return
    data = split(table_of_rows(rows), config, silent)
    assert [in_original_ids(data, one) for one in (data.validation, data.test)] == expected
    for futures in (data.validation.futures, data.test_futures):
        assert futures[:, 0].all()  # everyone has one
        assert futures[:, -1].any()  # no column for nobody
        assert (np.diff((futures > 0).astype(int), axis=1) <= 0).all()  # 0 at the end of rows


def test_cold_futures_are_dropped_and_counted() -> None:
    """Item 7 trains nowhere. User 2's only interaction in the window is with it."""
    rows = [(1, 1, 5, 0), (2, 2, 5, 1), (3, 1, 5, 2), (1, 2, 5, 3), (2, 1, 5, 4), (3, 2, 5, 5)]
    rows += [(1, 7, 5, 6), (1, 1, 5, 7), (2, 7, 5, 8), (3, 2, 5, 9), (1, 7, 5, 10), (1, 2, 5, 11)]
    how = {"kind": "time", "share": 0.25}
    said: list[str] = []
    kept = split(table_of_rows(rows), small_config(9, split=how), silent)
    data = split(
        table_of_rows(rows), small_config(9, split=how | {"cold_items": "drop"}), said.append
    )
    assert in_original_ids(kept, kept.validation)[2] == [2, 1, 7]
    assert kept.manifest["validation_futures_cold"] == 2 / 3
    assert in_original_ids(data, data.validation) == {1: [1, 2, 1]}
    assert in_original_ids(data, data.test) == {1: [1, 2, 7, 1, 2], 3: [1, 2, 2]}
    assert data.manifest["validation_futures_cold"] == data.manifest["test_futures_cold"] == 0
    assert said[:2] == [
        "toy: 2 of 3 futures to validate on are cold and dropped",
        "toy: 1 of 3 futures to test on are cold and dropped",
    ]


def test_one_user_of_a_great_many_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two users have 5 futures each to validate, one has 9 to test; 8 cells are allowed."""
    monkeypatch.setattr(splits, "MOST_CELLS", 8)
    rows = [(user, item, 5, item) for user in (1, 2) for item in range(9)]
    rows += [(1, item, 5, item) for item in range(9, 18)]
    config = DataConfig.model_validate({"name": "toy", "split": {"kind": "time", "share": 0.33}})
    said: list[str] = []
    data = split(table_of_rows(rows), config, said.append)
    assert data.validation.futures.shape == (2, 4)
    assert data.test_futures.tolist() == [[10, 11, 12, 13, 14, 15, 16, 17]]
    assert said[:2] == [
        "toy: 2 of 2 users validate on their nearest 4 futures",
        "toy: 1 of 1 users test on their nearest 8 futures",
    ]
    asked = split(table_of_rows(rows), config.model_copy(update={"num_futures": 9}), silent)
    assert (asked.validation.num_futures, asked.test.num_futures) == (5, 9)


@pytest.mark.parametrize("kind", ["users", "time"])
def test_noise_is_in_what_trains_alone(kind: str) -> None:
    random = np.random.default_rng(0)
    log = [sorted(random.integers(0, 200, 20).tolist()) for _ in range(40)]
    how = {"kind": kind, "share": 0.1}
    clean = prepared(log, 2, split=how)
    noisy = prepared(log, 2, split=how, noise={"accidental": 0.5, "shared": 0.5})
    assert clean is not None
    assert noisy is not None
    np.testing.assert_array_equal(noisy.validation.futures, clean.validation.futures)
    np.testing.assert_array_equal(noisy.test_futures, clean.test_futures)
    assert len(noisy.validation.training.items) > 1.3 * len(clean.validation.training.items)
    if kind == "users":  # whose past is no part of the training
        np.testing.assert_array_equal(
            noisy.validation.histories.items, clean.validation.histories.items
        )
        np.testing.assert_array_equal(noisy.test.histories.items, clean.test.histories.items)


# What others see of it


@pytest.fixture(params=["users", "time"])
def data(request: pytest.FixtureRequest) -> PreparedData:
    random = np.random.default_rng(1)
    rows = [
        (int(user), int(item), 5, int(time))
        for user, item, time in random.integers(0, [30, 25, 400], (600, 3))
    ]
    config = small_config(2, split={"kind": request.param, "share": 0.15})
    return split(table_of_rows(rows), config, silent)


def test_training_samples_from_those_who_train(data: PreparedData) -> None:
    training = data.validation.training
    batches = Batches(data.validation.training, 1000, 50, torch.device("cpu"))
    users = torch.cat(list(batches.epoch(torch.Generator())))
    assert sorted(users.tolist()) == np.flatnonzero(training.lengths > 1).tolist()
    negatives = UnseenSampler(data.validation.training, torch.device("cpu"))
    histories = [set(history) for history in lists_of(training)]
    drawn = negatives.sample(users, 20, torch.Generator()).tolist()
    for user, items in zip(users.tolist(), drawn, strict=True):
        assert histories[user].isdisjoint(items)
    counts = Popularity(data.validation.training).scores(torch.zeros(1, 1), slice(1, 26))[0]
    assert counts.sum() == len(training.items)


def test_a_model_trains_and_is_scored(data: PreparedData) -> None:
    config = TrialConfig().with_overrides({"train.max_epochs": 1, "model.hidden_units": 8})
    (report,) = train(config, data.validation)
    assert 0 <= report.metrics["val/ndcg@10"] <= 1


def test_it_is_kept_as_it_is(data: PreparedData, tmp_path: Path) -> None:
    save(data, tmp_path)
    verify(tmp_path)
    kept = load(tmp_path)
    assert kept.fingerprint == data.fingerprint
    assert kept.test_histories is not None
    assert data.test_histories is not None
    assert kept.test_user_ids.equals(data.test_user_ids)
    assert in_original_ids(kept, kept.test) == in_original_ids(data, data.test)
    assert lists_of(kept.validation.training) == lists_of(data.validation.training)
    again = fingerprint(arrays_of(kept).values())
    assert again == data.fingerprint
