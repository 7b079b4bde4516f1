"""SASRec: self-attention over a user's history, scored against the item embeddings.

Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018 (arXiv 1808.09781), and what
later work changed in its parts: see `ModelConfig`.

Sequences are aligned left: what is padding follows the last item, where under the causal mask no
item attends to it. Positions count back from the end: the item a prediction starts from has the
same position whatever the length, as in the original.

The same numbers come in three ways: in torch on padded rows, on any device; on the CPU on rows
without padding, with attention by a compiled kernel (`packed_attention.py`); and, for the original
architecture, wholly by compiled kernels (`packed.py`), which is quicker still.

Shapes: B rows, L columns, T tokens of all rows without padding, D hidden units, I items. (…) is
(B, L) of padded rows, (T,) of packed ones.
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from tune_srs.config.presets import PRESETS
from tune_srs.config.settings import ModelConfig
from tune_srs.model.attention import CausalAttention, turns_of
from tune_srs.model.dropout import Dropout

if TYPE_CHECKING:
    from tune_srs.model.packed import PackedEncoder

EPSILON = 1e-8  # of the layer norms, as in the original
MAX_ROWS = 32  # encoded at once where nothing is trained


class SwiGLU(nn.Module):
    """swish(first half) times second half (Shazeer 2020, arXiv 2002.05202): (…, 2 D) → (…, D)."""

    def forward(self, x: Tensor) -> Tensor:
        gate, value = x.chunk(2, dim=-1)
        return functional.silu(gate) * value


ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "swiglu": SwiGLU}


class Gate(nn.Module):
    """What a sublayer adds times sigmoid(W x + b) of what entered it, as in LiGR

    (Borisyuk et al. 2025, arXiv 2502.03417; in sequential models: eSASRec, arXiv 2508.06450).
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.linear = nn.Linear(units, units)

    def forward(self, x: Tensor, added: Tensor) -> Tensor:
        return torch.sigmoid(self.linear(x)) * added


class Block(nn.Module):
    """Attention and a point-wise feed-forward, each with its residual and layer norm.

    With f a sublayer and n its norm: `pre` x + f(n(x)); `post` n(x + f(x)); `original`, of SASRec,
    n(x) + f(n(x)), where attention has only its query normed.
    """

    def __init__(self, config: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        units = config.hidden_units
        inner = units * config.feed_forward_factor
        self.norm = config.norm
        self.attention_norm = nn.LayerNorm(units, eps=EPSILON)
        self.attention = CausalAttention(config, generator)
        self.feed_forward_norm = nn.LayerNorm(units, eps=EPSILON)
        self.feed_forward = nn.Sequential(
            nn.Linear(units, 2 * inner if config.activation == "swiglu" else inner),
            ACTIVATIONS[config.activation](),
            Dropout(config.dropout, generator),
            nn.Linear(inner, units),
            Dropout(config.dropout, generator),
        )
        self.gates = nn.ModuleList(Gate(units) for _ in range(2 if config.gates else 0))

    def forward(
        self,
        x: Tensor,
        offsets: Tensor | None = None,
        turns: tuple[Tensor, Tensor] | None = None,
        last: Tensor | None = None,
    ) -> Tensor:
        """(…, D) → (…, D), or (B, D) with `last`; the others as in `CausalAttention`, too."""
        normed = x if self.norm == "post" else self.attention_norm(x)
        seen = normed if self.norm == "pre" else x
        if last is None:
            attended = self.attention(normed, seen, offsets, turns)
        else:
            assert offsets is not None
            x, normed = x[last], normed[last]
            attended = self.attention.last(normed, seen, offsets, turns)
        x = self._added(0, normed, x, attended)
        if self.norm == "post":
            x = self.attention_norm(x)
        normed = x if self.norm == "post" else self.feed_forward_norm(x)
        x = self._added(1, normed, x, self.feed_forward(normed))
        return self.feed_forward_norm(x) if self.norm == "post" else x

    def _added(self, sublayer: int, normed: Tensor, x: Tensor, result: Tensor) -> Tensor:
        """The sublayer's residual."""
        if self.gates:
            result = self.gates[sublayer](x, result)
        return (normed if self.norm == "original" else x) + result


class Sinusoids(nn.Module):
    """Sines and cosines of a position in place of a learned embedding

    (Vaswani et al. 2017, arXiv 1706.03762, section 3.5): (…) → (…, D).
    """

    def __init__(self, max_length: int, units: int) -> None:
        super().__init__()
        cosine, sine = turns_of(torch.arange(max_length), units)
        table = torch.cat([sine, cosine], dim=-1)[:, 0, :units]
        self.register_buffer("table", table, persistent=False)

    def forward(self, place: Tensor) -> Tensor:
        found: Tensor = self.get_buffer("table")[place]
        return found


# of rotary ones, attention turns its queries and keys instead
POSITIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "learned": nn.Embedding,
    "sinusoidal": Sinusoids,
}


