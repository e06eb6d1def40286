"""Leases of devices, tested with pretend devices: no GPU is needed to see which job holds which device."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cusa.devices import assigned, available, devices, lease
from cusa.errors import ConfigurationError

ROOT = Path(__file__).parents[1]
FOUR = ["a", "b", "c", "d"]
# A program that writes down which devices it holds, and from when to when.
HOLDER = """
import os, sys, time
mine = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
notes = os.open(sys.argv[1], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
def note(what):
    os.write(notes, "".join(f"{os.getpid()} {name} {what} {time.monotonic()}\\n" for name in mine).encode())
note("from")
print(" ".join(mine), flush=True)
time.sleep(float(sys.argv[2]))
note("to")
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    known = {"CUSA_DEVICES": ",".join(FOUR), "CUSA_DEVICE_LOCKS": str(folder / "locks"), **more}
    mine = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return {**mine, "PYTHONPATH": str(ROOT / "src"), **known}


def started(folder: Path, count: int, seconds: float, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "cusa.devices", str(count), sys.executable, "-c", HOLDER, str(folder / "notes")]
    return subprocess.Popen(
        [*command, str(seconds)],
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_forty_jobs_on_four_devices_with_random_kills(tmp_path):
    """Jobs lease 1 to 4 devices, and some are killed with -9 while they wait for devices or hold them.

    No device ever has two holders, and there is no deadlock.
    """
    chance = random.Random(0)
    jobs: list[subprocess.Popen[str]] = []
    killed: dict[int, float] = {}
    for _ in range(40):
        jobs.append(started(tmp_path, chance.randint(1, 4), chance.uniform(0.0, 0.2)))
        time.sleep(chance.uniform(0, 0.1))
        alive = [job for job in jobs if job.poll() is None]
        if len(alive) > 6:
            victim = chance.choice(alive)
            killed[victim.pid] = time.monotonic()
            victim.kill()
    # A busy machine may end each job before it is killed; this one surely holds its devices.
    jobs.append(started(tmp_path, 2, 60.0))
    while (tmp_path / "notes").read_text().count(f"{jobs[-1].pid} ") < 2:
        assert jobs[-1].poll() is None, jobs[-1].stderr.read()
        time.sleep(0.01)
    killed[jobs[-1].pid] = time.monotonic()
    jobs[-1].kill()
    for job in jobs:
        assert job.wait(60) == (0 if job.pid not in killed else job.returncode)
    held: dict[str, list[tuple[float, float]]] = {name: [] for name in FOUR}
    since: dict[tuple[str, str], float] = {}
    for line in (tmp_path / "notes").read_text().splitlines():
        pid, name, what, moment = line.split()
        if what == "from":
            since[pid, name] = float(moment)
        else:
            held[name].append((since.pop((pid, name)), float(moment)))
    for (pid, name), begun in since.items():
        held[name].append((begun, killed[int(pid)]))
    for spans in held.values():
        spans.sort()
        assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans)), spans
    assert len(killed) > 5
    assert since
    with lease(4, FOUR, tmp_path / "locks") as all_of_them:
        assert all_of_them == FOUR


def test_a_job_is_the_program_itself_and_its_devices_are_free_when_it_is_killed(tmp_path):
    """There is no child process that could outlive the lease, and no parent process that could swallow a signal."""
    job = started(tmp_path, 3, 60.0)
    assert job.stdout.readline().split() == ["a", "b", "c"]
    assert Path(f"/proc/{job.pid}/cmdline").read_text().split("\0")[1] == "-c"
    with lease(1, FOUR, tmp_path / "locks") as mine:
        assert mine == ["d"]
    job.kill()
    job.wait()
    with lease(4, FOUR, tmp_path / "locks") as mine:
        assert mine == FOUR


def test_children_do_not_keep_the_devices(tmp_path):
    """A worker that lives a moment longer than its launcher holds no lock."""
    child = "import subprocess, sys; subprocess.Popen(['sleep', '30']); print('started', flush=True)"
    command = [sys.executable, "-m", "cusa.devices", "4", sys.executable, "-c", child]
    subprocess.run(command, env=environment(tmp_path), stdout=subprocess.DEVNULL, check=True)
    with lease(4, FOUR, tmp_path / "locks") as mine:
        assert mine == FOUR


def test_slurm_or_the_user_has_the_say(tmp_path):
    with lease(4, FOUR, tmp_path / "locks"):
        job = started(tmp_path, 2, 0.0, CUDA_VISIBLE_DEVICES="0,3")
        assert job.communicate(timeout=20)[0].split() == ["0", "3"]
        short = started(tmp_path, 2, 0.0, CUDA_VISIBLE_DEVICES="0")
        assert "gives this job 1 GPUs ('0'), but it needs 2" in short.communicate(timeout=20)[1]
        assert short.returncode == 1
    assert assigned({"CUDA_VISIBLE_DEVICES": ""}) == []
    assert available({"CUDA_VISIBLE_DEVICES": "1"}) == 1
    assert available({"CUSA_DEVICES": "x,y"}) == 2


def test_more_than_there_are_is_a_sentence(tmp_path):
    too_many = r"asks for 5 GPUs, but this machine has 4 \(a, b, c, d\)"
    with pytest.raises(ConfigurationError, match=too_many), lease(5, FOUR, tmp_path):
        pass


def test_a_machine_without_nvidia_smi_has_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices({}) == []
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho GPU-1\necho GPU-2\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert devices({}) == ["GPU-1", "GPU-2"]


def test_taking_and_giving_back_is_quick(tmp_path):
    """A lease may take 5 ms if no other job wants devices."""
    took = []
    for _ in range(50):
        before = time.perf_counter()
        with lease(2, FOUR, tmp_path / "locks"):
            pass
        took.append(time.perf_counter() - before)
    assert sorted(took)[25] < 0.005
