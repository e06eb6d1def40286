"""The package as it is installed from a wheel: it carries the workflow, and works in an empty folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CARRIED = ("Snakefile", "workflow", "config", "envs", "constraints.txt")


def run(*command: object, folder: Path, **environment: str) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and with the wheel that is built from what the sdist holds."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, folder=folder)
    return folder


def files_of_the_workflow() -> set[str]:
    listed = subprocess.run(["git", "ls-files", *CARRIED], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(listed.stdout.split())


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_workflow_as_it_is_in_the_repository(built):
    expected = files_of_the_workflow()
    assert {"Snakefile", "config/coco.yaml", "envs/torch.yaml", "workflow/rules/common.smk"} <= expected
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        start = "cusa/workflow_files/"
        assert {name.removeprefix(start) for name in wheel.namelist() if name.startswith(start)} == expected
        assert all(wheel.read(start + name) == (ROOT / name).read_bytes() for name in expected)
        assert "cusa/py.typed" in wheel.namelist()
        assert "cusa/serve/page/index.html" in wheel.namelist()
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert expected | {"LICENSE", "tests/test_installed_package.py"} <= names


@pytest.mark.slow
def test_from_an_empty_folder_to_a_report(built, tmp_path, shapes):
    """The commands of the README, with fewer trainings. The packages that cusa needs are those of this environment."""
    site, here = tmp_path / "site", tmp_path / "here"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site]
    run(sys.executable, *install, next(built.glob("*.whl")), folder=tmp_path)
    (here / "data").mkdir(parents=True)
    shutil.copytree(shapes / "pics", here / "data/pictures")
    rows = [row for split in ("train", "val", "test") for row in json.loads((shapes / f"{split}.json").read_text())]
    lines = [f'{row["image_id"]},"{row["caption"]}"' for row in rows]
    (here / "data/captions.csv").write_text("\n".join(["picture,text", *lines]))

    def cusa(*arguments: str) -> str:
        return run(site / "bin/cusa", *arguments, folder=here, PYTHONPATH=str(site))

    assert str(site / "cusa/workflow_files/Snakefile") in cusa("run", "--print-command")
    assert "next: cusa check mine.yaml" in cusa("init", "data/captions.csv")
    assert "next: cusa run --configfile mine.yaml" in cusa("check", "mine.yaml")
    fewer = ["--config", "train={epochs: 2}", "experiments={csa: null, usa: null, contrastive: null}"]
    cusa("run", "--configfile", "mine.yaml", *fewer)
    assert (here / "results/captions/report/index.html").is_file()
    assert (here / "results/captions/runs/cusa/seed23/best.safetensors").is_file()
    assert sorted(path.name for path in here.iterdir()) == [".snakemake", "data", "mine.yaml", "results"]
    assert "Nothing to be done" in cusa("run", "--configfile", "mine.yaml", *fewer)
