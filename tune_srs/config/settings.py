"""The settings of one trial: typed, frozen, validated; in YAML and with dotted overrides.

`TrialConfig` is everything that decides the outcome of a training run, so that one written file
repeats it. Anything wrong is a `ConfigError` that lists every fault at once.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    StrictInt,
    model_validator,
)

from tune_srs.config.data import DataConfig
from tune_srs.config.presets import PRESET, preset
from tune_srs.config.validation import Seed, Settings, dotted_keys, unknown_keys, validated
from tune_srs.config.yaml import dump_yaml, read_yaml

Position = Literal["fixed", "linear", "power", "exponential", "reciprocal", "gaussian"]


RelevanceName = Literal[
    "fixed", "linear", "power", "exponential", "reciprocal", "gaussian", "time", "learned"
]


class ModelConfig(Settings):
    """SASRec's shape. The defaults won a search on MovieLens 100K, see docs/findings.md."""

    max_length: int = Field(
        200,
        ge=1,
        le=100_000,
        description="maximum number of items of a history that the model sees",
    )
    hidden_units: int = Field(128, ge=1, description="D: width of embeddings and blocks")
    num_blocks: int = Field(
        1, ge=1, le=1000, description="number of blocks of attention and feed-forward"
    )
    num_heads: int = Field(
        4, ge=1, description="attention heads; they must divide the hidden units"
    )
    norm: Literal["original", "pre", "post"] = Field(
        "post",
        description="where layers are normed. original: the residual starts from the normed query; "
        "pre: the input of a sublayer; post: the sum with the residual",
    )
    gates: bool = Field(
        False, description="a learned gate on the output of each sublayer, as in LiGR"
    )
    activation: Literal["relu", "gelu", "swiglu"] = Field(
        "relu", description="activation of the feed-forward"
    )
    feed_forward_factor: int = Field(
        2, ge=1, description="inner units of the feed-forward, in multiples of the hidden units"
    )
    positions: Literal["learned", "sinusoidal", "rotary", "none"] = Field(
        "rotary", description="how positions are encoded; rotary: by turning queries and keys"
    )
    scale_embedding: bool = Field(
        False, description="multiply item embeddings by the root of the units"
    )
    item_bias: bool = Field(False, description="add a learned bias to each item's score")
    dropout: float = Field(
        0.1, ge=0, lt=1, description="dropout of the feed-forward, and where no other is set"
    )
    embedding_dropout: float | None = Field(
        0.5, ge=0, lt=1, description="dropout of the embeddings; None: the same as dropout"
    )
    attention_dropout: float | None = Field(
        None, ge=0, lt=1, description="dropout of the attention weights; None: the same as dropout"
    )

    @model_validator(mode="after")
    def _heads_divide_the_units(self) -> Self:
        if self.hidden_units % self.num_heads:
            raise ValueError(
                f"hidden_units must be a multiple of num_heads, but got "
                f"hidden_units={self.hidden_units}, num_heads={self.num_heads}"
            )
        if self.positions == "rotary" and self.hidden_units // self.num_heads % 2:
            raise ValueError(
                f"positions rotary turns pairs: hidden_units / num_heads must be even, but got "
                f"hidden_units={self.hidden_units}, num_heads={self.num_heads}"
            )
        return self


