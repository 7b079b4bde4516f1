"""The touched rows move as torch's own sparse Adam moves them; the others stay."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tune_srs.training import lazy_adam
from tune_srs.training.lazy_adam import LazyAdam, touched_rows


def sparse_gradient(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(9, (6,), generator=generator)  # row 9 is never touched, others repeat
    values = torch.randn(6, 4, generator=generator)
    return torch.sparse_coo_tensor(rows[None], values, (10, 4), check_invariants=False)


@pytest.mark.parametrize("move", [lazy_adam.move_by_kernel, lazy_adam.move_in_torch])
def test_it_moves_as_sparse_adam_does(
    monkeypatch: pytest.MonkeyPatch, move: Callable[..., None]
) -> None:
    monkeypatch.setattr(lazy_adam, "move_by_kernel", move)
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


@pytest.mark.parametrize("move", [lazy_adam.move_by_kernel, lazy_adam.move_in_torch])
def test_where_all_is_touched_it_is_adamw(
    monkeypatch: pytest.MonkeyPatch, move: Callable[..., None]
) -> None:
    monkeypatch.setattr(lazy_adam, "move_by_kernel", move)
    start = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    settings: dict[str, Any] = {"lr": 0.1, "betas": (0.8, 0.9), "weight_decay": 0.3}
    pairs = [
        (ours, LazyAdam([ours], **settings)),
        (theirs, torch.optim.AdamW([theirs], **settings)),
    ]
    rows = torch.arange(4)[None]
    for seed in range(5):
        values = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        ours.grad = torch.sparse_coo_tensor(rows, values, (4, 3), check_invariants=False)
        theirs.grad = values
        for _, optimizer in pairs:
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_without_a_gradient_nothing_moves() -> None:
    table = torch.nn.Parameter(torch.ones(3, 2))
    LazyAdam([table], lr=0.1, betas=(0.9, 0.99)).step()
    assert torch.equal(table, torch.ones(3, 2))


@pytest.mark.parametrize("find", [lazy_adam.distinct_by_kernel, lazy_adam.distinct_in_torch])
def test_touched_rows_are_each_once_with_their_gradient(
    monkeypatch: pytest.MonkeyPatch, find: Callable[..., tuple[Tensor, Tensor]]
) -> None:
    monkeypatch.setattr(lazy_adam, "distinct_by_kernel", find)
    table = torch.arange(20.0).view(10, 2).requires_grad_()
    indexes = (torch.tensor([7, 2, 7]), torch.tensor([[2, 0], [9, 9]]))
    touched, places = touched_rows(table, *indexes)
    assert sorted(touched[:, 0].tolist()) == [0, 4, 14, 18]
    for index, place in zip(indexes, places, strict=True):
        assert torch.equal(touched[place], table[index])
    (touched[places[0]].sum() + 2 * touched[places[1]].sum()).backward()  # type: ignore[no-untyped-call]
    assert table.grad is not None
    assert table.grad.is_sparse
    assert table.grad.to_dense()[:, 0].tolist() == [2, 0, 3, 0, 0, 0, 0, 2, 0, 4]
