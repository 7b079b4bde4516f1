"""Masks: their share, their independence, their generator, their gradient."""

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from torch import Tensor

from tune_srs.kernels.arithmetic import ALL, Mask, draw
from tune_srs.kernels.sublayers import TOKENS
from tune_srs.model.dropout import BITS, Dropout
from tune_srs.model.packed import _Embed, mask_of

Bits = npt.NDArray[np.bool_]


def mask_with(kept: int, key: int = 123_456_789, step: int = 987_654_321) -> Mask:
    return Mask(np.uint32(key), np.uint32(step), np.uint32(kept), np.float32(2))


def bits_of(mask: Mask, count: int = 2**16, first: int = 0) -> Bits:
    """(count,) True where an element is kept."""
    factors = np.full(count, np.nan, np.float32)
    draw(mask, first, factors)
    assert set(factors.tolist()) <= {0, 2}
    return factors > 0


def assert_independent(first: Bits, second: Bits) -> None:
    table = [
        [np.sum(first & second), np.sum(first & ~second)],
        [np.sum(~first & second), np.sum(~first & ~second)],
    ]
    assert stats.chi2_contingency(table).pvalue > 1e-4


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_expectation(p: float) -> None:
    layer = Dropout(p, torch.Generator().manual_seed(0)).train()
    count = 200_001
    kept = layer(torch.ones(count))
    share = (kept != 0).double().mean().item()
    assert share == pytest.approx(1 - p, abs=5 * (p * (1 - p) / count) ** 0.5)
    assert kept.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)
    assert kept.max().item() == pytest.approx(1 / (1 - layer.p), rel=1e-6)


@pytest.mark.parametrize("kept", [1, 3, 2**15, 2**15 + 2**13, 2**16 - 1])
def test_any_probability_is_met(kept: int) -> None:
    bits = bits_of(mask_with(kept), 2**20)
    assert stats.binomtest(int(bits.sum()), len(bits), kept / 2**BITS).pvalue > 1e-4


@pytest.mark.parametrize("kept", [2**15, 3 * 2**13 + 1, 58_982])
@pytest.mark.parametrize("distance", [1, 2, 7, 8, 16, 64, 2**15, 2**15 + 1])
def test_elements_of_a_mask_are_independent(kept: int, distance: int) -> None:
    bits = bits_of(mask_with(kept))
    assert_independent(bits[:-distance], bits[distance:])


@pytest.mark.parametrize("units", [1, 50, 128])
def test_tokens_and_units_are_independent(units: int) -> None:
    """As the kernels draw them: both halves of a word, of tokens that stand near each other."""
    tokens, ones = 2**13, torch.ones(2**13, units)
    layer = Dropout(0.5, torch.Generator().manual_seed(1)).train()
    where = torch.stack([torch.arange(tokens), torch.arange(tokens)])
    kept = _Embed.apply(mask_of(layer), 1.0, where, ones, ones[:0])  # type: ignore[no-untyped-call]
    bits = kept.numpy() > 0  # (T, D)
    for distance in (1, 2, TOKENS // 2, TOKENS, 64):
        assert_independent(bits[:-distance], bits[distance:])
    deviations = (bits.mean(axis=0) - 0.5) * 2 * tokens**0.5
    assert np.abs(deviations).max() < 5
    if units > 1:
        assert_independent(bits[:, : units // 2], bits[:, -(units // 2) :])
        assert_independent(bits[:-1, 1:], bits[1:, :-1])


@pytest.mark.parametrize("bit", [1, 2, 8, 15, 16])
def test_masks_are_independent_if_one_bit_of_the_step_differs(bit: int) -> None:
    step = 987_654_321
    first, second = (bits_of(mask_with(2**15, 5, one)) for one in (step, step ^ 1 << bit))
    for shift in (1, 2, 64):  # nor is one the other, moved; they share the first word
        assert_independent(first[shift:], second[shift:])
        assert_independent(first[shift:], second[:-shift])


def test_masks_of_successive_calls_are_independent() -> None:
    layer = Dropout(0.3, torch.Generator().manual_seed(0)).train()
    masks = [bits_of(mask_of(layer)._replace(scale=np.float32(2))) for _ in range(5)]
    for first, second in combinations(masks, 2):
        assert_independent(first, second)


def test_bytes_of_a_mask_are_evenly_spread() -> None:
    values = np.packbits(bits_of(mask_with(2**15), 2**20))
    assert stats.chisquare(np.bincount(values, minlength=256)).pvalue > 1e-4


def test_a_long_mask_goes_on_beyond_words_of_32_bits() -> None:
    mask = mask_with(2**15)
    assert_independent(bits_of(mask, first=0), bits_of(mask, first=2**32))


def test_where_nothing_is_dropped_factors_stay() -> None:
    factors = np.ones(6, np.float32)
    draw(mask_with(ALL), 0, factors)
    assert factors.tolist() == [1] * 6
    generator = torch.Generator().manual_seed(0)
    for layer in (None, Dropout(0.0, generator).train(), Dropout(0.5, generator).eval()):
        assert mask_of(layer).kept == ALL
        assert mask_of(layer).scale == 1


def test_dropout_is_off_at_0_and_in_evaluation() -> None:
    x = torch.arange(5.0)
    generator = torch.Generator().manual_seed(0)
    assert Dropout(0.0, generator).train()(x) is x
    assert Dropout(0.5, generator).eval()(x) is x


@pytest.mark.parametrize("draws", [lambda layer: layer(torch.ones(100)).tolist(), mask_of])
def test_masks_follow_the_generator(draws: Callable[[Dropout], Any]) -> None:
    def masks(seed: int) -> tuple[Any, Any]:
        layer = Dropout(0.5, torch.Generator().manual_seed(seed)).train()
        return draws(layer), draws(layer)

    assert masks(0) == masks(0)
    assert masks(0) != masks(1)
    first, second = masks(0)
    assert first != second


def test_the_gradient_has_the_mask() -> None:
    x = torch.ones(100, requires_grad=True)
    kept: Tensor = Dropout(0.5, torch.Generator().manual_seed(0)).train()(x)
    kept.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, kept.detach())
