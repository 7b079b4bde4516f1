"""The yardsticks by hand."""

import torch
from small_data import sequences_of

from tune_srs.baselines import Markov, Popularity

# training histories only count: item 4 occurs as a future alone
SEQUENCES = sequences_of([[1, 2, 1, 2], [2, 3], [1, 3, 3]], [[4], [4], [4]], 4)


def test_popularity_counts_the_training_part() -> None:
    scores = Popularity(SEQUENCES).score(torch.tensor([[3], [1]]), torch.tensor([1, 1]))
    assert scores.tolist() == [[0, 3, 3, 3, 0]] * 2


def test_markov_counts_what_followed_within_a_user_then_popularity() -> None:
    scores = Markov(SEQUENCES).score(torch.tensor([[1], [2], [4]]), torch.tensor([1, 1, 1]))
    tie_break = torch.tensor([0, 0.3, 0.3, 0.3, 0], dtype=torch.float64)  # 3 of 9 + 1
    follows = torch.tensor([[0, 0, 2, 1, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    torch.testing.assert_close(scores, follows + tie_break)
