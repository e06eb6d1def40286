"""The real Snakefile, run as users run it, on small data and small models."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import archives
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import SHAPES, copy_of_results, draw_shape, mounted_tmpfs
from published_files import checkpoint_of, clip_with_heads_of_64
from snakemake_runs import SNAKEMAKE, output_of_snakemake

from cusa.common.files import read_json
from cusa.teachers.store import FeatureStore

ROOT = Path(__file__).parents[2]


def snakemake(directory: Path, *arguments: str, check: bool = True) -> str:
    """Run in `directory`; returns standard output and error together."""
    return output_of_snakemake("--cores", "2", "--directory", directory, *arguments, cwd=ROOT, check=check)


def planned(output: str) -> dict[str, int]:
    """The job table of a dry run."""
    table = output.split("Job stats:")[-1] if "Job stats:" in output else ""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.M)}


def write(directory: Path, mapping: dict) -> str:
    path = directory / "mine.yaml"
    path.write_text(yaml.safe_dump(mapping))
    return str(path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, finished_workflow: Path) -> tuple[Path, str]:
    """A finished run of the whole chain on the shapes data. Tests that change it work on a copy."""
    directory = copy_of_results(finished_workflow, tmp_path_factory.mktemp("finished"))
    return directory, str(directory / "mine.yaml")


def copied(finished: tuple[Path, str], tmp_path: Path) -> Path:
    """A copy of the finished run, at the same depth of the file system."""
    return copy_of_results(finished[0], tmp_path)


def test_the_files_of_the_contract(finished):
    data = finished[0] / "results/shapes"
    for name in (
        "annotations/train.json",
        "annotations/images.parquet",
        "annotations/captions.parquet",
        "shards/train/shard-000000.tar",
        "shards/train/shard-000001.tar",
        "shards/test/index.parquet",
        "runs/cusa/seed23/best.safetensors",
        "runs/cusa/seed23/run.json",
        "runs/cusa/seed23/history.parquet",
        "runs/cusa/seed23/benchmarks/itr.json",
        "summary.parquet",
        "summary.md",
        "report/index.html",
    ):
        assert (data / name).is_file(), name
    assert np.load(data / "runs/cusa/seed23/embeddings/test/image_cross.npy").shape == (8, 16)
    features = [path.parent for path in data.glob("teachers/*/*/train/features.npy")]
    assert {path.parts[-3] for path in features} == {"image", "text"}
    assert all((path / "meta.json").is_file() for path in features)
    result = read_json(data / "runs/cusa/seed23/benchmarks/itr.json")
    assert {"benchmark", "dataset", "metrics", "protocol", "n_queries", "n_gallery"} <= set(result)
    summary = pq.read_table(data / "summary.parquet").to_pylist()
    assert {row["experiment"] for row in summary} == {"contrastive", "cusa"}
    assert not list(data.rglob("*.partial"))


def test_every_job_leaves_a_log_and_a_timing(finished):
    data = finished[0] / "results/shapes"
    for rule in ("convert", "write_shards", "extract_image_features", "train", "embed", "evaluate_itr", "summarise"):
        assert list((data / "logs" / rule).rglob("*.log")), rule
        assert list((data / "timings" / rule).rglob("*.tsv")), rule


def test_a_second_run_does_nothing(finished):
    again = snakemake(finished[0], "--configfile", finished[1])
    assert "Nothing to be done" in again
    assert f"the report: {(finished[0] / 'results/shapes/report/index.html').as_uri()}" in again


@pytest.mark.parametrize(
    ("rule", "redone"),
    [
        ("train", {"train": 2, "embed": 2, "evaluate_itr": 2, "summarise": 1, "render_report": 1, "all": 1}),
        ("embed", {"embed": 2, "evaluate_itr": 2, "summarise": 1, "render_report": 1, "all": 1}),
        ("summarise", {"summarise": 1, "render_report": 1, "all": 1}),
        ("extract_text_features", {"extract_text_features": 1, "train": 1, "embed": 1, "evaluate_itr": 1,
                                   "summarise": 1, "render_report": 1, "all": 1}),
    ],
)  # fmt: skip
def test_forcerun_redoes_what_depends_on_a_stage_and_nothing_else(finished, rule, redone):
    assert {
        name: count
        for name, count in planned(
            snakemake(finished[0], "--configfile", finished[1], "-n", "--forcerun", rule)
        ).items()
        if name != "total"
    } == redone


def test_changing_one_loss_weight_retrains_that_experiment_only(finished, tiny_configuration, tmp_path):
    cusa = {**tiny_configuration["experiments"]["cusa"], "cross_softlabel": {"rate": 0.7}}
    changed = {**tiny_configuration, "experiments": {**tiny_configuration["experiments"], "cusa": cusa}}
    output = snakemake(finished[0], "--configfile", write(tmp_path, changed), "-n")
    jobs = planned(output)
    assert jobs["train"] == 1
    assert {"convert", "write_shards", "extract_image_features"}.isdisjoint(jobs)
    assert "results/shapes/runs/cusa/seed23" in output
    assert "output: results/shapes/runs/contrastive" not in output


def with_pixels(mapping: dict, **changes) -> dict:
    return {**mapping, "shards": {**mapping["shards"], "pixels": "memory-map"}, **changes}


def test_tokens_and_pixels_are_made_before_a_training_and_are_no_reason_for_another(
    finished, tiny_configuration, tmp_path
):
    """Captions are tokenised once for all experiments; images are decoded once, if `shards.pixels` says so."""
    directory = copied(finished, tmp_path / "a")
    folder = directory / "results/shapes"
    assert len(list(folder.glob("tokens/*/train/ids.npy"))) == len(list((folder / "tokens").rglob("ids.npy"))) == 1
    log = "logs/train/{}/seed23.log"
    assert all("tokens are mapped from" in (folder / log.format(name)).read_text() for name in ("contrastive", "cusa"))
    config = write(tmp_path, with_pixels(tiny_configuration))
    assert "Nothing to be done" in snakemake(directory, "--configfile", config, "-n")
    cusa = {**tiny_configuration["experiments"]["cusa"], "cross_softlabel": {"rate": 0.7}}
    changed = with_pixels(tiny_configuration, experiments={**tiny_configuration["experiments"], "cusa": cusa})
    config = write(tmp_path, changed)
    jobs = planned(snakemake(directory, "--configfile", config, "-n", "models"))
    assert jobs == {"decode_pixels": 3, "train": 1, "models": 1, "total": 5}
    snakemake(directory, "models", "--configfile", config)
    assert len(list(folder.glob("pixels/*/*/pixels.npy"))) == 3
    text = (folder / log.format("cusa")).read_text()
    assert text.count("pixels are mapped from") == 2  # train, and val that selects the epoch
    assert "Nothing to be done" in snakemake(directory, "--configfile", config, "-n", "models")


def test_runs_that_were_trained_before_there_were_tokens_are_not_trained_again(finished, tmp_path):
    """Their records do not name the tokens, and the tokens may not exist."""
    directory = copied(finished, tmp_path)
    shutil.rmtree(directory / "results/shapes/tokens")
    changed = 0
    for record in (directory / ".snakemake/metadata").rglob("*"):
        if record.is_file() and "/tokens/" in (text := record.read_text()):
            content = json.loads(text)
            content["input"] = [path for path in content["input"] or [] if "/tokens/" not in path]
            record.write_text(json.dumps(content))
            changed += 1
    assert changed >= 6  # three files of each run
    assert "Nothing to be done" in snakemake(directory, "--configfile", finished[1], "-n")
    shutil.rmtree(directory / ".snakemake/metadata")
    assert "Nothing to be done" in snakemake(directory, "--configfile", finished[1], "-n")


def test_results_can_be_moved(finished, tmp_path):
    """The copy is at another depth, where the scripts have another relative path."""
    directory, config = finished
    moved = shutil.copytree(directory, tmp_path / "deeper/still/and/here")
    assert "Nothing to be done" in snakemake(moved, "--configfile", config, "-n")


def test_how_it_is_trained_retrains_nothing(finished, tiny_configuration, tmp_path):
    """Keys for workers, saving, logging and embedding do not train again; a key that changes the result does."""
    _, config = finished
    directory = copied(finished, tmp_path)
    keys = "{workers: 1, save_every_minutes: 1, eval_batch_size: 7, log_every: 1, trackers: [wandb]}"
    assert "Nothing to be done" in snakemake(directory, "--configfile", config, "-n", "--config", f"train={keys}")
    assert planned(snakemake(directory, "--configfile", config, "-n", "--config", "train={epochs: 3}"))["train"] == 2


def test_keys_of_no_effect_on_results_redo_nothing(finished, monkeypatch):
    """The keys of docs/what-runs-again.md that make nothing again, all changed at once; a GPU among them."""
    directory, config = finished
    monkeypatch.setenv("CUSA_DEVICES", "x,y")
    keys = (
        "teachers={image: {batch_size: 3}, text: {batch_size: 5}}",
        "dataset={check_images: header, max_pixels: 100000, expected_images: {train: 32, val: 8}}",
        "extraction={parts: 3, join: false}",
        "shards={pixels: memory-map, verify: never}",
        "train={gpus: 1, workers: 1, save_every_minutes: 1, eval_batch_size: 7, log_every: 1, trackers: [wandb],"
        " checkpoint_towers: true, cpu_processes: 2}",
    )
    assert "Nothing to be done" in snakemake(directory, "--configfile", config, "-n", "--config", *keys)
    changed = snakemake(directory, "--configfile", config, "-np", "--config", "train={gpus: 2}")
    assert planned(changed)["train"] == 2
    assert not {"convert", "extract_image_features", "extract_text_features"} & set(planned(changed))
    # What is embedded because the training is another one is embedded on the GPU, as it would be of a run of a CPU.
    assert len(re.findall(r"exec python -m cusa.devices 1 python \S+embed.py --gpu ", changed)) == 2


# What is planned first, and the sentence that says why: one key of each kind of docs/what-runs-again.md.
CHANGES = [
    ("dataset={expected_images: {train: 31}}", "convert", "dataset.expected_images was null or left out, is"),
    (
        "captions={clean: published, max_words: 3}",
        "convert",
        "captions.clean was 'none', is 'published'; captions.max_words was null or left out, is 3",
    ),
    ("shards={quality: 50}", "write_shards", "shards.quality was 95, is 50"),
    ("teachers={image: {precision: bf16}}", "extract_image_features", "precision was 'fp32', is 'bf16'"),
    ("train={epochs: 4, lr: 0.002}", "train", "train.epochs was 2, is 4; train.lr was 0.001, is 0.002"),
    ("experiments={cusa: {contrastive: {rate: 0.5}}}", "train", "losses.contrastive.rate was 1.0, is 0.5"),
    ("benchmarks={itr: {folds: 2}}", "evaluate_itr", "benchmarks.itr.folds was null or left out, is 2"),
    ("report={gallery: {top: 3}}", "render_report", "report.gallery.top was 5, is 3"),
    ("report={reference: cusa}", "summarise", "reference was '--reference contrastive', is '--reference cusa'"),
]


@pytest.mark.parametrize(("change", "first", "sentence"), CHANGES, ids=[first for _, first, _ in CHANGES])
def test_a_reason_names_the_keys_that_have_changed(finished, change, first, sentence):
    """And no configuration as JSON, which for a training would be 4 kB."""
    output = snakemake(finished[0], "--configfile", finished[1], "-n", "--config", change)
    assert next(iter(planned(output))) == first or first in planned(output)
    reasons = re.findall(r"reason: (.*)", output)
    assert any(sentence in reason for reason in reasons), reasons
    assert '{"' not in output


def test_gpus_that_are_not_there_are_a_sentence_before_any_job(tmp_path, tiny_configuration, monkeypatch):
    config = write(tmp_path, tiny_configuration)
    wants = ("--configfile", config, "--config", "train={gpus: 3}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("CUSA_DEVICES", "x,y")
    output = snakemake(tmp_path, *wants, check=False)
    assert "train.gpus asks for 3 GPUs, but this machine has 2; lower train.gpus" in output
    monkeypatch.setenv("CUSA_DEVICES", "x,y,z")
    output = snakemake(tmp_path, *wants, "--resources", "gpu=2", check=False)
    assert "--resources gpu=2 gives a job no more than 2" in output
    assert "rule convert" not in output
    # Without --resources, as many as there are.
    assert "gpu=3" in snakemake(tmp_path, *wants, "-n")


def test_several_machines_without_slurm_are_a_sentence_before_any_job(tmp_path, tiny_configuration, monkeypatch):
    (tmp_path / "bin").mkdir()
    for name in ("bash", "which"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    config = write(tmp_path, tiny_configuration)
    output = snakemake(tmp_path, "--configfile", config, "--config", "train={nodes: 2}", check=False)
    assert "train.nodes is 2, which Slurm's srun starts, but there is no srun here" in output
    assert "rule convert" not in output


def test_changing_the_report_trains_nothing(finished, tiny_configuration, tmp_path):
    changed = {**tiny_configuration, "report": {"gallery": {"top": 3}}}
    jobs = planned(snakemake(finished[0], "--configfile", write(tmp_path, changed), "-n"))
    assert {name for name in jobs if name not in ("all", "total")} == {"render_report"}


def test_touching_code_or_comments_redoes_nothing(finished):
    (ROOT / "src/cusa/training/loop.py").touch()
    (ROOT / "workflow/scripts/train.py").touch()
    assert "Nothing to be done" in snakemake(finished[0], "--configfile", finished[1])


@pytest.mark.parametrize(
    ("target", "last", "never"),
    [
        ("annotations", "convert", "write_shards"),
        ("shards", "write_shards", "extract_text_features"),
        ("features", "extract_text_features", "train"),
        ("models", "train", "embed"),
        ("scores", "evaluate_itr", "render_report"),
        ("report", "render_report", "nothing_more"),
    ],
)
def test_targets_are_stages(tmp_path, tiny_configuration, target, last, never):
    jobs = planned(snakemake(tmp_path, target, "-n", "--configfile", write(tmp_path, tiny_configuration)))
    assert last in jobs
    assert never not in jobs


@pytest.mark.slow
def test_a_snakemake_report_holds_the_figures(finished, tmp_path):
    snakemake(finished[0], "--configfile", finished[1], "--report", str(tmp_path / "report.zip"))
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(tmp_path / "report.zip")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in ("validation.svg", "losses.svg", "index.html", "summary.md"):
        assert name in names


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sead": 1}, "key `sead` is unknown"),
        ({"train": {"epochs": "many"}}, "key `train.epochs` is 'many'"),
        ({"benchmarks": {"sts": {}}}, "key `benchmarks.sts` needs sentence pairs"),
        ({"report": {"reference": "cuso"}}, "key `report.reference` names cuso, which is none of the experiments and"),
        (
            {"teachers": {"text": {"name": "./nowhere"}}},
            "key `teachers.text.name` names ./nowhere, which does not exist",
        ),
    ],
)
def test_a_wrong_configuration_is_a_sentence_before_any_job(tmp_path, tiny_configuration, change, says):
    mapping = {**tiny_configuration, **change}
    output = snakemake(tmp_path, "--configfile", write(tmp_path, mapping), check=False)
    assert says in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


def test_keys_on_the_command_line(finished):
    changes = ("seeds=[23, 24]", "experiments={cusa: null}", "train={epochs: 2}")
    jobs = planned(snakemake(finished[0], "--configfile", finished[1], "-n", "--config", *changes))
    assert jobs["train"] == 1


def test_read_only_results_are_a_sentence_before_any_job(tmp_path, tiny_configuration):
    config = write(tmp_path, tiny_configuration)
    with mounted_tmpfs(tmp_path / "results", "ro"):
        output = snakemake(tmp_path, "--configfile", config, check=False)
        snakemake(tmp_path, "--configfile", config, "--dry-run")
    assert f"{tmp_path}/results cannot be written" in output
    assert "rule convert" not in output


@pytest.mark.parametrize("arguments", [(), ("-n",)], ids=["run", "plan"])
def test_a_results_link_that_leads_nowhere_is_a_sentence_before_any_job(tmp_path, tiny_configuration, arguments):
    config = write(tmp_path, tiny_configuration)
    (tmp_path / "results").symlink_to("/no disk/is mounted here")
    output = snakemake(tmp_path, "--configfile", config, *arguments, check=False)
    assert (
        "results is a symbolic link to /no disk/is mounted here, which does not exist, but the results are written to "
        "results/shapes; make that folder (or mount its disk), or remove the link." in output
    )
    assert "Traceback" not in output


def test_bad_data_stops_at_the_start_and_its_log_says_why(tmp_path, tiny_configuration, shapes):
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    first, second = sorted((data / "pics").glob("*.jpg"))[:2]
    first.write_bytes(b"")
    second.unlink()
    files = {split: str(data / f"{split}.json") for split in ("train", "val", "test")}
    mapping = {**tiny_configuration, "dataset": {**tiny_configuration["dataset"], "annotations": files}}
    config = write(tmp_path, mapping)
    profile = ("--workflow-profile", str(ROOT / "workflow/profiles/default"))
    output = snakemake(tmp_path, "--configfile", config, *profile, check=False)
    log = (tmp_path / "results/shapes/logs/convert/convert.log").read_text()
    for text in (output, log):
        assert "1 image files that do not exist" in text
        assert "1 image files that cannot be decoded" in text
    assert not (tmp_path / "results/shapes/shards").exists()

    mapping["dataset"]["skip"] = ["missing_image", "unreadable_image"]
    snakemake(tmp_path, "annotations", "--configfile", write(tmp_path, mapping))
    assert read_json(tmp_path / "results/shapes/annotations/problems.json")["skipped"] == {
        "missing_image": 1,
        "unreadable_image": 1,
    }


def test_short_output_has_one_line_for_each_job(tmp_path, tiny_configuration, shapes):
    """As `cusa run` writes where there is no terminal."""
    short = ("--quiet", "rules", "host", "--show-failed-logs", "--keep-going")
    data = Path(shutil.copytree(shapes, tmp_path / "data"))
    files = {split: str(data / f"{split}.json") for split in ("train", "val", "test")}
    mapping = {**tiny_configuration, "dataset": {**tiny_configuration["dataset"], "annotations": files}}
    config = write(tmp_path, mapping)
    picture = min((data / "pics").glob("*.jpg"))
    picture.rename(tmp_path / "elsewhere.jpg")
    lines = snakemake(tmp_path, "annotations", "--configfile", config, *short, check=False).splitlines()
    failed = next(place for place, line in enumerate(lines) if re.fullmatch(r"\[.+\] failed: convert", line))
    assert lines[failed + 1] == "Error: the data set has problems:"
    assert not any("CalledProcessError" in line for line in lines)

    (tmp_path / "elsewhere.jpg").rename(picture)
    output = snakemake(tmp_path, "annotations", "--configfile", config, *short)
    assert re.search(r"\ntotal +2\n\n\[.+\] 1 of 2 steps \(50%\) done: convert\n\[.+\] 2 of 2 steps", output)


def test_a_benchmark_that_refuses_the_data_says_so_before_training(finished, tmp_path, tiny_configuration):
    """ECCV Caption covers only Karpathy's COCO test split; other images are recognised from the annotations."""
    directory = copied(finished, tmp_path)
    benchmarks = tiny_configuration["benchmarks"] | {"eccv_caption": {"ground_truth": "coco"}}
    config = write(directory, tiny_configuration | {"benchmarks": benchmarks})
    shutil.rmtree(directory / "results/shapes/runs")
    output = snakemake(directory, "--configfile", config, "--show-failed-logs", check=False)
    assert "has 8 test images, of which 0 are among the 5,000 of Karpathy's COCO test" in output
    assert output.index("rule check_benchmark:") < output.index("rule train:") if "rule train:" in output else True


