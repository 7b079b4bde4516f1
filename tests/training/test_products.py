"""Products with a few rows of a table against gathering the rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_srs.training.products import ByBags, OnCPU, row_products


@pytest.mark.parametrize("function", [ByBags, OnCPU])
@settings(max_examples=50)
@given(
    seed=st.integers(0, 1000),
    tokens=st.integers(1, 6),
    rows=st.integers(1, 6),
    counts=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)
def test_values_and_gradients_equal_those_of_gathered_rows(
    function: type[torch.autograd.Function],
    seed: int,
    tokens: int,
    rows: int,
    counts: tuple[int, int],
) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(tokens, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(rows, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    # rows repeat, in a token too
    indexes = [torch.randint(rows, (tokens, n), generator=generator) for n in counts]
    into = [torch.randn(tokens, n, generator=generator, dtype=torch.float64) for n in counts]
    gathered = [(table[index] * features[:, None]).sum(-1) for index in indexes]
    products = function.apply(features, table, *indexes)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(list(products), gathered)
    for one, other in zip(
        torch.autograd.grad(products, (features, table), into),
        torch.autograd.grad(gathered, (features, table), into),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_of_one_index_there_is_one_result() -> None:
    features, table = torch.eye(2), torch.arange(6.0).view(3, 2)
    (scores,) = row_products(features, table, torch.tensor([[2, 0], [1, 1]]))
    assert scores.tolist() == [[4, 0], [3, 3]]
