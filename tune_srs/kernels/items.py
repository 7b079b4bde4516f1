"""What looks at single items: scores, negatives, and the rows of a table that a step touches.

No [tokens, items, D] tensor is made. Shapes: T tokens, D units, I items, C items a token.
"""

import numpy as np
import numpy.typing as npt

from tune_srs.kernels.compiled import Array, Integers, compiled


@compiled
def products(features: Array, table: Array, index: Integers, scores: Array) -> None:
    """`features` (T, D) times the rows `index` (T, C) of `table` (I, D) → `scores` (T, C)."""
    for t in range(index.shape[0]):
        feature = features[t]
        for c in range(index.shape[1]):
            row = table[index[t, c]]
            total = feature[0] * row[0]
            for d in range(1, len(row)):
                total += feature[d] * row[d]
            scores[t, c] = total


@compiled
def products_back(
    grad: Array,
    features: Array,
    table: Array,
    index: Integers,
    of_features: Array,
    of_table: Array,
) -> None:
    """The gradients: added to `of_features` and `of_table`."""
    for t in range(index.shape[0]):
        feature, of_feature = features[t], of_features[t]
        for c in range(index.shape[1]):
            slope, row, of_row = grad[t, c], table[index[t, c]], of_table[index[t, c]]
            for d in range(len(row)):
                of_feature[d] += slope * row[d]
                of_row[d] += slope * feature[d]


@compiled
def outside(
    users: Integers,
    draws: npt.NDArray[np.float64],
    starts: Integers,
    shifted: npt.NDArray[np.int32],
    others: Integers,
    items: Integers,
) -> None:
    """`draws` (T, C) in 0 ... 1 → `items` outside the history of `users` (T,), from 1.

    See `UnseenSampler`. `shifted[starts[u] : starts[u + 1]]` are the values to be counted: one
    after another for all draws of a row, which takes less time than a bisection for each.
    """
    start = 0
    while start < len(users):
        user, stop = users[start], start + 1
        while stop < len(users) and users[stop] == user:
            stop += 1
        drawn, found = draws[start:stop].reshape(-1), items[start:stop].reshape(-1)
        nth, passed = np.empty(len(drawn), np.int32), np.zeros(len(drawn), np.int32)
        for m in range(len(drawn)):
            # float64 rounds the largest products up to the bound itself
            nth[m] = min(np.int64(drawn[m] * others[user]), others[user] - 1)
        for known in shifted[starts[user] : starts[user + 1]]:
            for m in range(len(drawn)):
                passed[m] += np.int32(known <= nth[m])
        for m in range(len(drawn)):
            found[m] = nth[m] + passed[m] + 1
        start = stop


@compiled
def distinct(
    index: Integers, place_of: npt.NDArray[np.int32], rows: Integers, places: Integers
) -> int:
    """The distinct rows in `index` (M,) → `rows`, and where each stands there → `places` (M,).

    Returns how many there are. `place_of` (I,) holds -1 before and after.
    """
    count = 0
    for m in range(len(index)):
        row = index[m]
        if place_of[row] < 0:
            place_of[row] = count
            rows[count] = row
            count += 1
        places[m] = place_of[row]
    for r in range(count):
        place_of[rows[r]] = -1
    return count


@compiled
def adam_rows(
    table: Array,
    moments: Array,
    rows: Integers,
    grad: Array,
    beta1: np.float32,
    beta2: np.float32,
    rate: np.float32,
    correction: np.float32,
    epsilon: np.float32,
    kept: np.float32,
) -> None:
    """Adam's update of the `rows` (R,) of `table` (I, D) and `moments` (I, 2 D) by `grad` (R, D).

    The numbers are those of `lazy_adam.Numbers`.
    """
    one = np.float32(1)
    units = table.shape[1]
    for r in range(len(rows)):
        weights, mean, slope = table[rows[r]], moments[rows[r]], grad[r]
        square = mean[units:]
        for d in range(units):
            mean[d] = beta1 * mean[d] + (one - beta1) * slope[d]
            square[d] = beta2 * square[d] + (one - beta2) * slope[d] * slope[d]
            slid = rate * mean[d] / (np.sqrt(square[d]) / correction + epsilon)
            weights[d] = kept * weights[d] - slid
