"""Which GPU is whose: jobs that run side by side on one machine get distinct devices.

Snakemake counts how many GPUs are in use and does not say which (snakemake issue 281), so jobs started side by side
would share the first. Here a job leases devices by locking a file for each, and runs with CUDA_VISIBLE_DEVICES set:

    python -m cusa.devices 2 torchrun --nproc-per-node 2 ...

The program replaces this one (exec) and inherits the locks, so it gets signals itself, and when it ends, also by kill
-9, the kernel lets the devices go. Where Slurm, a container or the user has already said which devices there are, in
CUDA_VISIBLE_DEVICES, nothing is leased.
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
SECONDS_BETWEEN_LOOKS = 0.05
SECONDS_BEFORE_SAYING = 30.0


def devices(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The GPUs of this machine by UUID, as nvidia-smi lists them; none without it.

    CUSA_DEVICES=a,b,c names others instead: pretend ones for tests, or those of a machine that jobs should keep to.
    """
    if named := environment.get(NAMED, "").strip(","):
        return [name.strip() for name in named.split(",")]
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def assigned(environment: Mapping[str, str] = os.environ) -> list[str] | None:
    """The devices that somebody else has given this job in CUDA_VISIBLE_DEVICES; None where nobody has."""
    visible = environment.get(VISIBLE)
    return None if visible is None else [name for name in visible.split(",") if name.strip()]


def available(environment: Mapping[str, str] = os.environ) -> int:
    """How many devices jobs on this machine can have."""
    given = assigned(environment)
    return len(devices(environment) if given is None else given)


@contextmanager
def lease(count: int, names: Sequence[str], folder: str | Path, inherited: bool = False) -> Iterator[list[str]]:
    """Hold `count` of the devices `names`; waits while too few are free. Yields theirs, in the order of `names`.

    Only one job at a time takes devices, the others queue before it: two jobs can never wait for what the other
    holds, and a job of many devices is not passed by small ones for ever. Locks are flock's, of files in `folder`,
    which everyone on the machine can write; with `inherited` they outlive an exec. (filelock hides the descriptor that
    this needs.) Raises ConfigurationError when there are not that many devices at all.
    """
    if count > len(names):
        raise ConfigurationError(
            f"a job asks for {count} GPUs, but this machine has {len(names)} ({', '.join(names) or 'none'}); lower "
            "train.gpus, or run nvidia-smi to see why."
        )
    folder = Path(folder)
    held: dict[str, int] = {}
    try:
        gate = _open(folder, "gate")
        try:
            fcntl.flock(gate, fcntl.LOCK_EX)
            _take(count, names, folder, held)
        finally:
            os.close(gate)
        for descriptor in held.values():
            os.set_inheritable(descriptor, inherited)
        yield [name for name in names if name in held]
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def _take(count: int, names: Sequence[str], folder: Path, held: dict[str, int]) -> None:
    started = said = time.monotonic()
    while True:
        for name in names:
            if len(held) < count and name not in held:
                descriptor = _open(folder, name)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                else:
                    held[name] = descriptor
        if len(held) == count:
            return
        now = time.monotonic()
        if now - said >= SECONDS_BEFORE_SAYING:
            said = now
            log.info(
                "waiting for %d more of %d GPUs, for %.0f s; other jobs hold them (locks in %s)",
                count - len(held),
                len(names),
                now - started,
                folder,
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _open(folder: Path, name: str) -> int:
    """A lock file that every user of the machine can lock; nobody but the kernel ever unlocks for another."""
    before = os.umask(0)
    try:
        folder.mkdir(mode=0o1777, parents=True, exist_ok=True)
        return os.open(folder / f"{name.replace('/', '_')}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    finally:
        os.umask(before)


def main() -> None:
    """Lease devices and become the program that is named."""
    parser = argparse.ArgumentParser(prog="python -m cusa.devices", description=main.__doc__)
    parser.add_argument("count", type=int, help="devices to lease; 0 leases none")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="program and arguments")
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("no program to run")
    program, environment = arguments.command, dict(os.environ)
    if arguments.count == 0:
        os.execvp(program[0], program)
    given = assigned(environment)
    if given is not None:
        if len(given) < arguments.count:
            raise ConfigurationError(
                f"{VISIBLE} gives this job {len(given)} GPUs ({environment[VISIBLE]!r}), but it needs "
                f"{arguments.count}; give it as many, or lower train.gpus."
            )
        os.execvp(program[0], program)
    folder = environment.get(LOCKS, "/tmp/cusa-devices")
    with lease(arguments.count, devices(environment), folder, inherited=True) as mine:
        log.info("%s=%s", VISIBLE, ",".join(mine))
        os.execvpe(program[0], program, environment | {VISIBLE: ",".join(mine)})


if __name__ == "__main__":
    run(main)
