"""What the workflow refuses before hours are spent: odd configuration files and --config, and too little data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from test_workflow import planned, snakemake, write


@pytest.fixture
def config(tmp_path, tiny_configuration) -> str:
    return write(tmp_path, tiny_configuration)


def test_what_yaml_would_lose_is_a_sentence_before_any_job(tmp_path, config):
    (tmp_path / "odd.yaml").write_text("train: {lr: 0.1}\ntrain: {epochs: 1:30, batch_size: 010}\n")
    output = snakemake(tmp_path, "-n", "--configfile", config, str(tmp_path / "odd.yaml"), check=False)
    assert f"{tmp_path}/odd.yaml, line 2: the key `train` is there already, in line 1" in output
    assert "reads 1:30 of `train.epochs` in base 60" in output
    assert "reads 010 of `train.batch_size` in base 8" in output
    assert "Traceback" not in output


def test_the_configuration_of_the_working_directory_is_read_strictly_too(tmp_path, tiny_configuration):
    (tmp_path / "config").mkdir()
    own = tmp_path / "config/config.yaml"
    own.write_text(yaml.safe_dump(tiny_configuration) + "seeds: [1]\n")
    output = snakemake(tmp_path, "-n", check=False)
    assert "config/config.yaml, line" in output
    assert "the key `seeds` is there already" in output


def test_brackets_that_do_not_pair_up_on_the_command_line(tmp_path, config):
    output = snakemake(tmp_path, "-n", "--configfile", config, "--config", "train={epochs: 3", check=False)
    assert "--config train={epochs: 3 cannot be read as YAML" in output
    assert "Traceback" not in output


def test_text_in_quotation_marks_on_the_command_line_stays_text(tmp_path, tiny_configuration, shapes):
    folder = Path(shutil.copytree(shapes, tmp_path / "set #2"))
    config = write(tmp_path, {key: value for key, value in tiny_configuration.items() if key != "dataset"})
    dataset = json.dumps({"name": "007", "format": "published", "annotations": str(folder)})
    output = snakemake(tmp_path, "-n", "annotations", "--configfile", config, "--config", f"dataset={dataset}")
    assert "results/007/annotations/images.parquet" in output
    assert f"input: {folder}/train.json" in output


def test_variables_and_home_folders_in_paths(tmp_path, monkeypatch, tiny_configuration, shapes):
    monkeypatch.setenv("SHAPES", str(shapes))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "theirs.pth").write_bytes(b"")
    student = tiny_configuration["student"]["name"]
    mapping = {
        **tiny_configuration,
        "dataset": {"name": "shapes", "format": "published", "annotations": "${SHAPES}"},
        "checkpoints": {"theirs": {"file": "~/theirs.pth", "student": student}},
    }
    output = snakemake(tmp_path, "-n", "models", "--configfile", write(tmp_path, mapping))
    assert f"input: {shapes}/train.json" in output
    assert f"input: {tmp_path}/theirs.pth" in output
    monkeypatch.delenv("SHAPES")
    output = snakemake(tmp_path, "-n", "models", "--configfile", write(tmp_path, mapping), check=False)
    assert "key `dataset.annotations` is '${SHAPES}', but the environment variable SHAPES is not set" in output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ["-n", "--config", "train={epochz: 3}"],
            "Configuration key `train.epochz` is unknown; did you mean `epochs`?",
        ),
        (["--cores", "0"], "--cores is 0, so no job could ever start; give 1 or more, or all."),
    ],
    ids=["an unknown key", "no cores"],
)
def test_what_is_wrong_is_told_without_lines_of_snakemake(tmp_path, config, options, says):
    lines = snakemake(tmp_path, *options, "--configfile", config, check=False).strip().splitlines()
    assert lines[-1].startswith(f"Error: {says}")
    assert all("Config file" in line for line in lines[:-1]), lines


def test_a_folder_in_the_place_of_the_configuration_is_no_reason_to_take_another(tmp_path):
    (tmp_path / "config/config.yaml").mkdir(parents=True)
    output = snakemake(tmp_path, "-n", check=False)
    assert "Error: config/config.yaml is a folder; expected a YAML or JSON file." in output


@pytest.mark.parametrize("target", ["shards", "features"])
def test_fewer_pairs_than_a_step_takes_stop_before_shards_and_features(tmp_path, tiny_configuration, target):
    """Also where jobs that do not depend on a failed one go on."""
    train = {**tiny_configuration["train"], "batch_size": 40, "accumulate": 2}
    config = write(tmp_path, {**tiny_configuration, "train": train})
    options = ("--keep-going", "--show-failed-logs")
    output = snakemake(tmp_path, target, *options, "--configfile", config, check=False)
    assert "the split train has 64 pairs of image and caption, but a step takes 80" in output
    assert "(train.batch_size 40 x 1 processes x train.accumulate 2)" in output
    assert "Traceback" not in output
    assert sorted(path.name for path in (tmp_path / "results/shapes").iterdir()) == ["annotations", "logs", "timings"]
    # Its annotations are kept, and a smaller batch goes on from there.
    jobs = planned(snakemake(tmp_path, target, "-n", "--configfile", config, "--config", "train={batch_size: 32}"))
    assert "convert" not in jobs
    assert jobs["write_shards"] == (3 if target == "shards" else 1)
