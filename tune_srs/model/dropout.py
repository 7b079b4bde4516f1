"""Dropout whose masks come from one generator.

On padded rows `forward` draws a mask. On packed rows a kernel derives the mask from `key`. Torch's
fused attention draws its own, from torch's global generator, which each epoch seeds.
"""

import torch
from torch import Tensor, nn

BITS = 16  # binary digits of the probability


class Dropout(nn.Module):
    """Inverted dropout with exact expectation.

    The probability is rounded to a multiple of 2^-16, and the scale uses the rounded one.
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
        mask = torch.empty(x.shape, device=x.device)
        mask.bernoulli_(1 - self.p, generator=self.generator).mul_(self.scale)
        return x * mask.to(x.dtype)

    def key(self) -> int:
        """Return 64 random bits, from which a kernel derives the mask of one call."""
        return int(torch.empty((), dtype=torch.int64).random_(generator=self.generator))
