"""How a command ends: Ctrl-C, a pipe that nobody reads, and errors that come from them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cusa.common.program import INTERRUPTED, NOBODY_READS, run
from cusa.errors import DataError


def interrupted() -> None:
    raise KeyboardInterrupt


def interrupted_while_importing() -> None:
    try:
        interrupted()
    except KeyboardInterrupt as error:
        raise RuntimeError("Failed to import transformers.models") from error


def interrupted_while_reading() -> None:
    try:
        interrupted()
    except KeyboardInterrupt:
        raise DataError("a.npy is not a complete npy file") from None


@pytest.mark.parametrize("main", [interrupted, interrupted_while_importing, interrupted_while_reading])
def test_ctrl_c_is_one_line_whatever_a_library_made_of_it(main, capsys):
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == INTERRUPTED
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run(lambda: divmod(1, 0))


def test_a_pipe_that_nobody_reads_is_no_error():
    code = "import sys; from cusa.common.program import run; run(lambda: [print('x' * 1000) for _ in range(10_000)])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == NOBODY_READS
