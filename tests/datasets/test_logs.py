"""Any log: whatever its format, the same interactions; its columns found, or named, and said."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_data import in_original_ids, silent

from tune_srs.config.settings import DataConfig, LogConfig
from tune_srs.datasets import logs
from tune_srs.datasets.columns import ITEM, ORDER, RATING, TIMESTAMP, USER
from tune_srs.datasets.prepare import prepare
from tune_srs.datasets.prepared import PreparedData
from tune_srs.datasets.readers import delimited, raw_files
from tune_srs.errors import DataError

START = 1_400_000_000
TABLE = pd.DataFrame(
    {
        "user_id": ["ann", "bo,b", "ann", 'c"d', "ann"],
        "item_id": ["x 1", "x 1", "ü", "7", "007"],
        "rating": [5.0, 3.5, 1.0, 4.0, 2.0],
        "timestamp": [START, START + 7, START + 3, START, START + 3],
    }
)


def read(path: Path, **settings: Any) -> pd.DataFrame:
    return pd.concat(logs.read(path, LogConfig(**settings), silent), ignore_index=True)


def write_json_lines(table: pd.DataFrame, path: Path) -> None:
    rows = table.to_dict(orient="records")
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_inter(table: pd.DataFrame, path: Path) -> None:
    """RecBole's atomic file: typed names, tabs, no quotes."""
    types = {"user_id": "token", "item_id": "token", "rating": "float", "timestamp": "float"}
    lines = ["\t".join(f"{name}:{types[str(name)]}" for name in table)]
    lines += ["\t".join(map(str, row)) for row in table.itertuples(index=False)]
    path.write_text("\n".join(lines) + "\n")


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "log.csv": lambda table, path: table.to_csv(path, index=False),
    "log.txt": lambda table, path: table.to_csv(path, index=False, sep=";"),
    "log.tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "log.psv": lambda table, path: table.to_csv(path, index=False, sep="|"),
    "log.parquet": lambda table, path: table.to_parquet(path, index=False),
    "log.jsonl": write_json_lines,
    "log.inter": write_inter,
    "windows.csv": lambda table, path: table.to_csv(path, index=False, lineterminator="\r\n"),
    "old.csv": lambda table, path: table.to_csv(path, index=False, lineterminator="\r"),
    "excel.csv": lambda table, path: table.to_csv(path, index=False, encoding="utf-8-sig"),
}


def zipped(path: Path, how: str) -> Path:
    """The file compressed, under a name that does not always tell."""
    if how == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes()))
    if how == "zstd":
        with pa.CompressedOutputStream(str(path) + ".zst", "zstd") as file:
            file.write(path.read_bytes())
        return Path(str(path) + ".zst")
    return path


