"""Do a study's tests hold 5 %, and what do they find? Simulated tables of normal numbers.

A table is the difference of a configuration from the reference, by seed and user. Its standard
deviations are in units of what is left when users and seeds are accounted for. On MovieLens 100K
they are 0.38 between users and 0.031 between seeds, and the mean of NDCG@10 is 0.87. A family is
several configurations against one reference, whose trainings all of its comparisons share. It errs
if Holm's p of any comparison falls below 0.05 though nothing differs.

Sums of squares of normal numbers are drawn as what they are, Wishart matrices, instead of from
tables; `check` compares both ways.

    python benchmarks/significance.py families
    python benchmarks/significance.py power
    python benchmarks/significance.py tunings
    python benchmarks/significance.py check
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy import stats

from tune_srs.evaluation.resampling import Array
from tune_srs.studies.significance import Estimate, MeanSquares, crossed, holm

LEVEL = 0.05
USER, LUCK, MEAN = 0.38, 0.031, 0.87  # as measured; see above
USERS, SEEDS, COMPARISONS = (911, 6040), (3, 5), (3, 9)
LUCKS = (LUCK, 0.1, 0.3)  # from there on seeds dominate
PERCENTS = (3, 5, 8)  # of the mean, by which the first configuration is better
TUNING = 0.05  # luck of a tuning
Random = np.random.Generator


@dataclass(frozen=True)
class Family:
    """Comparisons with one reference, and the standard deviations of a difference."""

    users: int
    seeds: int
    comparisons: int
    user: float = USER
    luck: float = LUCK
    rest: float = 1.0


def mean_squares(family: Family, tables: int, random: Random) -> MeanSquares:
    """Return mean squares (tables, comparisons) of differences without effect.

    Each configuration has half of a difference's variances, the reference included.
    """
    seeds, users = family.seeds, family.users
    user, luck, rest = (np.sqrt(0.5) * sd for sd in (family.user, family.luck, family.rest))
    configurations = 1 + family.comparisons

    def products(freedom: int, variance: float) -> Array:
        scale = variance * np.eye(configurations)
        return np.asarray(stats.wishart.rvs(freedom, scale, tables, random)) / freedom

    def normal(*last: int) -> Array:
        return random.normal(size=(tables, configurations, *last))

    def differences(values: Array) -> Array:
        return values[:, 1:] - values[:, :1]

    of_seeds = differences(np.hypot(luck, rest / np.sqrt(users)) * normal(seeds))
    of_users = differences(user / np.sqrt(users) * normal())
    return MeanSquares(
        seeds,
        users,
        of_seeds.mean(axis=-1) + of_users,
        users * of_seeds.var(axis=-1, ddof=1),
        _of_differences(products(users - 1, seeds * user**2 + rest**2)),
        _of_differences(products((seeds - 1) * (users - 1), rest**2)),
    )


def _of_differences(products: Array) -> Array:
    """Return mean squares (tables, C) of differences from the first configuration."""
    squares = np.diagonal(products, axis1=1, axis2=2)
    return np.asarray(squares[:, 1:] + squares[:, :1] - 2 * products[:, 0, 1:])


def tables_of(family: Family, tables: int, random: Random, tuning: float, per: int) -> Array:
    """Return differences (tables, comparisons, tunings, `per` seeds, U) without effect.

    `family.seeds` is the number of tunings, and `tuning` the standard deviation of their luck.
    """
    shape = (tables, 1 + family.comparisons, family.seeds, per, family.users)
    effects = ((family.user, (0, 1, 4)), (tuning, (0, 1, 2)), (family.luck, (0, 1, 2, 3)))
    values = family.rest * random.normal(size=shape)
    for sd, axes in effects:
        kept = [size if axis in axes else 1 for axis, size in enumerate(shape)]
        values += sd * random.normal(size=kept)
    return np.asarray(np.sqrt(0.5) * (values[:, 1:] - values[:, :1]))


def hillis(squares: MeanSquares) -> Estimate:
    """Return the estimate as the paper has it, but with MS_seeds at least MS_rest: as it was."""
    more = np.maximum(squares.of_users - squares.rest, 0)
    least = np.maximum(squares.of_seeds, squares.rest)
    cells = squares.seeds * squares.users
    freedom = ((least + more) / least) ** 2 * (squares.seeds - 1)
    both = Estimate(squares.mean, np.sqrt((squares.of_seeds + more) / cells), freedom)
    alone = Estimate(squares.mean, np.sqrt(squares.of_users / cells), squares.users - 1 + 0 * more)
    shorter = both.reach < alone.reach
    error = np.where(shorter, alone.error, both.error)
    return Estimate(squares.mean, error, np.where(shorter, alone.freedom, freedom))


METHODS: dict[str, Callable[[MeanSquares], Estimate]] = {
    "before": hillis,
    "now": MeanSquares.estimate,
}


def family_error(p: Array) -> float:
    """Return the share of families (tables, comparisons) of p values in which anything is found."""
    return float((p.min(axis=-1) * p.shape[-1] < LEVEL).mean())  # Holm's smallest p


def families() -> Iterator[Family]:
    for users, seeds, comparisons in product(USERS, SEEDS, COMPARISONS):
        yield Family(users, seeds, comparisons)


def show(*cells: object) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def print_families(tables: int, random: Random) -> None:
    """Print how often a family errs."""
    columns = [f"{luck}, {name}" for luck in LUCKS for name in METHODS]
    show("users", "seeds", "comparisons", *columns)
    for family in families():
        shares = []
        for luck in LUCKS:
            squares = mean_squares(replace(family, luck=luck), tables, random)
            shares += [f"{family_error(of(squares).p):.1%}" for of in METHODS.values()]
        show(family.users, family.seeds, family.comparisons, *shares)


def print_power(tables: int, random: Random) -> None:
    """Print how often an effect of one of the configurations is found, after Holm's correction."""
    show("users", "seeds", "comparisons", *(f"{p} %, {name}" for p in PERCENTS for name in METHODS))
    for users, seeds, comparisons in product(USERS, SEEDS, (1, *COMPARISONS)):
        squares = mean_squares(Family(users, seeds, comparisons), tables, random)
        shares = []
        for percent in PERCENTS:
            effect = MEAN * percent / 100 * (np.arange(comparisons) == 0)
            moved = replace(squares, mean=squares.mean + effect)
            for of in METHODS.values():
                found = np.array([holm(p, len(p))[0] for p in of(moved).p]) < LEVEL
                shares.append(f"{found.mean():.0%}")
        show(users, seeds, comparisons, *shares)


