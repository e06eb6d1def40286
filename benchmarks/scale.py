"""Times that have to stay short for large data and models: the plan, the leases of GPUs, and saving the state."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from measure import Claim, best_of_turns

ROOT = Path(__file__).parents[1]
PARTS = 2000
VIT_L_14 = 427_616_513  # parameters of CLIP ViT-L/14


def main() -> None:
    plan()
    leases()
    state()


def plan() -> None:
    """A dry run of the complete workflow, with as many extraction parts as ten million images would have."""
    with tempfile.TemporaryDirectory() as directory:
        command = [str(Path(sys.executable).parent / "snakemake"), "--snakefile", str(ROOT / "Snakefile")]
        command += ["--directory", directory, "--cores", "8", "--dry-run", "--quiet", "rules"]
        command += ["--config", f"extraction={{parts: {PARTS}, join: false}}", "shards={samples_per_shard: 1000}"]
        started, peak = time.perf_counter(), 0
        with (Path(directory) / "plan.txt").open("w+") as output:
            process = psutil.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            while process.poll() is None:
                try:
                    peak = max(peak, process.memory_info().rss)
                except psutil.NoSuchProcess:
                    break
                time.sleep(0.02)
            seconds = time.perf_counter() - started
            output.seek(0)
            text = output.read()
    assert process.returncode == 0, text
    assert re.search(rf"extract_image_part +{PARTS}\b", text), text
    measured = f"{seconds:.0f} s, {peak / 2**30:.2f} GiB"
    what = f"dry run for ten million images: 10,000 shards, {PARTS:,} extraction parts"
    Claim(what, measured, "60 s, 2 GiB", seconds < 60 and peak < 2 * 2**30).report()


def leases() -> None:
    from cusa.devices import lease

    with tempfile.TemporaryDirectory() as folder:

        def one() -> None:
            with lease(2, ["a", "b", "c", "d"], folder):
                pass

        seconds = best_of_turns(50, lease=one)["lease"]
    Claim(
        "leasing two of four devices and giving them back", f"{1000 * seconds:.2f} ms", "5 ms", seconds < 0.005
    ).report()


def state() -> None:
    """Saving weights and AdamW's moments of CLIP ViT-L/14's size on the CPU: how long training waits, and the write."""
    import torch

    from cusa.config.experiments import RunConfiguration
    from cusa.config.losses import LossConfiguration
    from cusa.config.training import Train
    from cusa.losses import CUSALoss
    from cusa.training.distributed import Group
    from cusa.training.state import Progress, State
    from cusa.training.step import TrainingTask

    class Weights(torch.nn.ParameterList):
        """What a TrainingTask asks of a student before the first step."""

        base = None

        def set_dropout(self, *_: float) -> None: ...

        def frozen_names(self) -> set[str]:
            return set()

    student = Weights(torch.nn.Parameter(torch.zeros(VIT_L_14 // 100)) for _ in range(100))
    losses, recipe = LossConfiguration(), Train(epochs=1)
    task = TrainingTask(student, CUSALoss(losses), recipe)
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-6)
    for parameter in student:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for parameter in student:
        parameter.grad = None
    configuration = RunConfiguration.model_construct(train=recipe)
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        state = State(Path(folder), configuration, {}, Group())
        state.folder.mkdir()
        state.reserve_memory(task, optimiser)
        state.wait()  # training does this in the background, during its first steps
        blocked, wrote = [], []
        for _ in range(3):
            started = time.perf_counter()
            state.save(task, optimiser, Progress(), [])
            blocked.append(time.perf_counter() - started)
            state.wait()
            wrote.append(time.perf_counter() - started)
        state.close()
        size = state.path.stat().st_size
    measured = (
        f"{max(blocked):.2f} s at most, {min(blocked):.2f} s at best; written after {min(wrote):.1f} s, "
        f"{size / 1e9:.1f} GB"
    )
    what = "how long saving the state of a ViT-L/14 keeps the next step waiting"
    Claim(what, measured, "2 s", max(blocked) < 2).report()


if __name__ == "__main__":
    main()
