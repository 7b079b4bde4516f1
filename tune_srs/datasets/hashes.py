"""The sha256 of raw files, recalled until a file changes: hashing gigabytes takes seconds."""

import hashlib
import json
import time
from pathlib import Path

from tune_srs.files import sha256_of, write_aside

SETTLED_NS = 2_000_000_000


def recalled_sha256(path: Path, memory: Path) -> str:
    """Return the sha256 of the file at `path`, from the folder `memory` if the file is unchanged.

    A file touched in the last two seconds is not recalled: it could change again without a trace.
    """
    stat = path.stat()
    state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    note = memory / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]}.json"
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["state"] == state:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not known, or not legible: then hash again
    digest = sha256_of(path)
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > SETTLED_NS:
        memory.mkdir(parents=True, exist_ok=True)
        content = json.dumps({"state": state, "sha256": digest})
        write_aside(note, lambda aside: aside.write_text(content, encoding="utf-8"))
    return digest