def print_tunings(tables: int, random: Random) -> None:
    """Print how often a family errs with 3 tunings of 3 seeds, by what is taken for the sample."""
    show("users", "comparisons", "luck of a tuning", "tunings", "runs", "one tuning's runs")
    for users, comparisons, tuning in product((911,), COMPARISONS, (0.0, TUNING, 0.3)):
        family, seeds = Family(users, 3, comparisons), 3
        p: dict[str, list[Array]] = {"tunings": [], "runs": [], "one": []}
        for _ in range(-(-tables // 20)):
            values = tables_of(family, 20, random, tuning, seeds)
            p["tunings"].append(crossed(values.mean(axis=-2)).p)
            p["runs"].append(crossed(values.reshape(*values.shape[:2], -1, users)).p)
            p["one"].append(crossed(values[:, :, 0]).p)
        shares = [f"{family_error(np.concatenate(of)):.1%}" for of in p.values()]
        show(users, comparisons, tuning, *shares)


def print_check(tables: int, random: Random) -> None:
    """Print how often a family errs, drawn as mean squares and as whole tables."""
    show("users", "seeds", "comparisons", "mean squares", "tables")
    for family in (Family(911, 3, 9, luck=0.1), Family(911, 5, 3)):
        quick = family_error(mean_squares(family, tables, random).estimate().p)
        p = [
            crossed(tables_of(family, 20, random, 0, 1)[:, :, :, 0]).p
            for _ in range(-(-tables // 20))
        ]
        cells = family.users, family.seeds, family.comparisons
        show(*cells, f"{quick:.1%}", f"{family_error(np.concatenate(p)):.1%}")


PARTS = {
    "families": print_families,
    "power": print_power,
    "tunings": print_tunings,
    "check": print_check,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--tables", type=int, default=2000)
    options = parser.parse_args()
    PARTS[options.part](options.tables, np.random.default_rng(0))


if __name__ == "__main__":
    main()
