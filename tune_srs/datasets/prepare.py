"""From raw data to prepared data: fetched, read, filtered, split, and kept for the next time."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from tune_srs import __version__
from tune_srs.config.data import DataConfig, LogConfig
from tune_srs.config.validation import nearest
from tune_srs.datasets import filters, logs, prepared, published, splits, synthetic, ties
from tune_srs.datasets.hashes import recalled_sha256
from tune_srs.datasets.histories import Split
from tune_srs.datasets.interactions import collect
from tune_srs.datasets.prepared import FORMAT_VERSION, PreparedData
from tune_srs.datasets.published import DATASETS
from tune_srs.datasets.statistics import facts_of_futures, statistics
from tune_srs.errors import ConfigError, DataError, Say
from tune_srs.files import folder_aside

SYNTHETIC = "synthetic"


def prepare(
    config: DataConfig, data_folder: Path, say: Say = print, verify: bool = False
) -> PreparedData:
    """Return the prepared data of `config`, from the cache under `data_folder` or made now.

    `say` reports what is fetched, recognised and dropped. With `verify` every byte of a cache is
    checked, not only its sizes. Raises `ConfigError` for an unknown name, `DataError` for data that
    are not available or too short for the number of futures.
    """
    _check_name(config)
    _fetch(config, data_folder, say)
    folder = prepared_folder(config, data_folder)
    made = not folder.exists()
    if made:
        _keep(_made(config, data_folder, say), folder)
    elif verify:
        prepared.verify(folder)
    data = prepared.load(folder)
    if not made:
        for note in data.manifest["notes"]:
            say(note)
    return data


def _keep(data: PreparedData, folder: Path) -> None:
    """Write `data` to `folder`, unless another process was quicker, with the same data."""
    try:
        with folder_aside(folder) as aside:
            prepared.save(data, aside)
    except OSError:
        if not folder.exists():
            raise


def prepared_folder(config: DataConfig, data_folder: Path) -> Path:
    """Return the folder of data of these settings, this input and this format."""
    inputs = [
        recalled_sha256(path, data_folder / "hashes") for path in inputs_of(config, data_folder)
    ]
    key = json.dumps([FORMAT_VERSION, config.model_dump(mode="json"), inputs], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return data_folder / "prepared" / f"{Path(config.name).name}-{digest}"


def known(data_folder: Path) -> pd.DataFrame:
    """Return one row per known data set: sizes as published, and what is under `data_folder`."""
    rows = []
    for name, dataset in DATASETS.items():
        is_prepared = any((data_folder / "prepared").glob(f"{name}-????????????"))
        raw = dataset.find(data_folder / "raw" / name) is not None
        here = "prepared" if is_prepared else "raw" if raw else "no"
        if here == "no" and not dataset.fetched:
            here = "no, by hand"
        sizes = (dataset.users, dataset.items, dataset.interactions)
        rows.append((name, here, *sizes, dataset.description, dataset.licence, dataset.page))
    generated = "generated, with something to learn"
    rows.append((SYNTHETIC, "always", 400, 300, 24_000, generated, "none needed", "-"))
    names = ["name", "here", "users", "items", "interactions", "description", "licence", "source"]
    return pd.DataFrame(rows, columns=names)


def inputs_of(config: DataConfig, data_folder: Path) -> list[Path]:
    """Return the raw files of `config` that are here."""
    if config.name in DATASETS:
        raw = data_folder / "raw" / config.name
        found = DATASETS[config.name].find(raw)
        return [raw / found.name] if found else []
    return [Path(config.name)] if Path(config.name).is_file() else []


def is_known(name: str) -> bool:
    """Return whether `name` is that of a known data set; otherwise it is the path of a log."""
    return name in {*DATASETS, SYNTHETIC}


def _check_name(config: DataConfig) -> None:
    """Raise `ConfigError` or `DataError` for a name that stands for nothing."""
    named, path = is_known(config.name), Path(config.name)
    if named and config.log != LogConfig():
        raise ConfigError(
            f"data.log: is for a log of your own, but {config.name} is known; leave it"
        )
    if named or path.is_file():
        return
    if path.suffix or len(path.parts) > 1:
        raise DataError(f"{config.name}: no such file; check the path (data.name)")
    close = nearest(config.name, [*DATASETS, SYNTHETIC])
    raise ConfigError(f"data.name: unknown data set {config.name}{close}")


def _fetch(config: DataConfig, data_folder: Path, say: Say) -> None:
    if config.name in DATASETS:
        DATASETS[config.name].fetch(config.name, data_folder / "raw" / config.name, say)


def _made(config: DataConfig, data_folder: Path, say: Say) -> PreparedData:
    """Return data read and split; the manifest keeps the messages for later runs."""
    notes: list[str] = []

    def note(message: str) -> None:
        notes.append(message)
        say(message)

    inputs = [
        {
            "file": path.name,
            "bytes": path.stat().st_size,
            "sha256": recalled_sha256(path, data_folder / "hashes"),
        }
        for path in inputs_of(config, data_folder)
    ]
    data = split_chunks(_chunks(config, data_folder, note), config, note, inputs)
    data.manifest["notes"] = notes
    return replace(data, item_titles=_titles(config, data_folder, data.item_ids))


def _titles(config: DataConfig, data_folder: Path, item_ids: pd.Series) -> pd.Series | None:
    """Return the title of each item, missing where there is none; None if no item has one."""
    raw = data_folder / "raw" / config.name
    file = DATASETS[config.name].find(raw) if config.name in DATASETS else None
    titles = file.titles(raw / file.name) if file is not None and file.titles else None
    if titles is None:
        return None
    found = titles.reindex(item_ids).astype("str").reset_index(drop=True).rename("title")
    return found if found.notna().any() else None


def _chunks(config: DataConfig, data_folder: Path, say: Say) -> Iterable[pd.DataFrame]:
    """Return the interactions of `config.name`, whose raw file is here."""
    if config.name == SYNTHETIC:
        return [synthetic.generate(config.synthetic)]
    if config.name in DATASETS:
        raw = data_folder / "raw" / config.name
        file = DATASETS[config.name].fetch(config.name, raw, say)
        return published.read(file, raw / file.name, say)
    return logs.read(Path(config.name), config.log, say)


def split(table: pd.DataFrame, config: DataConfig, say: Say = print) -> PreparedData:
    """Return prepared data of a whole interactions table, see `split_chunks`."""
    return split_chunks([table], config, say)


def split_chunks(
    chunks: Iterable[pd.DataFrame],
    config: DataConfig,
    say: Say = print,
    inputs: Iterable[dict[str, Any]] = (),
) -> PreparedData:
    """Return prepared data of interactions in chunks (see `columns`): filtered, split, with noise.

    Equal timestamps of a user keep their order, unless `config.ties` says otherwise. `inputs` is
    for the manifest. Raises `DataError` if no user is left.
    """
    log, counts = collect(chunks, config.min_rating)
    # before repeats are dropped, since which of them follow one another is a matter of order, too
    log = ties.ordered(log, config.ties)
    removals = []
    if config.min_rating is not None:
        removals.append(filters.removed(f"min_rating {config.min_rating}", counts, log.counts))
    kept, others = filters.filtered(log, config)
    parts = splits.split(kept, config, say)
    removals += others
    if len(parts.log) < len(kept):
        removals.append(filters.removed("too short to split", kept.counts, parts.log.counts))
    manifest = {
        "settings": config.model_dump(mode="json"),
        "inputs": list(inputs),
        "interactions_read": counts.interactions,
        "removed": removals,
    }
    return _prepared(parts, manifest)


def _prepared(parts: splits.Parts, origin: dict[str, Any]) -> PreparedData:
    """Return prepared data whose manifest holds `origin` and what the parts tell."""
    log, validation, test = parts.log, parts.validation, parts.test
    manifest: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "versions": {"tune_srs": __version__}
        | {name: version(name) for name in ("numpy", "pandas", "pyarrow")},
        **origin,
        **statistics(log),
        "training_interactions": len(parts.training.items),
        "training_users": parts.training.num_users,
    }
    data = PreparedData(
        Split(parts.training, parts.validation_histories, validation.futures),
        test.futures,
        pd.Series(log.item_ids, name="item"),
        pd.Series(log.user_ids[validation.users], name="user"),
        pd.Series(log.user_ids[test.users], name="user"),
        manifest,
        parts.test_histories,
        before_moment=parts.before_test,
    )
    manifest |= facts_of_futures(log, validation.starts, data.validation, "validation")
    manifest |= facts_of_futures(log, test.starts, data.test, "test")
    manifest["fingerprint"] = prepared.fingerprint(prepared.arrays_of(data).values())
    return data
