"""An exported model: a folder that describes itself, without Ray and without pickle."""

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tune_srs import __version__
from tune_srs.config import TrialConfig
from tune_srs.datasets.sequences import PreparedData
from tune_srs.errors import DataError
from tune_srs.model import SASRec

README = """# An exported SASRec model

Written by tune_srs {version}, the winner of the search `{name}`.

- `config.yaml`: its complete configuration; `tune-srs train config.yaml` trains it again.
- `model.safetensors`: its weights, of epoch {epoch}, the best on the validation futures.
- `items.parquet`: the original id of each item; row i is item i + 1 of the model, 0 is padding.
- `metrics.json`: validation and test metrics, and those of the baselines on the same split.

Trained on `{data}` ({users} users, {items} items, {interactions} interactions; fingerprint
`{fingerprint}`),
{split}.
"""
SPLITS = {
    "last": "without the last {test} interactions of each user, which are the test, and the "
    "{validation} before\nthem, which are the validation",
    "users": "without the users that validate and those that test, a share of {share} each",
    "time": "up to the moment before the validation; validation and test have a share of {share} "
    "each\nof all interactions",
}


def write(
    folder: Path,
    name: str,
    config: TrialConfig,
    weights: dict[str, Tensor],
    data: PreparedData,
    metrics: dict[str, Any],
) -> None:
    """Write the export of the run `name` aside, then rename it to `folder`, which must not exist.

    `metrics`: what `metrics.json` is to hold, `epoch` among it.
    """
    with tempfile.TemporaryDirectory(prefix=".aside-", dir=folder.parent) as parent:
        aside = Path(parent) / folder.name
        aside.mkdir()
        config.to_yaml(aside / "config.yaml")
        save_file(weights, aside / "model.safetensors")
        data.item_ids.to_frame().to_parquet(aside / "items.parquet")
        (aside / "metrics.json").write_text(json.dumps(metrics, indent=2), encoding="utf-8")
        manifest = data.manifest
        text = README.format(
            version=__version__,
            name=name,
            epoch=metrics["epoch"],
            data=config.data.name,
            split=SPLITS[config.data.split.kind].format(
                test=config.data.num_futures,
                validation=config.data.validation_futures,
                share=config.data.split.share,
            ),
            **{key: manifest[key] for key in ("users", "items", "interactions", "fingerprint")},
        )
        (aside / "README.md").write_text(text, encoding="utf-8")
        aside.rename(folder)


def load_model(folder: Path) -> tuple[TrialConfig, SASRec]:
    """The configuration and the model of an export, on the CPU, ready to score."""
    config = TrialConfig.from_yaml(folder / "config.yaml")
    try:
        weights = load_file(folder / "model.safetensors")
        num_items = len(weights["items.weight"]) - 1
        model = SASRec(config.model, num_items, torch.Generator())
        model.load_state_dict(weights)
    except (OSError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{folder}: not a usable exported model: {reason}") from error
    return config, model.eval()
