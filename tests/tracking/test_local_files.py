"""The files that a training writes about itself: often enough to be of use, and not so often that it costs."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from cusa.runs.live import LiveRun, live_history_path, live_path
from cusa.tracking import local_files
from cusa.tracking.local_files import SECONDS_BETWEEN_WRITES, SHARE_OF_TIME, LocalFiles


class Training:
    """Rows so far, and a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rows: list[dict] = []

    def clock(self) -> float:
        return self.now

    def describe(self):
        live = LiveRun(
            status="running",
            experiment="cusa",
            seed=1,
            epochs=9,
            steps_per_epoch=10,
            epoch=0,
            step=len(self.rows),
            started="then",
            updated="then",
        )
        return list(self.rows), live

    def step(self, files: LocalFiles) -> None:
        self.rows.append({"kind": "step", "step": len(self.rows) + 1, "loss": 1.0})
        files.log(len(self.rows), {"train/loss": 1.0})


@pytest.fixture
def training() -> Training:
    return Training()


def rows_on_disk(run) -> int:
    return pq.read_metadata(live_history_path(run)).num_rows


def test_rows_are_written_after_a_while_even_if_no_other_row_comes(training, tmp_path):
    files = LocalFiles(tmp_path, "", 0, training.describe, training.clock)
    assert LiveRun.read(tmp_path).step == 0
    training.step(files)
    assert not live_history_path(tmp_path).exists()  # it is too soon
    training.now += SECONDS_BETWEEN_WRITES + 0.1
    files.write_if_due()
    assert rows_on_disk(tmp_path) == 1
    before = live_path(tmp_path).stat().st_mtime_ns
    training.now += 100
    files.write_if_due()  # nothing is new
    assert live_path(tmp_path).stat().st_mtime_ns == before


def test_a_history_that_takes_long_to_write_is_written_less_often(training, tmp_path, monkeypatch):
    files = LocalFiles(tmp_path, "", 0, training.describe, training.clock)
    write = local_files.write_history

    def slow(path, rows):
        training.now += 2.0
        write(path, rows)

    monkeypatch.setattr(local_files, "write_history", slow)
    training.now += 100
    training.step(files)
    assert rows_on_disk(tmp_path) == 1
    training.now += 2.0 / SHARE_OF_TIME - 1
    training.step(files)
    assert rows_on_disk(tmp_path) == 1
    training.now += 2
    training.step(files)
    assert rows_on_disk(tmp_path) == 3


@pytest.mark.parametrize("status", ["stopped", "failed"])
def test_the_last_rows_of_an_unfinished_training_are_on_disk(training, tmp_path, status):
    files = LocalFiles(tmp_path, "", 0, training.describe, training.clock)
    training.step(files)
    files.message = "a reason"
    files.finish(status, {})
    assert rows_on_disk(tmp_path) == 1
    assert (LiveRun.read(tmp_path).status, LiveRun.read(tmp_path).message) == (status, "a reason")


def test_a_finished_training_leaves_only_its_event_files(training, tmp_path):
    files = LocalFiles(tmp_path, "", 0, training.describe, training.clock)
    training.now += 100
    training.step(files)
    files.finish("finished", {})
    assert list((tmp_path / "state").iterdir()) == []
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
