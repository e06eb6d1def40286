"""The Slurm profile on a real Slurm: one node, four pretend GPUs, started by `make test-cluster`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cusa.common.files import read_json, sha256_of_file

ROOT = Path(__file__).parents[2]
SNAKEMAKE = Path(sys.executable).parent / "snakemake"
RUN = "results/shapes/runs/cusa/seed23"
EPOCHS = 400
# What only a test's Slurm needs: it has an account for form's sake, answers at once, and no real GPU.
LAB = [
    *("--default-resources", "slurm_partition=main", "slurm_account=lab"),
    *("--set-threads", "train=1", "--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "15"),
]


def asked(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def slurm_is_the_tests_own() -> bool:
    return shutil.which("scontrol") is not None and "= lab\n" in asked("scontrol", "show", "config")


pytestmark = pytest.mark.skipif(
    not slurm_is_the_tests_own(),
    reason="no test Slurm is running (`make test-cluster` starts one): the Slurm profile, preemption and requeueing, a "
    "training on two nodes and a killed Snakemake on a cluster are NOT tested",
)


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    subprocess.run(["scancel", "--user", "root"], check=False)
    wait_until(lambda: not asked("squeue", "-h"), 60)


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain"
        time.sleep(0.05)


def command(directory: Path, *arguments: str, gpus: int = 0) -> list[str]:
    profile = ["--workflow-profile", str(ROOT / "workflow/profiles/slurm"), "--config", f"train={{gpus: {gpus}}}"]
    return [
        *(str(SNAKEMAKE), "--snakefile", str(ROOT / "Snakefile"), "--directory", str(directory)),
        *(*profile, *LAB, *arguments),
    ]


def on_slurm(directory: Path, *arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        command(directory, *arguments),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert (done.returncode == 0) == check, done.stdout
    return done.stdout


def jobs(state: str, number: str = "") -> list[str]:
    """What Slurm says of each job in a state, or of one job if it is in that state."""
    every = asked("scontrol", "show", "job", *filter(None, [number])).split("\n\n")
    return [job for job in every if f"JobState={state}" in job]


def jobs_of(rule: str, directory: Path) -> list[str]:
    """What Slurm says of the jobs of a rule that have ended well."""
    return [job for job in jobs("COMPLETED") if f"Comment=rule_{rule}_" in job and f"WorkDir={directory}" in job]


def value(job: str, key: str) -> str:
    return re.search(rf"\b{key}=(\S+)", job)[1]


# ---------------------------------------------------------------------------------------------- the whole chain


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    """The emoji chain in small, with extraction in four parts of a GPU each and a training on two."""
    directory = tmp_path_factory.mktemp("chain")
    reduced = yaml.safe_load((ROOT / "tests/workflow/emoji.yaml").read_text())
    reduced["train"] |= {"cpu_processes": 2, "batch_size": 32}
    reduced |= {
        "experiments": {"contrastive": None, "csa": None, "usa": None},
        "extraction": {"parts": 4},
        "benchmarks": {"eccv_caption": None, "image_retrieval": None},
        "exports": None,
        "search": None,
    }
    (directory / "mine.yaml").write_text(yaml.safe_dump(reduced))
    on_slurm(
        directory,
        *("--configfile", str(directory / "mine.yaml")),
        *("--set-resources", "extract_image_part:gpu=1", "train:gpu=2"),
        *("--set-threads", "extract_image_part=2"),
        *("--slurm-array-jobs", "extract_image_part"),
    )
    return directory


def test_the_emoji_chain_ends_in_a_report(chain):
    assert (chain / "results/openmoji/report/index.html").is_file()
    assert read_json(chain / "results/openmoji/runs/cusa/seed23/benchmarks/itr.json")["metrics"]["rsum"] > 0


def test_time_and_memory_come_from_the_rules(chain):
    """To the memory of an array the plugin adds what holding its commands takes, 1 MB here."""
    for rule, hours, memory in (("train", "2-00:00:00", "8000M"), ("extract_image_part", "08:00:00", "4001M")):
        for job in jobs_of(rule, chain):
            assert value(job, "TimeLimit") == hours
            assert value(job, "MinMemoryNode") == memory


def test_four_parts_of_a_split_run_at_once_on_four_devices(chain):
    logs = chain / "results/openmoji/logs/extract_image_part"
    devices = {re.search(r"CUDA_VISIBLE_DEVICES=(\S+)", log.read_text())[1] for log in logs.rglob("train/*.log")}
    assert devices == {"0", "1", "2", "3"}
    spans = [(value(job, "StartTime"), value(job, "EndTime")) for job in jobs_of("extract_image_part", chain)]
    assert max(sum(begun <= moment < ended for begun, ended in spans) for moment, _ in spans) == 4


def test_parts_can_be_one_array_of_slurm(chain):
    assert all(re.search(r"ArrayTaskId=\d+", job) for job in jobs_of("extract_image_part", chain))


def test_a_training_on_two_gpus_is_started_once_and_sees_both(chain):
    """The plugin's issues 316 and 459: started once for each GPU, with one visible."""
    log = (chain / "results/openmoji/logs/train/cusa/seed23.log").read_text()
    assert log.count("training cusa, seed 23, on 2 x cpu") == 1
    assert log.count("CUDA_VISIBLE_DEVICES=0,1") == 2  # both processes of the one launcher
    assert read_json(chain / "results/openmoji/runs/cusa/seed23/run.json")["processes"] == 2
    assert len(jobs_of("train", chain)) == 1


