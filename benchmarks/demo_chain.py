"""A picture of the demo's chain: when each job ran, before and after a change, from the timings of two finished runs.

python benchmarks/demo_chain.py BEFORE/results/openmoji AFTER/results/openmoji --output docs/demo-chain.svg

Snakemake writes the timing of a job when the job ends, so the time of the file is the end, and its column `s` says how
long the job took. Copy results with `cp --preserve=timestamps`. CPU seconds (user and system) depend less than the rest
on what else the machine does.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cusa.common.files import atomic_file
from cusa.report.figures import svg_of

TIMINGS = "timings"
# The stages of the chain, in its order, and the first words of the rules that belong to each.
STAGES = {
    "annotations and shards": ("convert", "write_", "check_", "decode_", "tokenise_"),
    "image features": ("extract_image_", "join_image_"),
    "text features": ("extract_text_", "extract_table_", "extract_benchmark_"),
    "training": ("train",),
    "embeddings": ("embed",),
    "scores and report": ("evaluate_", "summarise", "render_report"),
    "exports and search": ("export_", "collect_gallery", "build_index"),
}


@dataclass(frozen=True)
class Job:
    """One job: its rule, when it began and ended (seconds since 1970), and the CPU seconds of all its processes."""

    rule: str
    began: float
    ended: float
    cpu: float

    @property
    def stage(self) -> str:
        """The stage of the chain that the rule belongs to."""
        return next(stage for stage, words in STAGES.items() if self.rule.startswith(words))


def read_jobs(results: Path) -> list[Job]:
    """The jobs of a run, in the order in which they began. `results` is the folder of a data set."""
    jobs = []
    for path in (results / TIMINGS).rglob("*.tsv"):
        with path.open(newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"))
        ended = path.stat().st_mtime
        # Snakemake samples the CPU time, and has none of a job that was over before the first sample.
        cpu = float(row["cpu_time"]) if row["cpu_time"][:1].isdigit() else 0.0
        jobs.append(Job(path.relative_to(results / TIMINGS).parts[0], ended - float(row["s"]), ended, cpu))
    if not jobs:
        raise SystemExit(f"{results / TIMINGS} has no timings; give the folder of a finished run, results/openmoji.")
    return sorted(jobs, key=lambda job: job.began)


def lanes(jobs: list[Job]) -> list[int]:
    """For each job the first lane that is free when it begins; jobs of one lane do not overlap."""
    free_at: list[float] = []
    chosen = []
    for job in jobs:
        # The clock of the files and that of the durations differ by some hundredths of a second.
        lane = next((lane for lane, time in enumerate(free_at) if time <= job.began + 0.1), len(free_at))
        free_at[lane:] = [job.ended, *free_at[lane + 1 :]]
        chosen.append(lane)
    return chosen


def draw(runs: dict[str, list[Job]], when: bool = True) -> str:
    """The picture as SVG: with `when`, a panel for each run with a row of bars for each lane; then what stages cost."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    colours = dict(zip(STAGES, colormaps["tab10"].colors, strict=False))  # type: ignore[attr-defined]
    above = len(runs) if when else 0
    figure = Figure(figsize=(9, 2.6 + 1.3 * above), layout="constrained")
    panels = figure.subplots(above + 1, 1, height_ratios=[1] * above + [1.9], squeeze=False)[:, 0]
    longest = max(max(job.ended for job in jobs) - jobs[0].began for jobs in runs.values())
    for panel, (name, jobs) in zip(panels[:above], runs.items(), strict=False):
        _draw_times(panel, name, jobs, colours)
        panel.set_xlim(0, longest * 1.01)
    _draw_costs(panels[-1], runs, colours)
    return svg_of(figure, "When each job ran, before and after, and the CPU seconds of each stage.")


def _draw_times(panel: Any, name: str, jobs: list[Job], colours: dict[str, Any]) -> None:
    began, ended = jobs[0].began, max(job.ended for job in jobs)
    for job, lane in zip(jobs, lanes(jobs), strict=True):
        left, width = job.began - began, job.ended - job.began
        panel.barh(lane, width, left=left, height=0.85, color=colours[job.stage], edgecolor="white", linewidth=0.4)
    panel.set_title(f"{name}: {ended - began:.0f} s, {len(jobs)} jobs", loc="left", fontsize=9)
    panel.set_yticks([])
    panel.invert_yaxis()
    panel.tick_params(labelsize=8)
    panel.set_xlabel("seconds since the first job began", fontsize=8)


def _draw_costs(panel: Any, runs: dict[str, list[Job]], colours: dict[str, Any]) -> None:
    height = 0.8 / len(runs)
    for place, (name, jobs) in enumerate(runs.items()):
        for row, stage in enumerate(STAGES):
            of_stage = [job for job in jobs if job.stage == stage]
            cpu = sum(job.cpu for job in of_stage)
            at = row + (place - (len(runs) - 1) / 2) * height
            panel.barh(at, cpu, height=height * 0.9, color=colours[stage], alpha=1 if place else 0.5)
            panel.text(cpu, at, f" {name}: {cpu:.0f} s in {len(of_stage)}", va="center", fontsize=7)
    totals = [f"{name} {sum(job.cpu for job in jobs):.0f} s in {len(jobs)} jobs" for name, jobs in runs.items()]
    panel.set_title(f"CPU seconds of each stage, and its jobs; all: {', '.join(totals)}", loc="left", fontsize=9)
    panel.set_yticks(range(len(STAGES)), list(STAGES), fontsize=8)
    panel.invert_yaxis()
    panel.margins(x=0.15)
    panel.tick_params(axis="x", labelsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="results/openmoji of a run before the change")
    parser.add_argument("after", type=Path, help="the same after the change")
    parser.add_argument("--costs", action="store_true", help="only CPU seconds, for runs beside other work")
    parser.add_argument("--output", required=True, type=Path, help="the SVG file")
    arguments = parser.parse_args()
    runs = {"before": read_jobs(arguments.before), "after": read_jobs(arguments.after)}
    picture = draw(runs, when=not arguments.costs)
    with atomic_file(arguments.output) as temporary:
        temporary.write_text(picture)


if __name__ == "__main__":
    main()
