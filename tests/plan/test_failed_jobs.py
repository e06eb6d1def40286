"""Jobs that have failed: their names, and how they ended by what Snakemake says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cusa.plan.failed_jobs import FailedJobs, job_name

LOG = "results/a/logs/train/cusa/seed1.log"
FOLDERS = [Path("results/a/logs"), Path("results/benchmark-data/logs")]


@pytest.mark.parametrize(
    ("log", "name"),
    [
        (LOG, "cusa/seed1"),
        ("results/a/logs/embed_more/cusa/seed1/class_prompts.log", "cusa/seed1/class_prompts"),
        ("results/a/logs/embed_gallery/cusa/seed1/all/0-of-2.log", "cusa/seed1/all/0-of-2"),
        ("results/a/logs/write_shards/train.log", "write_shards/train"),
        ("results/benchmark-data/logs/extract_benchmark_features/pets/clip-test.log", "pets/clip-test"),
        ("elsewhere/cusa/seed1.log", "cusa/seed1"),
    ],
)
def test_a_name_tells_a_job_from_the_others_of_its_rule(log, name):
    assert job_name(Path(log), FOLDERS) == name


def sentence(message: str = "", said: str | None = None, lines: tuple[str, ...] = ()) -> str:
    jobs = FailedJobs()
    jobs.read(message)
    jobs.failed([LOG, "slurm.log"], said)
    assert jobs.logs == [Path(LOG)]
    return jobs.without_message("cusa/seed1", Path(LOG), list(lines))


@pytest.mark.parametrize(
    ("end", "says"),
    [
        ("died with <Signals.SIGKILL: 9>.", "was ended by SIGKILL, as the system does when memory runs out: run fewer"),
        ("returned non-zero exit status 137.", "was ended by SIGKILL, as the system does when memory runs out: run"),
        ("died with <Signals.SIGSEGV: 11>.", "was ended by the signal SIGSEGV. "),
        ("returned non-zero exit status 3.", "ended with the exit status 3 and without a message. "),
        ("vanished", "ended without a message, as a process does that is killed, as the system does when memory"),
    ],
)
def test_the_sentence_says_how_a_job_ended_as_far_as_snakemake_says(end, says):
    message = f"RuleException:\nCalledProcessError in file train.smk, line 9:\nCommand 'a \n b > {LOG} 2>&1' {end}"
    assert sentence(message).startswith(f"Error: cusa/seed1 {says}")
    assert sentence(message).endswith(" Its log is empty.")


def test_the_sentence_has_what_slurm_says_and_the_last_line_of_the_log():
    said = "SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'. "
    assert sentence("", said, ("on cpu", "epoch 2\n")).endswith(
        " What runs the jobs says: SLURM-job '7' failed, SLURM status is: 'OUT_OF_MEMORY'. The last line of its log: "
        "epoch 2"
    )


def test_ctrl_c_is_no_failure_and_a_job_that_starts_again_has_not_failed():
    jobs = FailedJobs()
    jobs.read(f"Command 'python > {LOG} 2>&1' died with <Signals.SIGINT: 2>.")
    jobs.failed([LOG], None)
    assert jobs.was_interrupted(Path(LOG))
    assert Path(LOG) in jobs
    jobs.started([LOG])
    assert Path(LOG) not in jobs
    assert not jobs.was_interrupted(Path(LOG))
