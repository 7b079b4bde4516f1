"""Noise on purpose, in training histories only: the means to test a loss's robustness.

Futures are never touched, so noisy and clean data are scored on the same interactions.
"""

import numpy as np

from tune_srs.config import NoiseConfig
from tune_srs.datasets.sequences import Items, Offsets


def add_noise(items: Items, offsets: Offsets, noise: NoiseConfig) -> tuple[Items, Offsets]:
    """Flat histories with accidental clicks inserted and then shares of the users merged.

    `items` (T,) and `offsets` (U + 1,) as in `Sequences`; the same `noise` gives the same result.
    """
    random = np.random.default_rng(noise.seed)
    if noise.accidental:
        items, offsets = _insert_clicks(items, offsets, noise.accidental, random)
    if noise.shared:
        items, offsets = _merge_users(items, offsets, noise.shared, random)
    return items, offsets


def _insert_clicks(
    items: Items, offsets: Offsets, rate: float, random: np.random.Generator
) -> tuple[Items, Offsets]:
    """After each interaction, with probability `rate`, an item drawn from those that train."""
    hit = random.random(len(items)) < rate
    clicks = random.choice(np.unique(items), size=int(hit.sum()))
    grown = np.insert(items, np.flatnonzero(hit) + 1, clicks).astype(np.int32)
    inserted_before = np.concatenate([[0], np.cumsum(hit)])
    return grown, offsets + inserted_before[offsets]


def _merge_users(
    items: Items, offsets: Offsets, share: float, random: np.random.Generator
) -> tuple[Items, Offsets]:
    """`share` of the users, in pairs: both get the two histories, shuffled like cards."""
    histories = np.split(items, offsets[1:-1])
    pairs = int(share * len(histories)) // 2
    chosen = random.permutation(len(histories))[: 2 * pairs].reshape(pairs, 2)
    for first, second in chosen:
        lengths = [len(histories[first]), len(histories[second])]
        turn = random.permutation(np.repeat([0, 1], lengths))
        merged = np.empty(sum(lengths), dtype=np.int32)
        merged[turn == 0], merged[turn == 1] = histories[first], histories[second]
        histories[first] = histories[second] = merged
    merged_offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
    return np.concatenate(histories), merged_offsets
