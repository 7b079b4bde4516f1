"""Masks: their share, their independence, their generator, their gradient."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from tune_srs.model.dropout import BITS, Dropout, random_words


def kept_bits(words: int, kept: int, seed: int) -> Tensor:
    """(64 words,) True where a bit is 1."""
    drawn = random_words(words, kept, torch.Generator().manual_seed(seed))
    return (drawn[:, None] >> torch.arange(64)).bitwise_and(1).view(-1) > 0


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_expectation(p: float) -> None:
    layer = Dropout(p, torch.Generator().manual_seed(0)).train()
    count = 200_001  # the last random word is used in part
    kept = layer(torch.ones(count))
    share = (kept != 0).double().mean().item()
    assert share == pytest.approx(1 - p, abs=5 * (p * (1 - p) / count) ** 0.5)
    assert kept.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)
    assert kept.max().item() == pytest.approx(1 / (1 - layer.p), rel=1e-6)


@pytest.mark.parametrize("kept", [1, 3, 2**15, 2**15 + 2**13, 2**16 - 1])
def test_any_probability_is_met(kept: int) -> None:
    bits, probability = kept_bits(2**14, kept, seed=1), kept / 2**BITS
    assert stats.binomtest(int(bits.sum()), len(bits), probability).pvalue > 1e-4


@pytest.mark.parametrize("kept", [2**15, 3 * 2**13 + 1])
@pytest.mark.parametrize("distance", [1, 7, 8, 63, 64])
def test_elements_of_a_mask_are_independent(kept: int, distance: int) -> None:
    mask = kept_bits(2**12, kept, seed=2)
    first, second = mask[:-distance], mask[distance:]
    table = [
        [int((first & second).sum()), int((first & ~second).sum())],
        [int((~first & second).sum()), int((~first & ~second).sum())],
    ]
    assert stats.chi2_contingency(table).pvalue > 1e-4


def test_dropout_is_off_at_0_and_in_evaluation() -> None:
    x = torch.arange(5.0)
    generator = torch.Generator().manual_seed(0)
    assert Dropout(0.0, generator).train()(x) is x
    assert Dropout(0.5, generator).eval()(x) is x


def test_dropout_masks_follow_the_generator_and_the_gradient_the_mask() -> None:
    def masks(seed: int) -> Tensor:
        layer = Dropout(0.5, torch.Generator().manual_seed(seed)).train()
        return torch.stack([layer(torch.ones(100)), layer(torch.ones(100))])

    assert torch.equal(masks(0), masks(0))
    assert not torch.equal(masks(0), masks(1))
    assert not torch.equal(*masks(0))

    x = torch.ones(100, requires_grad=True)
    kept = Dropout(0.5, torch.Generator().manual_seed(0)).train()(x)
    kept.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, kept.detach())


def test_words_are_what_the_mask_is_made_of() -> None:
    masks = []
    for packed in (False, True):
        layer = Dropout(0.2, torch.Generator().manual_seed(3)).train()
        if packed:
            words, scale = layer.words(10)
            bits = (torch.from_numpy(words.astype("int64"))[:, None] >> torch.arange(32)) & 1
            masks.append(bits.view(-1) * float(scale))
        else:
            masks.append(layer.mask(320, torch.device("cpu")))
    torch.testing.assert_close(masks[0], masks[1].float())


def test_without_dropout_every_word_keeps_all() -> None:
    words, scale = Dropout(0.5, torch.Generator()).eval().words(3)
    assert words.tolist() == [2**32 - 1] * 3
    assert scale == 1
