"""`cusa profile`: what the steps of a training cost, where their time goes, and what to change."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cusa.config import load
from cusa.config.files import read_files
from cusa.errors import ConfigurationError

if TYPE_CHECKING:
    from cusa.config.experiments import RunConfiguration
    from cusa.training.profiling import StepProfile

DESCRIPTION = """Measure some training steps.

The command prints pairs and images per second, where the time of a step goes, the memory, and on a GPU the share of its
highest speed. The steps use the data in results/, or synthetic pairs of the same shapes if the data do not exist yet.
Nothing is saved."""
BAR = 30  # characters of the longest bar
MOST_THREADS = 8  # of a training job in the workflow
QUIET_TRACES = ("KINETO_LOG_LEVEL", "99")  # PyTorch's profiler says that it starts, stops, and has no GPU


def add_profile(commands: Any) -> None:
    """Add the command to the subparsers of `cusa`."""
    command = commands.add_parser(
        "profile",
        help="measure training steps: their speed, where the time goes, and what to change",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("files", nargs="*", type=Path, help="YAML files, merged onto config/config.yaml in this order")
    command.add_argument("--experiment", help="the experiment; default: the last one that is trained")
    command.add_argument(
        "--steps", type=int, default=20, help="steps to measure, after 3 steps that are not measured; default 20"
    )
    command.add_argument("--synthetic", action="store_true", help="use synthetic pairs, also if the data exist")
    command.add_argument("--trace", type=Path, metavar="FILE", help="write three steps as a trace for chrome://tracing")
    command.add_argument("--threads", type=int, help="CPU threads of all processes; default: those of the workflow")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(call=_profile)


def _profile(arguments: argparse.Namespace) -> None:
    from cusa.plan import Plan

    plan = Plan(load(read_files(arguments.files)))
    if not plan.experiments:
        raise ConfigurationError("No experiment of this configuration is trained; there is nothing to profile.")
    experiment = arguments.experiment or plan.experiments[-1]
    if experiment not in plan.experiments:
        names = ", ".join(plan.experiments)
        raise ConfigurationError(f"--experiment {experiment} is none of the experiments that are trained ({names}).")
    if arguments.trace is not None and arguments.trace.exists():
        raise ConfigurationError(f"{arguments.trace} exists already; name another file, nothing is overwritten.")
    configuration = plan.run_configuration(experiment)
    os.environ.setdefault(*QUIET_TRACES)
    _require_gpus(configuration)
    processes = configuration.train.processes_per_node
    if processes > 1 and "WORLD_SIZE" not in os.environ:
        sys.exit(_in_processes(processes))

    from cusa.training.loop import joined
    from cusa.training.profiling import missing_data, profile_steps

    reason = "--synthetic asks for them" if arguments.synthetic else None
    if reason is None and (missing := missing_data(configuration, plan.folder)) is not None:
        reason = f"{missing} does not exist yet"
    threads = arguments.threads or _threads(configuration)
    with joined(configuration.train.gpus > 0, threads, saves=False) as (group, _):
        result = profile_steps(
            configuration, plan.folder, group, steps=arguments.steps, synthetic=reason, trace=arguments.trace
        )
        if group.is_main:
            _print(arguments, configuration, result)


def _require_gpus(configuration: RunConfiguration) -> None:
    """Raise ConfigurationError if the training has fewer GPUs than it asks for; each process would say so."""
    from cusa.common.compute import visible_gpus

    if (wanted := configuration.train.gpus) > (found := visible_gpus()):
        raise ConfigurationError(
            f"train.gpus asks for {wanted} GPUs, but PyTorch sees {found}; run this where the training will run, "
            "lower train.gpus (0 measures on the CPU), or run nvidia-smi to see why."
        )


def _threads(configuration: RunConfiguration) -> int:
    """As many threads as the workflow gives the training on this machine, if it may use all cores."""
    cores = os.cpu_count() or 1
    return max(1, min(MOST_THREADS, cores // 2 if configuration.student.has_frozen_towers else cores))


def _in_processes(processes: int) -> int:
    """Run this same command once for each process of a training, and return the exit status."""
    launcher = [sys.executable, "-P", "-m", "cusa.training.launch", "--standalone", "--nproc-per-node", str(processes)]
    return subprocess.run([*launcher, "-m", "cusa.cli", *sys.argv[1:]], check=False).returncode


def _print(arguments: argparse.Namespace, configuration: RunConfiguration, result: StepProfile) -> None:
    from cusa.training.bottleneck import advice, bottleneck
    from cusa.training.profiling import as_json

    if arguments.json:
        found = {"bottleneck": bottleneck(result), "advice": list(advice(result, configuration))}
        sys.stdout.write(json.dumps(as_json(result) | found, indent=1) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines(configuration, result))
        if arguments.trace is not None:
            sys.stdout.write(f"wrote {arguments.trace}; open it at chrome://tracing or ui.perfetto.dev\n")


def lines(configuration: RunConfiguration, result: StepProfile) -> Iterator[str]:
    """A profile for people."""
    from cusa.training.bottleneck import NAMES, advice, bottleneck, shares_of

    speeds, settings = result.speeds, configuration.train
    yield (
        f"{configuration.experiment}: {result.steps} steps of {result.pairs} pairs, {settings.precision}, on "
        f"{result.processes} x {result.device}"
    )
    if result.synthetic is not None:
        yield f"synthetic pairs, because {result.synthetic}: what loading data takes is not known"
    pairs, images = (f"{speeds[f'{what}_per_second']:.1f}" for what in ("samples", "images"))
    yield f"{result.seconds:.3f} s a step on average, {pairs} pairs/s, {images} images/s"
    if (flops := speeds["model_flops_per_second"]) is not None:
        share = "" if speeds["mfu"] is None else f", {100 * speeds['mfu']:.1f} % of what the GPU can do at most (MFU)"
        yield f"{flops / 1e12:.3f} TFLOP/s of the model{share}"
    memory = f"{speeds['memory_gib']:.2f} GiB of process 0"
    if result.gpu_memory_gib is not None:
        memory += f", {result.gpu_memory_gib:.2f} GiB of its GPU"
    yield f"peak memory: {memory}"
    yield ""
    shares = shares_of(result)
    largest = max(shares.values())
    for part, seconds in result.parts.items():
        bar = "#" * round(BAR * shares[part] / largest) if largest > 0 else ""
        yield f"{part:<15} {seconds:9.4f} s  {100 * shares[part]:5.1f} %  {bar}".rstrip()
    if result.device_busy is not None:
        yield f"the GPU computes {100 * result.device_busy:.0f} % of the time; `host` is the rest, without data"
    yield ""
    yield f"Most worth a look: {NAMES[bottleneck(result)]}."
    yield from advice(result, configuration)
