"""Noise on purpose, in training histories only: the means to test a loss's robustness.

Futures are never touched, so noisy and clean data are scored on the same interactions.
"""

from dataclasses import replace

import numpy as np

from tune_srs.config.settings import NoiseConfig
from tune_srs.datasets.histories import Histories


def add_noise(histories: Histories, noise: NoiseConfig) -> Histories:
    """Histories with accidental clicks inserted and then shares of the users merged.

    The same `noise` gives the same result.
    """
    random = np.random.default_rng(noise.seed)
    if noise.accidental:
        histories = _insert_clicks(histories, noise.accidental, random)
    if noise.shared:
        histories = _merge_users(histories, noise.shared, random)
    return histories


def _insert_clicks(histories: Histories, rate: float, random: np.random.Generator) -> Histories:
    """After each interaction, with probability `rate`, an item drawn from those that train.

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
    """`share` of the users, in pairs: both get the two histories, shuffled like cards.

    Every interaction keeps its time, so that times no longer ascend.
    """
    items, times = histories.items, histories.times
    places = np.split(np.arange(len(items)), histories.offsets[1:-1])  # of each user
    pairs = int(share * len(places)) // 2
    chosen = random.permutation(len(places))[: 2 * pairs].reshape(pairs, 2)
    for first, second in chosen:
        lengths = [len(places[first]), len(places[second])]
        turn = random.permutation(np.repeat([0, 1], lengths))
        merged = np.empty(sum(lengths), dtype=np.int64)
        merged[turn == 0], merged[turn == 1] = places[first], places[second]
        places[first] = places[second] = merged
    order = np.concatenate(places)
    return replace(
        histories,
        items=items[order],
        offsets=np.concatenate([[0], np.cumsum([len(one) for one in places])]),
        times=None if times is None else times[order],
    )
