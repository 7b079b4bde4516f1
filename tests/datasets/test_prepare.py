"""From a table to prepared data: what is kept, how it is split, what the cache gives back."""

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
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

from tune_srs.config.settings import DataConfig
from tune_srs.datasets import prepare as prepare_module
from tune_srs.datasets import prepared
from tune_srs.datasets.columns import COLUMNS, ITEM, USER
from tune_srs.datasets.prepare import known, prepare, prepared_folder, split, split_chunks
from tune_srs.datasets.prepared import PreparedData
from tune_srs.datasets.published import DATASETS, Dataset, RawFile
from tune_srs.errors import ConfigError, DataError, Say

# The split


def test_a_tiny_table_is_split_as_by_hand() -> None:
    table = table_of_histories({7: [10, 20, 30, 40, 50, 60], 3: [60, 50, 40, 30, 20]})
    data = split(table, small_config(num_futures=2), silent)

    assert data.user_ids.tolist() == [3, 7]
    assert data.item_ids.tolist() == [10, 20, 30, 40, 50, 60]
    assert lists_of(data.validation.histories) == [[6], [1, 2]]
    assert data.validation.futures.tolist() == [[5, 4], [3, 4]]
    assert data.test_futures.tolist() == [[3, 2], [5, 6]]
    assert data.validation.num_items == 6
    assert data.manifest["users"] == 2
    assert data.manifest["items"] == 6
    assert data.manifest["interactions"] == 11
    assert data.manifest["training_interactions"] == 3


def test_the_test_histories_are_training_and_validation() -> None:
    table = table_of_histories({7: [10, 20, 30, 40, 50, 60], 3: [60, 50, 40, 30, 20]})
    data = split(table, small_config(num_futures=2), silent)
    assert lists_of(data.test.histories) == [[6, 5, 4], [1, 2, 3, 4]]
    assert data.test.futures.tolist() == [[3, 2], [5, 6]]


def test_time_decides_the_order_and_the_table_between_equal_times() -> None:
    rows = [(1, 50, 3, 9), (1, 20, 3, 5), (1, 40, 3, 5), (1, 10, 3, 5), (1, 30, 3, 1)]
    data = split(table_of_rows(rows), small_config(num_futures=1), silent)
    assert in_original_ids(data, data.test) == {1: [30, 20, 40, 10, 50]}


def test_many_equal_times_keep_the_order_of_the_table() -> None:
    """Enough rows that a sort which is not stable would mix them."""
    items = np.random.default_rng(0).permutation(2000)
    table = table_of_rows([(1, int(item), 5, 0) for item in items])
    data = split(table, small_config(num_futures=1), silent)
    assert in_original_ids(data, data.test) == {1: items.tolist()}


def test_short_users_are_left_out_and_counted() -> None:
    table = table_of_histories({1: range(5), 2: range(4), 3: range(100, 104), 4: range(6)})
    said: list[str] = []
    data = split(table, small_config(num_futures=2), said.append)
    assert data.user_ids.tolist() == [1, 4]
    assert data.item_ids.tolist() == [0, 1, 2, 3, 4, 5]  # none of user 3's own
    assert said == ["toy: 2 users with fewer than 5 interactions left out"]


def test_nothing_is_said_when_nobody_is_left_out() -> None:
    said: list[str] = []
    split(table_of_histories({1: range(5)}), small_config(num_futures=2), said.append)
    assert said == []


@pytest.mark.parametrize("table", [table_of_rows([]), table_of_histories({1: range(4)})])
def test_nobody_left_names_the_setting_to_change(table: pd.DataFrame) -> None:
    with pytest.raises(DataError) as caught:
        split(table, small_config(num_futures=2), silent)
    message = str(caught.value)
    assert message.startswith("toy: no user has the 5 interactions that num_futures=2 needs")
    assert message.endswith("lower data.num_futures or the filters")
    assert message.splitlines() == [message]


# Filters


def test_only_good_ratings_are_kept() -> None:
    rows = [(1, item, rating, item) for item, rating in enumerate([5, 3, 4, 1, 4, 5])]
    data = split(table_of_rows(rows), small_config(num_futures=1, min_rating=4), silent)
    assert in_original_ids(data, data.test) == {1: [0, 2, 4, 5]}


def test_a_filter_that_leaves_nothing_is_a_data_error() -> None:
    with pytest.raises(DataError, match="the filters"):
        split(table_of_histories({1: range(9)}), small_config(num_futures=1, min_rating=6), silent)


