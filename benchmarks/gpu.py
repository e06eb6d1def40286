"""What only a GPU shows, in one call of some minutes: python benchmarks/gpu.py

- steps of CLIP ViT-B/32 and ViT-L/14@336px at the published batch sizes, over steps as the published code takes them
- the share of the highest speed that the GPU reaches (MFU), and the share of the time in which it waits for data
- the extraction of features from shards, over that of pixels that are in memory
- the losses of 200 steps in bf16, beside those in fp32
- faiss on the GPU, over faiss on the CPU
- whether jobs that lease GPUs see no others

Weights are random, which cost as much. Without a GPU, `--rehearse` runs all parts at tiny sizes on the CPU: they work,
and their figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Claim, best_of_turns
from training_step import mapping_of, published, steps_of, trainer_of, write_data, write_student

from cusa import devices
from cusa.common.compute import autocast
from cusa.config.configuration import load
from cusa.config.models import ImageModel
from cusa.layout import DatasetFolder
from cusa.metrics.neighbours import import_faiss
from cusa.shards.reading import ShardReader
from cusa.teachers.extraction import encode_images
from cusa.teachers.registry import load_image_encoder
from cusa.training.distributed import Group
from cusa.training.loop import joined
from cusa.training.profiling import profile_steps
from cusa.training.state import Progress

WARM_UP = 3
WINDOW = 20  # steps whose mean loss is compared


@dataclass(frozen=True)
class Student:
    """A student and its data: sizes of a CLIPConfig, the pairs of a batch as published, and the pictures."""

    name: str
    sizes: dict[str, Any]
    pairs: int
    pairs_of_ours: int
    images: int
    side: int


@dataclass(frozen=True)
class Plan:
    """What is measured, and how often."""

    students: tuple[Student, ...]
    device: torch.device
    steps: int
    turns: int
    curve: int
    rows: int
    gpu: bool

    @property
    def settings(self) -> dict[str, object]:
        """Keys of `train` for all trainings."""
        return {"gpus": int(self.gpu), "workers": min(12, os.cpu_count() or 1) if self.gpu else 0}


LARGE = {
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
        "image_size": 336,
    },
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "projection_dim": 768,
}
TINY = {
    "vision_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "text_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
    "projection_dim": 16,
}
ON_GPU = Plan(
    students=(
        Student("ViT-B/32", {}, pairs=128, pairs_of_ours=640, images=4000, side=256),
        Student("ViT-L/14@336px", LARGE, pairs=16, pairs_of_ours=80, images=600, side=384),
    ),
    device=torch.device("cuda", 0),
    steps=20,
    turns=2,
    curve=200,
    rows=1_000_000,
    gpu=True,
)
REHEARSAL = Plan(
    students=(Student("a tiny CLIP", TINY, pairs=8, pairs_of_ours=20, images=40, side=48),),
    device=torch.device("cpu"),
    steps=2,
    turns=1,
    curve=20,
    rows=2000,
    gpu=False,
)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report_steps(plan: Plan, student: Student, mapping: dict, folder: DatasetFolder, root: Path, group: Group) -> None:
    """The speed of steps over the published ones, in pairs per second."""
    ours = {
        "captions_per_image 1": {"batch_size": student.pairs},
        "captions_per_image all": {"batch_size": student.pairs_of_ours, "captions_per_image": "all"},
    }
    trainers = {
        name: trainer_of(mapping, "cusa", folder, root / name, group, precision="bf16", **plan.settings, **changed)
        for name, changed in ours.items()
    }
    first = trainers["captions_per_image 1"]
    _, batches = next(first.data.steps(Progress()))
    single = {"published": published(first.configuration, next(batches), plan.device)}
    single |= {name: steps_of(trainer).__next__ for name, trainer in trainers.items()}

    def several(step: Callable[[], object]) -> Callable[[], None]:
        def take() -> None:
            for _ in range(plan.steps):
                step()
            wait_for(plan.device)

        return take

    for step in single.values():
        for _ in range(WARM_UP):
            step()
    wait_for(plan.device)
    seconds = best_of_turns(plan.turns, **{name: several(step) for name, step in single.items()})
    pairs = {"published": student.pairs} | {name: changed["batch_size"] for name, changed in ours.items()}
    speed = {name: plan.steps * pairs[name] / seconds[name] for name in single}
    for name in ours:
        ratio = speed[name] / speed["published"]
        measured = (
            f"{ratio:.2f} times as many pairs a second ({speed[name]:.0f} with batches of {pairs[name]}, published "
            f"{speed['published']:.0f} with {student.pairs})"
        )
        bar = 4.0 if name.endswith("all") else 1.0
        Claim(f"{student.name}, bf16, {name}, over the published step", measured, f"{bar:g}", ratio >= bar).report()


def report_use(plan: Plan, student: Student, mapping: dict, folder: DatasetFolder, group: Group) -> None:
    """The share of the GPU's highest speed, and of the time in which it waits for data."""
    settings = {"batch_size": student.pairs_of_ours, "captions_per_image": "all", "precision": "bf16"}
    train = {**mapping["train"], **plan.settings, **settings}
    result = profile_steps(load({**mapping, "train": train}).run("cusa", 23), folder, group, steps=plan.steps)
    mfu = result.speeds["mfu"]
    measured = "not known for this device" if mfu is None else f"{100 * mfu:.1f} %"
    Claim(f"{student.name}: model FLOP/s over the GPU's highest (MFU)", measured, "50 %", (mfu or 0) >= 0.5).report()
    share = result.parts["data"] / result.seconds
    Claim(f"{student.name}: share of a step that waits for data", f"{100 * share:.1f} %", "5 %", share < 0.05).report()


