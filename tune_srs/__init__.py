"""Hyper-parameter search for relevance-aware sequential recommenders.

`prepare`, `train`, `search`, `study`, `export` and `load` do what the commands do. `Run` reads the
folder of a search. See `tune_srs.api`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "DataConfig", "Recommender", "Run", "TrialConfig", "TuneSRSError",
    "export", "load", "prepare", "search", "study", "train",
]  # fmt: skip

if TYPE_CHECKING:
    from tune_srs.api import (
        DataConfig,
        Recommender,
        Run,
        TrialConfig,
        TuneSRSError,
        export,
        load,
        prepare,
        search,
        study,
        train,
    )
else:

    def __getattr__(name: str) -> Any:
        """Import what takes long to import when it is first used."""
        if name in __all__:
            return getattr(import_module("tune_srs.api"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted([*__all__, "__version__"])
