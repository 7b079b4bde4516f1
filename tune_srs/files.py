"""Files: checked before the work, written aside and renamed, so that none is ever half written."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tune_srs.errors import ConfigError

ASIDE = ".aside-"  # how the folders begin in which files are written aside


def check_file(option: str, path: Path | None) -> None:
    """Raise `ConfigError` if `path` is set and no file can be written there."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise ConfigError(f"{option}: there is no folder {path.parent}; create it")
    if path.is_dir():
        raise ConfigError(f"{option}: {path} is a folder; name a file")


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in the place of `path` in one step."""
    with _aside(path) as aside:
        write(aside)
        aside.replace(path)


@contextmanager
def folder_aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`, to be renamed to `folder` when the block ends well.

    Creates the folders above. Raises `OSError` if `folder` exists by then and is not empty.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _aside(folder) as aside:
        aside.mkdir()
        yield aside
        aside.rename(folder)


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Yield a path of the same name beside `path`, on the same file system."""
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=path.parent) as folder:
        yield Path(folder) / path.name


def sweep_aside(folder: Path) -> None:
    """Delete what was being written below `folder` when its writer was killed.

    Nobody may be writing there.
    """
    for left in folder.glob(f"**/{ASIDE}*"):
        shutil.rmtree(left)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def described(path: Path) -> dict[str, Any]:
    """Return size and sha256 of a file, for a manifest."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
