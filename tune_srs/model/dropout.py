"""Dropout whose masks come from one generator and cost few random bits."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

BITS = 16  # binary digits of the probability
OF_BYTE = ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).float()  # (256, 8) a byte's bits


def random_words(count: int, kept: int, generator: torch.Generator) -> Tensor:
    """(count,) int64 words of 64 independent bits on the CPU, each 1 with chance kept / 2^BITS.

    A word of fair bits is drawn for each binary digit of the chance, the last digit first: "or"
    takes it half the way to 1, "and" half the way to 0. Zeros at the end need no word: a chance of
    1/2 costs one bit an element, the most it can cost is `BITS`.
    """
    digits = f"{kept:0{BITS}b}".rstrip("0")
    drawn = torch.empty((len(digits), count), dtype=torch.int64)
    drawn.random_(-(2**63), None, generator=generator)
    words = drawn[0]  # the last digit left is a 1: one half
    for digit, word in zip(digits[-2::-1], drawn[1:], strict=True):
        words = words | word if digit == "1" else words & word
    return words


class Dropout(nn.Module):
    """Inverted dropout. The probability is rounded to a multiple of 2^-16 and the scale uses the

    rounded one, so the expectation is exact.
    """

    def __init__(self, p: float, generator: torch.Generator) -> None:
        super().__init__()
        self.kept = max(1, round((1 - p) * 2**BITS))  # of 2^BITS equally likely draws
        self.p = 1 - self.kept / 2**BITS
        self.scale = 2**BITS / self.kept  # of what is kept
        self.generator = generator

    @property
    def drops(self) -> bool:
        return self.training and self.p > 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.drops:
            return x
        return x * self.mask(x.numel(), x.device).view(x.shape).to(x.dtype)

    def mask(self, size: int, device: torch.device) -> Tensor:
        """(size,) independent factors: `scale` with the chance to be kept, otherwise 0."""
        if device.type != "cpu":
            mask = torch.empty(size, device=device)
            return mask.bernoulli_(1 - self.p, generator=self.generator).mul_(self.scale)
        words = random_words((size + 63) // 64, self.kept, self.generator)
        by_byte = words.view(torch.uint8).int()
        bits: Tensor = (OF_BYTE * self.scale).index_select(0, by_byte)  # (bytes, 8)
        return bits.view(-1)[:size]

    def words(self, count: int) -> tuple[npt.NDArray[np.uint32], np.float32]:
        """`count` words of 32 bits, 1 where an element is kept, and the factor of what is kept."""
        if not self.drops:
            return np.full(count, 2**32 - 1, np.uint32), np.float32(1)
        words = random_words((count + 1) // 2, self.kept, self.generator)
        return words.numpy().view(np.uint32)[:count], np.float32(self.scale)
