"""The program that measures what only a GPU shows: all of its parts work, at tiny sizes on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).parents[1] / "benchmarks/gpu.py"
MARKER = "BENCHMARK-RESULT "


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, text=True, env=environment)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "There is no GPU that PyTorch sees; `--rehearse` runs all parts at tiny sizes on the CPU."
    )


@pytest.mark.slow
def test_the_rehearsal_measures_every_part():
    done = run("--rehearse")
    assert done.returncode == 0, done.stderr[-3000:]
    claims = [json.loads(line.removeprefix(MARKER)) for line in done.stdout.splitlines() if line.startswith(MARKER)]
    parts = [
        "leases",
        "captions_per_image 1",
        "captions_per_image all",
        "(MFU)",
        "waits for data",
        "extraction",
        "losses",
    ]
    assert len(claims) == len(parts)
    assert all(part in claim["what"] for part, claim in zip(parts, claims, strict=True))
    sound = {claim["what"].split(":")[0]: claim["holds"] for claim in claims}
    assert sound["leases of GPUs"]
    assert "a rehearsal, whose figures mean nothing" in done.stdout
