"""Recommendations against a plain loop over the model's scores, and what is done with odd input."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from support.exports import silent, untrained, with_titles
from support.small_data import random_split

from tune_srs.errors import ConfigError, DataError
from tune_srs.evaluation import device_histories
from tune_srs.exports import top_items
from tune_srs.exports.exported import Exported
from tune_srs.exports.recommend import Id, Recommender, read_histories
from tune_srs.exports.vocabulary import numbers_of

ITEMS = 20
LETTERS = [f"i{number}" for number in range(1, ITEMS + 1)]
NUMBERS = list(range(100, 100 + ITEMS))


def exported(ids: list[int] | list[str] = LETTERS) -> Exported:
    return untrained(random_split(0, users=30, items=ITEMS).training, ids)


def plainly(
    of: Exported, history: Sequence[Id], k: int, exclude: bool
) -> list[tuple[int, Id, float]]:
    """(rank, id, score) by the model on this history alone, padded nowhere."""
    ids = of.items["item"].to_list()
    numbers = [ids.index(one) + 1 for one in history if one in ids]
    if not numbers:
        order = sorted(ids, key=lambda one: (-of.items["count"][ids.index(one)], ids.index(one)))
        return [
            (rank, one, float(of.items["count"][ids.index(one)]))
            for rank, one in enumerate(order[:k], start=1)
        ]
    last = torch.tensor([numbers[-of.config.model.max_length :]])
    queries = of.model.queries(last, torch.tensor([last.shape[1]]))  # with gradients: by torch
    scores = of.model.scores(queries, slice(1, ITEMS + 1))[0].tolist()
    candidates = [one for one in ids if not (exclude and one in history)]
    candidates.sort(key=lambda one: -scores[ids.index(one)])
    return [(rank, one, scores[ids.index(one)]) for rank, one in enumerate(candidates[:k], start=1)]


def drawn(ids: list[int] | list[str], seed: int) -> list[list[Id]]:
    """Histories of 0 to 15 ids, the model sees 6, with repeats and unknown ones."""
    random = np.random.default_rng(seed)
    unknown: Id = -5 if isinstance(ids[0], int) else "nobody knows"
    return [
        [[*ids, unknown][place] for place in random.integers(0, ITEMS + 1, random.integers(0, 16))]
        for _ in range(12)
    ]


@pytest.mark.parametrize("ids", [LETTERS, NUMBERS], ids=["text", "numbers"])
@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("k", [1, 7, 100])
def test_they_are_what_a_plain_loop_finds(
    ids: list[int] | list[str], exclude: bool, k: int
) -> None:
    of = exported(ids)
    asked = [*drawn(ids, 1), []]
    found = Recommender(of).recommend(asked, k, exclude, warn=silent)
    groups = dict(list(found.groupby("history")))
    for place, history in enumerate(asked):
        expected = plainly(of, history, k, exclude)
        rows = groups.get(place, found[:0])
        assert rows["rank"].to_list() == [rank for rank, _, _ in expected]
        assert rows["item"].to_list() == [item for _, item, _ in expected]
        assert rows["score"].to_list() == pytest.approx(
            [s for *_, s in expected], rel=1e-4, abs=1e-5
        )
        known = any(one in ids for one in history)
        assert set(rows["by"]) <= {"model" if known else "popularity"}


def test_how_histories_and_items_are_chunked_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, asked = Recommender(exported()), drawn(LETTERS, 2)
    whole = model.recommend(asked, 5, warn=silent)
    for users, items in ((1, 100), (7, 4), (100, 1), (3, ITEMS - 1)):
        monkeypatch.setattr(device_histories, "MAX_ROWS", 2 * users + 1)
        monkeypatch.setattr(top_items, "MAX_USERS", users)
        monkeypatch.setattr(top_items, "MAX_ITEMS", items)
        parts = model.recommend(asked, 5, warn=silent)
        pd.testing.assert_frame_equal(parts, whole, rtol=1e-4, atol=1e-6)


def test_what_is_excluded_is_by_default_what_was_excluded_from_the_evaluation() -> None:
    of = exported()
    history = LETTERS[:15]
    assert not set(Recommender(of).recommend([history], ITEMS)["item"]) & set(history)
    evaluation = of.config.evaluation.model_copy(update={"exclude_history": False})
    config = of.config.model_copy(update={"evaluation": evaluation})
    back = Exported(config, of.model, of.items, {}, {})
    assert len(Recommender(back).recommend([history], ITEMS)) == ITEMS


def test_unknown_ids_are_told_of_and_skipped() -> None:
    model = Recommender(exported())
    with pytest.warns(UserWarning, match="2 of 4 ids are unknown .* such as 'x'"):
        found = model.recommend([["i3", "x"], ["y", "i4"]], 3)
    known = model.recommend([["i3"], ["i4"]], 3)
    pd.testing.assert_frame_equal(found, known)


def test_ids_are_compared_as_they_are_written() -> None:
    numbers = numbers_of(pd.Index(["101", "0101", "101.0", " 101", "x"]), pd.Index(NUMBERS))
    assert numbers.tolist() == [2, 0, 0, 0, 0]
    assert numbers_of(pd.Index([7, 8]), pd.Index(["8", "07"])).tolist() == [0, 1]
    assert numbers_of(pd.Index([1, "8"]), pd.Index(["8", "1"])).tolist() == [2, 1]
    assert numbers_of(pd.Index([]), pd.Index(["8"])).tolist() == []


def test_titles_and_labels_come_along() -> None:
    titles = [f"Film {number}" for number in range(ITEMS)]
    model = Recommender(with_titles(exported(), titles))
    series = pd.Series([["i1"], ["i2"]], index=pd.Index(["ann", "bob"], name="user"))
    found = model.recommend(series, 2)
    assert found.columns.to_list() == ["user", "rank", "item", "title", "score", "by"]
    assert found["user"].to_list() == ["ann", "ann", "bob", "bob"]
    for item, title in zip(found["item"], found["title"], strict=True):
        assert titles[LETTERS.index(item)] == title


def test_nothing_asked_is_nothing_answered() -> None:
    found = Recommender(exported()).recommend([])
    assert found.columns.to_list() == ["history", "rank", "item", "score", "by"]
    assert found.empty


@pytest.mark.parametrize("asked", [["i1", "i2"], [3]])
def test_one_history_in_place_of_a_list_is_a_mistake(asked: list[Sequence[Id]]) -> None:
    with pytest.raises(TypeError, match="a history is a list of ids"):
        Recommender(exported()).recommend(asked)


def test_k_must_be_at_least_1() -> None:
    with pytest.raises(ConfigError, match="top-k: must be a whole number >= 1, but got 0"):
        Recommender(exported()).recommend([["i1"]], 0)


def test_histories_are_read_as_lists_or_as_rows(tmp_path: Path) -> None:
    lists = pd.DataFrame({"user": ["u", "v", "w"], "history": [["b", "a"], ["c"], None]})
    rows = pd.DataFrame({"user": ["v", "u", "u"], "item": ["c", "a", "b"], "timestamp": [5, 9, 2]})
    path = tmp_path / "histories.parquet"
    for table, expected in (
        (lists, {"u": ["b", "a"], "v": ["c"], "w": []}),
        (rows, {"u": ["b", "a"], "v": ["c"]}),
        (rows.drop(columns="timestamp"), {"u": ["a", "b"], "v": ["c"]}),
    ):
        table.to_parquet(path)
        found = read_histories(path)
        assert {user: list(history) for user, history in found.items()} == expected
    lists[["history"]].to_parquet(path)
    assert read_histories(path).index.to_list() == [0, 1, 2]


def test_a_file_of_histories_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "histories.parquet"
    with pytest.raises(DataError, match="no such file"):
        read_histories(path)
    path.write_text("user,item\n1,2\n")
    with pytest.raises(DataError, match="not a Parquet file"):
        read_histories(path)
    pd.DataFrame({"who": [1]}).to_parquet(path)
    with pytest.raises(DataError, match="neither a column history nor columns user and item"):
        read_histories(path)
    pd.DataFrame({"history": ["1,2"]}).to_parquet(path)
    with pytest.raises(DataError, match="column history must hold lists of ids"):
        read_histories(path)


def test_a_missing_id_changes_none_of_the_others(tmp_path: Path) -> None:
    model = Recommender(exported([str(number) for number in NUMBERS]))  # text, asked by numbers
    alone = model.recommend([[107, 101], [107]], 3)
    path = tmp_path / "histories.parquet"
    for history in ([[107, 101, None], [None, 107]], [[107, 101], [107]]):
        pd.DataFrame({"history": history}).to_parquet(path)
        pd.testing.assert_frame_equal(
            model.recommend(read_histories(path), 3, warn=silent), alone, check_dtype=False
        )
    rows = pd.DataFrame(
        {"user": [0, 0, 1, 1], "item": pd.array([107, 101, None, 107], dtype="Int64")}
    )
    rows.to_parquet(path)
    found = model.recommend(read_histories(path), 3, warn=silent).rename(
        columns={"user": "history"}
    )
    pd.testing.assert_frame_equal(found, alone, check_dtype=False)


@pytest.mark.parametrize("kind", [pa.large_list(pa.int64()), pa.list_(pa.int64(), 2)])
def test_lists_of_every_kind_are_histories(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"history": pa.array([[101, 102], [103, 104]], type=kind)})
    parquet.write_table(table, tmp_path / "h.parquet")
    assert read_histories(tmp_path / "h.parquet").to_list() == [[101, 102], [103, 104]]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"history": [[[1]]]}, "column history must hold lists of ids"),
        ({"history": [[{"a": 1}]]}, "column history must hold lists of ids"),
        ({"user": [[1]], "item": [1]}, "the column user holds lists"),
        ({"user": [None, 1], "item": [1, 2]}, "1 rows have no user"),
        ({"user": [None, 1], "history": [[1], [2]]}, "1 rows have no user"),
    ],
)
def test_columns_that_are_no_histories_are_refused(
    tmp_path: Path, columns: dict[str, list[object]], reason: str
) -> None:
    parquet.write_table(pa.table(columns), tmp_path / "h.parquet")
    with pytest.raises(DataError, match=reason):
        read_histories(tmp_path / "h.parquet")


@pytest.mark.parametrize("k", ["3", 2.5, True])
def test_k_must_be_a_whole_number(k: Any) -> None:
    with pytest.raises(ConfigError, match="a whole number >= 1, but got"):
        Recommender(exported()).recommend([["i1"]], k)


def test_what_is_no_id_is_refused() -> None:
    with pytest.raises(ConfigError, match="an id must be a number or text"):
        Recommender(exported()).recommend([[("i1", 2)]])  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["rank", "item"])
def test_labels_do_not_take_the_place_of_what_is_found(name: str) -> None:
    asked = pd.Series([["i1"]], index=pd.Index(["ann"], name=name))
    found = Recommender(exported()).recommend(asked, 2)
    assert found["history"].to_list() == ["ann", "ann"]
    assert found["rank"].to_list() == [1, 2]