def test_items_are_filtered_before_users() -> None:
    """User 2 has four interactions, but only three with items that two people use.

    The other way round user 2 would stay, and would keep its three.
    """
    table = table_of_histories({1: [1, 2, 3, 4], 2: [1, 9, 2, 3], 3: [4, 1, 2, 3]})
    filters = {"min_users_per_item": 2, "min_items_per_user": 4}
    data = split(table, small_config(num_futures=1, **filters), silent)
    assert in_original_ids(data, data.test) == {1: [1, 2, 3, 4], 3: [4, 1, 2, 3]}


def test_ratings_are_filtered_before_items() -> None:
    rows = [(user, item, 5, item) for user in (1, 2) for item in range(4)]
    rows[0] = (1, 0, 1, 0)  # after which item 0 has one user left
    config = small_config(num_futures=1, min_rating=2, min_users_per_item=2)
    data = split(table_of_rows(rows), config, silent)
    assert in_original_ids(data, data.test) == {1: [1, 2, 3], 2: [1, 2, 3]}


# Whatever the table

TABLES = st.lists(
    st.tuples(st.integers(1, 5), st.integers(100, 110), st.integers(1, 5), st.integers(0, 6)),
    max_size=60,
)


def histories_by_hand(rows: Sequence[Row], num_futures: int) -> dict[int, list[int]]:
    """User → items in time order, users with fewer than 2 K + 1 left out."""
    users = sorted({user for user, _, _, _ in rows})
    by_time = {
        user: [row[1] for row in sorted((r for r in rows if r[0] == user), key=lambda r: r[3])]
        for user in users
    }
    return {user: items for user, items in by_time.items() if len(items) > 2 * num_futures}


@given(rows=TABLES, num_futures=st.integers(1, 4))
@settings(max_examples=60)
def test_the_parts_are_the_users_sequences_and_no_test_future_is_seen_before(
    rows: list[Row], num_futures: int
) -> None:
    expected = histories_by_hand(rows, num_futures)
    if not expected:
        with pytest.raises(DataError):
            split(table_of_rows(rows), small_config(num_futures), silent)
        return
    data = split(table_of_rows(rows), small_config(num_futures), silent)
    assert in_original_ids(data, data.test) == expected
    before_test = {user: items[:-num_futures] for user, items in expected.items()}
    assert in_original_ids(data, data.validation) == before_test
    assert data.validation.histories.lengths.min() >= 1
    assert data.validation.num_items == len({item for items in expected.values() for item in items})


@given(rows=TABLES, num_futures=st.integers(1, 4))
@settings(max_examples=60)
def test_what_search_may_see_does_not_depend_on_the_test_futures(
    rows: list[Row], num_futures: int
) -> None:
    """Each interaction gets an item of its own: then an item tells its place in the log."""
    unique = [(user, place, rating, time) for place, (user, _, rating, time) in enumerate(rows)]
    if not histories_by_hand(unique, num_futures):
        return
    data = split(table_of_rows(unique), small_config(num_futures), silent)
    seen = {*data.validation.histories.items.tolist(), *data.validation.futures.ravel().tolist()}
    assert seen.isdisjoint(data.test_futures.ravel().tolist())
    assert len(seen) + data.test_futures.size == data.manifest["interactions"]


# The cache


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 8), st.integers(1, 5), st.integers(0, 30)),
        min_size=1,
        max_size=60,
    ),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    letters=st.booleans(),
)
def test_how_a_table_is_cut_into_chunks_does_not_matter(
    rows: list[tuple[int, int, int, int]], cuts: list[int], letters: bool
) -> None:
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if letters:  # ids of any type
        table[USER], table[ITEM] = "u" + table[USER].astype(str), "i" + table[ITEM].astype(str)
    ends = [0, *sorted(cuts), len(table)]
    chunks = [table.iloc[start:stop] for start, stop in itertools.pairwise(ends)]
    config = DataConfig(num_futures=1, min_rating=2, min_users_per_item=2, min_items_per_user=2)
    told: list[list[str]] = [[], []]
    found: list[PreparedData | str] = []
    for way, said in (([table], told[0]), (chunks, told[1])):
        try:
            found.append(split_chunks(way, config, said.append))
        except DataError as error:
            found.append(str(error))
    one, other = found
    assert told[0] == told[1]
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        return
    assert one.fingerprint == other.fingerprint
    pd.testing.assert_series_equal(one.item_ids, other.item_ids)
    pd.testing.assert_series_equal(one.user_ids, other.user_ids)


