"""Today's numbers on generated data: a change that should not move a number is held to them.

`python tests/golden/record.py` writes `record.json` again, for this machine: other processors and
other builds of torch round differently.
"""

import hashlib
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

import tune_srs as ts

RECORD = Path(__file__).parent / "record.json"
COMMAND = str(Path(sys.executable).parent / "tune-srs")
SIZE = {"data.name": "synthetic", "data.num_futures": 3, "data.synthetic.users": 60,
        "data.synthetic.items": 60, "data.synthetic.mean_length": 16, "model.hidden_units": 8,
        "model.max_length": 12, "train.batch_size": 16, "train.max_epochs": 2}  # fmt: skip
LOSSES = ("bce", "gbce", "bpr", "softmax", "sampled_softmax")
RELEVANCES = (
    "fixed", "linear", "power", "exponential", "reciprocal", "gaussian", "time", "learned",
)  # fmt: skip
ARCHITECTURES: tuple[dict[str, Any], ...] = (
    {},
    {"model.norm": "original", "model.positions": "learned", "model.scale_embedding": True,
     "model.feed_forward_factor": 1, "model.num_blocks": 2, "model.num_heads": 1,
     "model.dropout": 0.5, "model.embedding_dropout": None},
    {"model.norm": "pre", "model.gates": True, "model.activation": "swiglu",
     "model.positions": "learned", "model.num_blocks": 2},
    {"model.norm": "pre", "model.activation": "gelu", "model.positions": "sinusoidal",
     "model.item_bias": True, "model.num_heads": 2},
    {"model.norm": "post", "model.positions": "none", "model.attention_dropout": 0.3},
)  # fmt: skip
SPLITS: tuple[dict[str, Any], ...] = (
    {},
    {"data.split.kind": "users", "data.split.share": 0.2},
    {"data.split.kind": "time", "data.split.share": 0.2},
)
OTHERS: tuple[dict[str, Any], ...] = (
    {"loss.normalization": "original", "loss.relevance": "power", "loss.num_positives": 3},
    {"loss.share_negatives": True, "loss.num_negatives": 4, "loss.negative_popularity": 0.75},
    {"loss.type": "sampled_softmax", "loss.num_negatives": 8, "loss.in_batch_negatives": 0.5},
    {"loss.type": "softmax", "loss.label_smoothing": 0.1},
    {"train.embedding_update": "touched", "train.weight_decay": 0.1},
    {"train.warmup_epochs": 1.0, "train.schedule": "cosine", "train.clip_norm": 0.5},
    {"evaluation.candidates": "sampled", "evaluation.num_candidates": 20},
    {"data.noise.accidental": 0.3, "data.noise.shared": 0.1},
    {"evaluation.exclude_history": False, "evaluation.relevance": "exponential"},
    {"train.precision": "bfloat16"},
)
SPACE: dict[str, Any] = {
    "description": "a tiny search",
    "search": {"metric": "val/ndcg@10", "trials": 6,
               "scheduler": {"type": "asha", "grace_period": 1, "reduction_factor": 2}},
    "fixed": SIZE | {"train.max_epochs": 4},
    "params": {
        "train.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        "loss.num_positives": {"type": "categorical", "choices": [1, 2]},
        "loss.relevance": {"type": "categorical", "choices": ["linear", "power"],
                           "when": {"loss.num_positives": [2]}},
    },
}  # fmt: skip
STUDY: dict[str, Any] = {
    "description": "a tiny study",
    "metrics": ["test/ndcg@10", "test/next/ndcg@10"],
    "select": "val/ndcg@10",
    "seeds": 3,
    "reference": "plain",
    "datasets": {"clean": {k: v for k, v in SIZE.items() if k.startswith("data.")}},
    "fixed": {k: v for k, v in SIZE.items() if not k.startswith("data.")},
    "configurations": {
        "plain": {"fixed": {"loss.num_positives": 1}},
        "wide": {"fixed": {"loss.num_positives": 2}, "grid": {"loss.relevance": ["linear"]}},
    },
    "tune": {"dataset": "clean", "search": {"trials": 2, "scheduler": "none"},
             "params": {"train.lr": {"type": "categorical", "choices": [0.01, 0.001]}}},
}  # fmt: skip


def machine() -> str:
    """What rounding depends on."""
    processor = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return f"{processor}, torch {torch.__version__}"


def cases() -> dict[str, dict[str, Any]]:
    """Every loss with every relevance, over the architectures and splits in turn, and the rest."""
    found: dict[str, dict[str, Any]] = {}
    for row, loss in enumerate(LOSSES):
        for column, relevance in enumerate(RELEVANCES):
            number = row * len(RELEVANCES) + column
            changes: dict[str, Any] = {"train.seed": number, "loss.num_positives": 3}
            changes |= {"loss.type": loss, "loss.relevance": relevance}
            changes |= ARCHITECTURES[(row + column) % len(ARCHITECTURES)]
            changes |= SPLITS[number % len(SPLITS)]
            if loss == "sampled_softmax":
                changes["loss.num_negatives"] = 6
            found[f"{loss}, {relevance}"] = changes
    return found | {", ".join(f"{k}={v}" for k, v in one.items()): one for one in OTHERS}


def trained(changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The metrics of each epoch of a tiny training, and the hash of its weights."""
    config = ts.TrialConfig().with_overrides(SIZE | changes)
    data = ts.prepare(config.data, folder, say=lambda message: None)
    epochs = []
    for report in ts.train(config, data.validation):
        epochs.append({k: v for k, v in report.metrics.items() if not k.startswith("time/")})
        weights = report.state.model.state_dict()
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].numpy().tobytes())
    return {"epochs": epochs, "weights": digest.hexdigest()}


def command(folder: Path, *arguments: str) -> None:
    subprocess.run([COMMAND, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, without what depends on the time it took."""
    frame = pd.read_csv(path, keep_default_na=False)
    kept = [name for name in frame if name != "seconds" and not str(name).startswith("time/")]
    rows: list[dict[str, Any]] = json.loads(frame[kept].to_json(orient="records"))
    return rows


def searched(folder: Path) -> dict[str, Any]:
    """The trials of a search, a study's table, and what the winner recommends."""
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    command(folder, "search", "space.yaml", "--name", "tiny", "--at-once", "1")
    command(folder, "study", "study.yaml", "--name", "small", "--at-once", "1")
    command(folder, "export", "tiny", "--to", "model", "--refit", "all")
    found = {"trials": table(folder / "results/tiny/trials.csv"),
             "study": table(folder / "results/small/table.csv")}  # fmt: skip
    for name, model in (("best", "results/tiny/best"), ("refit", "model")):
        output = folder / f"{name}.parquet"
        histories = ("--history", "1,2,3,4", "--output", str(output), "--top-k", "5")
        command(folder, "recommend", model, *histories)
        rows = pd.read_parquet(output).to_json(orient="records", double_precision=15)
        found[name] = json.loads(rows)
    return found


def record(folder: Path) -> dict[str, Any]:
    trainings = {name: trained(one, folder) for name, one in cases().items()}
    return {"machine": machine()} | trainings | searched(folder)


def written(record: dict[str, Any]) -> str:
    """As JSON, one line per entry, so that a change shows which numbers it moved."""
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        RECORD.write_text(written(record(Path(place))))