def report_extraction(plan: Plan, student: Student, folder: DatasetFolder, root: Path) -> None:
    """The speed of extraction from shards, over that of pixels in memory."""
    model = ImageModel(name=str(root / "student"), batch_size=128 if plan.gpu else 8, precision="bf16")
    encoder, reader = load_image_encoder(model).to(plan.device), ShardReader(folder.shards("train"))
    threads = os.cpu_count() or 1
    size = model.batch_size
    groups = [range(start, min(start + size, len(reader))) for start in range(0, len(reader), size)]
    pixels = [encoder.transform.batch([(reader.encoded(row), reader.plain(row)) for row in rows]) for rows in groups]

    @torch.inference_mode()
    def in_memory() -> None:
        with autocast(plan.device, model.precision):
            features = [encoder(batch.to(plan.device)) for batch in pixels]
        torch.cat(features).float().cpu()

    def from_shards() -> None:
        for _ in encode_images(encoder, reader, size, plan.device, threads, model.precision):
            continue

    in_memory()
    seconds = best_of_turns(plan.turns + 1, in_memory=in_memory, from_shards=from_shards)
    ratio = seconds["in_memory"] / seconds["from_shards"]
    measured = f"{100 * ratio:.0f} % of {len(reader) / seconds['in_memory']:.0f} images/s ({threads} threads)"
    claim = f"{student.name}: extraction from shards over pixels in memory"
    Claim(claim, measured, "90 %", ratio >= 0.9).report()


def losses_of(steps: Iterator[Any], trainer: Any, count: int) -> list[float]:
    """The total loss of each of `count` steps."""
    kept: list[torch.Tensor] = []
    train_step = trainer.train_step

    def keep(step: int, batches: Any) -> Any:
        result = train_step(step, batches)
        kept.append(torch.stack([losses.total for losses in result.losses]).mean())
        return result

    trainer.train_step = keep
    for _ in islice(steps, count):
        continue
    return torch.stack(kept).tolist()


def report_precision(
    plan: Plan, student: Student, mapping: dict, folder: DatasetFolder, root: Path, group: Group
) -> None:
    """The losses of steps in bf16 beside those in fp32, as means over WINDOW steps."""
    curves = {}
    for precision in ("fp32", "bf16"):
        settings = {**plan.settings, "batch_size": student.pairs, "precision": precision}
        trainer = trainer_of(mapping, "cusa", folder, root / precision, group, **settings)
        curves[precision] = losses_of(steps_of(trainer), trainer, plan.curve)
        del trainer
        gc.collect()
    means = {name: np.array(curve).reshape(-1, WINDOW).mean(axis=1) for name, curve in curves.items()}
    apart = float(np.max(np.abs(means["bf16"] - means["fp32"]) / means["fp32"]))
    measured = (
        f"at most {100 * apart:.2f} % apart over {plan.curve} steps (first {means['fp32'][0]:.4f} and "
        f"{means['bf16'][0]:.4f}, last {means['fp32'][-1]:.4f} and {means['bf16'][-1]:.4f})"
    )
    Claim(
        f"{student.name}: losses in fp32 and in bf16, means of {WINDOW} steps", measured, "1 %", apart <= 0.01
    ).report()


