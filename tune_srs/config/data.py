"""The settings of the data: which interactions, how filtered, how split, with which noise."""

from datetime import datetime
from typing import Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from tune_srs.config.validation import Seed, Settings

NUM_FUTURES = 10  # K, where every user has as many


class NoiseConfig(Settings):
    """Noise put into the training histories on purpose; the futures stay as they are."""

    accidental: float = Field(
        0.0, ge=0, le=1, description="random items to insert, per interaction"
    )
    shared: float = Field(0.0, ge=0, le=1, description="share of users to merge in pairs")
    seed: Seed = Field(0, description="seed of the insertions and merges")


class SyntheticConfig(Settings):
    """Size and seed of the generated data set (`data.name: synthetic`)."""

    users: int = Field(400, ge=1, description="number of users")
    items: int = Field(300, ge=2, description="maximum number of items")
    mean_length: int = Field(60, ge=1, description="mean number of interactions per user")
    seed: Seed = Field(0, description="seed of the generated data")


class LogConfig(Settings):
    """How to read a log of your own (`data.name: PATH`); what you leave out is guessed."""

    user_column: str | None = Field(None, description="column with the user ids; None: guessed")
    item_column: str | None = Field(None, description="column with the item ids; None: guessed")
    rating_column: str | None = Field(
        None, description="column with the ratings; None: guessed, if there is one"
    )
    time_column: str | None = Field(None, description="column with the times; None: guessed")
    time_format: str = Field(
        "auto",
        description="s, ms, us, ns (since 1970), iso, a strftime pattern, order (numbers that only "
        "give an order), lines (no column: the lines are in order); auto: an epoch in any unit, "
        "or ISO 8601",
    )
    separator: str | None = Field(
        None, min_length=1, max_length=1, description="character between fields; None: guessed"
    )
    header: bool = Field(True, description="false: the columns are named 0, 1, 2, …")
    text_ids: bool = Field(False, description="read ids as text even if they look like numbers")

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
                    raise ValueError(f"not a pattern: {error}") from None
        return value


class TiesConfig(Settings):
    """In which order a user's interactions at equal times stand."""

    order: Literal["file", "shuffle"] = Field(
        "file", description="file: as in the file; shuffle: drawn at random, with the seed"
    )
    seed: Seed = Field(0, description="seed of the orders, if they are drawn")


class SplitConfig(Settings):
    """Which interactions validate and test; `last`: the last ones of every user."""

    kind: Literal["last", "users", "time"] = Field(
        "last",
        description="users: some users are held out and only scored; time: training ends at one "
        "moment for all users, validation at a second one",
    )
    share: float | None = Field(
        None,
        gt=0,
        lt=0.5,
        description="share to test on, and as much to validate on; users: of all users, drawn from "
        "those with more than K interactions; time: of all interactions",
    )
    seed: Seed = Field(0, description="seed of the users who are held out, if kind is users")
    cold_items: Literal["keep", "drop"] = Field(
        "keep",
        description="futures that occur in no training history; drop is for kind time",
    )

    @model_validator(mode="after")
    def _share_has_an_effect(self) -> Self:
        if (self.share is None) != (self.kind == "last"):
            need = "takes no share" if self.kind == "last" else "needs a share, such as 0.1"
            raise ValueError(f"kind {self.kind} {need}, but got share={self.share}")
        if self.cold_items == "drop" and self.kind != "time":
            raise ValueError(
                f"cold_items: drop is for kind time, but got kind {self.kind}, where every user "
                f"has the same number of futures; leave it out"
            )
        return self


class DataConfig(Settings):
    """Which interactions, how filtered, and how split."""

    name: str = Field("ml-100k", description="a known data set, or the path of a log")
    log: LogConfig = LogConfig()
    num_futures: int | None = Field(
        None,
        ge=1,
        description="K: the last K interactions test, the K before them validate; if split.kind is "
        "time, at most so many, the nearest ones; None: 10, or all of them if it is time",
    )
    num_validation_futures: int | None = Field(
        None, ge=1, description="K of the validation; None: the same as of the test"
    )
    min_rating: float | None = Field(
        None, description="keep interactions that are rated at least this"
    )
    ties: TiesConfig = TiesConfig()
    repeats: Literal["keep", "drop_consecutive", "keep_first"] = Field(
        "keep", description="what to do with repeated items in a history"
    )
    min_users_per_item: int = Field(
        1, ge=1, description="drop items with fewer interactions; once, before users"
    )
    min_items_per_user: int = Field(
        1, ge=1, description="drop users with fewer interactions; once, after items"
    )
    k_core: int = Field(
        1,
        ge=1,
        description="drop users and items with fewer interactions, until all have this many",
    )
    split: SplitConfig = SplitConfig()
    noise: NoiseConfig = NoiseConfig()
    synthetic: SyntheticConfig = SyntheticConfig()

    @property
    def test_futures(self) -> int | None:
        """K of the test; None: all that a user has, which is for `split.kind=time` alone."""
        if self.num_futures is None and self.split.kind != "time":
            return NUM_FUTURES
        return self.num_futures

    @property
    def validation_futures(self) -> int | None:
        """K of the validation, likewise."""
        return self.num_validation_futures or self.test_futures

    def futures_in_words(self) -> tuple[str, str]:
        """Return K of the validation and of the test: `10`, `at most 10` or `all`."""
        most = "at most " if self.split.kind == "time" else ""
        validation, test = (
            "all" if number is None else f"{most}{number}"
            for number in (self.validation_futures, self.test_futures)
        )
        return validation, test
