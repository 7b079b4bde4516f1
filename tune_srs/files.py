"""Files: checked before the work, written aside and renamed, so that none is ever half written."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from tune_srs.errors import ConfigError


def check_file(option: str, path: Path | None) -> None:
    """Raises `ConfigError` unless a file can be written at `path`, if one is asked for."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise ConfigError(f"{option}: there is no folder {path.parent}; create it")
    if path.is_dir():
        raise ConfigError(f"{option}: {path} is a folder; name a file")


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then put it in the place of `path` in one step."""
    with tempfile.TemporaryDirectory(prefix=".aside-", dir=path.parent) as folder:
        aside = Path(folder) / path.name
        write(aside)
        aside.replace(path)
