"""Rows of the history, the times they contain, and lines in the log."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from training_runs import configured

from cusa.layout import DatasetFolder
from cusa.losses import CUSALoss, Losses
from cusa.training.costs import SPEEDS, Spent
from cusa.training.distributed import Group
from cusa.training.history import History
from cusa.training.loop import train
from cusa.training.state import Progress
from cusa.training.step import StepResult

STEPS = 8


class Clock:
    """A clock that the test sets, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def history_of(tiny_configuration, clock: Clock, group: Group | None = None, **settings) -> History:
    run = configured(tiny_configuration, **settings)
    loss, group = CUSALoss(run.losses), group or Group()
    return History(configuration=run, loss=loss, group=group, pairs=64, steps_per_epoch=STEPS, clock=clock)


def result(*contrastive: float) -> StepResult:
    zero = torch.zeros(())
    return StepResult(rate=0.25, losses=[Losses(torch.tensor(value), zero, zero) for value in contrastive])


def take(
    history: History, clock: Clock, step: int, seconds: float, waited: float = 0.0, epoch: int = 0, **spent: float
) -> None:
    """Step number `step` (from 1) ends after some seconds."""
    clock.now += seconds
    history.after_step(Progress(epoch=epoch, step=step), result(2.0), Spent(waited, **spent))
    history.settle()


def test_speed_and_waiting_are_those_since_the_row_before(tiny_configuration, clock):
    history = history_of(tiny_configuration, clock, log_every=2, batch_size=8)
    history.start_epoch(Progress())
    for step, seconds, waited in ((1, 2.0, 0.5), (2, 2.0, 1.0), (3, 1.0, 1.0), (4, 4.0, 3.0)):
        take(history, clock, step, seconds, waited)
    assert [row["step"] for row in history.rows] == [2, 4]
    assert [row["samples_per_second"] for row in history.rows] == [2 * 8 / 4.0, 2 * 8 / 5.0]
    assert [row["data_wait_share"] for row in history.rows] == [1.0 / 4.0, 2.0 / 5.0]


def test_pairs_of_all_batches_and_processes_count(tiny_configuration, clock, monkeypatch):
    monkeypatch.setattr(Group, "mean", lambda group, values: values)
    group = Group(world_size=4, rank=3)
    history = history_of(tiny_configuration, clock, group, log_every=1, batch_size=8, accumulate=2)
    history.start_epoch(Progress())
    take(history, clock, 1, 2.0)
    assert history.rows[0]["samples_per_second"] == 8 * 2 * 4 / 2.0


def test_images_and_operations_are_those_since_the_row_before(tiny_configuration, clock, monkeypatch):
    """Of all processes: each does the same as this one."""
    monkeypatch.setattr(Group, "mean", lambda group, values: values)
    history = history_of(tiny_configuration, clock, Group(world_size=2), log_every=1, batch_size=8)
    history.start_epoch(Progress())
    take(history, clock, 1, 2.0, images=4, flops=100.0)
    take(history, clock, 2, 4.0, images=12, flops=400.0)
    assert [row["images_per_second"] for row in history.rows] == [2 * 4 / 2.0, 2 * 8 / 4.0]
    assert [row["model_flops_per_second"] for row in history.rows] == [2 * 100.0 / 2.0, 2 * 300.0 / 4.0]
    assert [row["mfu"] for row in history.rows] == [None, None]  # no peak of a CPU is known
    assert all(0.01 < row["memory_gib"] < 1000 for row in history.rows)
    assert set(SPEEDS) <= set(history.rows[0])


def test_a_resumed_epoch_counts_only_the_steps_since(tiny_configuration, clock):
    history = history_of(tiny_configuration, clock, log_every=4, batch_size=8)
    history.start_epoch(Progress(epoch=1, step=3))
    take(history, clock, 4, 2.0, epoch=1)
    assert history.rows[0]["samples_per_second"] == 8 / 2.0


def test_validation_is_not_time_of_the_next_epochs_steps(tiny_configuration, clock):
    """The time between epochs belongs to none; waiting is that of the epoch alone."""
    history = history_of(tiny_configuration, clock, log_every=1, batch_size=8)
    history.start_epoch(Progress())
    take(history, clock, STEPS, 2.0, waited=1.0)
    clock.now += 1000.0
    history.start_epoch(Progress(epoch=1))
    take(history, clock, 1, 4.0, waited=2.0, epoch=1)
    assert history.rows[1]["samples_per_second"] == 8 / 4.0
    assert history.rows[1]["data_wait_share"] == 1.0 / 4.0


def test_an_epochs_last_step_has_a_row(tiny_configuration, clock):
    history = history_of(tiny_configuration, clock, log_every=5)
    history.start_epoch(Progress())
    for step in range(1, STEPS + 1):
        take(history, clock, step, 1.0)
    assert [row["step"] for row in history.rows] == [5, 8]


def test_a_rows_losses_are_the_means_over_the_steps_batches(tiny_configuration, clock):
    history = history_of(tiny_configuration, clock, log_every=1)
    history.start_epoch(Progress(epoch=2, step=4))
    clock.now += 1.0
    history.after_step(Progress(epoch=2, step=5), result(1.0, 2.0, 6.0), Spent())
    history.settle()
    (row,) = history.rows
    expected = {"kind": "step", "epoch": 2, "step": 5, "lr": 0.25, "loss": 3.0, "loss_contrastive": 3.0}
    assert {key: row[key] for key in expected} == expected
    assert (row["loss_cross"], row["loss_uni"]) == (0.0, 0.0)
    assert row["temperature_cross_teacher"] == 1.0


