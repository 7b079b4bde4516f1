"""When the training interactions happened: held to plain loops over the log."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_data import lists_of, silent, small_config, table_of_rows

from tune_srs.config.settings import DataConfig, NoiseConfig
from tune_srs.datasets.columns import ORDER, TIMESTAMP
from tune_srs.datasets.histories import Histories
from tune_srs.datasets.noise import add_noise
from tune_srs.datasets.prepare import prepare, prepared_folder, split
from tune_srs.datasets.prepared import PreparedData, load, save, verify
from tune_srs.errors import DataError

SPLITS = ({"kind": "last"}, {"kind": "users", "share": 0.2}, {"kind": "time", "share": 0.2})
LOGS = st.lists(st.lists(st.integers(0, 40), min_size=4, max_size=14), min_size=5, max_size=12)
FIXED_LOG = [sorted(np.random.default_rng(user).integers(0, 99, 12).tolist()) for user in range(9)]


def times_by_user(histories: Histories) -> list[list[int]]:
    assert histories.times is not None
    return [part.tolist() for part in np.split(histories.times, histories.offsets[1:-1])]


# Units


def prepared_file(tmp_path: Path, name: str, content: str, time_format: str) -> PreparedData:
    (tmp_path / name).write_text(content)
    log = {"time_format": time_format}
    config = DataConfig.model_validate(
        {"name": str(tmp_path / name), "num_futures": 1, "log": log, "split": {"kind": "last"}}
    )
    data = prepare(config, tmp_path / "data", silent)
    kept = {path.name for path in prepared_folder(config, tmp_path / "data").iterdir()}
    assert ("times.npy" in kept) == ("times.npy" in data.manifest["files"])
    assert ("times.npy" in kept) == (data.validation.histories.times is not None)
    return data


@pytest.mark.parametrize(
    ("values", "time_format"),
    [
        (["1400000000", "1400000061"], "auto"),
        (["1400000000", "1400000061"], "s"),
        (["1400000000.999", "1400000061.5"], "auto"),
        (["1400000000000", "1400000061000"], "auto"),
        (["1400000000001", "1400000061999"], "ms"),
        (["1400000000000000", "1400000061000000"], "auto"),
        (["1400000000999999", "1400000061000001"], "us"),
        (["1400000000000000000", "1400000061000000000"], "auto"),
        (["1400000000000001000", "1400000061999999000"], "ns"),
        (["2014-05-13T16:53:20Z", "2014-05-13T18:54:21+02:00"], "auto"),
        (["2014-05-13 16:53:20.25", "2014-05-13 16:54:21.75"], "iso"),
        (["13/05/2014 16:53:20", "13/05/2014 16:54:21"], "%d/%m/%Y %H:%M:%S"),
    ],
)
def test_times_of_any_unit_are_whole_seconds(
    tmp_path: Path, values: list[str], time_format: str
) -> None:
    """Futures have the latest of the times, so that both of `values` train."""
    times = [*values, values[1], values[1]]
    rows = "".join(f"1,{item},{time}\n" for item, time in enumerate(times))
    data = prepared_file(tmp_path, "log.csv", f"user,item,time\n{rows}", time_format)
    assert times_by_user(data.validation.training) == [[1_400_000_000, 1_400_000_061]]
    assert data.validation.training.times is not None
    assert data.validation.training.times.dtype == np.int64


@pytest.mark.parametrize(
    ("name", "content", "time_format"),
    [
        ("log.csv", "user,item,time\n" + "".join(f"1,{n},{n}000000\n" for n in range(5)), "order"),
        ("log.csv", "user,item,time\n" + "".join(f"1,{n},14\n" for n in range(5)), "lines"),
        ("log.txt", "".join(f"1 {n}\n" for n in range(5)), "auto"),
    ],
)
def test_an_order_has_no_times(tmp_path: Path, name: str, content: str, time_format: str) -> None:
    data = prepared_file(tmp_path, name, content, time_format)
    assert lists_of(data.validation.histories) == [[1, 2, 3]]
    assert data.validation.histories.times is None


# Splits and noise


def prepared(log: list[list[int]], scale: int, **settings: Any) -> PreparedData | None:
    """User u's n-th interaction in time order is with item 100 u + n; None if nobody is left."""
    rows = [
        (user, 100 * user + step, 5, time * scale)
        for user, times in enumerate(log)
        for step, time in enumerate(sorted(times))
    ]
    try:
        return split(table_of_rows(rows), small_config(1, **settings), silent)
    except DataError:
        return None