class SASRec(nn.Module):
    """The model. `generator` (CPU) draws the initial weights, and the dropout masks of a model

    that stays on the CPU.
    """

    def __init__(self, config: ModelConfig, num_items: int, generator: torch.Generator) -> None:
        super().__init__()
        units, dropout = config.hidden_units, config.embedding_dropout
        self.config = config
        self.max_length = config.max_length
        self.num_items = num_items
        self.items = nn.Embedding(num_items + 1, units, padding_idx=0)
        self.item_bias = nn.Parameter(torch.zeros(num_items + 1)) if config.item_bias else None
        positions = POSITIONS.get(config.positions)
        self.positions = positions and positions(config.max_length, units)
        self.dropout = Dropout(config.dropout if dropout is None else dropout, generator)
        self.blocks = nn.ModuleList(Block(config, generator) for _ in range(config.num_blocks))
        post = config.norm == "post"  # whose last block has been normed
        self.norm = nn.Identity() if post else nn.LayerNorm(units, eps=EPSILON)
        self._initialise(generator)

    def _initialise(self, generator: torch.Generator) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        with torch.no_grad():
            self.items.weight[0] = 0

    def draw_dropout_from(self, generator: torch.Generator) -> None:
        """Draw the masks from `generator`, which must be on the device of the model."""
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator

    def fuse_attention(self) -> None:
        """Use torch's attention kernels; their dropout draws from torch's global generator."""
        for module in self.modules():
            if isinstance(module, CausalAttention):
                module.fused = True

    @cached_property
    def packed(self) -> "PackedEncoder | None":
        """The original encoder by compiled kernels, on the CPU; None of another architecture."""
        if not is_original(self.config):
            return None
        from tune_srs.model.packed import PackedEncoder  # here: training on a GPU needs no Numba

        return PackedEncoder()

    def place(self, following: Tensor) -> Tensor:
        """The position of an item which is the first of `following` items to be predicted, >= 1.

        1 at the last item of a row, at most `max_length`; at padding, 0, anything.
        """
        return (self.max_length - following).clamp(max=self.max_length - 1)

    def encode(
        self,
        embedded: Tensor,
        following: Tensor,
        offsets: Tensor | None = None,
        last: Tensor | None = None,
    ) -> Tensor:
        """Features that predict what follows each item: (…, D).

        `embedded` (…, D) item embeddings, `following` (…) as in `place`; what stands at padding is
        meaningless. Packed rows begin at `offsets` (B + 1,). With `last` (B,), the last tokens of
        packed rows, what follows these alone: (B, D).
        """
        place = self.place(following)
        if self.config.scale_embedding:
            embedded = embedded * math.sqrt(embedded.shape[-1])
        if self.positions is not None:
            embedded = embedded + self.positions(place)
        x = self.dropout(embedded)
        turns = None
        if self.config.positions == "rotary":
            turns = turns_of(place, self.config.hidden_units // self.config.num_heads)
        *before, top = self.blocks
        for block in before:
            x = block(x, offsets, turns)
        x = top(x, offsets, turns, last)
        features: Tensor = self.norm(x)
        return features

    def encode_packed(
        self, table: Tensor, items: Tensor, following: Tensor, offsets: Tensor
    ) -> Tensor:
        """`encode` for packed rows on the CPU: `items` (T,) rows of the `table` (I, D) → (T, D)."""
        if self.packed is not None:
            return self.packed(self, table, items, following, offsets)
        return self.encode(functional.embedding(items, table), following, offsets)

    def queries(self, items: Tensor, lengths: Tensor) -> Tensor:
        """Histories as what items are scored against: `items` (B, L), `lengths` (B,) → (B, D).

        Without gradients and dropout on the CPU padding is left out.
        """
        if items.device.type == "cpu" and not (self.training or torch.is_grad_enabled()):
            if self.packed is not None:
                return self.packed.last(self, items, lengths)
            parts = (torch.split(tensor, MAX_ROWS) for tensor in (items, lengths))
            return torch.cat([self._packed_queries(*chunk) for chunk in zip(*parts, strict=True)])
        features = self.encode(self.items(items), _following(items, lengths).clamp(min=0))
        return features[torch.arange(len(items), device=items.device), lengths - 1]

    def _packed_queries(self, items: Tensor, lengths: Tensor) -> Tensor:
        """`queries` of rows without their padding."""
        following = _following(items, lengths)
        token, ends = following > 0, lengths.cumsum(0)
        offsets = torch.cat([ends.new_zeros(1), ends])
        return self.encode(self.items(items[token]), following[token], offsets, ends - 1)

    def scores(self, queries: Tensor, items: slice) -> Tensor:
        """Scores of `items` as the next one: `queries` (B, D) → (B, number of items)."""
        scores: Tensor = queries @ self.items.weight[items].T
        return scores if self.item_bias is None else scores + self.item_bias[items]

    def scoring(self, features: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """`features` (T, D) and the items' `table` (I, D) such that their products are the scores.

        With a bias it is one more column, and 1 one more feature.
        """
        if self.item_bias is None:
            return features, table
        ones = features.new_ones(len(features), 1)
        return torch.cat([features, ones], 1), torch.cat([table, self.item_bias[:, None]], 1)


def _following(items: Tensor, lengths: Tensor) -> Tensor:
    """(B, L) how many items follow each of a row, itself among them, at most 0 behind its end."""
    return lengths[:, None] - torch.arange(items.shape[1], device=items.device)


def is_original(config: ModelConfig) -> bool:
    """Whether the encoder is SASRec's own: what the kernels of `packed.py` compute."""
    dropouts = {config.embedding_dropout, config.attention_dropout} - {None, config.dropout}
    parts = {f"model.{name}" for name in ("norm", "gates", "activation", "feed_forward_factor")}
    parts |= {"model.positions", "model.scale_embedding"}
    wanted = {key.removeprefix("model."): PRESETS["original"][key] for key in parts}
    return not dropouts and config.model_dump(include=set(wanted)) == wanted
