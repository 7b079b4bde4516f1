"""The names of all metrics, for modules that only read or check them."""

from collections.abc import Iterable

from tune_srs.config.validation import nearest
from tune_srs.errors import ConfigError

RANKING_NAMES = ("ndcg", "ndcg_rel", "hr", "recall", "hit", "mrr")
ORDER_NAMES = ("rbo", "jaccard", "order_rbo", "order_jaccard")


def names(cutoffs: Iterable[int]) -> list[str]:
    """Return every metric of an evaluation, in order; the nearest future alone has no order."""
    cutoffs = tuple(cutoffs)
    both = [f"{name}@{k}" for k in cutoffs for name in (*RANKING_NAMES, *ORDER_NAMES)]
    return both + [f"next/{name}@{k}" for k in cutoffs for name in RANKING_NAMES]


def check_metric(name: str, cutoffs: Iterable[int], place: str) -> None:
    """Raise a `ConfigError` unless an epoch reports a metric called `name`."""
    known = [f"val/{metric}" for metric in names(cutoffs)]
    known += ["train/loss", "time/train_s", "time/evaluate_s"]
    if name not in known:
        raise ConfigError(f"{place}: unknown metric {name}{nearest(name, known)}")
