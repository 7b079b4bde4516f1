"""A generated interaction log with something to learn in it, for tests and offline trials."""

import numpy as np
import pandas as pd

from tune_srs.config import SyntheticConfig
from tune_srs.datasets.formats import COLUMNS

GENRES = 8
SUCCESSORS = 4


def generate(config: SyntheticConfig) -> pd.DataFrame:
    """Interactions whose next item depends on taste, popularity and the last two items.

    Each step draws one unseen item a user from a softmax over: a Zipf popularity, the user's
    liking of its genre, and a bonus for the few successors of the last and the last but one item.
    A model that reads the order therefore beats popularity by far, and a first-order one by some.
    """
    random = np.random.default_rng(config.seed)
    users, items = config.users, config.items
    popularity = -0.6 * np.log(1 + random.permutation(items))
    taste = 0.8 * random.standard_normal((users, GENRES))
    genre = random.integers(GENRES, size=items)
    successors = random.integers(items, size=(items, SUCCESSORS))
    bonus = np.zeros((items, items), dtype=np.float32)
    bonus[np.arange(items)[:, None], successors] = 1.0

    spread = random.exponential(config.mean_length / 2, size=users)
    lengths = np.clip((config.mean_length / 2 + spread).astype(int), 1, items)
    base = (popularity + taste[:, genre]).astype(np.float32)  # (users, items)
    steps = np.zeros((users, lengths.max()), dtype=np.int64)
    everyone = np.arange(users)
    for now in range(lengths.max()):
        logits = base + random.gumbel(size=(users, items)).astype(np.float32)
        if now > 0:
            logits += 4.0 * bonus[steps[:, now - 1]]
        if now > 1:
            logits += 3.0 * bonus[steps[:, now - 2]]
        steps[:, now] = logits.argmax(axis=1)
        base[everyone, steps[:, now]] = -np.inf

    seen = np.arange(lengths.max()) < lengths[:, None]
    user, step = np.nonzero(seen)
    rating = np.ones(len(user), dtype=np.int64)
    return pd.DataFrame(dict(zip(COLUMNS, (user, steps[seen], rating, step), strict=True)))
