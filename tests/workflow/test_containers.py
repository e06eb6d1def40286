"""`--sdm apptainer` with a program that stands in for Apptainer: it is given what it needs to run the jobs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from snakemake_runs import run_snakemake

from cusa.common.workflow_files import PACKAGE

ROOT = Path(__file__).parents[2]
# It writes down how it was called, and runs the command on this machine, as if that were the image.
STAND_IN = """#!{python}
import json, os, subprocess, sys
if sys.argv[1:] == ["--version"]:
    print("apptainer version 1.4.5")
    raise SystemExit
called = {{"words": sys.argv[1:], "environment": dict(os.environ)}}
with open({record!r}, "a") as file:
    file.write(json.dumps(called) + "\\n")
shell = sys.argv.index("bash")
raise SystemExit(subprocess.run(sys.argv[shell:]).returncode)
"""

# Snakemake where these modules are not installed.
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {modules!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from snakemake.cli import main
main(sys.argv[1:])
"""


@pytest.fixture
def folder(tmp_path, tiny_configuration) -> Path:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/apptainer"
    program.write_text(STAND_IN.format(python=sys.executable, record=str(tmp_path / "called.jsonl")))
    program.chmod(0o755)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tiny_configuration))
    return tmp_path


def snakemake(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"} | environment
    return run_snakemake("--cores", "1", "--configfile=mine.yaml", *arguments, cwd=folder, environment=environment)


def test_a_job_runs_in_the_image_and_finds_the_library_of_this_machine(folder):
    (folder / "cusa.sif").touch()
    done = snakemake(folder, "annotations", "--sdm", "apptainer", APPTAINER_BIND="/data")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "results/shapes/annotations/images.parquet").is_file()
    (called,) = map(json.loads, (folder / "called.jsonl").read_text().splitlines())
    assert called["words"][:3] == ["exec", "--home", str(folder)]
    assert "cusa.sif" in called["words"]
    assert called["environment"]["APPTAINER_BIND"].split(",") == ["/data", str(ROOT), str(PACKAGE)]
    assert called["environment"]["PYTHONPATH"].split(":")[0] == str(ROOT / "src")
    again = snakemake(folder, "annotations", "--sdm", "apptainer", "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


def test_the_machine_that_starts_the_jobs_needs_only_the_packages_that_the_documentation_names(folder):
    """The workflow is read, and its jobs are listed, without all the others that the library depends on."""
    text = (ROOT / "docs/cluster.md").read_text().replace("\\\n", "")
    (command,) = re.findall(r"pip install --constraint constraints\.txt (.*)", text)
    named = {canonicalize_name(name) for name in command.split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    assert named <= needed
    brought = {"jinja2", "pyyaml"}  # by Snakemake
    missing = needed - named - brought
    assert {"torch", "transformers"} < missing
    modules = {
        module for module, names in metadata.packages_distributions().items() if canonicalize_name(names[0]) in missing
    }
    (folder / "cusa.sif").touch()
    words = [
        "--snakefile",
        ROOT / "Snakefile",
        "--cores",
        "1",
        "--configfile=mine.yaml",
        "--sdm",
        "apptainer",
        "--dry-run",
    ]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(modules=modules), *words],
        cwd=folder,
        env=os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "render_report" in done.stdout + done.stderr


def test_an_image_that_is_missing_is_a_sentence_that_says_how_to_make_it(folder):
    done = snakemake(folder, "annotations", "--sdm", "apptainer", CUSA_CONTAINER="images/other.sif")
    assert done.returncode == 1
    environments = ROOT / "envs"
    assert done.stderr.strip().splitlines()[-1] == (
        "Error: images/other.sif, the image of --sdm apptainer, does not exist; make it with `apptainer build "
        f"--build-arg environments={environments} images/other.sif {environments}/apptainer.def`, or say in "
        "CUSA_CONTAINER where one is."
    )
    assert not (folder / "called.jsonl").exists()