class Reader:
    """A reader that counts its calls, whatever the file holds."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, path: Path, say: Say) -> list[pd.DataFrame]:
        self.calls += 1
        return [table_of_histories({1: range(9), 2: range(8, 0, -1), 3: range(3, 9)})]


def written(target: Path) -> None:
    """The source of a raw file whose content does not matter."""
    target.write_text("toy")


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    """A small data set called `toy`."""
    reader = Reader()
    file = RawFile("toy.txt", reader, source=written)
    monkeypatch.setitem(DATASETS, "toy", Dataset("by hand", 3, 9, 23, "none", "nowhere", (file,)))
    return reader


CONFIG = small_config(num_futures=2)


def test_an_unknown_data_set_is_told_the_nearest_and_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare(DataConfig(name="ml100k"), tmp_path / "data", silent)
    assert str(caught.value) == "data.name: unknown data set ml100k, did you mean ml-100k?"
    assert not (tmp_path / "data").exists()


def test_the_second_call_reads_the_cache(tmp_path: Path, reader: Reader) -> None:
    first = prepare(CONFIG, tmp_path, silent)
    second = prepare(CONFIG, tmp_path, silent)
    assert reader.calls == 1
    assert second.fingerprint == first.fingerprint
    assert second.manifest == first.manifest
    assert second.item_ids.equals(first.item_ids)
    assert second.user_ids.equals(first.user_ids)
    np.testing.assert_array_equal(second.test.histories.items, first.test.histories.items)


@pytest.mark.usefixtures("reader")
def test_the_list_says_what_is_here(tmp_path: Path) -> None:
    def here() -> str:
        return str(known(tmp_path).set_index("name").loc["toy", "here"])

    assert here() == "no"
    folder_to_be(tmp_path)
    assert here() == "raw"
    prepare(CONFIG, tmp_path, silent)
    assert here() == "prepared"
    others = known(tmp_path).set_index("name")["here"]
    assert others["steam"] == "no, by hand"
    assert others["synthetic"] == "always"


def test_what_was_said_is_said_again_from_the_cache(tmp_path: Path, reader: Reader) -> None:
    said: list[list[str]] = [[], []]
    for messages in said:
        prepare(small_config(num_futures=3), tmp_path, messages.append)
    assert reader.calls == 1
    fetched, *rest = said[0]
    assert fetched.startswith("toy: from ")
    assert rest == ["toy: 1 users with fewer than 7 interactions left out"]
    assert said[1] == rest


@pytest.mark.usefixtures("reader")
def test_settings_of_a_log_are_refused_for_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.log: is for a log of your own, but toy is known"):
        prepare(small_config(num_futures=1, log={"user_column": "who"}), tmp_path, silent)


def test_the_cache_gives_back_what_was_split(tmp_path: Path, reader: Reader) -> None:
    made = split_chunks(reader(tmp_path, silent), CONFIG, silent)
    kept = prepare(CONFIG, tmp_path, silent)
    assert in_original_ids(kept, kept.test) == in_original_ids(made, made.test)
    assert kept.manifest | {"inputs": []} == made.manifest | {
        "notes": [],
        "files": kept.manifest["files"],
    }
    assert kept.validation.num_items == made.validation.num_items


def test_the_same_settings_give_the_same_fingerprint(tmp_path: Path, reader: Reader) -> None:
    first = prepare(CONFIG, tmp_path / "first", silent)
    second = prepare(CONFIG, tmp_path / "second", silent)
    assert reader.calls == 2
    assert first.fingerprint == second.fingerprint


@pytest.mark.usefixtures("reader")
def test_another_split_has_another_fingerprint(tmp_path: Path) -> None:
    other = prepare(small_config(num_futures=1), tmp_path, silent)
    assert other.fingerprint != prepare(CONFIG, tmp_path, silent).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"num_futures": 3},
        {"min_rating": 1.0},
        {"min_users_per_item": 2},
        {"min_items_per_user": 2},
        {"noise": {"seed": 1}},
        {"synthetic": {"seed": 1}},
    ],
)
def test_other_settings_have_another_folder(tmp_path: Path, change: dict[str, object]) -> None:
    other = DataConfig.model_validate(CONFIG.model_dump() | change)
    assert prepared_folder(other, tmp_path) != prepared_folder(CONFIG, tmp_path)


def test_another_format_has_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = prepared_folder(CONFIG, tmp_path)
    monkeypatch.setattr(prepare_module, "FORMAT_VERSION", prepared.FORMAT_VERSION + 1)
    assert prepared_folder(CONFIG, tmp_path) != now


@pytest.mark.usefixtures("reader")
def test_the_arrays_are_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    prepare(CONFIG, tmp_path, silent)
    data = prepare(CONFIG, tmp_path, silent)
    training = data.validation.training
    assert training.times is not None
    futures = (data.validation.futures, data.test_futures)
    for array in (training.items, training.offsets, training.times, *futures):
        assert isinstance(array.base, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def one_bit_flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def no_numpy_header(path: Path) -> None:
    """A bracket in the header left open, at which numpy does not raise a ValueError."""
    path.write_bytes(path.read_bytes().replace(b")", b" ", 1))


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("name", ["items", "offsets", "validation", "test", "times"])
@pytest.mark.parametrize(
    "damage", [cut_short, emptied, one_bit_flipped, no_numpy_header, Path.unlink]
)
def test_a_damaged_array_is_a_data_error(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    prepare(CONFIG, tmp_path, silent)
    folder = prepared_folder(CONFIG, tmp_path)
    damage(folder / f"{name}.npy")
    refused(tmp_path, folder)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("damage", [cut_short, emptied, no_numpy_header, Path.unlink])
def test_loading_looks_at_sizes_and_headers(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    prepare(CONFIG, tmp_path, silent)
    damage(prepared_folder(CONFIG, tmp_path) / "items.npy")
    with pytest.raises(DataError, match="damaged prepared data"):
        prepare(CONFIG, tmp_path, silent)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"fingerprint": null}'])
def test_a_damaged_manifest_is_a_data_error(tmp_path: Path, content: str | None) -> None:
    prepare(CONFIG, tmp_path, silent)
    folder = prepared_folder(CONFIG, tmp_path)
    manifest = folder / "manifest.json"
    if content is None:
        manifest.unlink()
    else:
        manifest.write_text(content, encoding="utf-8")
    refused(tmp_path, folder)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("name", ["item_ids.arrow", "user_ids.arrow"])
def test_ids_are_never_silently_others(tmp_path: Path, name: str) -> None:
    """A flipped bit anywhere: found, or without effect."""
    data = prepare(CONFIG, tmp_path, silent)
    path = prepared_folder(CONFIG, tmp_path) / name
    good = path.read_bytes()
    found = 0
    for place in range(0, len(good), 5):
        content = bytearray(good)
        content[place] ^= 4
        path.write_bytes(content)
        try:
            again = prepare(CONFIG, tmp_path, silent, verify=True)
        except DataError:
            found += 1
        else:
            assert again.item_ids.equals(data.item_ids)
            assert again.user_ids.equals(data.user_ids)
    assert found > 0


@pytest.mark.usefixtures("reader")
def test_an_empty_folder_is_damaged_data(tmp_path: Path) -> None:
    folder = folder_to_be(tmp_path)
    folder.mkdir(parents=True)
    refused(tmp_path, folder)


def folder_to_be(data_folder: Path) -> Path:
    """Where `CONFIG` is going to be prepared: the raw file is there already."""
    DATASETS["toy"].fetch("toy", data_folder / "raw" / "toy", silent)
    return prepared_folder(CONFIG, data_folder)


def refused(data_folder: Path, folder: Path) -> None:
    """`folder` is refused in one line, and made anew once it is deleted as the line says."""
    with pytest.raises(DataError) as caught:
        prepare(CONFIG, data_folder, silent, verify=True)
    message = str(caught.value)
    assert message.startswith(f"{folder}: damaged prepared data (")
    assert message.endswith("); delete this folder and run again")
    assert message.splitlines() == [message]
    shutil.rmtree(folder)
    assert prepare(CONFIG, data_folder, silent).manifest["users"] == 3


@pytest.mark.parametrize("interruption", [OSError("no space left"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_nothing(
    tmp_path: Path,
    reader: Reader,
    monkeypatch: pytest.MonkeyPatch,
    interruption: BaseException,
) -> None:
    save = prepared.save

    def interrupted_save(data: prepared.PreparedData, folder: Path) -> None:
        save(data, folder)
        (folder / "manifest.json").unlink()
        raise interruption

    monkeypatch.setattr(prepared, "save", interrupted_save)
    with pytest.raises(type(interruption)):
        prepare(CONFIG, tmp_path, silent)
    assert list((tmp_path / "prepared").iterdir()) == []

    monkeypatch.setattr(prepared, "save", save)
    assert prepare(CONFIG, tmp_path, silent).manifest["users"] == 3
    assert reader.calls == 2


@pytest.mark.usefixtures("reader")
def test_two_at_a_time_share_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process finishes the same data while this one saves its own."""
    save = prepared.save
    folder = folder_to_be(tmp_path)

    def save_after_the_other(data: prepared.PreparedData, aside: Path) -> None:
        folder.mkdir()
        save(data, folder)
        save(data, aside)

    monkeypatch.setattr(prepared, "save", save_after_the_other)
    data = prepare(CONFIG, tmp_path, silent)
    assert data.manifest == json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert list((tmp_path / "prepared").iterdir()) == [folder]
