"""Raw files: opened whatever their compression, recognised by their bytes."""

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from tune_srs.errors import DataError

# what the libraries raise on damaged files; RuntimeError: a zip that asks for a password
DAMAGED = (
    OSError,
    KeyError,
    ValueError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    pa.ArrowException,
    zipfile.BadZipFile,
    zlib.error,
)
PEEK = 1 << 20  # bytes by which format and columns are recognised


def is_html(start: bytes) -> bool:
    """Return whether a file that begins like this is a web page, such as a login form."""
    return start[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html"))


@contextmanager
def text_file(path: Path) -> Iterator[tuple[io.BufferedReader, str]]:
    """Open `path`: yield its bytes and its name for errors; gzip and zstd are decompressed.

    Raises `DataError` for a file without a table of text: empty, a web page, binary content.
    """
    try:
        start = _start(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    stream: Any
    if start.startswith(b"\x1f\x8b"):
        stream = gzip.open(path)  # noqa: SIM115
    elif start.startswith(b"\x28\xb5\x2f\xfd"):
        stream = pa.input_stream(str(path), compression="zstd")
    else:
        stream = path.open("rb", buffering=0)
    with io.BufferedReader(stream, PEEK) as buffered:
        refuse_other_content(path, peeked(buffered, path))
        yield buffered, str(path)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def peeked(stream: io.BufferedReader, source: object) -> bytes:
    """Return some first bytes of `stream`, which are read again later."""
    try:
        return stream.peek()
    except DAMAGED as error:
        raise damaged(source, error) from error


def damaged(source: object, error: BaseException) -> DataError:
    """Return the error for a file that cannot be read to its end."""
    return DataError(f"{source}: damaged or cut short ({error}); fetch it again")


def refuse_other_content(source: object, start: bytes) -> None:
    """Raise `DataError` if bytes that begin like this are not a table of text."""
    if not start.removeprefix(b"\xef\xbb\xbf").strip():
        raise DataError(f"{source}: empty; put the log there and run again")
    if is_html(start):
        raise DataError(
            f"{source}: a web page, such as a login form, in place of the data; delete it, "
            f"download the data by hand and put it there"
        )
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{source}: UTF-16 text; save it as UTF-8")
    if start.startswith(b"PK\x03\x04"):
        raise DataError(f"{source}: a zip archive; unpack it and give the file inside")
    if b"\0" in start:
        raise DataError(f"{source}: binary content, not text; give CSV, TSV, JSON lines or Parquet")