@pytest.mark.parametrize(
    ("name", "how"),
    [
        (name, how)
        for name in WRITERS
        for how in ("plain", "gzip", "zstd")
        if how == "plain" or name != "log.parquet"  # it has compression of its own
    ],
)
def test_every_format_gives_the_same_interactions(tmp_path: Path, name: str, how: str) -> None:
    WRITERS[name](TABLE, tmp_path / name)
    table = read(zipped(tmp_path / name, how))
    assert table[USER].tolist() == TABLE["user_id"].tolist()
    assert table[ITEM].tolist() == TABLE["item_id"].tolist()
    assert table[RATING].tolist() == TABLE["rating"].tolist()
    assert (table[TIMESTAMP] // 1_000_000).tolist() == TABLE["timestamp"].tolist()


def test_lines_of_user_and_item_are_in_order(tmp_path: Path) -> None:
    """As SASRec and its family keep their data."""
    (tmp_path / "Beauty.txt").write_text("1 3\n1 4\n2 10\n2 3\n")
    said: list[str] = []
    (table,) = logs.read(tmp_path / "Beauty.txt", LogConfig(), said.append)
    assert table[USER].tolist() == [1, 1, 2, 2]
    assert table[ITEM].tolist() == [3, 4, 10, 3]
    assert table[ORDER].is_monotonic_increasing
    assert said == [
        f"{tmp_path / 'Beauty.txt'}: sequence lines, user from user, item from item, in the order "
        f"of its lines"
    ]


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_a_long_first_line_is_read_whole(tmp_path: Path, how: str) -> None:
    """Longer than what format and columns are told from, and than a block of the compression."""
    noise = np.random.default_rng(0).integers(97, 123, 3_000_000, dtype=np.uint8).tobytes().decode()
    rows = TABLE.assign(review=noise).head(2)
    write_json_lines(rows, tmp_path / "log.jsonl")
    assert read(zipped(tmp_path / "log.jsonl", how))[USER].tolist() == ["ann", "bo,b"]


@pytest.mark.parametrize("how", ["plain", "gzip", "zstd"])
def test_a_line_is_not_judged_by_its_first_half(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The place where what is looked at ends can be anywhere in a line."""
    monkeypatch.setattr(logs, "PEEK", 40_000)
    for extra in range(6):
        path = tmp_path / f"{extra}.txt"
        path.write_text("1 2\n" * (extra + 1) + "10 200\n" * 8_000)
        assert logs.inspect(zipped(path, how), LogConfig()).kind == "sequence lines"


# Columns


def columns_of(path: Path, **settings: Any) -> list[str]:
    """What is said of the columns."""
    said: list[str] = []
    list(logs.read(path, LogConfig(**settings), said.append))
    return said[0].split(", ")[1:]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("userId,movieId,rating,timestamp", ("userId", "movieId", "rating", "timestamp")),
        ("visitorid,event,itemid,ts", ("visitorid", "itemid", None, "ts")),
        ("Customer_ID,Product_ID,Stars,Date", ("Customer_ID", "Product_ID", "Stars", "Date")),
        ("asin,reviewerID,overall,unixReviewTime", ("reviewerID", "asin", "overall", None)),
    ],
)
def test_columns_are_guessed_from_usual_names_and_said(
    tmp_path: Path, header: str, names: tuple[str | None, ...]
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"{header}\n3,4,5,{START}\n")
    said = columns_of(path)
    for role, name in zip((USER, ITEM, RATING), names, strict=False):
        assert (f"{role} from {name}" in said) == (name is not None)


def test_named_columns_win_over_usual_names(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,who,what,when\n1,2,3,4,{START}\n")
    table = read(path, user_column="who", item_column="what", time_column="when")
    assert (table[USER].tolist(), table[ITEM].tolist()) == ([3], [4])
    assert "rating" not in table


def test_a_log_without_a_header_names_columns_by_place(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"{START},5,6\n{START},5,8\n")
    table = read(path, header=False, user_column="1", item_column="2", time_column="0")
    assert table[ITEM].tolist() == [6, 8]


def test_the_order_of_the_lines_can_be_the_time(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,timestamp\n1,2,0\n1,3,0\n")
    table = read(path, time_format="lines")
    assert table[ORDER].tolist() == [0, 1]


# Times

NOON = 1_400_000_000_000_000  # µs


@pytest.mark.parametrize(
    ("values", "time_format"),
    [
        (["1400000000", "1400000001"], "auto"),
        (["1400000000.0", "1400000001.0"], "auto"),
        (["1400000000000", "1400000001000"], "auto"),
        (["1400000000000000", "1400000001000000"], "auto"),
        (["1400000000000000000", "1400000001000000000"], "auto"),
        (["2014-05-13T16:53:20Z", "2014-05-13T18:53:21+02:00"], "auto"),
        (["2014-05-13 16:53:20", "2014-05-13 16:53:21.000"], "auto"),
        (["13/05/2014 16:53:20", "13/05/2014 16:53:21"], "%d/%m/%Y %H:%M:%S"),
        (["1400000000", "1400000001"], "s"),
        (["1400000000000", "1400000001000"], "ms"),
    ],
)
def test_times_of_any_kind_are_microseconds(
    tmp_path: Path, values: list[str], time_format: str
) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + "".join(f"1,2,{value}\n" for value in values))
    assert read(path, time_format=time_format)[TIMESTAMP].tolist() == [NOON, NOON + 1_000_000]


@pytest.mark.parametrize(
    "times",
    [
        pd.Series([NOON, NOON + 1_000_000]).astype("datetime64[us]"),
        pd.Series([NOON, NOON + 1_000_000]).astype("datetime64[us]").dt.tz_localize("UTC"),
        pd.Series([NOON * 1000, NOON * 1000 + 10**9]).astype("datetime64[ns]"),
        pd.Series([1.4e9, 1.4e9 + 1]),
        pd.Series([1_400_000_000, 1_400_000_001], dtype="int32"),
        pd.Series([1_400_000_000, 1_400_000_001], dtype="uint32"),
        pd.Series(["1400000000", "1400000001"], dtype="category"),
        pd.Series(["2014-05-13T16:53:20Z", "2014-05-13T16:53:21Z"]),
    ],
)
def test_times_of_parquet_are_microseconds(tmp_path: Path, times: pd.Series) -> None:
    path = tmp_path / "log.parquet"
    pd.DataFrame({"user": [1, 1], "item": [2, 3], "time": times}).to_parquet(path)
    assert read(path)[TIMESTAMP].tolist() == [NOON, NOON + 1_000_000]


def test_coded_ids_of_parquet_are_what_they_stand_for(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    table = pd.DataFrame({"user": ["b", "a"], "item": [300, 7], "time": [START, START]})
    table.astype({"user": "category", "item": "category"}).to_parquet(path)
    assert read(path)[[USER, ITEM]].to_numpy().tolist() == [["b", 300], ["a", 7]]


def test_fractions_of_a_second_decide(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n1,2,1400000000.75\n1,3,1400000000.5\n")
    assert read(path)[TIMESTAMP].tolist() == [NOON + 750_000, NOON + 500_000]


def test_mere_numbers_of_the_interactions_are_an_order(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n1,2,0\n1,3,-4\n")
    assert read(path, time_format="order")[ORDER].tolist() == [0, -4]


# Ids

IDS = st.lists(st.integers(0, 2**62), min_size=5, max_size=9, unique=True) | st.lists(
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=6),
    min_size=5,
    max_size=9,
    unique=True,
).filter(lambda ids: all(text.strip() == text and text.lower() != "nan" for text in ids))


@given(users=IDS, items=IDS, name=st.sampled_from(["log.csv", "log.parquet", "log.jsonl"]))
@settings(max_examples=60)
def test_ids_of_any_type_come_back(
    tmp_path_factory: pytest.TempPathFactory, users: list[Any], items: list[Any], name: str
) -> None:
    """Every user has all items, in an order of its own."""
    folder = tmp_path_factory.mktemp("ids")
    rows = [
        (user, items[(first + step) % len(items)], START + step)
        for first, user in enumerate(users)
        for step in range(len(items))
    ]
    table = pd.DataFrame(rows, columns=["user", "item", "timestamp"])
    WRITERS[name](table, folder / name)
    config = DataConfig(name=str(folder / name), num_futures=1)
    data = prepare(config, folder / "data", silent)
    text = not pd.api.types.is_integer_dtype(data.user_ids.dtype)
    expected: dict[Any, list[Any]] = {}
    for user, item, _ in rows:
        expected.setdefault(user, []).append(item)
    found = in_original_ids(data, data.test)
    if name == "log.csv" and text != isinstance(users[0], str):  # digits only: numbers all the same
        found = {str(user): sequence for user, sequence in found.items()}
    assert {str(user): [str(item) for item in seq] for user, seq in found.items()} == {
        str(user): [str(item) for item in seq] for user, seq in expected.items()
    }
    if name != "log.csv":
        assert found == expected


def test_text_that_looks_like_a_number_can_be_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"user,item,time\n1,7,{START}\n1,8,{START}\n")
    assert read(path)[ITEM].tolist() == [7, 8]
    assert read(path, text_ids=True)[ITEM].tolist() == ["7", "8"]


def test_a_log_in_chunks_is_the_whole_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.csv"
    random = np.random.default_rng(0)
    rows = [(random.integers(9), random.integers(9), START + step) for step in range(50)]
    pd.DataFrame(rows, columns=["user", "item", "time"]).to_csv(path, index=False)
    whole = read(path)
    monkeypatch.setattr(delimited, "CELLS", 21)
    chunks = list(logs.read(path, LogConfig(), silent))
    assert len(chunks) == 8
    pd.testing.assert_frame_equal(pd.concat(chunks, ignore_index=True), whole)

    path.write_text(path.read_text() + "1,x,1\n")
    for module in (raw_files, logs):  # what is looked at ends before
        monkeypatch.setattr(module, "PEEK", 200)
    with pytest.raises(
        DataError, match=r"line 52: the item id 'x' is not a whole number as the others"
    ):
        list(logs.read(path, LogConfig(), silent))


def prepared(path: Path, folder: Path) -> PreparedData:
    config = DataConfig(name=str(path), num_futures=1)
    return prepare(config, folder / "data", say=lambda line: None)


def test_ids_stay_apart_however_late_their_zeros_come(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    rows = [f"{row % 50 + 1},{row % 90 + 1},{1_600_000_000 + row}" for row in range(70_000)]
    rows += [f"999,{item},{1_700_000_000 + place}" for place, item in enumerate(("007", "7", "07"))]
    path.write_text("user,item,timestamp\n" + "\n".join(rows) + "\n")
    data = prepared(path, tmp_path)
    assert {"007", "7", "07"} <= set(data.item_ids)
    assert len(data.item_ids) == 92


def test_a_quote_in_an_atomic_file_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "one.inter"
    rows = [
        f"1\t{'00' if row > 5 else ''}{row % 9 + 1}\t{chr(34) if row == 3 else ''}x\t{10**9 + row}"
        for row in range(40)
    ]
    head = "user_id:token\titem_id:token\ttitle:token\ttimestamp:float"
    path.write_text("\n".join([head, *rows]) + "\n")
    assert len(prepared(path, tmp_path).item_ids) == 15


@pytest.mark.parametrize(
    ("rows", "hint"),
    [
        (["u,a,now", "u,b,2020-01-01", "u,c,2020-01-02"], "now"),
        ([f"u,{item},{10**18 + place}" for place, item in enumerate("abc")], "microsecond"),
    ],
)
def test_times_that_would_lose_their_order_are_refused(
    rows: list[str], hint: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user,item,timestamp\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match=hint):
        prepared(path, tmp_path)
