"""How far the jobs that run now are, in a live view and in lines."""

from __future__ import annotations

import errno
import time

import pytest

from cusa.common.progress import progress
from cusa.plan import running_jobs
from cusa.plan.running_jobs import Bars, Job, Lines, Pace, RunningJobs, of_log
from cusa.runs.live import LiveRun

LIVE = {
    "status": "running",
    "experiment": "cusa",
    "seed": 23,
    "epochs": 30,
    "steps_per_epoch": 10,
    "epoch": 3,
    "step": 4,
    "started": "2026-11-29T10:00:00",
    "updated": "2026-11-29T10:01:00",
}


def test_a_training_says_its_epoch_score_pace_and_time(tmp_path):
    job = Job("cusa/seed23", None, tmp_path, started=time.time() - 9)
    assert job.pace() is None
    LiveRun(**LIVE).write(tmp_path)
    assert job.pace() == Pace("epoch 4/30", 34, 300)
    LiveRun(**LIVE, last_r_mean=61.24, best_r_mean=63, pairs_per_second=210.4, seconds_left=700).write(tmp_path)
    assert job.pace() == Pace("epoch 4/30, r_mean 61.2 (best 63.0), 12 min left, 210 pairs/s", 34, 300)
    LiveRun(**LIVE, last_r_mean=63.0, best_r_mean=63.0).write(tmp_path)
    assert job.pace().text == "epoch 4/30, r_mean 63.0"


def test_what_an_earlier_training_has_left_says_nothing(tmp_path):
    LiveRun(**LIVE).write(tmp_path)
    (tmp_path / "job.log").write_text("train features: 10/20 images in 2.0 s (5.0 images/s)\n")
    assert Job("train", tmp_path / "job.log", tmp_path, started=time.time() + 60).pace() is None


def test_the_trainings_of_a_trial_are_in_folders_of_their_own(tmp_path):
    LiveRun(**LIVE).write(tmp_path / "seed7")
    assert Job("run_trial", None, tmp_path, started=time.time() - 9).pace() == Pace("epoch 4/30", 34, 300)


def test_another_job_has_the_pace_that_its_log_says(tmp_path, capsys, monkeypatch):
    """The line is the one that `progress` writes."""
    monkeypatch.setattr("cusa.common.progress.SECONDS_BETWEEN_LINES", 0.0)
    items = progress(range(4_000), 4_000, "images", "train features")
    for _ in range(1_235):
        next(items)
    log = tmp_path / "job.log"
    log.write_text("12:00:00 on cpu\n" + capsys.readouterr().err)
    pace = Job("extract", log, tmp_path, started=time.time() - 9).pace()
    assert pace.text.startswith("train features: 1,234/4,000 images, ")
    assert pace.text.endswith(" images/s")
    assert (pace.done, pace.total) == (1_234, 4_000)
    log.write_text("rows: 7 rows in 1.0 s (7.0 rows/s)\n")
    assert of_log(log) == Pace("rows: 7 rows, 7.0 rows/s", 7, None)
    log.write_text("rows: 7 rows in 1.0 s (7.0 rows/s)\n12:00:00 something else\n")
    assert of_log(log) is None
    log.write_text("")
    assert of_log(log) is None


@pytest.mark.parametrize(
    "error", [FileNotFoundError(), OSError(errno.ESTALE, "Stale file handle")], ids=["gone", "stale"]
)
def test_files_that_cannot_be_read_end_no_thread(tmp_path, monkeypatch, error):
    monkeypatch.setattr(running_jobs, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(running_jobs, "SECONDS_BETWEEN_LINES", 0.0)
    log, jobs, asked, written = tmp_path / "job.log", RunningJobs(), [], []
    log.write_text("rows: 7 rows in 1.0 s (7.0 rows/s)\n")

    def read(path):
        asked.append(path)
        if len(asked) == 1:
            raise error
        return of_log(path)

    monkeypatch.setattr(running_jobs, "of_log", read)
    jobs.start(1, Job("convert", log, None, started=time.time() - 9))
    jobs.watch(Lines(written.append))
    deadline = time.monotonic() + 20
    while not written and time.monotonic() < deadline:
        time.sleep(0.01)
    jobs.stop()
    assert written == ["convert: rows: 7 rows, 7.0 rows/s\n"]


def test_lines_are_written_some_time_apart_and_only_if_something_is_new():
    now, written = [0.0], []
    lines = Lines(written.append, clock=lambda: now[0])
    job = Job("cusa/seed23", None, None, started=0.0)
    for now[0], text in [(5, "a"), (31, "b"), (40, "c"), (62, "b"), (63, "d"), (64, "e"), (100, "f")]:
        lines.show(1, job, Pace(text, 0, None))
    assert written == [f"cusa/seed23: {text}\n" for text in ("b", "d", "f")]
    lines.keep([])
    now[0] = 101
    lines.show(1, job, Pace("f", 0, None))
    assert len(written) == 4


def test_every_running_job_has_a_bar_until_it_ends(tmp_path):
    rich = pytest.importorskip("rich.progress")
    shown, jobs = rich.Progress(), RunningJobs()
    bars = Bars(shown)
    jobs.start(5, Job("cusa/seed23", None, tmp_path, started=time.time() - 9))
    jobs.start(6, Job("convert/convert", None, None))
    jobs.show_all(bars)
    assert shown.tasks == []
    LiveRun(**LIVE).write(tmp_path)
    jobs.show_all(bars)
    (task,) = shown.tasks
    assert task.description == "[dim]cusa/seed23:[/] epoch 4/30"
    assert (task.completed, task.total) == (34, 300)
    jobs.end(5)
    jobs.end(5)
    jobs.show_all(bars)
    assert shown.tasks == []


def test_the_thread_looks_until_it_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(running_jobs, "SECONDS_BETWEEN_LOOKS", 0.01)
    monkeypatch.setattr(running_jobs, "SECONDS_BETWEEN_LINES", 0.0)
    written, jobs = [], RunningJobs()
    jobs.stop()  # nothing was started
    jobs = RunningJobs()
    LiveRun(**LIVE).write(tmp_path)
    jobs.start(1, Job("cusa/seed23", None, tmp_path, started=time.time() - 9))
    jobs.watch(Lines(written.append))
    deadline = time.monotonic() + 20
    while not written and time.monotonic() < deadline:
        time.sleep(0.01)
    jobs.stop()
    assert written == ["cusa/seed23: epoch 4/30\n"]
