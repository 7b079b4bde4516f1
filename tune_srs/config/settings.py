"""The settings of one trial: typed, frozen, validated; YAML in and out; dotted overrides.

`TrialConfig` is everything that decides the outcome of a training run, so that one written file
repeats it. Anything wrong is a `ConfigError` that lists every fault at once.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    StrictInt,
    field_validator,
    model_validator,
)

from tune_srs.config.presets import PRESET, preset
from tune_srs.config.validation import Settings, dotted_keys, unknown_keys, validated
from tune_srs.config.yaml import dump_yaml, read_yaml

Position = Literal["fixed", "linear", "power", "exponential", "reciprocal", "gaussian"]


RelevanceName = Literal[
    "fixed", "linear", "power", "exponential", "reciprocal", "gaussian", "time", "learned"
]


Seed = Annotated[int, Field(ge=0, lt=2**63 - 1)]  # what torch accepts


class NoiseConfig(Settings):
    """Noise put into the training histories on purpose; the futures stay as they are."""

    accidental: float = Field(0.0, ge=0, le=1, description="random items inserted, per interaction")
    shared: float = Field(0.0, ge=0, le=1, description="share of users merged in pairs")
    seed: Seed = Field(0, description="of what is inserted and merged")


class SyntheticConfig(Settings):
    """Size and seed of the generated data set (`data.name: synthetic`)."""

    users: int = Field(400, ge=1, description="how many")
    items: int = Field(300, ge=2, description="how many there are at most")
    mean_length: int = Field(60, ge=1, description="interactions a user, in the mean")
    seed: Seed = Field(0, description="of all that is drawn")


class LogConfig(Settings):
    """How to read a log of one's own (`data.name: PATH`); what is not given is guessed."""

    user_column: str | None = Field(None, description="its name; None: guessed")
    item_column: str | None = Field(None, description="its name; None: guessed")
    rating_column: str | None = Field(None, description="its name; None: guessed, if there is one")
    time_column: str | None = Field(None, description="its name; None: guessed")
    time_format: str = Field(
        "auto",
        description="s, ms, us, ns (since 1970), iso, a strftime pattern, order (numbers that only "
        "rank), lines (no column: the lines are in order); auto: an epoch in any unit, or ISO 8601",
    )
    separator: str | None = Field(
        None, min_length=1, max_length=1, description="of fields, one character; None: guessed"
    )
    header: bool = Field(True, description="false: the columns are named 0, 1, 2, …")
    text_ids: bool = Field(False, description="ids are text though they look like numbers")

    @field_validator("time_format")
    @classmethod
    def _time_format_is_known(cls, value: str) -> str:
        known = ("auto", "s", "ms", "us", "ns", "iso", "order", "lines")
        if value not in known and "%" not in value:
            raise ValueError(
                f"must be one of {', '.join(known)}, or a pattern such as %d/%m/%Y, "
                f"but got {value!r}"
            )
        if value not in known:
            try:
                datetime.strptime("", value)
            except ValueError as error:
                if "does not match" not in str(error):  # which every pattern says of no text
                    raise ValueError(f"no pattern: {error}") from None
        return value


class SplitConfig(Settings):
    """Which interactions validate and test; `last`: the last of every user."""

    kind: Literal["last", "users", "time"] = Field(
        "last",
        description="users: some users are held out whole and only scored; time: training ends at "
        "one moment for all, validation at a second one",
    )
    share: float | None = Field(
        None, gt=0, lt=0.5, description="of users or interactions to test on, and to validate on"
    )
    seed: Seed = Field(0, description="of the users drawn, if kind is users")

    @model_validator(mode="after")
    def _share_has_an_effect(self) -> Self:
        if (self.share is None) != (self.kind == "last"):
            need = "takes no share" if self.kind == "last" else "needs a share, such as 0.1"
            raise ValueError(f"kind {self.kind} {need}, but got share={self.share}")
        return self


