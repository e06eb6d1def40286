"""The memory that a process has used."""

from __future__ import annotations

import subprocess
import sys

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