def test_the_share_of_negatives_left_out_is_in_the_rows_of_a_run_that_judges_them(tiny_configuration, clock):
    history = history_of(tiny_configuration, clock, log_every=1)
    take(history, clock, 1, 1.0)
    assert "left_out_share" not in history.rows[0]
    judged = tiny_configuration | {"experiments": {"cusa": {"contrastive": {"false_negatives": {}}}}}
    history = history_of(judged, clock, log_every=1)
    zero = torch.zeros(())
    losses = [Losses(torch.tensor(1.0), zero, zero, torch.tensor(share)) for share in (0.25, 0.75)]
    history.after_step(Progress(step=1), StepResult(rate=0.1, losses=losses), Spent())
    history.settle()
    (row,) = history.rows
    assert (row["loss"], row["left_out_share"]) == (1.0, 0.5)
    assert row["temperature_contrastive"] == pytest.approx(0.05)


def test_a_row_is_read_from_the_device_a_step_later(tiny_configuration, clock):
    """Its losses and temperatures are those of its own step, whatever the next step has made of the temperatures."""
    history = history_of(tiny_configuration, clock, log_every=1)
    history.start_epoch(Progress())
    history.after_step(Progress(step=1), result(2.0), Spent())
    assert not history.rows
    with torch.no_grad():
        history.loss.temperatures["contrastive"].fill_(0.02)
    history.after_step(Progress(step=2), result(3.0), Spent())
    history.after_epoch(Progress(), {"r_mean": 1.0})
    assert [row.get("loss") for row in history.rows] == [2.0, 3.0, None]
    assert [row["temperature_contrastive"] for row in history.rows[:2]] == pytest.approx([0.05, 0.02])


def test_an_epochs_row_has_its_metrics_and_its_seconds(tiny_configuration, clock, caplog):
    history = history_of(tiny_configuration, clock, epochs=3)
    history.start_epoch(Progress(epoch=1))
    take(history, clock, STEPS, 4.0, waited=1.0, epoch=1)
    clock.now += 11.0
    with caplog.at_level(logging.INFO):
        history.after_epoch(Progress(epoch=1, step=STEPS), {"r_mean": 12.5, "rsum": 75.0})
    expected = {"r_mean": 12.5, "rsum": 75.0, "kind": "epoch", "epoch": 1, "step": STEPS, "seconds": 15.0}
    assert history.rows[-1] == expected
    assert caplog.messages == ["epoch 2/3: r_mean 12.50, loss 2.0000, 16 pairs/s, 25 % of it waiting for data"]


def test_lines_of_the_log_are_thirty_seconds_apart(tiny_configuration, clock, caplog):
    history = history_of(tiny_configuration, clock, epochs=2, batch_size=8)
    history.start_epoch(Progress())
    with caplog.at_level(logging.INFO):
        for step in range(1, STEPS + 1):
            take(history, clock, step, 16.0)
    assert [re.search(r"step (\d)/8", line)[1] for line in caplog.messages] == ["2", "4", "6", "8"]
    assert caplog.messages[0] == "epoch 1/2, step 2/8: loss 2.0000, 0 pairs/s, 96 s to the end of the epoch"


def test_only_rank_0_logs(tiny_configuration, clock, caplog, monkeypatch):
    monkeypatch.setattr(Group, "mean", lambda group, values: values)
    history = history_of(tiny_configuration, clock, Group(world_size=2, rank=1))
    with caplog.at_level(logging.INFO):
        history.announce(Progress(step=3))
        history.start_epoch(Progress(step=3))
        take(history, clock, STEPS, 1000.0)
        history.after_epoch(Progress(step=STEPS), {"r_mean": 1.0})
        history.log_early_stop(Progress(epoch=3))
    assert not caplog.messages
    assert [row["kind"] for row in history.rows] == ["step", "epoch"]


def test_the_log_says_what_is_trained_and_where_it_continues(tiny_configuration, clock, caplog):
    history = history_of(tiny_configuration, clock, epochs=5)
    with caplog.at_level(logging.INFO):
        history.announce(Progress())
        history.announce(Progress(epoch=1, step=3))
    first, continuing, second = caplog.messages
    assert first == "training cusa, seed 23, on 1 x cpu: 64 pairs, 8 steps an epoch, 5 of 5 epochs to go"
    assert continuing == "continuing at epoch 2, step 4"
    assert second.endswith("4 of 5 epochs to go")


def test_a_training_logs_its_steps(tiny_configuration, shapes_data, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("cusa.training.history.SECONDS_BETWEEN_LINES", 0.0)
    with caplog.at_level("INFO"):
        train(configured(tiny_configuration, epochs=1), DatasetFolder(shapes_data), tmp_path)
    lines = [record.getMessage() for record in caplog.records if "to the end of the epoch" in record.getMessage()]
    assert len(lines) == 8
    assert re.match(r"epoch 1/1, step 3/8: loss \d\.\d{4}, \d+ pairs/s, \d+ s to the end", lines[2])
