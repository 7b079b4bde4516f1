"""An exported model on its own data and on others, against evaluator and recommender."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from support.exports import silent, untrained

from tune_srs.config.data import DataConfig
from tune_srs.config.settings import TrialConfig
from tune_srs.datasets.prepare import prepare
from tune_srs.datasets.prepared import PreparedData
from tune_srs.errors import ConfigError, DataError
from tune_srs.evaluation.evaluator import Evaluator
from tune_srs.exports.evaluate import Appraisal, appraise
from tune_srs.exports.exported import Exported
from tune_srs.exports.recommend import Id, Recommender

CPU = torch.device("cpu")
LOG = {"user_column": "user", "item_column": "item", "time_column": "time", "time_format": "order"}
ALL = {"evaluation.num_candidates": 3}


def write_log(path: Path, histories: Mapping[str, Sequence[Id]]) -> str:
    rows = [
        (user, item, time) for user, items in histories.items() for time, item in enumerate(items)
    ]
    pd.DataFrame(rows, columns=["user", "item", "time"]).to_csv(path, index=False)
    return str(path)


def drawn(seed: int, items: int = 25) -> dict[str, Sequence[Id]]:
    """20 users with 8 to 14 of the items a, b, …"""
    random = np.random.default_rng(seed)
    letters = [f"i{number:02}" for number in range(items)]
    return {
        f"u{user}": random.choice(letters, random.integers(8, 15)).tolist() for user in range(20)
    }


@pytest.fixture
def own(tmp_path: Path) -> tuple[Exported, PreparedData]:
    """An untrained model of a log, and what the log was prepared to."""
    name = write_log(tmp_path / "own.csv", drawn(0))
    data = DataConfig.model_validate({"name": name, "log": LOG, "num_futures": 2})
    prepared = prepare(data, tmp_path / "data", silent)
    of = untrained(prepared.validation.training, prepared.item_ids.to_list())
    config = TrialConfig(data=data, model=of.config.model)
    learned = {"name": name, "fingerprint": prepared.fingerprint, "inputs": prepared.inputs}
    facts = {"data": learned, "refit": None}
    return Exported(config, of.model, of.items, {}, facts), prepared


def appraised(of: Exported, folder: Path, **overrides: object) -> tuple[Appraisal, list[str]]:
    said: list[str] = []
    changed = ALL | {key.replace("__", "."): value for key, value in overrides.items()}
    return appraise(of, folder / "data", changed, said.append), said


def test_on_its_own_data_it_is_what_the_evaluator_says(
    own: tuple[Exported, PreparedData], tmp_path: Path
) -> None:
    of, data = own
    found, said = appraised(of, tmp_path)
    assert not [line for line in said if "learned" in line or "matched" in line]
    assert any("of the test futures stand in the user's history" in line for line in said)
    means = found.summary.set_index(["split", "candidates", "metric"])
    users = found.per_user.set_index(["split", "candidates"])
    for part, split in (("validation", data.validation), ("test", data.test)):
        for kind in ("all", "sampled"):
            config = of.config.with_overrides(ALL | {"evaluation.candidates": kind}).evaluation
            expected = Evaluator(split, config, CPU)(of.model)
            rows = users.loc[[(part, kind)]]
            assert rows["user"].to_list() == data.user_ids.to_list()
            for name, value in expected.means().items():
                (row,) = means.loc[[(part, kind, name)]].to_dict("records")
                assert row["mean"] == value
                if part == "validation":
                    assert math.isnan(row["low"])
                    assert math.isnan(row["high"])
                else:
                    assert row["low"] <= value <= row["high"]
                assert rows[name].to_list() == expected.per_user[name].tolist()
    titles = [title for title, _ in found.tables()]
    assert titles == ["among all candidates", "among sampled candidates"]


def test_items_of_other_data_are_matched_by_id(
    own: tuple[Exported, PreparedData], tmp_path: Path
) -> None:
    """Held to recommendations."""
    of, _ = own
    other = drawn(1, items=32)  # seven items that the model does not know, and none of some
    other["stranger"] = [f"i{number:02}" for number in (*range(25, 32), 25, 1, 2)]
    name = write_log(tmp_path / "other.csv", other)
    found, said = appraised(of, tmp_path, data__name=name)
    assert any("the model knows 25 of 32" in line and "count as missed" in line for line in said)

    users = found.per_user[found.per_user["candidates"] == "all"].set_index(["split", "user"])
    model = Recommender(of)
    for user, items in other.items():
        for split, end in (("validation", -4), ("test", -2)):
            history, futures = items[:end], items[end : end + 2 or None]
            ranked = model.recommend([history], 100, warn=silent)["item"].to_list()
            hits = {item for item in futures if item in ranked[:5]}
            expected = len(hits) / len(set(futures))
            assert users.loc[(split, user), "hr@5"] == pytest.approx(expected), (user, split)


@pytest.mark.parametrize("exclude_history", [True, False])
@pytest.mark.parametrize("repeats", ["keep", "keep_first"])
def test_what_counts_as_a_hit_is_recommended_in_the_same_place(
    own: tuple[Exported, PreparedData], tmp_path: Path, exclude_history: bool, repeats: str
) -> None:
    """On a log with repeats, and on one without, by the setting the model was scored with."""
    of, _ = own
    config = of.config.with_overrides(
        {"evaluation.exclude_history": exclude_history, "data.repeats": repeats}
    )
    of = Exported(config, of.model, of.items, {}, of.facts)
    data = prepare(config.data, tmp_path / "data", silent)
    histories = data.test.histories
    pairs = set(zip(histories.users().tolist(), histories.items.tolist(), strict=True))
    assert (len(pairs) < len(histories.items)) == (repeats == "keep")
    found, _ = appraised(of, tmp_path)
    means = found.per_user[found.per_user["candidates"] == "all"].set_index(["split", "user"])
    names, model = data.item_ids, Recommender(of)
    for split, name in ((data.validation, "validation"), (data.test, "test")):
        for row, user in enumerate(data.user_ids):
            start, stop = split.histories.offsets[row : row + 2]
            history = names[split.histories.items[start:stop] - 1].to_list()
            listed = model.recommend([history], 5, warn=silent).set_index("item")["rank"]
            nearest = names[split.futures[row, 0] - 1]
            gain = 1 / math.log2(listed[nearest] + 1) if nearest in listed.index else 0
            assert means.loc[(name, user), "next/ndcg@5"] == pytest.approx(gain)


def test_numbers_in_one_and_text_in_the_other_are_matched_as_written(
    own: tuple[Exported, PreparedData], tmp_path: Path
) -> None:
    of, _ = own
    renamed = Exported(of.config, of.model, of.items.assign(item=range(1000, 1025)), {}, of.facts)
    numbers = {
        user: [1000 + int(str(item)[1:]) for item in items] for user, items in drawn(0).items()
    }
    name = write_log(tmp_path / "numbers.csv", numbers)
    first, _ = appraised(of, tmp_path)
    second, said = appraised(renamed, tmp_path, data__name=name, data__log__text_ids=True)
    assert any("the model knows 25 of 25; 0.0% of the futures" in line for line in said)
    pd.testing.assert_frame_equal(
        first.summary[first.summary["candidates"] == "all"],
        second.summary[second.summary["candidates"] == "all"],
    )


def test_data_without_a_known_item_are_refused(
    own: tuple[Exported, PreparedData], tmp_path: Path
) -> None:
    numbers = {user: range(9) for user in "abc"}
    name = write_log(tmp_path / "numbers.csv", numbers)
    with pytest.raises(DataError, match=r"knows none of the 9 items .* look like 'i00'"):
        appraised(own[0], tmp_path, data__name=name)


def test_what_the_model_may_have_learned_is_warned_of(
    own: tuple[Exported, PreparedData], tmp_path: Path
) -> None:
    of, _ = own
    _, said = appraised(of, tmp_path, data__num_futures=3)
    assert any("has changed since the model was trained" in line for line in said)
    refit = Exported(of.config, of.model, of.items, {}, of.facts | {"refit": "all"})
    _, said = appraised(refit, tmp_path)
    assert any("say nothing about how good it is" in line for line in said)
    moved = Path(of.config.data.name).rename(tmp_path / "moved.csv")  # the same log, elsewhere
    for model, warning in ((of, "is split differently"), (refit, "say nothing about how good")):
        _, said = appraised(model, tmp_path, data__name=str(moved), data__num_futures=3)
        assert any(warning in line for line in said)


def test_a_setting_without_effect_is_refused(
    own: tuple[Exported, PreparedData], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"train\.lr has no effect on a trained model"):
        appraised(own[0], tmp_path, train__lr=0.1)
    with pytest.raises(ConfigError, match="both kinds are always shown"):
        appraised(own[0], tmp_path, evaluation__candidates="sampled")


def test_every_user_is_scored_on_as_many_futures_as_there_are(
    own: tuple[Exported, PreparedData], tmp_path: Path
) -> None:
    """By items' numbers as they are, and matched by id with one that the model does not know."""
    of, _ = own
    split: dict[str, object] = {"data__split__kind": "time", "data__split__share": 0.2}
    split["data__num_futures"] = None  # all
    plain, _ = appraised(of, tmp_path, **split)
    more = drawn(0) | {"unknown": ["new", "i00"]}
    name = write_log(tmp_path / "more.csv", more)
    matched, said = appraised(of, tmp_path, data__name=name, **split)
    assert any("0.0% of the futures are unknown" in line for line in said)
    names = ["split", "candidates", "user", "ndcg@10", "hr@5", "next/mrr@10"]
    by_number, by_id = (
        one.per_user[one.per_user["candidates"] == "all"][names] for one in (plain, matched)
    )
    pd.testing.assert_frame_equal(by_number, by_id)


def test_where_one_split_alone_can_be_sampled_the_other_is_left_out(
    own: tuple[Exported, PreparedData], tmp_path: Path
) -> None:
    left = 25 - max(len(set(items)) for items in drawn(0).values())  # for the test
    found, said = appraised(own[0], tmp_path, evaluation__num_candidates=left + 1)
    (line,) = (line for line in said if "left out" in line)
    assert line.startswith("test, sampled candidates: left out")
    columns = {title: list(table.columns) for title, table in found.tables()}
    assert columns == {
        "among all candidates": ["metric", "validation", "test"],
        "among sampled candidates": ["metric", "validation"],
    }


def test_where_too_few_items_are_left_to_sample_that_is_said(
    own: tuple[Exported, PreparedData], tmp_path: Path
) -> None:
    found, said = appraised(own[0], tmp_path, evaluation__num_candidates=24)
    assert set(found.summary["candidates"]) == {"all"}
    assert (
        sum("sampled candidates: left out, evaluation.num_candidates=24" in line for line in said)
        == 2
    )