def test_slurm_s_own_logs_are_where_the_profile_says(chain):
    logs = list((chain / "slurm-logs").rglob("*.log"))
    assert any("rule_train" in str(log) for log in logs)
    assert all("Finished jobid" in log.read_text() for log in logs)


def test_what_slurm_adds_to_a_job_is_reported(chain, capsys):
    """Seconds of a job that its command did not take: two Snakemakes starting, and srun."""
    added = {}
    for rule in ("evaluate_itr", "extract_text_features", "train"):
        timings = chain / f"results/openmoji/timings/{rule}"
        ran = sum(float(path.read_text().splitlines()[1].split("\t")[0]) for path in timings.rglob("*.tsv"))
        jobs = jobs_of(rule, chain)
        days = [re.match(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", value(job, "RunTime")).groups(default="0") for job in jobs]
        took = sum(((int(d) * 24 + int(h)) * 60 + int(m)) * 60 + int(s) for d, h, m, s in days)
        added[rule] = (took - ran) / len(jobs)
    with capsys.disabled():
        said = ", ".join(f"{seconds:.1f} s to {rule}" for rule, seconds in added.items())
        sys.stdout.write(f"\nSlurm adds, mean over jobs: {said}\n")
    assert all(seconds < 60 for seconds in added.values())


# -------------------------------------------------------------------------------------- losing nothing on the way


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tiny_configuration) -> Path:
    """Everything a training reads, so that only the training is submitted."""
    directory = tmp_path_factory.mktemp("prepared")
    (directory / "mine.yaml").write_text(yaml.safe_dump(configured(tiny_configuration)))
    on_this_machine(directory, "shards", "features")
    return directory


def configured(tiny_configuration: dict, **settings: object) -> dict:
    recipe = {**tiny_configuration["train"], "epochs": EPOCHS, **settings}
    return {
        **tiny_configuration,
        "train": recipe,
        "experiments": {**tiny_configuration["experiments"], "contrastive": None},
    }


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory) -> str:
    """The weights' sha256 of the same training without Slurm."""
    directory = Path(shutil.copytree(prepared, tmp_path_factory.mktemp("undisturbed") / "mine"))
    on_this_machine(directory, f"{RUN}/best.safetensors", "--set-threads", "train=1")
    return sha256_of_file(directory / RUN / "best.safetensors")


def on_this_machine(directory: Path, *arguments: str) -> None:
    local = [str(SNAKEMAKE), "--snakefile", str(ROOT / "Snakefile"), "--directory", str(directory)]
    configured = ["--configfile", str(directory / "mine.yaml"), "--cores", "2"]
    subprocess.run([*local, *configured, *arguments], cwd=ROOT, check=True)


def training(directory: Path, *resources: str) -> list[str]:
    """Arguments for one small training; several fit the node's memory at once."""
    target = [f"{RUN}/best.safetensors", "--configfile", str(directory / "mine.yaml")]
    return [*target, "--set-resources", "train:mem_mb=1000", *resources]


