"""Causal multi-head attention, and how rotary positions turn its queries and keys.

Shapes: B rows, L columns, T tokens of all rows, H heads, D hidden units, E = D / H. (…) is (B, L)
of padded rows, (T,) of packed ones.
"""

import torch
from torch import Tensor, nn

from tune_srs.config.settings import ModelConfig
from tune_srs.model.dropout import Dropout


class CausalAttention(nn.Module):
    """The weights of attention of a query on what stands at its place or before.

    The rows compute it, see `padded.py`: padded ones in torch, packed ones by kernels.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        units, dropout = config.hidden_units, config.attention_dropout
        self.num_heads = config.num_heads
        self.query = nn.Linear(units, units)
        self.key_value = nn.Linear(units, 2 * units)
        self.output = nn.Linear(units, units)
        self.dropout = Dropout(config.dropout if dropout is None else dropout, generator)
        self.rotary = config.positions == "rotary"
        self.fused = False  # torch's kernel, whose dropout draws from torch's global generator

    def values(self, mixed: Tensor) -> Tensor:
        """Project to values what was mixed before that: (B, H, D) → (B, D); weights sum to 1."""
        weight, bias = self.key_value.weight.chunk(2)[1], self.key_value.bias.chunk(2)[1]
        of_head = weight.view(self.num_heads, -1, weight.shape[1])  # (H, E, D)
        return torch.einsum("bhd,hed->bhe", mixed, of_head).flatten(1) + bias


def angles_of(place: Tensor, units: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine of place / base^(2 e / E) for each pair e of `units` = E: (…, E / 2) each.

    `place` is (…). Su et al., RoFormer, arXiv 2104.09864, section 3.2.
    """
    steps = torch.arange(0, units, 2, device=place.device) / units
    angle = place[..., None] * base**-steps
    return angle.cos(), angle.sin()


def turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn each pair of units of `x` (…, E): q . k then depends on how far they are apart."""
    one, other = x.chunk(2, dim=-1)
    first = torch.addcmul(one * cosine, other, sine, value=-1)
    return torch.cat([first, torch.addcmul(one * sine, other, cosine)], dim=-1)
