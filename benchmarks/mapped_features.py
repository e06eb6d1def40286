"""Memory that memory-mapped 37,632-d teacher features of COCO's size add, compared with loading the file."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measure import Claim

ROWS, DIMENSION, BATCHES = 113_287, 37_632, 200


def anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def child(folder: str) -> None:
    """Read random batches as training does, and print the largest growth of anonymous memory in MiB."""
    from cusa.teachers.store import FeatureStore

    rng, before, most = np.random.default_rng(0), anonymous_mib(), 0.0
    store = FeatureStore(folder, ROWS)
    for _ in range(BATCHES):
        batch = store[np.sort(rng.choice(ROWS, 128, replace=False))]
        most = max(most, anonymous_mib() - before)
        del batch
    print(most)


def main() -> None:
    if len(sys.argv) == 2:
        child(sys.argv[1])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A sparse file: it has its full length, but uses no disk blocks until something is written.
        np.lib.format.open_memmap(folder / "features.npy", mode="w+", dtype=np.float16, shape=(ROWS, DIMENSION))
        (folder / "meta.json").write_text('{"model": "unicom", "weights_sha256": ""}')
        done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
    mib, whole = float(done.stdout), ROWS * DIMENSION * 2 / 2**30
    measured = f"{mib:.0f} MiB anonymous, {BATCHES} random batches of 128 rows; loading the file takes {whole:.1f} GiB"
    Claim("memory added by mapped teacher features, [113287, 37632]", measured, "200 MiB", mib < 200).report()


if __name__ == "__main__":
    main()