@dataclass
class Disturbed:
    """A training that something happened to; `process` is the Snakemake that has to bring it to its end."""

    directory: Path
    job: str
    process: subprocess.Popen[str]
    said: str = ""


@pytest.fixture(scope="module")
def disturbed(prepared, tmp_path_factory) -> dict[str, Disturbed]:
    """Three trainings at once, each with something happening to it after its first epochs."""
    begun = {}
    for name, more in (("killed", ()), ("preempted", ("train:gpu=4",)), ("cancelled", ())):
        directory = Path(shutil.copytree(prepared, tmp_path_factory.mktemp(name) / "mine"))
        begun[name] = Disturbed(directory, "", snakemake_in_background(directory, *training(directory, *more)))
    for one in begun.values():
        wait_until(
            lambda one=one: (one.directory / RUN / "state/last.pt").exists() or one.process.poll() is not None, 120
        )
        assert one.process.poll() is None, one.process.communicate()[0]
        one.job = read_json(one.directory / RUN / "state/holder.json")["slurm_job"]

    killed = begun["killed"]
    with paused(killed):
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
        subprocess.run(["scancel", begun["cancelled"].job], check=True)
        urgent = ["sbatch", "--partition", "urgent", "--ntasks", "1", "--gpus", "4", "--wrap", "sleep 2"]
        subprocess.run([*urgent, "--output", "/dev/null", "--chdir", "/tmp"], check=True, stdout=subprocess.DEVNULL)

        again = training(killed.directory)
        on_slurm(killed.directory, *again, "--unlock")
        killed.said = on_slurm(killed.directory, *again, "--retries", "0", check=False)
        assert jobs("RUNNING", killed.job), "the training ended before the test had seen it beside a second copy"
    wait_until(lambda: jobs("COMPLETED", killed.job), 180)
    killed.process = snakemake_in_background(killed.directory, *again)
    return begun


@contextmanager
def paused(one: Disturbed) -> Iterator[None]:
    """Let a training wait, however fast the machine is: a second copy must find it at work."""
    process = read_json(one.directory / RUN / "state/holder.json")["process"]
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def snakemake_in_background(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(directory, *arguments), cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def end_of(one: Disturbed) -> str:
    """What the training's log says after its Snakemake has ended well."""
    output = one.process.communicate(timeout=300)[0]
    assert one.process.returncode == 0, output
    return (one.directory / "results/shapes/logs/train/cusa/seed23.log").read_text()


def test_scancel_saves_and_the_retry_continues(disturbed, undisturbed):
    one = disturbed["cancelled"]
    assert "continuing at epoch" in end_of(one)
    assert jobs("CANCELLED", one.job)
    assert sha256_of_file(one.directory / RUN / "best.safetensors") == undisturbed


def test_a_preempted_training_is_requeued_and_continues(disturbed, undisturbed):
    one = disturbed["preempted"]
    assert "continuing at epoch" in end_of(one)
    (job,) = jobs("COMPLETED", one.job)
    assert value(job, "Restarts") == "1"
    assert sha256_of_file(one.directory / RUN / "best.safetensors") == undisturbed


def test_a_snakemake_killed_with_9_leaves_a_training_that_is_neither_doubled_nor_lost(disturbed, undisturbed):
    one = disturbed["killed"]
    assert f"Slurm job {one.job} (it holds" in one.said
    # It was not trained again: what the log has is still the second copy's.
    assert "another process is training" in end_of(one)
    assert sha256_of_file(one.directory / RUN / "best.safetensors") == undisturbed


def test_two_nodes_meet_and_train_as_one(prepared, tmp_path, tiny_configuration):
    """Two job steps, a torchrun each, on the one node there is: --set-resources takes the two nodes back."""
    directory = Path(shutil.copytree(prepared, tmp_path / "mine"))
    settings = {"epochs": 2, "nodes": 2, "batch_size": 4, "gather": "global"}
    (directory / "mine.yaml").write_text(yaml.safe_dump(configured(tiny_configuration, **settings)))
    on_slurm(directory, *training(directory, "train:nodes=1", "train:gpu=2"))
    assert read_json(directory / RUN / "run.json")["processes"] == 2
    log = (directory / "results/shapes/logs/train/cusa/seed23.log").read_text()
    assert log.count("training cusa, seed 23, on 2 x cpu") == 1