class DataConfig(Settings):
    """Which interactions, how filtered, and how split."""

    name: str = Field("ml-100k", description="a known data set, or the path of a log")
    log: LogConfig = LogConfig()
    num_futures: int = Field(10, ge=1, description="K: the last K test, the K before validate")
    num_validation_futures: int | None = Field(
        None, ge=1, description="K of validation; None, as many as of the test"
    )
    min_rating: float | None = Field(None, description="keep interactions rated at least this")
    repeats: Literal["keep", "drop_consecutive", "keep_first"] = Field(
        "keep", description="of an item in a user's history"
    )
    min_users_per_item: int = Field(1, ge=1, description="interactions; once, before the users")
    min_items_per_user: int = Field(1, ge=1, description="interactions; once, after the items")
    k_core: int = Field(
        1, ge=1, description="drop users and items of fewer interactions until none is left"
    )
    split: SplitConfig = SplitConfig()
    noise: NoiseConfig = NoiseConfig()
    synthetic: SyntheticConfig = SyntheticConfig()

    @property
    def validation_futures(self) -> int:
        """K of the validation split."""
        return self.num_validation_futures or self.num_futures


class ModelConfig(Settings):
    """SASRec's shape. The defaults won a search on MovieLens 100K, see docs/findings.md."""

    max_length: int = Field(
        200, ge=1, le=100_000, description="items of a history that the model sees"
    )
    hidden_units: int = Field(128, ge=1, description="D: width of embeddings and blocks")
    num_blocks: int = Field(1, ge=1, le=1000, description="of attention and feed-forward")
    num_heads: int = Field(4, ge=1, description="of attention; they divide the units")
    norm: Literal["original", "pre", "post"] = Field(
        "post",
        description="original: the residual starts from the normed query; pre: of what a sublayer "
        "gets; post: of the sum",
    )
    gates: bool = Field(False, description="a learned gate on what each sublayer adds, as in LiGR")
    activation: Literal["relu", "gelu", "swiglu"] = Field("relu", description="in the feed-forward")
    feed_forward_factor: int = Field(2, ge=1, description="inner units, in hidden units")
    positions: Literal["learned", "sinusoidal", "rotary", "none"] = Field(
        "rotary", description="how the model knows them; rotary: by turning queries and keys"
    )
    scale_embedding: bool = Field(False, description="item embeddings times the root of the units")
    item_bias: bool = Field(False, description="a learned bias in each item's score")
    dropout: float = Field(0.1, ge=0, lt=1, description="in the feed-forward, and where not given")
    embedding_dropout: float | None = Field(0.5, ge=0, lt=1, description="None: as dropout")
    attention_dropout: float | None = Field(None, ge=0, lt=1, description="None: as dropout")

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
    """What is minimised; its positives are weighted by relevance. See `losses.py`."""

    type: Literal["bce", "gbce", "bpr", "softmax", "sampled_softmax"] = Field(
        "bce", description="see docs/losses.md"
    )
    num_positives: int = Field(1, ge=1, description="P: the next P items of a position")
    num_negatives: int | None = Field(
        None,
        ge=1,
        description="N: items drawn outside the user's history; None, as many as P, and 256 of "
        "sampled_softmax",
    )
    negative_popularity: float = Field(
        0.0, ge=0, le=2, description="a: items are drawn by popularity^a; 0, uniformly"
    )
    share_negatives: bool = Field(False, description="the same ones for all positions of a batch")
    in_batch_negatives: float = Field(
        0.0, ge=0, lt=1, description="share of sampled_softmax's negatives from the batch itself"
    )
    calibration: float = Field(0.75, ge=0, le=1, description="t of gbce")
    relevance: RelevanceName = Field("fixed", description="what each of the positives weighs")
    rate: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="p of power (2) and reciprocal (1), r of exponential (1) and gaussian (2), "
        "decay a day of time (1), strength of what keeps learned ones alike (1)",
    )
    normalization: Literal["mean", "original"] = Field(
        "mean", description="weights of mean 1, or as in the paper's code"
    )
    positive_weight: float = Field(1.0, gt=0, description="balance of positives to negatives")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of the target that all items get alike"
    )

    @model_validator(mode="after")
    def _what_is_given_has_an_effect(self) -> Self:
        """A search must not vary what does nothing."""
        if self.rate is not None and self.relevance in ("fixed", "linear"):
            raise ValueError(
                f"rate bends no relevance fixed or linear, but got rate={self.rate} "
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
            raise ValueError("relevance learned has normalization mean by its nature")
        for name, types in EFFECTIVE.items():
            value = getattr(self, name)
            if self.type not in types and value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} belongs to {', '.join(types)}, but got {name}={value} "
                    f"with type={self.type}"
                )
        return self


