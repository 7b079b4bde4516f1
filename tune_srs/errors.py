"""Errors that a user can fix, and the messages of work in progress.

An error says in one line what is wrong, where, and how to fix it; the console command prints it and
exits with the error's `exit_code`. Programming mistakes raise Python's own exceptions.
"""

from collections.abc import Callable

Say = Callable[[str], None]  # called with each message for the user, such as `print`
LONGEST = 500  # characters of a reason that goes into a table


class TuneSRSError(Exception):
    """The root of the errors that a user can fix. Line breaks in the message become spaces."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class ConfigError(TuneSRSError):
    """A setting, a search space or a request that cannot be carried out."""


class DataError(TuneSRSError):
    """An interaction log or prepared data that cannot be used."""


class SearchError(TuneSRSError):
    """A search that ran and failed."""

    exit_code = 1


def one_line(text: str) -> str:
    """Return `text` without line breaks, cut to a length that a table can hold."""
    return " ".join(text.split())[:LONGEST]


def reason_of(error: BaseException) -> str:
    """Return in one line why something failed; only unexpected errors show their type."""
    if isinstance(error, TuneSRSError):
        return one_line(str(error))
    return one_line(f"{type(error).__name__}: {error}")
