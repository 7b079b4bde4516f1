"""Products with a few rows of a table against gathering the rows."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_srs.products import row_products


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 1000),
    slots=st.integers(1, 6),
    rows=st.integers(1, 6),
    count=st.integers(1, 5),
)
def test_values_and_gradients_equal_those_of_gathered_rows(
    seed: int, slots: int, rows: int, count: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(slots, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(rows, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    index = torch.randint(rows, (slots, count), generator=generator)  # rows repeat, in a slot too
    into = torch.randn(slots, count, generator=generator, dtype=torch.float64)
    gathered = (table[index] * features[:, None]).sum(-1)
    products = row_products(features, table, index)
    torch.testing.assert_close(products, gathered)
    for one, other in zip(
        torch.autograd.grad(products, (features, table), into),
        torch.autograd.grad(gathered, (features, table), into),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
