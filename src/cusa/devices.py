"""Leases of GPUs: jobs that run at the same time on one machine get different devices.

Snakemake counts how many GPUs are in use but does not choose which (snakemake issue 281), so jobs that start at the
same time would all use the first one. Here a job leases devices: it locks one file per device, and runs with
CUDA_VISIBLE_DEVICES set:

    python -m cusa.devices 2 torchrun --nproc-per-node 2 ...

The program replaces this process (exec) and inherits the locks. So signals reach the program directly, and when it
ends, even by kill -9, the kernel releases the devices. If CUDA_VISIBLE_DEVICES is set already, by Slurm, a container
or the user, nothing is leased and the program uses those devices.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cusa.common.program import run
from cusa.errors import ConfigurationError

log = logging.getLogger(__name__)
VISIBLE = "CUDA_VISIBLE_DEVICES"
NAMED = "CUSA_DEVICES"
LOCKS = "CUSA_DEVICE_LOCKS"
SECONDS_BETWEEN_ATTEMPTS = 0.05
SECONDS_BETWEEN_REPORTS = 30.0


def devices(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The UUIDs of this machine's GPUs, as nvidia-smi lists them; an empty list if there is no nvidia-smi.

    CUSA_DEVICES=a,b,c replaces this list: by the only devices that jobs may use, or by pretend devices in tests.
    """
    if named := environment.get(NAMED, "").strip(","):
        return [name.strip() for name in named.split(",")]
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def assigned(environment: Mapping[str, str] = os.environ) -> list[str] | None:
    """The devices in CUDA_VISIBLE_DEVICES; None if the variable is not set."""
    visible = environment.get(VISIBLE)
    return None if visible is None else [name for name in visible.split(",") if name.strip()]


def available(environment: Mapping[str, str] = os.environ) -> int:
    """How many devices the jobs on this machine can use."""
    visible = assigned(environment)
    return len(devices(environment) if visible is None else visible)


@contextmanager
def lease(count: int, names: Sequence[str], folder: str | Path, inherited: bool = False) -> Iterator[list[str]]:
    """Lease `count` of the devices `names`, and wait while too few are free. Yields the names of the leased devices.

    Only one job at a time takes devices; the other jobs wait at a gate. So two jobs never wait for each other's
    devices, and small jobs cannot overtake a large one for ever. The locks are made by flock on files in `folder`,
    which every user of the machine can write. With `inherited` the locks survive an exec; this needs the file
    descriptors, which the package filelock does not expose. The yielded names are in the order of `names`. Raises
    ConfigurationError when `names` has fewer than `count` devices.
    """
    if count > len(names):
        raise ConfigurationError(
            f"a job asks for {count} GPUs, but this machine has {len(names)} ({', '.join(names) or 'none'}); lower "
            "train.gpus, or run nvidia-smi to see why."
        )
    folder = Path(folder)
    descriptors: dict[str, int] = {}
    try:
        gate = _open_lock(folder, "gate")
        try:
            fcntl.flock(gate, fcntl.LOCK_EX)
            _take(count, names, folder, descriptors)
        finally:
            os.close(gate)
        for descriptor in descriptors.values():
            os.set_inheritable(descriptor, inherited)
        yield [name for name in names if name in descriptors]
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


def _take(count: int, names: Sequence[str], folder: Path, descriptors: dict[str, int]) -> None:
    """Lock devices until `descriptors` holds `count` of them: the file descriptor of each lock, by device."""
    started = reported = time.monotonic()
    while True:
        for name in names:
            if len(descriptors) < count and name not in descriptors:
                descriptor = _open_lock(folder, name)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                else:
                    descriptors[name] = descriptor
        if len(descriptors) == count:
            return
        now = time.monotonic()
        if now - reported >= SECONDS_BETWEEN_REPORTS:
            reported = now
            log.info(
                "still waiting for %d more of %d GPUs after %.0f s; other jobs use them (locks in %s)",
                count - len(descriptors),
                len(names),
                now - started,
                folder,
            )
        time.sleep(SECONDS_BETWEEN_ATTEMPTS)


def _open_lock(folder: Path, name: str) -> int:
    """Open a lock file that every user of the machine can lock, and make it if needed. Returns the file descriptor."""
    before = os.umask(0)
    try:
        folder.mkdir(mode=0o1777, parents=True, exist_ok=True)
        return os.open(folder / f"{name.replace('/', '_')}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    finally:
        os.umask(before)


def main() -> None:
    """Lease GPUs, then replace this process by a program that runs on them."""
    parser = argparse.ArgumentParser(prog="python -m cusa.devices", description=main.__doc__)
    parser.add_argument("count", type=int, help="number of GPUs to lease; 0 leases none")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the program and its arguments")
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("no program to run")
    program, environment = arguments.command, dict(os.environ)
    if arguments.count == 0:
        os.execvp(program[0], program)
    visible = assigned(environment)
    if visible is not None:
        if len(visible) < arguments.count:
            raise ConfigurationError(
                f"{VISIBLE} gives this job {len(visible)} GPUs ({environment[VISIBLE]!r}), but it needs "
                f"{arguments.count}; name that many, or lower train.gpus."
            )
        os.execvp(program[0], program)
    folder = environment.get(LOCKS, "/tmp/cusa-devices")
    with lease(arguments.count, devices(environment), folder, inherited=True) as leased:
        log.info("%s=%s", VISIBLE, ",".join(leased))
        os.execvpe(program[0], program, environment | {VISIBLE: ",".join(leased)})


if __name__ == "__main__":
    run(main)
