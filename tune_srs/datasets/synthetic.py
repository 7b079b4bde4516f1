"""A generated interaction log with something to learn in it, to test and to try without data."""

import numpy as np
import pandas as pd

from tune_srs.config.settings import SyntheticConfig
from tune_srs.datasets.columns import COLUMNS
from tune_srs.datasets.readers.times import DAY_US

GENRES = 12


def generate(config: SyntheticConfig) -> pd.DataFrame:
    """Return interactions whose next item depends on taste, popularity and the last two items.

    Genres follow one another in a circle. Each step draws one unseen item per user from a softmax
    over: a Zipf popularity, the user's liking of the item's genre, and a bonus if that genre
    follows the one of the last item, or comes two after that of the last but one. A model that
    reads the order therefore beats popularity by far. Everyone begins on the first day of 1970 and
    takes one step per day.
    """
    random = np.random.default_rng(config.seed)
    users, items = config.users, config.items
    popularity = -0.7 * np.log(1 + random.permutation(items))
    taste = random.standard_normal((users, GENRES))
    genre = random.integers(GENRES, size=items)
    ahead = (genre[None, :] - genre[:, None]) % GENRES  # (items, items) steps along the circle

    spread = random.exponential(config.mean_length / 2, size=users)
    lengths = np.clip((config.mean_length / 2 + spread).astype(int), 1, items)
    base = (popularity + taste[:, genre]).astype(np.float32)  # (users, items)
    steps = np.zeros((users, lengths.max()), dtype=np.int64)
    everyone = np.arange(users)
    for now in range(lengths.max()):
        logits = base + random.gumbel(size=(users, items)).astype(np.float32)
        if now > 0:
            logits += 3.0 * (ahead[steps[:, now - 1]] == 1)
        if now > 1:
            logits += 2.0 * (ahead[steps[:, now - 2]] == 2)
        steps[:, now] = logits.argmax(axis=1)
        base[everyone, steps[:, now]] = -np.inf

    seen = np.arange(lengths.max()) < lengths[:, None]
    user, step = np.nonzero(seen)
    rating = np.ones(len(user), dtype=np.int64)
    return pd.DataFrame(dict(zip(COLUMNS, (user, steps[seen], rating, step * DAY_US), strict=True)))
