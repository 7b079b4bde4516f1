"""Presets, sets of settings with a name: `preset: NAME`, which other settings then change."""

from typing import Any

from tune_srs.config.validation import nearest
from tune_srs.errors import ConfigError

PRESETS: dict[str, dict[str, Any]] = {
    "original": {  # SASRec, arXiv 1808.09781
        "model.hidden_units": 50,
        "model.num_blocks": 2,
        "model.num_heads": 1,
        "model.dropout": 0.5,
        "model.embedding_dropout": None,
        "model.attention_dropout": None,
        "model.norm": "original",
        "model.gates": False,
        "model.activation": "relu",
        "model.feed_forward_factor": 1,
        "model.positions": "learned",
        "model.scale_embedding": True,
        "model.item_bias": False,
        "loss.type": "bce",
        "train.batch_size": 128,
        "train.lr": 1e-3,
        "train.warmup_epochs": 0.0,
        "train.schedule": "constant",
        "train.weight_decay": 0.0,
        "train.clip_norm": None,
    },
    "esasrec": {  # arXiv 2508.06450: LiGR's layers and sampled softmax
        "model.norm": "pre",
        "model.gates": True,
        "model.activation": "swiglu",
        "model.feed_forward_factor": 4,
        "model.positions": "learned",
        "model.scale_embedding": False,
        "model.item_bias": False,
        "loss.type": "sampled_softmax",  # with 256 negatives, its default
    },
}


PRESET = "preset"


def preset(name: Any, source: str) -> dict[str, Any]:
    """Return the settings of a preset by dotted name; a `ConfigError` if there is none."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ConfigError(f"{source}: unknown preset {name}{nearest(str(name), PRESETS)}")
    return PRESETS[name]
