"""The memory that a process has used."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from cusa.common import memory

PROGRAM = """
from cusa.common.memory import peak_memory_gib
before = peak_memory_gib()
held = bytearray(256 << 20)
held[::4096] = b"x" * len(held[::4096])
after = peak_memory_gib()
del held
print(before, after, peak_memory_gib())
"""


def test_the_peak_grows_with_what_is_held_and_stays():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    before, after, later = map(float, done.stdout.split())
    assert 0.24 < after - before < 0.3
    assert abs(later - after) < 0.01


def test_systems_without_proc_have_a_peak_too(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "STATUS", tmp_path / "missing")
    assert memory.peak_memory_gib() > 0


CLEARED = """
import resource
import numpy as np
from cusa.common.memory import keep_freed_memory
from cusa.common.program import run

def layers():
    for _ in range(20):
        held = [np.ones(1 << 20) for _ in range(4)]
        del held

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    layers()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

layers()
print(pages())
{start}
layers()
print(pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is a function of glibc")
@pytest.mark.parametrize("start", ["keep_freed_memory()", "run(lambda: None)"], ids=["function", "program"])
def test_memory_that_is_freed_is_used_again_and_not_cleared_by_the_system(start):
    done = subprocess.run(
        [sys.executable, "-c", CLEARED.format(start=start)], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert after < 0.1 * before, (before, after)
