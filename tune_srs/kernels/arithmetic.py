"""Arithmetic that several files of kernels share: the bits of dropout, exponentials.

Numba does not see a change here when it looks for compiled code of its callers: after one, delete
`kernels/__pycache__`, as after a change in `compiled.py`.
"""

from typing import NamedTuple

import numpy as np

from tune_srs.kernels.compiled import Array, compiled

ALL = 2**16  # `Mask.kept` where nothing is dropped
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)


class Mask(NamedTuple):
    """Dropout of one call: an element is kept with chance `kept` / 2^16, times `scale`."""

    key: np.uint32
    step: np.uint32  # odd
    kept: np.uint32
    scale: np.float32


@compiled
def fill(x: Array, value: np.float32) -> None:
    """`x[:] = value`, which itself takes five times as long."""
    for i in range(len(x)):
        x[i] = value


@compiled
def draw(mask: Mask, first: int, factors: Array) -> None:
    """Write dropout's factors: `scale` with the chance to be kept, otherwise 0.

    Word n = `first` + i decides on element i and on i + half the (even) number of them, by 16 bits
    each: it is the hash lowbias32 (C. Wellons, hash-prospector) of key + n step. Where nothing is
    dropped, `factors` stay as they are.
    """
    half = len(factors) // 2
    low, high = factors[:half], factors[half:]
    if mask.kept == ALL:
        return
    start = np.uint32(np.uint32(first) * mask.step + (mask.key ^ np.uint32(first >> 32)))
    for i in range(half):
        x = np.uint32(start + np.uint32(np.uint32(i) * mask.step))
        x = np.uint32(np.uint32(x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
        x = np.uint32(np.uint32(x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))
        x = np.uint32(x ^ (x >> np.uint32(16)))
        low[i] = mask.scale if np.uint32(x & np.uint32(0xFFFF)) < mask.kept else ZERO
        high[i] = mask.scale if np.uint32(x >> np.uint32(16)) < mask.kept else ZERO


@compiled
def exponential(x: np.float32) -> np.float32:
    """e^x, right to the last digit but one, and 0 below -88.

    It is 2^k, made of the bits of its exponent, times 2^f of x / ln 2 = k + f, which is the Taylor
    series of e^(f ln 2).
    """
    x = x * np.float32(1.4426950408889634)
    x = np.float32(-127) if x < np.float32(-127) else x
    x = np.float32(127) if x > np.float32(127) else x
    whole = np.floor(x + HALF)
    f = (x - whole) * np.float32(0.6931471805599453)
    series = f * np.float32(1 / 720) + np.float32(1 / 120)
    series = series * f + np.float32(1 / 24)
    series = series * f + np.float32(1 / 6)
    series = series * f + HALF
    series = series * f + ONE
    power = np.int32((np.int32(whole) + np.int32(127)) << np.int32(23))
    return np.float32((series * f + ONE) * power.view(np.float32))


@compiled
def sigmoid(x: np.float32) -> np.float32:
    return ONE / (ONE + exponential(-x))