class LossConfig(Settings):
    """The training loss; its positives are weighted by relevance. See docs/losses.md."""

    type: Literal["bce", "gbce", "bpr", "softmax", "sampled_softmax"] = Field(
        "bce", description="the loss, see docs/losses.md"
    )
    num_positives: int = Field(1, ge=1, description="P: the next P items of a position")
    num_negatives: int | None = Field(
        None,
        ge=1,
        description="N: items drawn per position; None: as many as P, and 256 for sampled_softmax",
    )
    negatives_from: Literal["unseen", "catalogue"] | None = Field(
        None,
        description="unseen: negatives are outside the user's history; catalogue: they are any "
        "item; None: unseen, and catalogue for sampled_softmax",
    )
    negative_popularity: float = Field(
        0.0, ge=0, le=2, description="a: negatives are drawn by popularity^a; 0: uniformly"
    )
    share_negatives: bool = Field(
        False, description="use the same negatives for all positions of a batch"
    )
    in_batch_negatives: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the negatives that are other users' targets in the batch",
    )
    log_q: bool = Field(
        False,
        description="subtract the log of how often an item is expected among the negatives from "
        "its score, which makes the sampled sum that of the whole catalogue",
    )
    calibration: float = Field(0.75, ge=0, le=1, description="t, the calibration of gbce")
    relevance: RelevanceName = Field(
        "fixed", description="how the weight falls from positive to positive"
    )
    rate: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="p of power (2) and reciprocal (1), r of exponential (1) and gaussian (2), "
        "decay per day of time (1), strength that keeps learned weights equal (0.1)",
    )
    normalization: Literal["mean", "original"] = Field(
        "mean",
        description="mean: the weights of a batch's pairs have the mean 1; original: as in the "
        "paper's code",
    )
    positive_weight: float = Field(
        1.0, gt=0, description="weight of the positives against the negatives"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of the target that is spread over all items"
    )

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        """A search must not vary what does nothing."""
        if self.rate is not None and self.relevance in ("fixed", "linear"):
            raise ValueError(
                f"rate has no effect on relevance fixed or linear, but got rate={self.rate} "
                f"with relevance={self.relevance}"
            )
        logs = {
            "exponential": (self.rate or 1) * self.num_positives,
            "power": (self.rate or 2) * math.log(self.num_positives),
        }
        if logs.get(self.relevance, 0) > (700 if self.normalization == "mean" else 80):
            raise ValueError(
                f"the largest weight overflows with relevance={self.relevance}, rate={self.rate}, "
                f"num_positives={self.num_positives}; lower one of them"
            )
        if self.relevance == "learned" and self.normalization == "original":
            raise ValueError("relevance learned needs normalization mean; leave normalization out")
        if self.log_q and self.negatives_from == "unseen":
            raise ValueError(
                "log_q estimates the sum over the catalogue, which negatives_from unseen does not "
                "draw from; leave one of them out"
            )
        count = self.num_negatives or DEFAULT_SAMPLE
        if self.in_batch_negatives and not round(count * self.in_batch_negatives):
            raise ValueError(
                f"in_batch_negatives={self.in_batch_negatives} of {count} negatives is none of "
                f"them; raise it, or set it to 0"
            )
        for name, types in LOSSES_USING.items():
            value = getattr(self, name)
            if self.type not in types and value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} belongs to {', '.join(types)}, but got {name}={value} "
                    f"with type={self.type}"
                )
        return self


DEFAULT_SAMPLE = 256  # negatives of sampled softmax, as in eSASRec
# the losses that use a setting, where not all losses do
LOSSES_USING = {
    "num_negatives": ("bce", "gbce", "bpr", "sampled_softmax"),
    "negative_popularity": ("bce", "gbce", "bpr", "sampled_softmax"),
    "negatives_from": ("bce", "gbce", "bpr", "sampled_softmax"),
    "share_negatives": ("bce", "gbce", "bpr", "sampled_softmax"),
    "in_batch_negatives": ("sampled_softmax",),
    "log_q": ("sampled_softmax",),
    "calibration": ("gbce",),
    "positive_weight": ("bce", "gbce"),
    "label_smoothing": ("bce", "softmax", "sampled_softmax"),
}


class TrainConfig(Settings):
    """The optimisation, and where it runs. The defaults were found together with the model's."""

    max_epochs: int = Field(
        60, ge=1, description="maximum number of epochs; an epoch visits every user once"
    )
    last_epoch: int | None = Field(
        None, ge=1, description="stop after this epoch; the schedule still counts to max_epochs"
    )
    batch_size: int = Field(32, ge=1, description="users per step")
    lr: float = Field(2.7e-3, gt=0, description="learning rate of Adam")
    warmup_epochs: float = Field(
        0.0, ge=0, description="epochs in which the learning rate rises from 0"
    )
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="cosine: the learning rate falls to 0 at max_epochs"
    )
    weight_decay: float = Field(
        0.01, ge=0, description="decoupled weight decay of matrices and embeddings"
    )
    clip_norm: float | None = Field(
        1.0, gt=0, description="largest norm of the gradient; larger ones are scaled down"
    )
    embedding_update: Literal["auto", "all", "touched"] = Field(
        "auto",
        description="rows that a step of Adam updates; auto: touched above 200,000 items on a CPU",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="precision of the encoder's products; weights and loss stay float32"
    )
    fused_attention: bool = Field(
        False,
        description="use torch's attention kernels, such as flash attention, in place of our own",
    )
    cuda_graph: bool = Field(False, description="record a step and replay it; on a GPU only")
    seed: Seed = Field(0, description="seed of weights, dropout, negatives and the order of users")
    num_threads: int = Field(1, ge=1, description="CPU threads; another number rounds differently")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where to train; auto: on a GPU if there is one"
    )

    @model_validator(mode="after")
    def _the_rate_is_reached(self) -> Self:
        if self.warmup_epochs >= self.max_epochs:
            raise ValueError(
                f"warmup_epochs < max_epochs must hold, but got warmup_epochs={self.warmup_epochs}"
                f", max_epochs={self.max_epochs}"
            )
        if self.last_epoch is not None and self.last_epoch > self.max_epochs:
            raise ValueError(
                f"last_epoch <= max_epochs must hold, but got last_epoch={self.last_epoch}, "
                f"max_epochs={self.max_epochs}"
            )
        return self


