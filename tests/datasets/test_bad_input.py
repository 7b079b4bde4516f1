"""Broken logs: each is refused in one line that names the file, the place and the fix."""

import contextlib
import gzip
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.raw_data import silent

from tune_srs.config.data import DataConfig, LogConfig
from tune_srs.datasets import logs
from tune_srs.datasets.prepare import prepare
from tune_srs.errors import TuneSRSError

T = 1_400_000_000
HEAD = "user,item,rating,timestamp\n"
ROWS = [f"{1 + row // 9},{10 + row % 9},4,{T + row}\n" for row in range(27)]
LOG = HEAD + "".join(ROWS)


@dataclass(frozen=True)
class Broken:
    """A log that cannot be used, and what must be said of it."""

    content: str | bytes | pd.DataFrame
    said: str  # what and where
    fix: str
    settings: dict[str, Any] = field(default_factory=dict)  # of the data
    name: str = "log.csv"

    def write(self, path: Path) -> None:
        if isinstance(self.content, pd.DataFrame):
            self.content.to_parquet(path)
        elif isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            path.write_text(self.content, newline="")


def with_line(line: str, number: int = 4, head: str = HEAD) -> str:
    """A sound log, but for one line."""
    lines = [head, *ROWS]
    lines[number - 1] = line + "\n"
    return "".join(lines)


def log(**settings: Any) -> dict[str, Any]:
    return {"log": settings}


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return bytes(sink.getvalue().to_pybytes())


