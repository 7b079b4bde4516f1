"""Commands as a user types them, for messages that say what to run next."""

import shlex
import shutil
import sys
from pathlib import Path


def typed(command: str) -> str:
    """Return how a user types a command installed beside this Python: by name or by path."""
    script = Path(sys.executable).parent / command
    found = shutil.which(command)
    if found and Path(found).resolve() == script.resolve():
        return command
    return str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script)


def place(folder: Path) -> str:
    """Return the option that tells a command where `folder` is; empty for the default place."""
    if folder.parent == Path("results"):
        return ""
    return f" --results-folder {shlex.quote(str(folder.parent))}"
