"""Equal times: another order of them is drawn, everything else stays."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_data import (
    Row,
    in_original_ids,
    silent,
    small_config,
    table_of_histories,
    table_of_rows,
)

from tune_srs.config.data import TiesConfig
from tune_srs.datasets.columns import ORDER, TIMESTAMP
from tune_srs.datasets.interactions import Interactions, collect
from tune_srs.datasets.prepare import split
from tune_srs.datasets.ties import ordered, tied
from tune_srs.errors import ConfigError

ROWS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 6), st.just(5), st.integers(0, 5)), max_size=50
)


def shuffle(seed: int) -> TiesConfig:
    return TiesConfig(order="shuffle", seed=seed)


def log_of(rows: list[Row]) -> Interactions:
    return collect([table_of_rows(rows)], None)[0]


def columns(log: Interactions) -> list[tuple[int, int, int]]:
    return list(zip(log.users.tolist(), log.times.tolist(), log.items.tolist(), strict=True))


@given(rows=ROWS, seed=st.integers(0, 9))
@settings(max_examples=100)
def test_only_the_order_within_ties_changes(rows: list[Row], seed: int) -> None:
    log = log_of(rows)
    drawn = ordered(log, shuffle(seed))
    assert [one[:2] for one in columns(drawn)] == [one[:2] for one in columns(log)]
    assert Counter(columns(drawn)) == Counter(columns(log))
    assert columns(ordered(log, shuffle(seed))) == columns(drawn)
    assert ordered(log, TiesConfig(order="file", seed=seed)) is log


@given(rows=ROWS)
@settings(max_examples=50)
def test_a_tie_is_with_the_same_users_one_before(rows: list[Row]) -> None:
    log = log_of(rows)
    moments = [one[:2] for one in columns(log)]
    expected = [place > 0 and moments[place - 1] == one for place, one in enumerate(moments)]
    assert tied(log).tolist() == expected


def test_every_order_is_as_likely() -> None:
    """Of 6,000 users with three items at once; within four standard deviations."""
    rows = [(user, item, 5, 0) for user in range(6000) for item in range(3)]
    drawn = ordered(log_of(rows), shuffle(1)).items.reshape(-1, 3)
    counts = Counter(map(tuple, drawn.tolist()))
    assert len(counts) == 6
    assert all(abs(count - 1000) < 4 * (6000 / 6 * 5 / 6) ** 0.5 for count in counts.values())


def test_seeds_give_other_data_of_the_same_interactions() -> None:
    random = np.random.default_rng(0)
    rows = [(user, item, 5, int(random.integers(4))) for user in range(9) for item in range(12)]
    ways: list[dict[str, Any]] = [{}, *({"order": "shuffle", "seed": seed} for seed in (0, 1, 1))]
    file, first, second, again = (
        split(table_of_rows(rows), small_config(2, ties=ties), silent) for ties in ways
    )
    assert len({file.fingerprint, first.fingerprint, second.fingerprint}) == 3
    assert again.fingerprint == second.fingerprint
    whole = [in_original_ids(data, data.test) for data in (file, first, second)]
    kept, *others = [{user: sorted(items) for user, items in one.items()} for one in whole]
    assert others == [kept, kept]


def test_repeats_are_dropped_from_the_drawn_order() -> None:
    """At once: an item twice, another between. In the file no two of the same are neighbours."""
    rows = [(user, item, 5, 0) for user in range(30) for item in (1, 2, 1)]
    rows += [(user, item, 5, 1 + item) for user in range(30) for item in (3, 4)]

    def length(**settings: Any) -> int:
        config = small_config(1, repeats="drop_consecutive", **settings)
        return int(split(table_of_rows(rows), config, silent).manifest["interactions"])

    assert length() == 5 * 30
    assert 4 * 30 < length(ties={"order": "shuffle"}) < 5 * 30


def test_where_there_is_only_an_order_a_shuffle_is_refused() -> None:
    table = table_of_histories({1: range(9)}).rename(columns={TIMESTAMP: ORDER})
    assert split(table, small_config(1), silent).manifest["equal_timestamps"] == 0
    with pytest.raises(ConfigError, match=r"data\.ties\.order: shuffle is for times, but this log"):
        split(table, small_config(1, ties={"order": "shuffle"}), silent)
