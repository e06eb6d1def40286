"""Start-up time of a job that only computes metrics, compared with importing torch and transformers."""

from __future__ import annotations

import subprocess
import sys

from measure import ROOT, Claim, best_of

OURS = "import sys; sys.argv = ['evaluate.py', '--help']; import runpy; runpy.run_path(%r, run_name='x')"
IMPORTS = (
    "; import faiss, scipy.stats; from cusa.benchmarks import registry as r; [r.settings_of(n) for n in r.names()]"
)


def main() -> None:
    ours = OURS % str(ROOT / "workflow/scripts/evaluate.py") + IMPORTS
    theirs = "import torch, transformers, sentence_transformers, numpy"
    seconds = {name: best_of(3, lambda code=code: subprocess.run([sys.executable, "-c", code], check=True))
               for name, code in (("ours", ours), ("theirs", theirs))}  # fmt: skip
    measured = f"{seconds['ours']:.2f} s; importing torch and sentence-transformers {seconds['theirs']:.2f} s"
    Claim("start-up of a metrics-only job", measured, "2 s", seconds["ours"] < 2).report()


if __name__ == "__main__":
    main()
