"""What is told of the futures, held to plain loops; a line warns of futures from the history."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_data import Row, lists_of, silent, small_config, table_of_histories, table_of_rows
from support.small_data import histories_of

from tune_srs.datasets import statistics
from tune_srs.datasets.histories import Split
from tune_srs.datasets.prepare import split
from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import DataError

SPLITS: list[dict[str, Any]] = [
    {"kind": "last"},
    {"kind": "users", "share": 0.2},
    {"kind": "time", "share": 0.2},
]
ROWS = st.lists(
    st.tuples(st.integers(1, 6), st.integers(1, 9), st.just(5), st.integers(0, 9)),
    min_size=20,
    max_size=60,
)


def prepared(rows: list[Row], **settings: Any) -> PreparedData | None:
    try:
        return split(table_of_rows(rows), small_config(2, **settings), silent)
    except DataError:
        return None


def shares(one: Split) -> dict[str, Any]:
    """Facts of a split by plain loops."""
    trained = set(one.training.items.tolist())
    pairs = [
        (history, future)
        for history, futures in zip(lists_of(one.histories), one.futures.tolist(), strict=True)
        for future in futures
        if future
    ]
    return {
        "users": len(one.futures),
        "futures": len(pairs),
        "futures_in_history": np.mean([future in history for history, future in pairs]),
        "futures_cold": np.mean([future not in trained for _, future in pairs]),
    }


@given(rows=ROWS, how=st.sampled_from(SPLITS), noise=st.sampled_from([0.0, 0.5]))
@settings(max_examples=60)
def test_futures_are_counted_as_by_plain_loops(
    rows: list[Row], how: dict[str, Any], noise: float
) -> None:
    data = prepared(rows, split=how, noise={"accidental": noise})
    if data is None:
        return
    for name, one in (("validation", data.validation), ("test", data.test)):
        for key, value in shares(one).items():
            assert data.manifest[f"{name}_{key}"] == pytest.approx(value)
        assert data.manifest[f"{name}_futures_max"] == one.futures.shape[1]


@given(rows=ROWS)
@settings(max_examples=40)
def test_a_cut_in_a_tie_is_one_between_equal_times(rows: list[Row]) -> None:
    """By own lists: K = 2, so that each user's last four interactions are futures."""
    data = prepared(rows)
    if data is None:
        return
    times = [sorted(time for user, _, _, time in rows if user == one) for one in range(1, 7)]
    scored = [one for one in times if len(one) >= 5]
    for name, place in (("validation", -4), ("test", -2)):
        expected = np.mean([one[place - 1] == one[place] for one in scored])
        assert data.manifest[f"{name}_cut_in_tie"] == pytest.approx(expected)


def test_a_moment_cuts_no_tie() -> None:
    rows = [(user, item, 5, item // 3) for user in range(5) for item in range(30)]
    data = prepared(rows, split={"kind": "time", "share": 0.25})
    assert data is not None
    assert data.manifest["equal_timestamps"] > 0.6
    assert data.manifest["validation_cut_in_tie"] == data.manifest["test_cut_in_tie"] == 0


def test_how_many_users_are_searched_at_once_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    histories = histories_of([[1, 2], [3], [2, 4, 4], [1], [3, 2]], 4)
    futures = np.array([[2, 3], [3, 0], [1, 4], [2, 0], [4, 3]], np.int32)
    expected = [[True, False], [True, False], [False, True], [False, False], [False, True]]
    for count in (1, 2, 5, 4096):
        monkeypatch.setattr(statistics, "USERS_AT_ONCE", count)
        assert statistics.in_history(histories, futures).tolist() == expected


def test_futures_from_the_history_are_warned_of_where_they_are_missed() -> None:
    table = table_of_histories({1: [1, 2, 3, 1, 4], 2: [1, 2, 3, 4, 5]})
    manifest = split(table, small_config(1), silent).manifest
    told = (
        "50.0% of the validation futures and 0.0% of the test futures stand in the user's history"
    )
    line = statistics.of_repeats(manifest, exclude_history=True)
    assert line.startswith(f"warning: {told} and count as missed")
    assert "set evaluation.exclude_history=false" in line
    assert "\n" not in line
    line = statistics.of_repeats(manifest, exclude_history=False)
    assert line == f"{told}, whose items are candidates like others"


def test_one_in_a_hundred_is_not_warned_of() -> None:
    histories = {user: [1, 2, 3, 4, 5] for user in range(100)} | {0: [1, 2, 3, 1, 4]}
    manifest = split(table_of_histories(histories), small_config(1), silent).manifest
    assert manifest["validation_futures_in_history"] == 0.01
    assert statistics.of_repeats(manifest, exclude_history=True).endswith("and count as missed")


def test_the_order_of_equal_times_is_told() -> None:
    table = table_of_histories({1: range(9)})
    for ties, told in (
        ({}, "equal_timestamps               0, in the order of the file"),
        ({"order": "shuffle", "seed": 7}, "0, in an order drawn with seed 7"),
    ):
        data = split(table, small_config(1, ties=ties), silent)
        assert told in statistics.printable(data.manifest)
