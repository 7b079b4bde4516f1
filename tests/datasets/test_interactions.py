"""Interactions as numbers, and the filters on them: held to plain loops."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_data import Row, small_config, table_of_rows

from tune_srs.datasets.columns import ITEM, USER
from tune_srs.datasets.filters import filtered
from tune_srs.datasets.interactions import Interactions, collect
from tune_srs.datasets.statistics import statistics
from tune_srs.errors import ConfigError, DataError

ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(1, 5), st.integers(0, 3)),
    max_size=60,
)


def pairs(log: Interactions) -> list[tuple[int, int]]:
    """(user id, item id) of each interaction, in their order."""
    return list(zip(log.user_ids[log.users], log.item_ids[log.items], strict=True))


def in_order(rows: list[Row]) -> list[tuple[int, int]]:
    """The same from the rows themselves: by user, by time, and as they come."""
    return [(row[0], row[1]) for row in sorted(rows, key=lambda row: (row[0], row[3]))]


@given(rows=ROWS, scale=st.sampled_from([1, 1_000_003, 2**55]), far=st.sampled_from([1, 2**40]))
@settings(max_examples=100)
def test_users_and_times_order_and_equal_times_keep_their_order(
    rows: list[Row], scale: int, far: int
) -> None:
    """Whatever the size of times and ids, small or near the bounds of 64 bits."""
    wide = [(user * far, item * far, rating, time * scale) for user, item, rating, time in rows]
    log, counts = collect([table_of_rows(wide)], None)
    assert pairs(log) == in_order(wide)
    assert counts == (len(rows), len({row[0] for row in rows}), len({row[1] for row in rows}))


def test_text_and_numbers_do_not_mix() -> None:
    numbers = table_of_rows([(1, 2, 3, 4)])
    text = numbers.assign(**{USER: ["a"]})
    with pytest.raises(DataError, match="whole numbers in one part of the data and text"):
        collect([numbers, text], None)


def test_no_ratings_to_ask_for() -> None:
    table = table_of_rows([(1, 2, 3, 4)]).drop(columns="rating")
    with pytest.raises(ConfigError, match=r"data\.min_rating: there are no ratings"):
        collect([table], 3.0)


def test_text_ids_take_16_bytes_an_interaction() -> None:
    table = table_of_rows([(row % 7, row % 11, 3, row) for row in range(100)])
    table[USER], table[ITEM] = "u" + table[USER].astype("str"), "i"
    log, _ = collect([table], None)
    assert log.users.nbytes + log.items.nbytes + log.times.nbytes == 1600


# Filters


def of_rows(rows: list[Row]) -> Interactions:
    return collect([table_of_rows(rows)], None)[0]


@given(rows=ROWS, k=st.integers(2, 4))
@settings(max_examples=100)
def test_the_core_is_the_largest_part_that_no_filter_shrinks(rows: list[Row], k: int) -> None:
    left = in_order(rows)
    while True:
        users, items = (Counter(row[side] for row in left) for side in (0, 1))
        fewer = [(user, item) for user, item in left if users[user] >= k and items[item] >= k]
        if len(fewer) == len(left):
            break
        left = fewer
    log, removed = filtered(of_rows(rows), small_config(1, k_core=k))
    assert pairs(log) == left
    assert removed[0]["interactions"] == len(rows) - len(left)


@given(rows=ROWS)
@settings(max_examples=100)
def test_repeats_are_dropped_as_asked(rows: list[Row]) -> None:
    ordered = in_order(rows)
    first = [pair for place, pair in enumerate(ordered) if pair not in ordered[:place]]
    log, _ = filtered(of_rows(rows), small_config(1, repeats="keep_first"))
    assert pairs(log) == first

    apart = [pair for place, pair in enumerate(ordered) if ordered[place - 1 : place] != [pair]]
    log, _ = filtered(of_rows(rows), small_config(1, repeats="drop_consecutive"))
    assert pairs(log) == apart

    log, removed = filtered(of_rows(rows), small_config(1))
    assert pairs(log) == ordered
    assert removed == []


def test_what_each_filter_removed_is_told() -> None:
    """Items 8 and 9 have one user; without them user 2 has two interactions."""
    rows = [(user, item, 5, item) for user in (1, 2, 3) for item in (1, 2)]
    rows += [(2, 9, 5, 9), (1, 8, 5, 8), (1, 3, 5, 3), (3, 3, 5, 3), (1, 3, 5, 4)]
    config = small_config(
        1, repeats="keep_first", min_users_per_item=2, min_items_per_user=3, k_core=2
    )
    log, removed = filtered(of_rows(rows), config)
    assert pairs(log) == [(1, 1), (1, 2), (1, 3), (3, 1), (3, 2), (3, 3)]
    assert removed == [
        {"step": "repeats: keep_first", "interactions": 1, "users": 0, "items": 0},
        {"step": "min_users_per_item 2", "interactions": 2, "users": 0, "items": 2},
        {"step": "min_items_per_user 3", "interactions": 2, "users": 1, "items": 0},
        {"step": "k_core 2", "interactions": 0, "users": 0, "items": 0},
    ]


def test_the_facts_of_a_log_by_hand() -> None:
    rows = [(1, 1, 5, 0), (1, 2, 5, 0), (1, 3, 5, 0), (1, 4, 5, 7), (2, 1, 5, 7), (2, 2, 5, 8)]
    facts = statistics(of_rows(rows))
    assert facts == pytest.approx(
        {
            "users": 2,
            "items": 4,
            "interactions": 6,
            "density": 6 / 8,
            "length_mean": 3,
            "length_min": 2,
            "length_25%": 2.5,
            "length_median": 3,
            "length_75%": 3.5,
            "length_max": 4,
            "equal_timestamps": 2 / 6,
        }
    )


def test_chunks_without_rows_are_nothing() -> None:
    empty = pd.DataFrame({name: np.empty(0) for name in ("user", "item", "rating", "timestamp")})
    log, counts = collect([empty, empty], 3.0)
    assert (len(log), counts) == (0, (0, 0, 0))
