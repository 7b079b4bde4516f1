"""Dropout whose masks come from one generator and cost few random bits."""

import torch
from torch import Tensor, nn

BITS = 16  # binary digits of the probability
OF_BYTE = ((torch.arange(256)[:, None] >> torch.arange(8)) & 1).float()  # (256, 8) a byte's bits


def keep_mask(size: int, kept: int, generator: torch.Generator) -> Tensor:
    """(size,) independent draws: 2^BITS / kept with probability kept / 2^BITS, otherwise 0.

    On the CPU 64 elements share one word of random bits for each binary digit of the probability,
    the last digit first: "or" takes it half the way to 1, "and" half the way to 0. Zeros at the end
    need no word: a probability of 1/2 costs one bit an element, the most it can cost is `BITS`.
    """
    scale = 2**BITS / kept
    if generator.device.type != "cpu":
        mask = torch.empty(size, device=generator.device)
        mask.bernoulli_(1 / scale, generator=generator)
        return mask.mul_(scale)
    digits = f"{kept:0{BITS}b}".rstrip("0")
    words = torch.empty((len(digits), (size + 63) // 64), dtype=torch.int64)
    words.random_(-(2**63), None, generator=generator)
    mask = words[0]  # the last digit left is a 1: one half
    for digit, word in zip(digits[-2::-1], words[1:], strict=True):
        mask = mask | word if digit == "1" else mask & word
    bits: Tensor = (OF_BYTE * scale).index_select(0, mask.view(torch.uint8).int())  # (bytes, 8)
    return bits.view(-1)[:size]


class Dropout(nn.Module):
    """Inverted dropout. The probability is rounded to a multiple of 2^-16 and the scale uses the

    rounded one, so the expectation is exact.
    """

    def __init__(self, p: float, generator: torch.Generator) -> None:
        super().__init__()
        self.kept = max(1, round((1 - p) * 2**BITS))  # of 2^BITS equally likely draws
        self.p = 1 - self.kept / 2**BITS
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        mask = keep_mask(x.numel(), self.kept, self.generator)
        return x * mask.view(x.shape).to(x.dtype)