# the losses in which a setting does something, where it is not all
EFFECTIVE = {
    "num_negatives": ("bce", "gbce", "bpr", "sampled_softmax"),
    "negative_popularity": ("bce", "gbce", "bpr", "sampled_softmax"),
    "share_negatives": ("bce", "gbce", "bpr"),
    "in_batch_negatives": ("sampled_softmax",),
    "calibration": ("gbce",),
    "positive_weight": ("bce", "gbce"),
    "label_smoothing": ("bce", "softmax", "sampled_softmax"),
}


class TrainConfig(Settings):
    """The optimisation, and where it runs. The defaults were found together with the model's."""

    max_epochs: int = Field(60, ge=1, description="visits of every user")
    last_epoch: int | None = Field(
        None, ge=1, description="ends a run before max_epochs, which the schedule goes on counting"
    )
    batch_size: int = Field(32, ge=1, description="users a step")
    lr: float = Field(2.7e-3, gt=0, description="learning rate of Adam")
    warmup_epochs: float = Field(0.0, ge=0, description="the rate rises from 0 at first")
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="cosine: the rate falls to 0 at max_epochs"
    )
    weight_decay: float = Field(0.01, ge=0, description="decoupled; of matrices and embeddings")
    clip_norm: float | None = Field(1.0, gt=0, description="largest norm of a step's gradient")
    embedding_update: Literal["auto", "all", "touched"] = Field(
        "auto",
        description="rows that a step's Adam moves; auto: touched above 200,000 items on a CPU",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the encoder's products; weights and loss stay float32"
    )
    fused_attention: bool = Field(
        False, description="torch's attention kernels, flash among them, in place of our own"
    )
    cuda_graph: bool = Field(False, description="replay a recorded step; on a GPU only")
    seed: Seed = Field(0, description="of weights, dropout, negatives and the order of users")
    num_threads: int = Field(1, ge=1, description="CPU threads; other numbers, other rounding")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU if there is one"
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
    """What is ranked and at which cutoffs."""

    cutoffs: tuple[StrictInt, ...] = Field(
        (5, 10, 20), min_length=1, description="k of the metrics; different ones, at least 1"
    )
    relevance: Position = Field("linear", description="the gain in ndcg_rel")
    candidates: Literal["all", "sampled"] = Field(
        "all", description="the whole catalogue, or some negatives beside the futures"
    )
    num_candidates: int = Field(100, ge=1, description="negatives a user, if sampled")
    exclude_history: bool = Field(True, description="off where people come back to items")
    seed: Seed = Field(0, description="of the sampled candidates")

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
                f"train.embedding_update touched moves few embeddings a step, but {reason} all of "
                f"them; set it to all"
            )
        return self

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str = "configuration") -> Self:
        """Validate nested `values`, on top of their `preset`; `source` names them in an error."""
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
        return cls.from_dict(read_yaml(path), str(path))

    def to_yaml(self, path: Path) -> None:
        path.write_text(dump_yaml(self.to_dict()), encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def with_overrides(self, overrides: Mapping[str, Any], source: str = "overrides") -> Self:
        """A copy with dotted keys replaced: `{"train.lr": 0.01}`; those of a `preset` first."""
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
    """What may be overridden: `preset`, and every setting by its dotted name."""
    return [PRESET, *dotted_keys(TrialConfig)]
