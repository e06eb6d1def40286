"""Runs of Snakemake, in processes that are forked from one that has imported it.

The tests start Snakemake some hundred times, and three quarters of a start are imports.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["snakemake.cli", "snakemake.api", "cusa.plan.plan", "cusa.annotations.enough_data"])


def run_snakemake(
    *arguments: object,
    cwd: Path,
    snakefile: Path | None = ROOT / "Snakefile",
    environment: Mapping[str, str] = os.environ,
) -> subprocess.CompletedProcess[str]:
    """Run `snakemake` as a shell would; with `snakefile=None`, on the one that it finds in `cwd`.

    A PYTHONPATH in `environment` reaches the jobs, but not Snakemake itself.
    """
    words = [SNAKEMAKE, *([] if snakefile is None else ["--snakefile", str(snakefile)]), *map(str, arguments)]
    with TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("stdout", "stderr")]
        process = PROCESSES.Process(target=_main, args=(words, cwd, dict(environment), outputs))
        process.start()
        process.join()
        return subprocess.CompletedProcess(words, process.exitcode, *(path.read_text() for path in outputs))


def output_of_snakemake(
    *arguments: object,
    cwd: Path,
    snakefile: Path | None = ROOT / "Snakefile",
    environment: Mapping[str, str] = os.environ,
    check: bool = True,
) -> str:
    """Standard output and then standard error of a run, which has to succeed, or to fail if `check` is false."""
    done = run_snakemake(*arguments, cwd=cwd, snakefile=snakefile, environment=environment)
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == check, output
    return output


def _main(words: Sequence[str], cwd: Path, environment: Mapping[str, str], outputs: Sequence[Path]) -> None:
    for descriptor, path in enumerate(outputs, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv[:] = words

    from snakemake.cli import main

    main()
