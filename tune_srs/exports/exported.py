"""The folder of an exported model: it describes itself, and needs neither Ray nor pickle.

`manifest.json` holds the version of the format, the origin of the model, and the size and sha256 of
each file; a folder that differs from it is refused. `README.md`, the model card, is for people.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import torch
from pyarrow import parquet
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from tune_srs.config.settings import TrialConfig
from tune_srs.config.validation import Settings, validated
from tune_srs.datasets.histories import Histories
from tune_srs.errors import ConfigError, DataError
from tune_srs.exports import card
from tune_srs.files import described, folder_aside
from tune_srs.model.sasrec import SASRec

FORMAT_VERSION = 1
CONFIG, WEIGHTS, ITEMS, METRICS = FILES = (
    "config.yaml", "model.safetensors", "items.parquet", "metrics.json"
)  # fmt: skip
MANIFEST, CARD = "manifest.json", "README.md"
PORTABLE = ("model.onnx", "model.pt2")  # written for other programs, never read here
Refit = Literal["validation", "all"]  # the futures that a model has learned, too


@dataclass(frozen=True)
class Exported:
    """The contents of the folder.

    `items` has one row per item, in the order of the model: row 0 is item 1. Its columns are
    `item`, the original id; `count`, how often the item occurs in the histories that the model has
    learned from; and `title`, if titles are known. `metrics` is as in `metrics.json`, `facts` as in
    `manifest.json`.
    """

    config: TrialConfig
    model: SASRec  # on the CPU, in evaluation mode
    items: pd.DataFrame
    metrics: dict[str, Any]
    facts: dict[str, Any]


def items_of(ids: pd.Series, titles: pd.Series | None, learned: Histories) -> pd.DataFrame:
    """Return the table of items, see `Exported`; `ids` and `titles` have one row per item."""
    items = pd.DataFrame({"item": ids.to_numpy(), "count": item_counts(learned)})
    return items if titles is None else items.assign(title=titles.to_numpy())


def item_counts(learned: Histories) -> npt.NDArray[np.int64]:
    """Return how often each item occurs in the histories (I,)."""
    return np.bincount(learned.items, minlength=learned.num_items + 1)[1:]


def check_free(folder: Path) -> None:
    """Raise a `ConfigError` unless `folder` can be made."""
    if folder.exists():
        raise ConfigError(f"{folder}: exists and is never overwritten; choose another folder")
    if not folder.parent.is_dir():
        raise ConfigError(f"{folder}: there is no folder {folder.parent}; create it")


def write(exported: Exported, folder: Path, formats: Iterable[str] = ()) -> None:
    """Write an export aside, then rename it to `folder`, which must not exist yet.

    `formats`: extra formats, `onnx` and `torch`; see `portable`.
    """
    from tune_srs.exports.portable import WRITERS  # here: most exports need none of them

    with folder_aside(folder) as aside:
        exported.config.to_yaml(aside / CONFIG)
        (aside / WEIGHTS).write_bytes(save(exported.model.state_dict()))
        exported.items.to_parquet(aside / ITEMS, index=False)
        _write_json(exported.metrics, aside / METRICS)
        for name in formats:
            WRITERS[name](exported.model, aside)
        seal(aside, exported.facts)
        files = [path.name for path in aside.iterdir()]
        popular = exported.items["item"].iloc[exported.items["count"].nlargest(3).index]
        given = (exported.config, exported.facts, exported.metrics)
        place = folder.name if folder.is_absolute() else folder.as_posix()
        text = card.text(*given, place, popular.to_list(), files)
        (aside / CARD).write_text(text, encoding="utf-8")


def seal(folder: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of all files in `folder`."""
    files = {
        path.name: described(path)
        for path in sorted(folder.iterdir())
        if path.name not in (MANIFEST, CARD)
    }
    version = {"format_version": FORMAT_VERSION}
    _write_json(version | facts | {"files": files}, folder / MANIFEST)


