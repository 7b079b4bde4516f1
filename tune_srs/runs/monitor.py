"""TensorBoard on a run's folder, for this machine only."""

from pathlib import Path

import tensorboard_data_server
from tensorboard import program

from tune_srs.errors import ConfigError
from tune_srs.runs.paths import RunPaths


def start(folder: Path, port: int | None) -> str:
    """Start TensorBoard in this process, on loopback; its address.

    `port`: None, any that is free. Raises `ConfigError` if it cannot be had.
    """
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
