"""What several processes tell each other, by processes of gloo."""

from __future__ import annotations

import os

import torch
from conftest import in_processes

from cusa.training.distributed import Group, join, leave


def test_one_process_needs_no_talk(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = join(gpu=False)
    assert (group.processes, group.process, group.first) == (1, 0, True)
    rows = torch.ones(2, 3)
    assert group.all_of(rows) is rows
    assert group.any(True, False) == [True, False]
    assert group.mean(rows) is rows
    assert group.each("mine") == ["mine"]
    assert group.from_first("mine") == "mine"


def three() -> None:
    group = join(gpu=False)
    rank = int(os.environ["RANK"])
    assert (group.processes, group.process, group.first) == (3, rank, rank == 0)
    assert group.any(rank == 1, False, rank == 2) == [True, False, True]
    assert group.mean(torch.tensor([float(rank), 4.0])).tolist() == [1.0, 4.0]
    assert group.each(f"from {rank}") == ["from 0", "from 1", "from 2"]
    assert group.from_first(rank) == 0
    whole_numbers = group.all_of(torch.tensor([rank, 10 * rank]))
    assert whole_numbers.tolist() == [0, 0, 1, 10, 2, 20]
    leave()


def test_three_processes_agree():
    in_processes(3, three)


def gradients() -> None:
    """Process r weighs row i of all by (r + 1) * i: each row's gradient is the sum over the processes."""
    group = join(gpu=False)
    rows = torch.full((2, 3), float(group.process), requires_grad=True)
    everyone = group.all_of(rows)
    weights = (group.process + 1.0) * torch.arange(4.0)[:, None]
    (everyone * weights).sum().backward()
    expected = 3.0 * torch.arange(4.0)[2 * group.process : 2 * group.process + 2, None].expand(2, 3)
    assert torch.equal(rows.grad, expected)
    leave()


def test_gradients_flow_back_to_the_process_that_a_row_came_from():
    in_processes(2, gradients)


def test_a_group_by_hand():
    assert Group(4, 2).first is False
