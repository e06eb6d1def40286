"""What the log of a training of several processes ends in when one of them fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, time
from cusa.common.program import run
from cusa.errors import DataError


def main():
    if os.environ["LOCAL_RANK"] == "1":
        {fails}
    time.sleep(60)


run(main)
"""


@pytest.mark.parametrize(
    ("fails", "status", "last"),
    [
        ("raise DataError('shards/train is damaged; delete it.')", 1, "Error: shards/train is damaged; delete it."),
        (
            "os.kill(os.getpid(), 9)",
            137,
            "Error: process 1 of the training was ended by SIGKILL, as the system does when memory runs out; the same "
            "command continues from the last state that was saved, if there is one.",
        ),
    ],
    ids=["error", "killed"],
)
def test_the_sentence_of_the_process_that_failed_is_the_last_line(tmp_path: Path, fails: str, status: int, last: str):
    (tmp_path / "program.py").write_text(PROGRAM.format(fails=fails))
    words = [sys.executable, "-m", "cusa.training.launch", "--standalone", "--nproc-per-node", "2", "program.py"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ, timeout=120)
    assert done.returncode == status, done.stderr
    assert done.stderr.splitlines()[-1] == last
    assert "Traceback" not in done.stderr
