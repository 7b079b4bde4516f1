"""Errors a user can fix, and the messages of work in progress.

An error says in one line what is wrong, where, and how to fix it; the console command prints it and
exits with the error's `exit_code`. Programming mistakes raise Python's own exceptions.
"""

from collections.abc import Callable

Say = Callable[[str], None]  # called with each message for the user, such as `print`


class TuneSRSError(Exception):
    """The root of the errors a user can fix. Line breaks in the message become spaces."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ConfigError(TuneSRSError):
    """A setting, search space or request that cannot be carried out."""


class DataError(TuneSRSError):
    """An interaction log or prepared data that cannot be used."""


class SearchError(TuneSRSError):
    """A search that ran and failed."""

    exit_code = 1
