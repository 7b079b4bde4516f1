"""Hyper-parameter search for relevance-aware sequential recommenders.

`prepare`, `train`, `search`, `export` and `load` do what the commands do: see `tune_srs.api`.
`Run` reads the folder of a search.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tune_srs.api import DataConfig as DataConfig
    from tune_srs.api import Recommender as Recommender
    from tune_srs.api import TrialConfig as TrialConfig
    from tune_srs.api import TuneSRSError as TuneSRSError
    from tune_srs.api import export as export
    from tune_srs.api import load as load
    from tune_srs.api import prepare as prepare
    from tune_srs.api import search as search
    from tune_srs.api import train as train
    from tune_srs.runs.run import Run as Run

__version__ = "0.1.0"
API = (
    "DataConfig", "Recommender", "TrialConfig", "TuneSRSError",
    "export", "load", "prepare", "search", "train",
)  # fmt: skip

if not TYPE_CHECKING:  # to which every name would exist

    def __getattr__(name: str) -> Any:
        """Imports what takes long to import when it is first asked for."""
        if name in API:
            return getattr(import_module("tune_srs.api"), name)
        if name == "Run":
            return import_module("tune_srs.runs.run").Run
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
