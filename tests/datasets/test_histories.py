"""Histories and splits as flat arrays."""

from dataclasses import replace

import numpy as np
from support.raw_data import lists_of
from support.small_data import histories_of, split_of

from tune_srs.datasets.histories import Split


def test_who_interacted_is_told_by_the_offsets() -> None:
    histories = histories_of([[3, 1], [2], [1, 1, 4]], 4)
    assert histories.num_users == 3
    assert histories.lengths.tolist() == [2, 1, 3]
    assert histories.users().tolist() == [0, 0, 1, 2, 2, 2]


def test_futures_stand_behind_the_histories_they_follow() -> None:
    histories = replace(histories_of([[3, 1], [2]], 9), times=np.array([5, 6, 7]))
    longer = histories.followed_by(np.array([[7, 8], [8, 9]], np.int32))
    assert lists_of(longer) == [[3, 1, 7, 8], [2, 8, 9]]
    assert longer.items.dtype == np.int32
    assert longer.times is None


def test_a_user_may_have_fewer_futures() -> None:
    histories = histories_of([[3, 1], [2], [4, 4]], 9)
    futures = np.array([[7, 0, 0], [8, 9, 7], [1, 1, 0]], np.int32)
    assert lists_of(histories.followed_by(futures)) == [[3, 1, 7], [2, 8, 9, 7], [4, 4, 1, 1]]
    one = Split(histories, histories, futures)
    assert one.future_counts.tolist() == [1, 3, 2]
    assert (one.num_futures, one.num_users) == (3, 3)


def test_which_items_occur() -> None:
    found = histories_of([[3, 1], [3]], 4).occurring()
    assert found.tolist() == [False, True, False, True, False]


def test_nothing_behind_them_leaves_them_as_they_are() -> None:
    histories = histories_of([[3, 1], [2]], 9)
    assert lists_of(histories.followed_by(np.empty((2, 0), np.int32))) == lists_of(histories)


def test_the_bytes_of_shared_arrays_count_once() -> None:
    shared = split_of([[1, 2], [3]], [[4], [5]], 5)
    own = Split(shared.training, histories_of([[1, 2], [3]], 5), shared.futures)
    histories = 3 * 4 + 3 * 8
    assert shared.nbytes == histories + 2 * 4
    assert own.nbytes == 2 * histories + 2 * 4