def archive(name: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr(name, LOG)
    return content.getvalue()


def parquet(**columns: list[Any]) -> pd.DataFrame:
    """A sound log in Parquet, but for the columns given."""
    sound = {"user": [1] * 4, "item": [1, 2, 3, 4], "timestamp": [T, T + 1, T + 2, T + 3]}
    return pd.DataFrame(sound | columns)


JSON = json.dumps({"user": "a", "item": "b", "timestamp": T}) + "\n"
NAMES = "name it with --"
FIX = "fix or drop the row"
BROKEN = {
    # the file
    "empty": Broken("", "log.csv: empty", "put the log there"),
    "blank lines only": Broken("\n\r\n \n", "log.csv: empty", "put the log there"),
    "a mark of byte order only": Broken(b"\xef\xbb\xbf", "log.csv: empty", "put the log there"),
    "header only": Broken(HEAD, "no rows below the header", "put the log there"),
    "Parquet without rows": Broken(parquet()[:0], "no rows below the header", "put the log there"),
    "web page": Broken(
        "\n<!DOCTYPE html><html><body>Log in</body></html>", "a web page", "download the data by"
    ),
    "binary": Broken(b"\x00\x01\x02\xff" * 99, "binary content", "give CSV, TSV, JSON lines or"),
    "picture": Broken(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "binary content", "give CSV"),
    "UTF-16": Broken(LOG.encode("utf-16"), "UTF-16 text", "save it as UTF-8"),
    "Latin-1": Broken(
        LOG.replace(",10,", ",Caf\xe9,").encode("latin-1"), "not UTF-8 text", "save it as UTF-8"
    ),
    "zip archive": Broken(archive("log.csv"), "a zip archive", "unpack it and give the file"),
    "zip that would write outside": Broken(archive("../log.csv"), "a zip archive", "unpack it"),
    "cut gzip": Broken(gzip.compress(LOG.encode())[:-20], "damaged or cut short", "fetch it again"),
    "gzip of nothing": Broken(gzip.compress(b""), "empty", "put the log there"),
    "gzip with a wrong sum": Broken(
        gzip.compress(LOG.encode())[:-8] + b"12345678", "damaged or cut short", "fetch it again"
    ),
    "cut zstd": Broken(zstd(LOG.encode())[:-9], "damaged or cut short", "fetch it again"),
    "cut Parquet": Broken(b"PAR1" + bytes(60), "damaged or cut short", "fetch it again"),
    # columns
    "no user column": Broken(
        LOG.replace("user", "u"), "no column looks like the user among u, item", NAMES + "user-col"
    ),
    "no item column": Broken(
        LOG.replace("item", "i"), "no column looks like the item", NAMES + "item-col"
    ),
    "no time column": Broken(
        LOG.replace("timestamp", "t"),
        "no column looks like the timestamp",
        "or set data.log.time_format=lines",
    ),
    "a name that is not there": Broken(
        LOG, "there is no column users", "did you mean user?", log(user_column="users")
    ),
    "one column for two": Broken(
        LOG, "one column has two roles", "name each", log(user_column="item", item_column="item")
    ),
    "wrong separator": Broken(
        LOG, "no column looks like the user among user,item", "check the sep", log(separator=";")
    ),
    "a column name twice": Broken(
        LOG.replace("rating", "item"), "line 1: the column name 'item' occurs twice", "rename one"
    ),
    "ratings asked of none": Broken(
        LOG.replace("rating", "r"), "data.min_rating: there are no", "leave it", {"min_rating": 3}
    ),
    # rows
    "a row too long": Broken(with_line("1,2,3,4,5"), "Expected 4 fields in line 4, saw 5", "fix"),
    "all rows too long": Broken(
        HEAD + "".join(row.replace("\n", ",x\n") for row in ROWS), "more fields than", "fix the"
    ),
    "a row too short": Broken(with_line("1,2"), "line 4: the rating nan is not a number", FIX),
    "a quote left open": Broken(with_line('1,"2,3,4'), "EOF inside string", "fix the quotes"),
    "an unquoted comma": Broken(with_line("1,a,b,3,4"), "Expected 4 fields in line 4", "quote"),
    # ids
    "no user": Broken(with_line(f",2,3,{T}"), "line 4: no user id", "leave such rows out"),
    "NaN for an item": Broken(with_line(f"1,NaN,3,{T}"), "line 4: no item id", "leave such rows"),
    "a negative user": Broken(
        with_line(f"-1,2,3,{T}"), "line 4: the user id -1 is negative", "data.log.text_ids=true"
    ),
    "a fraction for a user": Broken(
        parquet(user=[1.0, 2.5, 3.0, 4.0]), "row 2: the user id 2.5 is not a whole", "fix the row"
    ),
    "a missing user in Parquet": Broken(
        parquet(user=["a", None, "b", "c"]), "row 2: no user id", "leave such rows out"
    ),
    "a user beyond 64 bits": Broken(
        pd.DataFrame({"user": pd.Series([1, 2**63], dtype="uint64"), "item": 1, "timestamp": T}),
        "row 2: the user id 9223372036854775808 is above 2^63",
        "make such ids text",
    ),
    "times that are true or false": Broken(
        parquet(timestamp=[True] * 4), "row 1: the timestamps are true and false", "name another"
    ),
    "users that are true or false": Broken(
        parquet(user=[True, False, True, True]), "the user ids are true and false", "name another"
    ),
    "users that are lists": Broken(
        parquet(user=[[1], [2], [3], [4]]), "neither whole numbers nor text", "name another"
    ),
    # ratings
    "a rating that is none": Broken(
        with_line(f"1,2,good,{T}"), "line 4: the rating 'good' is not a number", FIX
    ),
    "a missing rating": Broken(with_line(f"1,2,,{T}"), "line 4: the rating", FIX),
    "an infinite rating": Broken(with_line(f"1,2,inf,{T}"), "line 4: the rating inf", FIX),
    # times
    "a time that is none": Broken(
        with_line("1,2,3,yesterday"), "line 4: the timestamp 'yesterday' is not a number", "fix it"
    ),
    "a missing time": Broken(with_line("1,2,3,"), "line 4: no timestamp", FIX),
    "a zero time": Broken(with_line("1,2,3,0"), "line 4: the timestamp 0", "time_format=order"),
    "a negative time": Broken(with_line("1,2,3,-5"), "line 4: the timestamp -5", "time_format="),
    "a future time": Broken(with_line("1,2,3,9999999999"), "lies in the future", "check the unit"),
    "mixed units": Broken(
        with_line("1,2,3,1400000000000"),
        "line 4: the timestamp 1400000000000 is not a time in s",
        FIX,
    ),
    "milliseconds read as seconds": Broken(
        LOG.replace(f",{T}", f",{T}000"), "not a time in s", FIX, log(time_format="s")
    ),
    "a date of another kind": Broken(
        with_line("1,2,3,13/05/2014"),
        "line 4: the timestamp '13/05/2014' is not a number",
        "fix it",
    ),
    "a date that is none": Broken(
        "user,item,date\n1,2,2024-02-30\n", "line 2: the timestamp '2024-02-30' is not ISO", "fix"
    ),
    "a date before 1970": Broken(
        "user,item,date\n1,2,1912-02-03\n", "'1912-02-03' is not after 1970", FIX
    ),
    "dates of a format that does not fit": Broken(
        LOG, "line 2: the timestamp", "data.log.time_format", log(time_format="%d/%m/%Y")
    ),
    # JSON lines
    "a JSON array": Broken("[" + JSON.strip() + "]", "one JSON array", "one object per line"),
    "a cut JSON line": Broken(JSON * 2 + JSON[:20], "line 3: not readable", "fix or drop the"),
    "a JSON line without an item": Broken(
        JSON + '{"user": "a", "timestamp": 3}\n', "line 2: no 'item', the item", "fix or drop"
    ),
    "JSON ids of two kinds": Broken(
        JSON + JSON.replace('"a"', "5"), "line 2: 'user', the user, is 5, but those", "quotes"
    ),
    "a JSON id that is a list": Broken(
        JSON.replace('"a"', "[1]"), "line 1: 'user', the user, is [1]", "fix or drop the line"
    ),
    # what is left
    "users too short for the split": Broken(
        LOG, "no user has the 21 interactions that num_futures=10 needs", "lower data.num_futures"
    ),
    "nothing well rated": Broken(LOG, "no user has the", "the filters", {"min_rating": 5}),
    "an empty core": Broken(LOG, "no user has the", "the filters", {"k_core": 99}),
    "nobody to hold out": Broken(
        LOG,
        "1 users are needed to validate and 1 to test",
        "data.split.share",
        {"split": {"kind": "users", "share": 0.4}},
    ),
    "nobody after the moment": Broken(
        HEAD + "".join(f"{user},10,4,{T + user}\n" for user in range(27)),
        "nobody can validate: no user has a history and futures behind it",
        "share",
        {"split": {"kind": "time", "share": 0.1}},
    ),
}


def test_there_are_enough_of_them() -> None:
    assert len(BROKEN) >= 40


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_log_is_refused_in_one_line(tmp_path: Path, broken: Broken) -> None:
    path = tmp_path / broken.name
    broken.write(path)
    config = DataConfig.model_validate({"name": str(path)} | broken.settings)
    with pytest.raises(TuneSRSError) as caught:
        prepare(config, tmp_path / "data", silent)
    message = str(caught.value)
    assert message.splitlines() == [message]
    assert str(path) in message or message.startswith("data.")
    assert broken.said in message
    assert broken.fix in message.partition(broken.said)[2]
    assert not (tmp_path / "data" / "prepared").exists()


def test_what_is_odd_but_sound_is_read(tmp_path: Path) -> None:
    """Quotes, commas and line ends inside fields, other alphabets, a blank line at the end."""
    path = tmp_path / "log.csv"
    path.write_bytes(
        b"\xef\xbb\xbfuser,item,timestamp\r\n"
        + f'"a,b","say ""hi""",{T}\r\n"c\nd",名前,{T}\r\nNA,null,{T}\r\n\r\n'.encode()
    )
    (table,) = logs.read(path, LogConfig(), silent)
    assert table["user"].tolist() == ["a,b", "c\nd", "NA"]
    assert table["item"].tolist() == ['say "hi"', "名前", "null"]


SOUND = [
    LOG,
    LOG.replace(",", "\t"),
    JSON * 3,
    "1 2\n1 3\n2 4\n",
    "user_id:token\titem_id:token\ttimestamp:float\n1\t2\t1400000000.0\n",
]


@given(st.data())
@settings(max_examples=300)
def test_whatever_a_log_holds_only_our_own_errors_come_out(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A sound log with bytes replaced, any bytes, or any text; plain or compressed."""
    content = data.draw(
        st.sampled_from(SOUND).map(str.encode)
        | st.binary(max_size=60)
        | st.text(max_size=60).map(str.encode)
        | st.lists(
            st.lists(st.sampled_from(["1", "-1", "", "nan", '"', "2024-01-01", "1e400", "é"])),
            min_size=1,
            max_size=4,
        ).map(lambda rows: "\n".join(["user,item,time", *map(",".join, rows)]).encode())
    )
    for _ in range(data.draw(st.integers(0, 2))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 8)))
        content = content[:start] + data.draw(st.binary(max_size=6)) + content[stop:]
    ways: list[Callable[[bytes], bytes]] = [bytes, gzip.compress, zstd]
    compress = data.draw(st.sampled_from(ways))
    packed = compress(content)
    packed = packed[: len(packed) - data.draw(st.integers(0, 3))]
    path = tmp_path_factory.mktemp("fuzz") / "log"
    path.write_bytes(packed)
    time_format = data.draw(st.sampled_from(["auto", "s", "iso", "order", "lines", "%Y-%m-%d"]))
    config = LogConfig(
        time_format=time_format,
        text_ids=data.draw(st.booleans()),
        separator=data.draw(st.sampled_from([None, ",", "\t", '"'])),
    )
    with contextlib.suppress(TuneSRSError):
        list(logs.read(path, config, silent))
