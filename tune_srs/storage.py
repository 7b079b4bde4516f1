"""Where trials keep their checkpoints: a folder, or an object store, of whole files only."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pyarrow
from pyarrow import fs

from tune_srs.errors import ConfigError
from tune_srs.files import sweep_aside, write_aside


@dataclass(frozen=True)
class Storage:
    """Files by name below a path or URI (`s3://bucket/path`, `gs://…`).

    A name may hold slashes. Every machine that trains must reach the files by the same `place`.
    """

    place: str

    def within(self, name: str) -> "Storage":
        """Return the storage called `name` below this one."""
        if "://" not in self.place:
            return Storage(str(Path(self.place).resolve() / name))
        parts = urlsplit(self.place)
        return Storage(urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}")))

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if there is no such file."""
        system, base = self._resolve()
        try:
            with system.open_input_file(f"{base}/{name}") as file:
                return bytes(file.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in place of one of the same name: whole, or not at all."""
        system, base = self._resolve()
        path = f"{base}/{name}"
        if not isinstance(system, fs.LocalFileSystem):  # an object is there when it is whole
            with system.open_output_stream(path) as file:
                file.write(content)
            return
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_aside(Path(path), lambda aside: aside.write_bytes(content))

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        system, base = self._resolve()
        try:
            system.delete_file(f"{base}/{name}")
        except FileNotFoundError:
            return

    def names(self) -> list[str]:
        """Return the names of all files."""
        system, base = self._resolve()
        selector = fs.FileSelector(base, recursive=True, allow_not_found=True)
        found = (info for info in system.get_file_info(selector) if info.is_file)
        return [info.path.removeprefix(f"{base}/") for info in found]

    def sweep(self) -> None:
        """Delete what was being written when a writer was killed; nobody may be writing."""
        system, base = self._resolve()
        if isinstance(system, fs.LocalFileSystem):
            sweep_aside(Path(base))

    def _resolve(self) -> tuple[fs.FileSystem, str]:
        try:
            if "://" in self.place:
                system, base = fs.FileSystem.from_uri(self.place)
            else:
                system, base = fs.LocalFileSystem(), self.place
        except (ValueError, pyarrow.ArrowException) as error:
            raise ConfigError(
                f"--storage: {self.place} cannot be used ({error}); "
                f"give a path, s3://BUCKET/PATH or gs://BUCKET/PATH"
            ) from error
        if not base:
            raise ConfigError(f"--storage: {self.place} names no bucket; give s3://BUCKET/PATH")
        return system, base.rstrip("/")


def trial_name(trial: int) -> str:
    """Return the name of a trial's folder, in the storage and beside it."""
    return f"trial_{trial:05d}"
