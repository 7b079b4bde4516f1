"""Noise on purpose, in training histories only, to test how robust a loss is.

Futures never change, so that noisy and clean data are scored on the same interactions.
"""

from dataclasses import replace

import numpy as np

from tune_srs.config.settings import NoiseConfig
from tune_srs.datasets.histories import Histories


def add_noise(histories: Histories, noise: NoiseConfig) -> Histories:
    """Return histories with accidental clicks inserted and then some users merged.

    The same `noise` gives the same result.
    """
    random = np.random.default_rng(noise.seed)
    if noise.accidental:
        histories = _insert_clicks(histories, noise.accidental, random)
    if noise.shared:
        histories = _merge_users(histories, noise.shared, random)
    return histories


def _insert_clicks(histories: Histories, rate: float, random: np.random.Generator) -> Histories:
    """Insert, with probability `rate` after each interaction, an item drawn from those that train.

    It has the time of the interaction that it follows.
    """
    items, times = histories.items, histories.times
    hit = random.random(len(items)) < rate
    clicks = random.choice(np.unique(items), size=int(hit.sum()))
    grown = np.insert(items, np.flatnonzero(hit) + 1, clicks).astype(np.int32)
    inserted_before = np.concatenate([[0], np.cumsum(hit)])
    return replace(
        histories,
        items=grown,
        offsets=histories.offsets + inserted_before[histories.offsets],
        times=None if times is None else np.repeat(times, 1 + hit),
    )


def _merge_users(histories: Histories, share: float, random: np.random.Generator) -> Histories:
    """Merge `share` of the users in pairs: both get the two histories, interleaved at random.

    Every interaction keeps its time, so that times no longer ascend.
    """
    items, times = histories.items, histories.times
    positions = np.split(np.arange(len(items)), histories.offsets[1:-1])  # of each user
    pairs = int(share * len(positions)) // 2
    chosen = random.permutation(len(positions))[: 2 * pairs].reshape(pairs, 2)
    for first, second in chosen:
        lengths = [len(positions[first]), len(positions[second])]
        turn = random.permutation(np.repeat([0, 1], lengths))
        merged = np.empty(sum(lengths), dtype=np.int64)
        merged[turn == 0], merged[turn == 1] = positions[first], positions[second]
        positions[first] = positions[second] = merged
    order = np.concatenate(positions)
    return replace(
        histories,
        items=items[order],
        offsets=np.concatenate([[0], np.cumsum([len(one) for one in positions])]),
        times=None if times is None else times[order],
    )