def test_features_are_those_of_every_run(tmp_path, tiny_configuration):
    """This includes a configuration with baselines alone, where nothing is trained."""
    alone = dict.fromkeys(tiny_configuration["experiments"]) | {"teachers": {"baseline": "teachers"}}
    config = write(tmp_path, tiny_configuration | {"experiments": alone})
    plan = planned(snakemake(tmp_path, "features", "-n", "--configfile", config))
    assert plan["extract_image_features"] >= 1


@pytest.mark.slow
def test_a_killed_training_continues_and_a_killed_snakemake_loses_none(finished, tiny_configuration, tmp_path):
    directory = copied(finished, tmp_path)
    config = write(directory, {**tiny_configuration, "train": {**tiny_configuration["train"], "epochs": 60}})
    run, log = directory / "results/shapes/runs/cusa/seed23", directory / "results/shapes/logs/train/cusa/seed23.log"
    target = ["results/shapes/runs/cusa/seed23/best.safetensors", "--configfile", config, "--rerun-incomplete"]
    command = [SNAKEMAKE, "--snakefile", ROOT / "Snakefile", "--cores", "2", "--directory", directory, *target]

    def started(until: Callable[[], bool]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 120
        while not until() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert until()
        return process

    process = started(lambda: (run / "state/last.pt").exists())
    os.killpg(process.pid, signal.SIGKILL)  # Snakemake, torchrun and training alike
    process.wait()
    snakemake(directory, *target, "--unlock")
    process = started(lambda: log.exists() and "continuing at epoch" in log.read_text())
    process.kill()  # Snakemake alone: the training ends normally, and its outputs are not recorded
    process.wait()
    while not (run / "state/finished/run.json").exists():
        time.sleep(0.05)
    snakemake(directory, *target, "--unlock")
    snakemake(directory, *target)
    assert "its files are restored" in log.read_text()
    assert read_json(run / "run.json")["epochs"] == 60


def test_lint_is_clean():
    output_of_snakemake("--lint", cwd=ROOT)


def test_a_published_checkpoint_is_scored_beside_the_experiments(finished, tiny_configuration, tmp_path, monkeypatch):
    directory = copied(finished, tmp_path)
    folder = clip_with_heads_of_64(Path(tiny_configuration["student"]["name"]), tmp_path / "clip")
    file = checkpoint_of(folder, tmp_path / "checkpoint_best.pth")
    mapping = {**tiny_configuration, "checkpoints": {"theirs": {"file": str(file), "student": str(folder)}}}
    mapping["report"] = {"gallery": {"experiments": ["cusa", "theirs"]}}
    output = snakemake(directory, "--configfile", write(directory, mapping))
    assert "rule train:" not in output
    rows = pq.read_table(directory / "results/shapes/summary.parquet").to_pylist()
    assert [row["experiment"] for row in rows if row["metric"] == "rsum"] == ["contrastive", "cusa", "theirs"]
    protocol = next(row["protocol"] for row in rows if row["experiment"] == "theirs")
    assert "selected on the test set, as published, which leaks it" in protocol
    assert "imported from checkpoint_best.pth" in (directory / "results/shapes/report/index.html").read_text()
    # A GPU is no reason to import it or to embed it again.
    monkeypatch.setenv("CUSA_DEVICES", "x")
    on_gpu = ("--configfile", str(directory / "mine.yaml"), "-n", "--config", "train={gpus: 1}")
    assert "Nothing to be done" in snakemake(directory, *on_gpu)


@pytest.mark.slow
def test_features_in_parts_equal_those_in_one(finished, tiny_configuration, tmp_path):
    """One job per part of train, and one that joins or lists the parts; a lost part is made again alone."""
    parts = {"extraction": {"parts": 2}}
    config = write(tmp_path, {**tiny_configuration, **parts})
    (tmp_path / "results/shapes").mkdir(parents=True)
    for folder in ("annotations", "shards", "teachers/text"):
        shutil.copytree(finished[0] / "results/shapes" / folder, tmp_path / "results/shapes" / folder)
    snakemake(tmp_path, "features", "--configfile", config, "--until", "extract_image_part", "--notemp")
    (split,) = (tmp_path / "results/shapes/teachers/image").glob("*/train.parts")
    shutil.rmtree(split / "1-of-2")
    jobs = planned(snakemake(tmp_path, "features", "--configfile", config, "--dry-run"))
    assert (jobs["extract_image_part"], jobs["join_image_features"]) == (1, 1)
    assert "extract_image_features" not in jobs  # teacher features are needed only for train
    snakemake(tmp_path, "features", "--configfile", config, "--notemp")
    joined = np.load(split.with_name("train") / "features.npy")
    (whole,) = (finished[0] / "results/shapes/teachers/image").glob("*/train/features.npy")
    assert np.allclose(joined, np.load(whole), atol=1e-3)
    # Not joined: the parts that are there are only listed.
    shutil.rmtree(split.with_name("train"))
    config = write(tmp_path, {**tiny_configuration, "extraction": {"parts": 2, "join": False}})
    snakemake(tmp_path, "features", "--configfile", config)
    assert not (split.with_name("train") / "features.npy").exists()
    store = FeatureStore(split.with_name("train"), rows=len(joined))
    assert np.array_equal(store[np.arange(len(joined))], joined.astype(np.float32))


@pytest.mark.parametrize("profile", ["default", "gpu", "slurm"])
def test_profiles_plan(tmp_path, tiny_configuration, profile):
    output = snakemake(
        tmp_path,
        "--configfile",
        write(tmp_path, tiny_configuration),
        "--workflow-profile",
        str(ROOT / "workflow/profiles" / profile),
        "-n",
        "models",
    )
    assert planned(output)["train"] == 2
    assert ("gpu=1" in output) == (profile != "default")


@pytest.mark.slow
def test_the_demo_in_small_ends_in_a_report(tmp_path):
    snakemake(tmp_path, "--configfile", str(ROOT / "tests/workflow/emoji.yaml"))
    data = tmp_path / "results/openmoji"
    rows = pq.read_table(data / "summary.parquet").to_pylist()
    assert {row["benchmark"] for row in rows} == {"itr", "eccv_caption", "image_retrieval", "sts"}
    assert all(np.isfinite(row["mean"]) for row in rows)
    for side, original in (("image", "efficientnet-lite0-64px"), ("text", "all-MiniLM-L6-v2")):
        (views,) = (data / "teachers" / side).glob("*-views2-*")
        meta = [read_json(data / "teachers" / side / name / "train/meta.json") for name in (views.name, original)]
        assert meta[0]["rows"] == 2 * meta[1]["rows"]
        assert [path.name for path in views.iterdir()] == ["train"]
    page = (data / "report/index.html").read_text()
    assert page.count('<section class="query">') == 12 + min(6, len(set(_labels(data))))
    assert 'class="hit right"' in page
    # Addresses are named, in licences and of namespaces, but nothing is loaded from one.
    named = r"https?://www\.w3\.org\S+|https?://creativecommons\S+|https://github\.com/leeoniya/uPlot"
    assert "http" not in re.sub(named, "", page)


def _labels(data: Path) -> list[str]:
    images = pq.read_table(data / "annotations/images.parquet").to_pylist()
    return [image["label"] for image in images if image["split"] == "variants"]


@pytest.mark.slow
def test_benchmarks_on_data_of_their_own(finished, tmp_path, tiny_configuration):
    """Archives and the user's own data are scored; missing data are left out, and the summary says so."""
    directory = copied(finished, tmp_path)
    data = tmp_path / "archives"
    data.mkdir()
    images = {"cub": str(archives.cub(data)), "sop": str(data / "nowhere")}
    sentences = {"senteval": str(archives.senteval(data))}
    benchmarks = tiny_configuration["benchmarks"] | {
        "itr": {"folds": 2}, "image_retrieval": images, "sts": sentences,
    }  # fmt: skip
    baselines = {"zero_shot": {"baseline": "zero_shot"}, "teachers": {"baseline": "teachers"}}
    experiments = tiny_configuration["experiments"] | baselines
    changes = {"benchmarks": benchmarks, "experiments": experiments}
    config = write(directory, tiny_configuration | changes)
    plan = planned(snakemake(directory, "--configfile", config, "-n"))
    # A data set of images and one of sentences, for four runs; nothing is trained again.
    assert plan["embed_benchmark_data"] == 8
    assert plan["convert_labelled_images"] == plan["convert_sentence_pairs"] == plan["write_benchmark_shards"] == 1
    assert "train" not in plan
    assert plan["write_baseline"] == 2
    assert plan["evaluate_itr"] == 3  # the teachers share no space
    snakemake(directory, "--configfile", config)
    results = directory / "results/shapes"
    found = read_json(results / "runs/cusa/seed23/benchmarks/image_retrieval.json")
    assert found["sizes"] == {"cub": [4, 3]}
    assert found["protocol"].startswith("uni head")
    correlations = read_json(results / "runs/cusa/seed23/benchmarks/sts.json")["metrics"]
    assert {"sts12/spearman", "sts16/pearson_weighted_mean", "average/spearman"} <= set(correlations)
    summary = (results / "summary.md").read_text()
    assert "nowhere does not exist" in summary
    assert "teachers: not computed. The two teachers share no space" in summary
    before = read_json(results / "runs/zero_shot/seed23/benchmarks/itr.json")["protocol"]
    assert before.startswith("features before the heads (no cross head was trained)")
    assert "| cusa - contrastive |" in summary
    assert "\\toprule" in (results / "summary.tex").read_text()
    assert "nowhere does not exist" in (results / "report/index.html").read_text()
    # The same without anything that was trained here.
    untrained = dict.fromkeys(tiny_configuration["experiments"]) | baselines
    alone = directory / "alone.yaml"
    alone.write_text(yaml.safe_dump(tiny_configuration | {"benchmarks": benchmarks, "experiments": untrained}))
    snakemake(directory, "--configfile", str(alone))
    assert "| contrastive |" not in (results / "summary.md").read_text()
    page = (results / "report/index.html").read_text()
    assert "Nothing was trained here" in page
    assert "None of report.gallery.experiments is among the models" in page
    snakemake(directory, "--configfile", config)
    assert "Nothing to be done" in snakemake(directory, "--configfile", config)
    # A baseline is not trained, so another recipe is none of its business.
    jobs = planned(snakemake(directory, "--configfile", config, "-n", "--config", "train={epochs: 9}"))
    assert (jobs["train"], jobs["embed"], "write_baseline" in jobs) == (2, 2, False)


@pytest.mark.slow
def test_classification_and_judgements_of_ones_own(finished, tmp_path, tiny_configuration):
    """Zero-shot, by a probe, and on a table of right answers: scored for the trained and the untrained model."""
    directory = copied(finished, tmp_path)
    for number, colour in enumerate(["red", "blue"] * 4):
        place = tmp_path / "pictures" / colour
        place.mkdir(parents=True, exist_ok=True)
        draw_shape(colour, SHAPES[number // 2], "large").save(place / f"{number}.png")
    labelled = {"colours": str(tmp_path / "pictures")}
    test = pq.read_table(directory / "results/shapes/annotations/images.parquet").to_pylist()[-1]
    (tmp_path / "mine.csv").write_text(f"image,caption,right\n{test['image_id']},something,1\n")
    benchmarks = tiny_configuration["benchmarks"] | {
        "zero_shot_classification": {"labelled_images": labelled, "templates": ["a {}", "{}"]},
        "linear_probe": {"labelled_images": labelled},
        "eccv_caption": {"positives": str(tmp_path / "mine.csv")},
    }  # fmt: skip
    experiments = tiny_configuration["experiments"] | {
        "between": {"interpolate": {"experiment": "cusa", "alphas": [0.0, 0.5]}},
        "zero_shot": {"baseline": "zero_shot"},
    }
    config = write(directory, tiny_configuration | {"benchmarks": benchmarks, "experiments": experiments})
    plan = planned(snakemake(directory, "--configfile", config, "-n"))
    assert "train" not in plan
    assert plan["interpolate"] == 1
    assert (plan["write_benchmark_texts"], plan["convert_labelled_images"]) == (2, 1)
    assert plan["embed_benchmark_data"] == plan["evaluate_linear_probe"] == 4
    snakemake(directory, "--configfile", config)
    results = directory / "results/shapes"
    for run in ("cusa", "between", "zero_shot"):
        scores = read_json(results / f"runs/{run}/seed23/benchmarks/zero_shot_classification.json")
        assert 0 <= scores["metrics"]["colours/acc1"] <= 100
        assert scores["sizes"] == {"colours": [8, 2]}
        assert read_json(results / f"runs/{run}/seed23/benchmarks/linear_probe.json")["sizes"] == {"colours": [4, 2]}
        assert read_json(results / f"runs/{run}/seed23/benchmarks/eccv_caption.json")["n_queries"] == 1
    summary = (results / "summary.md").read_text()
    assert "Zero-shot classification" in summary
    assert "Linear probe" in summary
    assert "Nothing to be done" in snakemake(directory, "--configfile", config)


def test_a_benchmark_none_of_whose_data_is_there_is_left_out(finished, tmp_path, tiny_configuration):
    directory = copied(finished, tmp_path)
    benchmarks = tiny_configuration["benchmarks"] | {"sts": {"senteval": "no/such/folder"}}
    config = write(directory, tiny_configuration | {"benchmarks": benchmarks})
    snakemake(directory, "--configfile", config)
    assert "- sts, senteval: no/such/folder does not exist" in (directory / "results/shapes/summary.md").read_text()


def test_a_changed_image_of_test_trains_nothing_and_one_of_train_trains_again(finished, tmp_path):
    folder = copied(finished, tmp_path)
    of_split = {}
    for split in ("test", "train"):
        path = folder / f"results/shapes/shards/{split}/image_files.parquet"
        known = path.read_bytes()
        table = pq.read_table(path)
        size = pa.array([1, *table["bytes"].to_pylist()[1:]], pa.int64())
        pq.write_table(table.set_column(1, "bytes", size), path)
        output = snakemake(folder, "--configfile", finished[1], "-n")
        assert f" images of {split} have another size or time than when they were stored: " in output
        of_split[split] = planned(output)
        path.write_bytes(known)
    assert of_split["test"].keys() >= {"write_shards", "embed", "evaluate_itr", "summarise", "render_report"}
    assert of_split["test"].keys().isdisjoint({"convert", "train", "extract_text_features"})
    assert of_split["test"]["write_shards"] == of_split["train"]["write_shards"] == 1
    assert of_split["train"]["train"] == 2
    assert "extract_image_features" in of_split["train"]
