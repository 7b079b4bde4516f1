"""Interactions by user and time: a counting sort by user, then each user's by itself."""

import numpy as np
import numpy.typing as npt

from tune_srs.kernels.compiled import Integers, compiled

Codes = npt.NDArray[np.int32]


@compiled
def by_user_and_time(
    users: Codes,
    items: Codes,
    times: Integers,
    starts: Integers,
    sorted_items: Codes,
    sorted_times: Integers,
) -> None:
    """`items` and `times` (T,) of `users` (T,) → user after user, each in time order.

    Equal times stay in their order. User u's go to starts[u] … starts[u + 1] - 1.
    """
    places = starts[:-1].copy()
    for t in range(len(users)):
        place = places[users[t]]
        sorted_items[place], sorted_times[place] = items[t], times[t]
        places[users[t]] = place + 1
    for user in range(len(starts) - 1):
        start, stop = starts[user], starts[user + 1]
        ascending = True
        for t in range(stop - start - 1):
            ascending &= sorted_times[start + t] <= sorted_times[start + t + 1]
        if not ascending:
            own_times = sorted_times[start:stop].copy()
            own_items = sorted_items[start:stop].copy()
            order = np.argsort(own_times, kind="mergesort")  # which is stable
            for t in range(stop - start):
                sorted_items[start + t] = own_items[order[t]]
                sorted_times[start + t] = own_times[order[t]]
