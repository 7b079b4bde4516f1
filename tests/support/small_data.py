"""Small histories and splits that several test files share."""

from typing import Any

import numpy as np

from tune_srs.config.settings import ModelConfig, TrialConfig
from tune_srs.datasets.histories import Histories, Split


def histories_of(lists: list[list[int]], num_items: int) -> Histories:
    """Histories from plain lists of items, one per user."""
    offsets = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return Histories(np.concatenate([np.array(one, np.int32) for one in lists]), offsets, num_items)


def split_of(lists: list[list[int]], futures: list[list[int]], num_items: int) -> Split:
    """A split from plain lists of items, one history and one list of futures per user."""
    histories = histories_of(lists, num_items)
    return Split(histories, histories, np.array(futures, dtype=np.int32))


def random_split(seed: int, users: int = 12, items: int = 20, futures: int = 2) -> Split:
    """Histories of 1 to 9 items, with repeats, and random futures."""
    random = np.random.default_rng(seed)
    lists = [random.integers(1, items + 1, random.integers(1, 10)).tolist() for _ in range(users)]
    return split_of(lists, random.integers(1, items + 1, (users, futures)).tolist(), items)


def original_model(**changes: Any) -> ModelConfig:
    """SASRec's own architecture, with other sizes."""
    return TrialConfig.from_dict({"preset": "original", "model": changes}).model
