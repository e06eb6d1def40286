"""How a command ends: Ctrl-C, a pipe that nobody reads, and errors that come from them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cusa.common.program import INTERRUPTED, NOBODY_READS, run
from cusa.errors import DataError


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """A program that ends takes no more signals; the tests do."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


def test_ctrl_c_that_is_pressed_again_while_the_program_ends_is_no_traceback():
    code = (
        "import atexit, os, signal\n"
        "from cusa.common.program import run\n"
        "from cusa.errors import StoppedError\n"
        "def main():\n"
        "    raise StoppedError('stopped by Ctrl-C; saved.', signal.SIGINT)\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == INTERRUPTED
    assert done.stderr.endswith("stopped by Ctrl-C; saved.\n")


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


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_program_whose_streams_are_closed_runs_without_them(closed):
    program = (
        "import sys; from cusa.common.program import run\n"
        "def main():\n    sys.stdin.read(); sys.stdout.write('a'); sys.stderr.write('b'); sys.stdout.flush()\n"
        "run(main)"
    )
    ended = subprocess.run(["bash", "-c", f'"$0" -c "$1" {closed}', sys.executable, program], stdin=subprocess.DEVNULL)
    assert ended.returncode == 0