def read(folder: Path) -> Exported:
    """Return an export after checking every byte; a `DataError` says what is wrong."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one that tune-srs export has written")
    if not (folder / MANIFEST).exists() and (folder / "best").is_dir():
        raise DataError(f"{folder}: a search, not a model; give {folder / 'best'}")
    try:
        manifest = _json(folder / MANIFEST)
        _verify(folder, manifest)
        config = TrialConfig.from_yaml(folder / CONFIG)
        items = _items(folder / ITEMS)
        model = _model(folder / WEIGHTS, config, len(items))
        metrics = _json(folder / METRICS)
        if missing := {"validation", "test", "intervals"} - metrics.keys():
            raise _UnusableError(f"{METRICS} has no {min(missing)}")
    except (_UnusableError, OSError) as error:
        remedy = error.remedy if isinstance(error, _UnusableError) else "export it again"
        raise DataError(f"{folder}: not a usable exported model: {error}; {remedy}") from error
    facts = {key: manifest[key] for key in manifest if key not in ("format_version", "files")}
    return Exported(config, model, items, metrics, facts)


class _UnusableError(Exception):
    """Why a folder cannot be used, and how to fix that."""

    def __init__(self, reason: str, remedy: str = "export it again") -> None:
        super().__init__(reason)
        self.remedy = remedy


class _File(Settings):
    bytes: int
    sha256: str


class _Data(Settings):
    name: str
    fingerprint: str
    users: int
    items: int
    interactions: int
    test_futures_in_history: float  # share of them
    inputs: list[str]  # the sha256 of each raw file


class _Manifest(Settings):
    """The contents of `manifest.json`."""

    format_version: int = Field(ge=1)
    run: str
    trial: int
    won: bool
    metric: str
    epoch: int
    refit: Refit | None
    data: _Data
    versions: dict[str, str]
    files: dict[str, _File]


def _verify(folder: Path, manifest: dict[str, Any]) -> None:
    version = manifest.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise _UnusableError(
            f"it has format version {version}, but this tune_srs reads up to {FORMAT_VERSION}",
            "upgrade tune_srs",
        )
    try:
        files = validated(_Manifest, manifest, MANIFEST).files
    except ConfigError as error:
        raise _UnusableError(str(error)) from error
    there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if unknown := (there | set(files)) - {*FILES, *PORTABLE, MANIFEST, CARD}:
        raise _UnusableError(f"{min(unknown)} is not one of its files", "move it elsewhere")
    for name in (*FILES, *sorted(there & set(PORTABLE)), *files):
        if name not in files:
            raise _UnusableError(f"{name} is not in {MANIFEST}")
        if not (folder / name).is_file():
            raise _UnusableError(f"{name} is missing")
        if described(folder / name) != files[name].model_dump():
            raise _UnusableError(f"{name} is not what was exported: its size or checksum differs")


def _items(path: Path) -> pd.DataFrame:
    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise _UnusableError(f"{path.name} is not a Parquet file ({error})") from error
    types = {"item": (pa.types.is_integer, _is_text), "count": (pa.types.is_integer,)}
    types |= {"title": (_is_text,)} if "title" in table.column_names else {}
    for name, allowed in types.items():
        if name not in table.column_names or not any(
            of_type(table.schema.field(name).type) for of_type in allowed
        ):
            raise _UnusableError(f"{path.name} has no column {name} of the right type")
    try:
        items: pd.DataFrame = table.select(list(types)).to_pandas(ignore_metadata=True)
    except pa.ArrowException as error:  # text that is not valid
        raise _UnusableError(f"{path.name} cannot be read ({error})") from error
    if not len(items) or items[["item", "count"]].isna().any(axis=None):
        raise _UnusableError(f"{path.name} has no items, or an item without an id")
    if (items["count"] < 0).any():
        raise _UnusableError(f"{path.name} has a negative count")
    if items["item"].duplicated().any():
        raise _UnusableError(f"{path.name} holds an item twice")
    return items


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _model(path: Path, config: TrialConfig, num_items: int) -> SASRec:
    try:
        weights = load_file(path)
        rows = len(weights["items.weight"]) - 1
        if rows != num_items:
            raise _UnusableError(f"{path.name} has {rows} items, but {ITEMS} has {num_items}")
        with torch.device("meta"):  # compare shapes before allocating a model of any size
            outline = SASRec(config.model, num_items, torch.Generator())
            outline.load_state_dict(weights, assign=True)
        model = SASRec(config.model, num_items, torch.Generator())
        model.load_state_dict(weights)
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise _UnusableError(f"{path.name} does not fit {CONFIG}: {reason}") from error
    if any(weight.dtype != torch.float32 for weight in weights.values()):
        raise _UnusableError(f"{path.name} has weights that are not float32")
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise _UnusableError(f"{path.name} has weights that are not finite")
    return model.eval()


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise _UnusableError(f"{path.name} is missing")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise _UnusableError(f"{path.name} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise _UnusableError(f"{path.name} is not a JSON object")
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
