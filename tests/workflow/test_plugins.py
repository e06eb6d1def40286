"""docs/extending.md, word for word: its files in an installed package, and named in the configuration."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import draw_shape
from snakemake.utils import update_config

from cusa.common.files import read_json, sha256_of_file

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/extending.md").read_text()
FILES = dict(re.findall(r"[Ww]rite\s`(\w+\.py)`:\n\n```python\n(.*?)^```", PAGE, flags=re.M | re.S))
BINARIES = Path(sys.executable).parent


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.M | re.S)[number]


def snakemake(directory: Path, *arguments: str, packages: Path | None = None) -> str:
    """Run the project's Snakefile in `directory`, with the packages installed in a folder of their own."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT / "src", *([packages] * bool(packages))])),
    }
    command = [BINARIES / "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", "2", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def planned(output: str) -> dict[str, int]:
    table = output.split("Job stats:")[-1] if "Job stats:" in output else ""
    return {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.M)}


def write_birds(folder: Path) -> None:
    """Pictures with text files beside them, as the page's input format reads them: 12 train, 4 val, 4 test."""
    colours, shapes = ("red", "green", "blue", "yellow", "purple"), ("circle", "square", "triangle", "cross")
    names = [(colour, shape) for colour in colours for shape in shapes]
    for number, (colour, shape) in enumerate(names):
        split = folder / ("train" if number < 12 else "val" if number < 16 else "test")
        split.mkdir(parents=True, exist_ok=True)
        draw_shape(colour, shape, "large").save(split / f"{colour}_{shape}.jpg")
        (split / f"{colour}_{shape}.txt").write_text(f"a {colour} {shape}\nthe {shape} is {colour}\n")


def base(name: str) -> dict:
    """Keys that the page leaves to the reader: a small recipe and one experiment."""
    experiments = dict.fromkeys(("contrastive", "csa", "usa"))
    experiments |= {"cusa": {"contrastive": {}, "cross_softlabel": {}, "uni_softlabel": {}}}
    train = {"epochs": 1, "batch_size": 8, "schedule": "epoch", "warmup_steps": 0, "log_every": 1}
    return {
        "dataset": {"name": name},
        "shards": {"shorter_side": 32},
        "experiments": experiments,
        "train": train,
        "report": {"reference": "cusa"},
        "benchmarks": {"itr": None},
    }


PIECES = 4  # of configuration on the page, one for each file; the block after them is the whole birds.yaml


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package, installed by pip from its folder."""
    folder, site = tmp_path_factory.mktemp("package"), tmp_path_factory.mktemp("site")
    (folder / "cusa_birds").mkdir()
    (folder / "cusa_birds/__init__.py").touch()
    for name, content in FILES.items():
        (folder / "cusa_birds" / name).write_text(content)
    (folder / "pyproject.toml").write_text(block("toml"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(site), str(folder)], check=True)
    return site


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the page's data and files, in which both runs write their results."""
    directory = tmp_path_factory.mktemp("birds")
    write_birds(directory / "data/birds")
    for name, content in FILES.items():
        (directory / name).write_text(content)
    return directory


SCORES = "runs/cusa/seed23/benchmarks/caption_retrieval.json"


def results(directory: Path, name: str) -> tuple[Path, dict, dict]:
    """The folder of a finished run's data set, its record, and the meta.json of its image teacher."""
    data = directory / "results" / name
    [meta] = data.glob("teachers/image/*/train/meta.json")
    assert len(pq.read_table(data / "annotations/captions.parquet")) == 40
    scores = read_json(data / SCORES)
    assert scores["benchmark"] == "caption_retrieval"
    assert 0 <= scores["metrics"]["r1"] <= scores["metrics"]["r5"] <= 100
    return data, read_json(data / "runs/cusa/seed23/run.json"), read_json(meta)


def test_the_page_has_the_four_files_and_registers_each():
    assert list(FILES) == ["sidecar.py", "colour_grid.py", "small_pair.py", "caption_retrieval.py"]
    assert [name for name in FILES if f'"cusa_birds.{Path(name).stem}"' not in block("toml")] == []


def test_the_whole_configuration_is_what_the_pieces_say():
    merged: dict = {}
    for number in range(PIECES):
        update_config(merged, yaml.safe_load(block("yaml", number)))
    assert yaml.safe_load(block("yaml", PIECES)) == merged


def test_a_package_installed_from_a_folder(birds, packages):
    """Nothing in src/cusa knows the package; each of its four modules is used, by the name that it registers."""
    named = {
        **base("by-name"),
        "benchmarks": {"itr": None, "eccv_caption": None, "image_retrieval": None, "sts": None},
        "teachers": {"image": {"name": "colour_grid/8"}, "text": {"name": "colour_grid"}},
        "student": {"name": "small_pair/32", "towers": None},
    }
    named["dataset"] |= {"format": "sidecar", "folder": "data/birds"}
    named["benchmarks"]["more"] = {"caption_retrieval": {"recall_at": [1, 5]}}
    (birds / "by-name.yaml").write_text(yaml.safe_dump(named))
    snakemake(birds, "scores", "--configfile", "by-name.yaml", packages=packages)
    data, run, meta = results(birds, "by-name")
    assert (meta["model"], meta["d"], meta["versions"]["cusa-birds"]) == ("colour_grid/8", 192, "0.1.0")
    assert run["configuration"]["student"]["name"] == "small_pair/32"
    assert run["versions"]["cusa-birds"] == "0.1.0"
    assert np.load(data / "runs/cusa/seed23/embeddings/test/image_cross.npy").shape == (4, 32)


@pytest.mark.slow
def test_files_named_in_the_configuration(birds):
    """The page's own birds.yaml, with a small recipe."""
    mapping = base("birds")
    update_config(mapping, yaml.safe_load(block("yaml", PIECES)))
    (birds / "birds.yaml").write_text(yaml.safe_dump(mapping))
    words = block("bash").splitlines()[1].split()
    assert words[:2] == ["cusa", "run"]
    snakemake(birds, "scores", *words[2:])
    _, run, meta = results(birds, "birds")
    digest = f"sha256 {sha256_of_file(birds / 'colour_grid.py')}"
    assert (meta["model"], meta["d"], meta["versions"]["./colour_grid.py"]) == ("./colour_grid.py", 48, digest)
    assert run["versions"]["./small_pair.py"] == f"sha256 {sha256_of_file(birds / 'small_pair.py')}"
    assert not list(birds.glob("__pycache__"))
    # A changed file makes again what used it, and nothing else.
    changed = {"caption_retrieval.py": {"evaluate_added", "summarise", "scores"}}
    changed["small_pair.py"] = changed["caption_retrieval.py"] | {"tokenise_captions", "train", "embed"}
    for name, rules in changed.items():
        (birds / name).write_text(FILES[name] + "# changed\n")
        assert set(planned(snakemake(birds, "scores", *words[2:], "--dry-run"))) - {"total"} == rules, name
