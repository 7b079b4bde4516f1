"""The baselines by hand."""

import torch
from support.small_data import histories_of

from tune_srs.evaluation.baselines import Markov, Popularity

# training histories only count: item 4 occurs as a future alone
HISTORIES = histories_of([[1, 2, 1, 2], [2, 3], [1, 3, 3]], 4)


def test_popularity_counts_the_training_part() -> None:
    popularity = Popularity(HISTORIES)
    queries = popularity.queries(torch.tensor([[3], [1]]), torch.tensor([1, 1]))
    assert popularity.scores(queries, slice(1, 5)).tolist() == [[3, 3, 3, 0]] * 2
    assert popularity.scores(queries, slice(3, 5)).tolist() == [[3, 0]] * 2


def test_markov_counts_what_followed_within_a_user_then_popularity() -> None:
    markov = Markov(HISTORIES)
    queries = markov.queries(torch.tensor([[1], [2], [4]]), torch.tensor([1, 1, 1]))
    tie_break = torch.tensor([0.3, 0.3, 0.3, 0], dtype=torch.float64)  # 3 of 9 + 1
    follows = torch.tensor([[0, 2, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(markov.scores(queries, slice(1, 5)), follows + tie_break)
    torch.testing.assert_close(markov.scores(queries, slice(2, 4)), (follows + tie_break)[:, 1:3])
