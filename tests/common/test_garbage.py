"""Programs look for garbage rarely, and not when they end."""

from __future__ import annotations

import subprocess
import sys

import pytest

CALL = "from cusa.common.garbage import collect_rarely; collect_rarely()"
PROGRAM = "from cusa.common.program import run; run(lambda: None)"


@pytest.mark.parametrize("start", [CALL, PROGRAM], ids=["function", "program"])
def test_garbage_is_looked_for_rarely_and_not_at_the_end(start):
    # What is registered first is called last, and so after the objects are frozen.
    code = (
        "import atexit, gc\n"
        "atexit.register(lambda: print(gc.get_threshold(), gc.isenabled(), gc.get_freeze_count() > 1000))\n"
        f"{start}\n"
        "print(gc.get_freeze_count() > 1000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "(50000, 20, 20) True True"]
