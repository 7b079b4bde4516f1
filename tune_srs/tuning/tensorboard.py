"""TensorBoard events of a search: scalars under our own names, and every parameter as HPARAMS.

Written by the driver, a file a trial that is opened for each report only: no thread and no open
file a trial, so that a thousand of them can run.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.struct_pb2 import Value
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import Status
from tensorboard.plugins.hparams.plugin_data_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboard.summary.writer.record_writer import RecordWriter

from tune_srs.space.parameters import Categorical, Distribution

FILE = "events.out.tfevents.trial"
INACTIVE = "-"


def write_start(folder: Path, params: Mapping[str, Distribution], values: dict[str, Any]) -> None:
    """Begin anew: the parameters of the trial in `folder`, those that are inactive as "-".

    TensorBoard cannot sort a column of numbers and text: what is text in any trial is in all.
    """
    (folder / FILE).unlink(missing_ok=True)  # left by a trial that the journal does not know
    start = SessionStartInfo(start_time_secs=time.time())
    for name, parameter in params.items():
        value = values.get(name, INACTIVE)
        start.hparams[name].CopyFrom(_value(str(value) if _is_text(parameter) else value))
    data = HParamsPluginData(session_start_info=start)
    _append(folder, _hparams(metadata.SESSION_START_INFO_TAG, data))


def write_epoch(folder: Path, epoch: int, metrics: dict[str, float]) -> None:
    """A scalar for each metric, under its own name."""
    values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
    _append(folder, Summary(value=values), epoch)


def write_end(folder: Path, failed: bool) -> None:
    status = Status.STATUS_FAILURE if failed else Status.STATUS_SUCCESS
    end = SessionEndInfo(status=status, end_time_secs=time.time())
    _append(
        folder, _hparams(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=end))
    )


def mend(folder: Path) -> None:
    """Cut off a last record that was written in part, or nobody reads what comes after it."""
    path = folder / FILE
    if not path.exists():
        return
    content, whole = path.read_bytes(), 0
    while whole + 12 <= len(content):  # length (8 bytes), its checksum (4), content, checksum (4)
        end = whole + 16 + int.from_bytes(content[whole : whole + 8], "little")
        if end > len(content):
            break
        whole = end
    with path.open("r+b") as file:
        file.truncate(whole)


def _is_text(parameter: Distribution) -> bool:
    """Whether some of its values are no numbers, or it is inactive in some trials."""
    choices = parameter.choices if isinstance(parameter, Categorical) else []
    return bool(parameter.when) or any(not isinstance(choice, int | float) for choice in choices)


def _value(value: Any) -> Value:
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, int | float):
        return Value(number_value=value)
    return Value(string_value=str(value))


def _hparams(tag: str, data: HParamsPluginData) -> Summary:
    data.version = metadata.PLUGIN_DATA_VERSION
    plugin = SummaryMetadata.PluginData(
        plugin_name=metadata.PLUGIN_NAME, content=data.SerializeToString()
    )
    value = Summary.Value(
        tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=metadata.NULL_TENSOR
    )
    return Summary(value=[value])


def _append(folder: Path, summary: Summary, step: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    new = not path.exists() or not path.stat().st_size
    with path.open("ab") as file:
        writer = RecordWriter(file)
        if new:
            version = Event(wall_time=time.time(), file_version="brain.Event:2")
            writer.write(version.SerializeToString())
        writer.write(Event(wall_time=time.time(), step=step, summary=summary).SerializeToString())
        writer.flush()
