"""The collectives of several processes, tested with gloo."""

from __future__ import annotations

import os
import warnings

import torch
from conftest import in_processes

from cusa.training.distributed import Group, SharedFlags, join, leave


def test_one_process_needs_no_communication(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    group = join(gpu=False)
    assert (group.world_size, group.rank, group.is_main) == (1, 0, True)
    rows = torch.ones(2, 3)
    assert group.gather_rows(rows) is rows
    assert group.any(True, False)() == [True, False]
    assert group.mean(rows) is rows
    assert group.gather_objects("mine") == ["mine"]
    assert group.broadcast("mine") == "mine"


def check_three_processes() -> None:
    group = join(gpu=False)
    rank = int(os.environ["RANK"])
    assert (group.world_size, group.rank, group.is_main) == (3, rank, rank == 0)
    assert group.any(rank == 1, False, rank == 2)() == [True, False, True]
    assert group.mean(torch.tensor([float(rank), 4.0])).tolist() == [1.0, 4.0]
    assert group.gather_objects(f"from {rank}") == ["from 0", "from 1", "from 2"]
    assert group.broadcast(rank) == 0
    integers = group.gather_rows(torch.tensor([rank, 10 * rank]))
    assert integers.tolist() == [0, 0, 1, 10, 2, 20]
    leave()


def test_three_processes_agree():
    in_processes(3, check_three_processes)


def check_shared_flags() -> None:
    """Process 1 sets the first flag at step 2: all know it at step 3, or at step 2 if they wait for it."""
    group = join(gpu=False)
    for now in (False, True):
        flags = SharedFlags(group, count=2)
        found = [flags.read(group.rank == 1 and step == 2, False, now=now and step == 2) for step in range(4)]
        assert found == [[step == (2 if now else 3), False] for step in range(4)]
        assert flags.read(False, False, now=True) == [False, False]
    leave()


def test_a_flag_of_one_process_reaches_all_at_the_same_step():
    in_processes(2, check_shared_flags)


def test_a_flag_of_one_process_alone_is_read_at_once():
    flags = SharedFlags(Group(), count=2)
    assert flags.read(True, False, now=False) == [True, False]
    assert flags.read(False, False, now=False) == [False, False]


def check_gradients() -> None:
    """Process r multiplies row i of all rows by (r + 1) * i; a row's gradient is the sum over the processes."""
    group = join(gpu=False)
    rows = torch.full((2, 3), float(group.rank), requires_grad=True)
    gathered = group.gather_rows(rows)
    weights = (group.rank + 1.0) * torch.arange(4.0)[:, None]
    (gathered * weights).sum().backward()
    expected = 3.0 * torch.arange(4.0)[2 * group.rank : 2 * group.rank + 2, None].expand(2, 3)
    assert torch.equal(rows.grad, expected)
    leave()


def test_gradients_flow_back_to_the_process_that_a_row_came_from():
    in_processes(2, check_gradients)


def check_that_gathering_warns_of_nothing() -> None:
    group = join(gpu=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert group.gather_rows(torch.full((1, 2), float(group.rank))).tolist() == [[0.0, 0.0], [1.0, 1.0]]
    leave()


def test_gathering_uses_the_collective_that_this_pytorch_does_not_deprecate():
    in_processes(2, check_that_gathering_warns_of_nothing)


def test_only_rank_0_is_the_main_process():
    assert [Group(4, rank).is_main for rank in range(4)] == [True, False, False, False]