class EvaluationConfig(Settings):
    """How the futures are ranked, and at which cutoffs."""

    cutoffs: tuple[StrictInt, ...] = Field(
        (5, 10, 20), min_length=1, description="the cutoffs k of the metrics"
    )
    relevance: Position = Field("linear", description="relevance of the futures in ndcg_rel")
    candidates: Literal["all", "sampled"] = Field(
        "all", description="rank the whole catalogue, or sampled negatives beside the futures"
    )
    num_candidates: int = Field(100, ge=1, description="negatives per user, if sampled")
    exclude_history: bool = Field(
        True,
        description="leave items of the history out; set it to false where people return to items",
    )
    seed: Seed = Field(0, description="seed of the sampled candidates")

    @model_validator(mode="after")
    def _cutoffs_are_positive(self) -> Self:
        if min(self.cutoffs) < 1 or len(set(self.cutoffs)) < len(self.cutoffs):
            raise ValueError(f"cutoffs must be distinct and >= 1, but got {list(self.cutoffs)}")
        return self


class TrialConfig(Settings):
    """Everything that decides the outcome of one training run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def needs_all_rows(self) -> str | None:
        """The setting for which every item's embedding moves at each step, if there is one."""
        smoothed = self.loss.type == "sampled_softmax" and self.loss.label_smoothing > 0
        whole = {
            "loss.type: softmax": self.loss.type == "softmax",
            "loss.label_smoothing": smoothed,
            "model.item_bias": self.model.item_bias,
            "train.cuda_graph": self.train.cuda_graph,
        }
        return next((name for name, asked in whole.items() if asked), None)

    @model_validator(mode="after")
    def _touched_rows_are_enough(self) -> Self:
        if self.train.embedding_update == "touched" and (reason := self.needs_all_rows):
            raise ValueError(
                f"train.embedding_update touched updates few embeddings per step, but {reason} "
                f"updates all of them; set it to all"
            )
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "configuration") -> Self:
        """Return `values`, on top of their `preset`, validated; errors begin with `source`."""
        if not isinstance(values, Mapping) or PRESET not in values:
            return validated(cls, values, source)
        rest = {name: section for name, section in values.items() if name != PRESET}
        for key, value in preset(values[PRESET], source).items():
            section, _, name = key.partition(".")
            given = rest.get(section)
            if given is None or isinstance(given, Mapping):
                rest[section] = {name: value} | dict(given or {})
        return validated(cls, rest, source)

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Return the configuration in a file; a `ConfigError` if it is not a valid one."""
        return cls.from_dict(read_yaml(path), str(path))

    def to_yaml(self, path: Path) -> None:
        """Write the complete configuration."""
        path.write_text(dump_yaml(self.to_dict()), encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as nested values that JSON and YAML can hold."""
        return self.model_dump(mode="json")

    def with_overrides(self, overrides: Mapping[str, Any], source: str = "overrides") -> Self:
        """Return a copy with `{"train.lr": 0.01}` and the like replaced, a `preset` first."""
        unknown_keys(overrides, override_keys(), source)
        values = self.to_dict()
        first = preset(overrides[PRESET], source) if PRESET in overrides else {}
        for key, value in (first | dict(overrides)).items():
            if key == PRESET:
                continue
            *sections, field = key.split(".")
            target = values
            for section in sections:
                target = target[section]
            target[field] = value
        return type(self).from_dict(values, source)


def override_keys() -> list[str]:
    """Return what may be overridden: `preset`, and every setting by its dotted name."""
    return [PRESET, *dotted_keys(TrialConfig)]