def expected(data: PreparedData, log: list[list[int]], scale: int) -> list[list[int]]:
    """The time of each training item, of which each is in the log once."""
    ids = data.item_ids.tolist()
    return [
        [sorted(log[ids[item - 1] // 100])[ids[item - 1] % 100] * scale // 10**6 for item in items]
        for items in lists_of(data.validation.training)
    ]


@given(
    log=LOGS, how=st.sampled_from(SPLITS), scale=st.sampled_from([10**6, 86_400_000_000, 70_001])
)
@settings(max_examples=100)
def test_every_split_keeps_the_times_of_what_trains(
    log: list[list[int]], how: dict[str, Any], scale: int
) -> None:
    data = prepared(log, scale, split=how)
    if data is None:
        return
    assert times_by_user(data.validation.training) == expected(data, log, scale)
    assert data.test.histories.times is None
    if data.validation.training is not data.validation.histories:
        assert data.validation.histories.times is None


@pytest.mark.parametrize("how", SPLITS, ids=lambda how: str(how["kind"]))
def test_merged_histories_keep_the_time_of_each_interaction(how: dict[str, Any]) -> None:
    data = prepared(FIXED_LOG, 10**6, split=how, noise={"shared": 1.0})
    assert data is not None
    times = times_by_user(data.validation.training)
    assert times == expected(data, FIXED_LOG, 10**6)
    assert any(one != sorted(one) for one in times)


@pytest.mark.parametrize("how", SPLITS, ids=lambda how: str(how["kind"]))
def test_a_click_has_the_time_of_the_interaction_it_follows(how: dict[str, Any]) -> None:
    clean = prepared(FIXED_LOG, 10**6, split=how)
    noisy = prepared(FIXED_LOG, 10**6, split=how, noise={"accidental": 1.0})
    assert clean is not None
    assert noisy is not None
    before = times_by_user(clean.validation.training)
    twice = [[time for time in times for _ in range(2)] for times in before]
    assert times_by_user(noisy.validation.training) == twice


@given(rate=st.floats(0, 1), seed=st.integers(0, 9))
@settings(max_examples=50)
def test_clicks_come_at_some_times_and_interactions_keep_theirs(rate: float, seed: int) -> None:
    """No time occurs twice, so that it names its interaction."""
    items, times = np.ones(20, np.int32), np.arange(100, 120)
    items[10] = 2
    offsets = np.array([0, 10, 20])
    noise = NoiseConfig(accidental=rate, seed=seed)
    noisy = add_noise(Histories(items, offsets, 2, times), noise)
    assert noisy.times is not None
    assert len(noisy.times) == len(noisy.items) == noisy.offsets[-1]
    first = np.unique(noisy.times, return_index=True)[1]
    np.testing.assert_array_equal(noisy.times[first], times)
    np.testing.assert_array_equal(noisy.items[first], items)
    assert (np.diff(noisy.times) >= 0).all()
    assert noisy.times[noisy.offsets[1]] == 110


# Kept


@pytest.mark.parametrize("how", SPLITS, ids=lambda how: str(how["kind"]))
def test_the_times_are_kept(tmp_path: Path, how: dict[str, Any]) -> None:
    data = prepared(FIXED_LOG, 10**6, split=how)
    assert data is not None
    save(data, tmp_path)
    kept = load(tmp_path).validation
    assert times_by_user(kept.training) == times_by_user(data.validation.training)
    assert (kept.histories.times is None) == (data.validation.histories.times is None)
    assert kept.training.times is not None
    assert isinstance(kept.training.times.base, np.memmap)
    name = "times.npy" if how["kind"] == "last" else "training_times.npy"
    file = tmp_path / name
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(DataError, match=f"{name} is not what was written"):
        verify(tmp_path)


@pytest.mark.parametrize("how", SPLITS, ids=lambda how: str(how["kind"]))
def test_times_are_no_part_of_the_fingerprint(tmp_path: Path, how: dict[str, Any]) -> None:
    rows = [
        (u, 100 * u + n, 5, t) for u, times in enumerate(FIXED_LOG) for n, t in enumerate(times)
    ]
    table, config = table_of_rows(rows), small_config(1, split=how)
    in_microseconds = split(table, config, silent)
    in_seconds = split(table.assign(**{TIMESTAMP: table[TIMESTAMP] * 10**6}), config, silent)
    ranked = split(table.rename(columns={TIMESTAMP: ORDER}), config, silent)
    assert in_microseconds.fingerprint == in_seconds.fingerprint == ranked.fingerprint
    assert times_by_user(in_microseconds.validation.training) != times_by_user(
        in_seconds.validation.training
    )
    assert ranked.validation.training.times is None
    save(ranked, tmp_path)
    assert not list(tmp_path.glob("*times*"))
    assert load(tmp_path).validation.training.times is None


def test_times_that_are_not_of_the_items_are_damage(tmp_path: Path) -> None:
    data = prepared(FIXED_LOG, 10**6)
    assert data is not None
    assert data.validation.training.times is not None
    histories = replace(data.validation.training, times=data.validation.training.times[1:])
    fewer = replace(data.validation, training=histories, histories=histories)
    save(replace(data, validation=fewer), tmp_path)
    with pytest.raises(DataError, match="its times are not those of its items"):
        load(tmp_path)
