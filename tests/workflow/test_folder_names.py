"""The checkout, the data and the results may lie in folders with any name: every path in a command is quoted."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import write_shapes

ROOT = Path(__file__).parents[2]
MADE = ROOT / "tests/data/run_b749c88"
SNAKEMAKE = Path(sys.executable).parent / "snakemake"
NAMES = ["my repo", "it's mine #2", 'st*r "q" $HOME & co; (x)']


def checkout(parent: Path, name: str) -> Path:
    """A copy of what runs, in a folder with this name."""
    folder = parent / name
    for part in ("config", "envs", "src", "workflow"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    return folder


def data(folder: Path, experiments: dict[str, object] | None = None) -> Path:
    """Small data and models in `folder`, and a configuration that has most rules run; returns its path.

    `experiments` are those beside `contrastive`.
    """
    shutil.copytree(MADE / "models", folder / "models")
    shutil.copy(MADE / "pairs.tsv", folder / "pa irs.tsv")
    for number, picture in enumerate(sorted((write_shapes(folder / "shapes") / "pics").iterdir())[:4]):
        of_class = folder / f"labelled {{x}}/class '{number % 2}'"
        of_class.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, of_class)
    mapping = yaml.safe_load((MADE / "config/config.yaml").read_text())
    mapping["dataset"]["annotations"] = {
        split: str(folder / f"shapes/{split}.json") for split in ("train", "val", "test")
    }
    image, text = ({"name": str(folder / f"models/{name}")} for name in ("vit", "bert"))
    towers = {"image": image, "text": text, "dimension": 8}
    mapping |= {
        "teachers": {"image": image, "text": text},
        "student": {"name": str(folder / "models/clip"), "towers": None},
        "train": {**mapping["train"], "epochs": 1},
        "experiments": {"contrastive": {"contrastive": {}}}
        | (
            experiments
            or {
                "csa": None,
                "usa": None,
                "cusa": {"contrastive": {}, "uni_softlabel": {}, "student": {"towers": towers}},
                "frozen": {
                    "contrastive": {},
                    "student": {"towers": {**towers, "image": image | {"trainable": False}}},
                },
                "zero_shot": {"baseline": "zero_shot"},
            }
        ),
        "benchmarks": {
            "itr": {},
            "eccv_caption": None,
            "image_retrieval": {"labelled_images": {"mine": str(folder / "labelled {x}")}},
            "sts": {"sentence_pairs": {"pairs": str(folder / "pa irs.tsv")}},
        },
    }
    path = folder / "mi ne.yaml"
    path.write_text(yaml.safe_dump(mapping))
    return path


def snakemake(snakefile: Path, directory: Path, *arguments: object, check: bool = True) -> str:
    directory.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    temporary = directory / "tm p'#"
    temporary.mkdir(exist_ok=True)
    words = [SNAKEMAKE, "--snakefile", snakefile, "--cores", "2", "--printshellcmds", *map(str, arguments)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=directory, env=environment | {"TMPDIR": str(temporary)}
    )
    assert (done.returncode == 0) == check, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_every_printed_command_names_files_that_exist_or_that_a_job_makes(tmp_path, name):
    """A dry run prints the commands of all jobs: a shell reads them, and each script is one word."""
    repository, folder = checkout(tmp_path, name), tmp_path / f"data {name}"
    folder.mkdir()
    directory = tmp_path / f"results {name}"
    output = snakemake(repository / "Snakefile", directory, "--configfile", data(folder), "--dry-run")
    commands = [line.partition("Shell command: ")[2] for line in output.splitlines() if "Shell command: " in line]
    commands = [command for command in commands if command != "None"]
    assert len(commands) > 20
    rules = set(re.findall(r"^(?:local)?rule (\w+):$", output, flags=re.MULTILINE))
    assert {"convert_labelled_images", "extract_benchmark_features", "write_baseline", "embed_benchmark_data"} <= rules
    for command in commands:
        assert subprocess.run(["bash", "-n", "-c", command], check=False).returncode == 0, command
        words = shlex.split(command)
        (script,) = [word for word in words if word.endswith(".py")]
        assert (directory / script).is_file(), command


@pytest.mark.slow
def test_the_workflow_trains_in_a_folder_with_any_name(tmp_path):
    """As a user in the checkout does, and from a working directory elsewhere."""
    name = "it's mine #2"
    repository, folder = checkout(tmp_path, name), tmp_path / f"data {name}"
    folder.mkdir()
    config = data(folder, experiments={"csa": None, "usa": None, "cusa": None})
    snakemake(repository / "Snakefile", repository, "models", "--configfile", config)
    assert (repository / "results/shapes/runs/contrastive/seed23/best.safetensors").is_file()
    elsewhere = tmp_path / f"results {{x}} {name}"
    snakemake(repository / "Snakefile", elsewhere, "shards", "--configfile", config)
    assert (elsewhere / "results/shapes/shards/train/index.parquet").is_file()
    assert "Nothing to be done" in snakemake(repository / "Snakefile", elsewhere, "shards", "--configfile", config)


def test_a_working_directory_whose_name_looks_like_an_option(tmp_path, tiny_configuration):
    repository = checkout(tmp_path, "-my repo")
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump(tiny_configuration))
    snakemake("./-my repo/Snakefile", tmp_path, "annotations", "--configfile", config)
    assert (tmp_path / "results/shapes/annotations/images.parquet").is_file()
    assert repository.is_dir()


@pytest.mark.parametrize(("name", "marks"), [("a{b}", "{ and }"), ("a:b", ":")])
def test_a_checkout_that_snakemake_or_python_cannot_use_is_a_sentence(tmp_path, name, marks):
    output = snakemake(checkout(tmp_path, name) / "Snakefile", tmp_path / "work", "--dry-run", check=False)
    assert f"whose name has {marks}, which Snakemake or Python takes for something else; rename" in output


def test_an_annotation_file_with_braces_in_its_path_is_a_sentence(tmp_path):
    folder = tmp_path / "a{b}"
    folder.mkdir()
    output = snakemake(ROOT / "Snakefile", tmp_path / "work", "-n", "--configfile", data(folder), check=False)
    assert "has braces in its path, which the workflow takes for a wildcard; rename" in output
