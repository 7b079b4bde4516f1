"""The touched rows move as torch's own sparse Adam moves them; the others stay."""

import torch
from torch import Tensor

from tune_srs.lazy_adam import LazyAdam


def sparse_gradient(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(9, (6,), generator=generator)  # row 9 is never touched, others repeat
    values = torch.randn(6, 4, generator=generator)
    return torch.sparse_coo_tensor(rows[None], values, (10, 4), check_invariants=False)


def test_it_moves_as_sparse_adam_does() -> None:
    start = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    pairs = [
        (ours, LazyAdam([ours], lr=0.1, betas=(0.8, 0.9))),
        (theirs, torch.optim.SparseAdam([theirs], lr=0.1, betas=(0.8, 0.9))),
    ]
    for seed in range(5):
        for table, optimizer in pairs:
            table.grad = sparse_gradient(seed)
            optimizer.step()
        torch.testing.assert_close(ours, theirs)
    assert torch.equal(ours[9], start[9])
    assert not torch.equal(ours[0], start[0])


def test_without_a_gradient_nothing_moves() -> None:
    table = torch.nn.Parameter(torch.ones(3, 2))
    LazyAdam([table], lr=0.1, betas=(0.9, 0.99)).step()
    assert torch.equal(table, torch.ones(3, 2))