def report_neighbours(plan: Plan) -> None:
    """Exact search of faiss on the GPU, over that on the CPU."""
    faiss = import_faiss()
    if not getattr(faiss, "get_num_gpus", lambda: 0)():
        print("faiss on the GPU: not measured, this faiss is for the CPU; install 'cusa[gpu]' instead of 'cusa[cpu]'")
        return
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((plan.rows, 512), dtype=np.float32)
    queries = rng.standard_normal((1000, 512), dtype=np.float32)
    resources = faiss.StandardGpuResources()
    seconds = best_of_turns(
        plan.turns,
        gpu=lambda: faiss.knn_gpu(resources, queries, gallery, 100, metric=faiss.METRIC_INNER_PRODUCT),
        cpu=lambda: faiss.knn(queries, gallery, 100, metric=faiss.METRIC_INNER_PRODUCT),
    )
    ratio = seconds["cpu"] / seconds["gpu"]
    measured = f"{ratio:.1f} times as fast ({seconds['gpu']:.2f} s, 1,000 queries in {plan.rows:,} x 512)"
    Claim("exact search of faiss on the GPU over the CPU", measured, "1", ratio >= 1).report()


def report_leases(plan: Plan, root: Path) -> None:
    """Jobs that lease a GPU each: what PyTorch sees in each of them, and that two never have the same at a time."""
    names = devices.devices() if plan.gpu else ["pretended-a", "pretended-b"]
    environment = {name: value for name, value in os.environ.items() if name != devices.VISIBLE}
    environment |= {devices.LOCKS: str(root / "locks")} | ({} if plan.gpu else {devices.NAMED: ",".join(names)})
    see = "torch.cuda.device_count()" if plan.gpu else "1"
    code = (
        f"import os, time, torch; start = time.time(); seen = {see}; time.sleep(1); "
        f"print(os.environ['{devices.VISIBLE}'], seen, start, time.time())"
    )
    command = [sys.executable, "-m", "cusa.devices", "1", sys.executable, "-c", code]
    jobs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    lines = [job.communicate()[0].split() for job in jobs]
    alone = all(line[1] == "1" for line in lines)
    spans = sorted((line[0], float(line[2]), float(line[3])) for line in lines)
    apart = all(one[0] != other[0] or one[2] <= other[1] for one, other in pairwise(spans))
    measured = f"3 jobs on {len(names)} devices: each saw one, and no two had the same at a time"
    if not alone or not apart:
        measured = f"devices, number seen, start and end of each job: {lines}"
    Claim("leases of GPUs", measured, "one device a job", alone and apart).report()


def measure(plan: Plan) -> None:
    """Measure everything, and print it as claims."""
    name = torch.cuda.get_device_name(plan.device) if plan.gpu else "the CPU: a rehearsal, whose figures mean nothing"
    print(f"on {name}; PyTorch {torch.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        report_leases(plan, Path(scratch))
        for number, student in enumerate(plan.students):
            started = time.perf_counter()
            root = Path(scratch) / str(number)
            folder, mapping = DatasetFolder(root / "data"), mapping_of(root)
            write_student(root / "student", student.sizes)
            write_data(folder, mapping, student.images, student.side)
            print(f"{student.name}: data and student in {time.perf_counter() - started:.0f} s", flush=True)
            with joined(plan.gpu, os.cpu_count() or 1) as (group, _):
                group = replace(group, device=plan.device)
                report_steps(plan, student, mapping, folder, root, group)
                gc.collect()
                report_use(plan, student, mapping, folder, group)
                gc.collect()
                report_extraction(plan, student, folder, root)
                if number == 0:
                    report_precision(plan, student, mapping, folder, root, group)
            gc.collect()
    report_neighbours(plan)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="run all parts at tiny sizes on the CPU")
    arguments = parser.parse_args()
    if not arguments.rehearse and not torch.cuda.is_available():
        sys.exit("There is no GPU that PyTorch sees; `--rehearse` runs all parts at tiny sizes on the CPU.")
    measure(REHEARSAL if arguments.rehearse else ON_GPU)


if __name__ == "__main__":
    main()
