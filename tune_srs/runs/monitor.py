"""TensorBoard on a run's folder, for this machine only."""

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event

import tensorboard_data_server
from tensorboard import program

from tune_srs.errors import ConfigError
from tune_srs.runs.paths import RunPaths


def show(folder: Path, port: int | None, say: Callable[[str], None]) -> None:
    """Start TensorBoard in this process, on loopback, and keep it until Ctrl-C.

    `port`: None for any that is free. Raises `ConfigError` if the port is taken.
    """
    # a shell lets commands that a script runs with `&` ignore SIGINT: nothing would end this one
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        say(f"{_start(folder, port)} until Ctrl-C")
        Event().wait()


def _start(folder: Path, port: int | None) -> str:
    """Return the address of TensorBoard, which then answers in threads of this process."""
    board = program.TensorBoard()
    board.configure(
        logdir=str(RunPaths(folder).tune),
        host="127.0.0.1",
        port=port or 0,
        load_fast="true" if tensorboard_data_server.server_binary() else "false",
        window_title=f"tune_srs: {folder.name}",
    )
    try:
        return str(board.launch())
    except program.TensorBoardServerException as error:
        raise ConfigError(f"--port: {error}; leave it out for any that is free") from error
