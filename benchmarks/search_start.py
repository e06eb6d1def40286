"""Cold start of `cusa search`, from the command to the answer: python benchmarks/search_start.py [INDEX]

INDEX is an index folder; by default that of the demo, which `make demo` writes, with the ONNX export of the run as its
model. Each run is a new process, before which the files of the index and of the model leave the page cache.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import ROOT, Claim

from cusa.index.folder import SearchIndex

DEMO = ROOT / "results/openmoji/runs/cusa/seed23/search/all"
TEXT = "a birthday cake with candles"
REPEATS, BAR = 5, 3.0
HEAVY = ("torch", "transformers", "pandas", "snakemake")


def forget(folder: Path) -> None:
    """Take the files of a folder out of the page cache, where the file system allows it."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def seconds(index: Path, model: Path, *query: str) -> float:
    """The time of one search in a process of its own."""
    for folder in (index, model):
        forget(folder)
    started = time.perf_counter()
    command = [sys.executable, "-m", "cusa.cli", "search", str(index), *query, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    taken = time.perf_counter() - started
    assert len(json.loads(done.stdout)) == 10
    return taken


def heavy_modules(index: Path) -> list[str]:
    """Which slow modules a search by text imports."""
    code = "import sys; from cusa import cli; sys.argv[1:] = ['search', *sys.argv[1:], '--json']; cli.main();"
    code += f"sys.stderr.write(' '.join(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code, str(index), TEXT], capture_output=True, text=True, check=True)
    return done.stderr.split()


def main() -> None:
    index = Path(sys.argv[1]) if sys.argv[1:] else DEMO
    if not (index / "meta.json").is_file():
        sys.exit(f"{index} does not exist; run `make demo` first, or give the folder of an index.")
    model = SearchIndex.open(index).model
    print(f"the index has {SearchIndex.open(index).rows:,} rows; its model is {model}")
    text = statistics.median(seconds(index, model, TEXT) for _ in range(REPEATS))
    like = statistics.median(seconds(index, model, "--like", "3") for _ in range(REPEATS))
    measured = f"{text:.2f} s by a text, {like:.2f} s by a row; median of {REPEATS} processes"
    imported = ", ".join(heavy_modules(index)) or "none"
    print(f"slow modules that are imported: {imported}")
    Claim("start of cusa search on the demo index, cold", measured, f"{BAR:g} s", text < BAR).report()


if __name__ == "__main__":
    main()
