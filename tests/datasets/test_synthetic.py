"""The generated data set: reproducible, of the size asked, and without repeats."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_srs.config.settings import SyntheticConfig
from tune_srs.datasets.columns import COLUMNS
from tune_srs.datasets.readers.times import DAY_US
from tune_srs.datasets.synthetic import generate

CONFIG = SyntheticConfig(users=60, items=40, mean_length=15, seed=3)


def test_a_seed_gives_the_same_table_again() -> None:
    pd.testing.assert_frame_equal(generate(CONFIG), generate(CONFIG))


def test_another_seed_gives_another_table() -> None:
    assert not generate(CONFIG).equals(generate(CONFIG.model_copy(update={"seed": 4})))


@given(
    users=st.integers(1, 12),
    items=st.integers(2, 20),
    mean_length=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=50)
def test_every_user_has_each_item_once_at_most_and_one_a_day(
    users: int, items: int, mean_length: int, seed: int
) -> None:
    config = SyntheticConfig(users=users, items=items, mean_length=mean_length, seed=seed)
    table = generate(config)
    assert tuple(table.columns) == COLUMNS
    assert not table.duplicated(["user", "item"]).any()
    assert sorted(table["user"].unique()) == list(range(users))
    assert table["item"].between(0, items - 1).all()
    for _, one_user in table.groupby("user"):
        assert one_user["timestamp"].tolist() == [day * DAY_US for day in range(len(one_user))]


def test_the_mean_length_is_about_as_asked() -> None:
    config = SyntheticConfig(users=2000, items=200, mean_length=20)
    assert len(generate(config)) / config.users == pytest.approx(config.mean_length, rel=0.1)


def test_the_order_tells_of_the_next_item() -> None:
    """A pair of items in a row comes back far more often than when each user's are shuffled."""
    table = generate(SyntheticConfig(users=300, items=100, mean_length=30))
    shuffled = table.sample(frac=1, random_state=0).sort_values("user", kind="stable")

    def repeated_pairs(log: pd.DataFrame) -> int:
        following = log["item"].shift(-1)[log["user"] == log["user"].shift(-1)]
        pairs = pd.DataFrame({"item": log["item"], "next": following}).dropna()
        return int((pairs.value_counts() >= 10).sum())

    assert repeated_pairs(table) > 5 * repeated_pairs(shuffled) + 50
