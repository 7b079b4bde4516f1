"""Small sequences that several test files share."""

from typing import Any

import numpy as np

from tune_srs.config.settings import ModelConfig, TrialConfig
from tune_srs.datasets.sequences import Sequences


def sequences_of(histories: list[list[int]], futures: list[list[int]], num_items: int) -> Sequences:
    """Sequences from plain lists of items, one history and one list of futures a user."""
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    items = np.concatenate([np.array(history, dtype=np.int32) for history in histories])
    return Sequences(items, offsets, np.array(futures, dtype=np.int32), num_items)


def random_sequences(seed: int, users: int = 12, items: int = 20, futures: int = 2) -> Sequences:
    """Histories of 1 to 9 items, with repeats, and random futures."""
    random = np.random.default_rng(seed)
    histories = [
        random.integers(1, items + 1, random.integers(1, 10)).tolist() for _ in range(users)
    ]
    return sequences_of(histories, random.integers(1, items + 1, (users, futures)).tolist(), items)


def original_model(**changes: Any) -> ModelConfig:
    """SASRec's own architecture, with other sizes."""
    return TrialConfig.from_dict({"preset": "original", "model": changes}).model
