"""Warnings, which go to stderr."""

import sys


def warn(message: str) -> None:
    """Print a warning on stderr."""
    print(f"tune-srs: {message}", file=sys.stderr)
