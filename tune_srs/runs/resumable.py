"""What the plans of a search and of a study share: a name, a folder, resources; and resuming."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from tune_srs.commands import place, typed
from tune_srs.config.settings import TrainConfig
from tune_srs.errors import ConfigError
from tune_srs.runs.resources import Resources, this_machine


class Resumable:
    """A plan that a command carries out in a folder, and resumes there after an interruption."""

    COMMAND: ClassVar[str]  # `search` or `study`
    name: str
    resources: Resources

    def check_folder(self, folder: Path, resume: bool) -> None:
        """Raise a `ConfigError` for a name that no folder can have, or a folder that exists."""
        check_name(self.name)
        if folder.exists() and not resume:
            raise ConfigError(
                f"{folder}: exists and is never overwritten; choose another --name, "
                f"or {self.how_to_resume(folder)}"
            )

    def check_machine(self, configs: Iterable[TrainConfig]) -> None:
        """Raise a `ConfigError` if this machine lacks what `configs` or the resources ask for.

        On a cluster this is checked once it is reached.
        """
        if self.resources.address is not None:
            return
        from tune_srs.training.loop import device_of  # here: reading a plan needs no torch

        for config in configs:
            device_of(config)
        self.resources.check([this_machine()])

    def how_to_resume(self, folder: Path) -> str:
        """Return the command that resumes what is in `folder`, for a message."""
        command = f"{typed('tune-srs')} {self.COMMAND} --resume --name {self.name}{place(folder)}"
        return f"go on with: {command}"


def check_name(name: str) -> None:
    """Raise a `ConfigError` unless a folder can have this name."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(
            f"--name: {name!r} is not a plain folder name; use letters, digits, '.', '_' and '-'"
        )


def check_unchanged(began: str, now: str, where: str, command: str) -> None:
    """Raise a `ConfigError` if the fingerprint of the data is not the one that it `began` with."""
    if began != now:
        raise ConfigError(
            f"{where} began on data with fingerprint {began[:12]}, but it is now {now[:12]}; "
            f"restore the former, or start a {command} by another name"
        )
