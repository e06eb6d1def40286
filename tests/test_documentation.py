"""Every command and every snippet in README.md and docs/ is tried here, as far as it can be without hours or a GPU."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config
from snakemake_runs import output_of_snakemake

from cusa.config.configuration import load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "config/README.md", "CONTRIBUTING.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
BIN = Path(sys.executable).parent
SAMPLE = ROOT.parent / "shared/coco-sample"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.M | re.S)


def python_files(page: Path) -> dict[str, str]:
    """The Python files that a page tells people to write, by their names."""
    return dict(re.findall(r"[Ww]rite\s`(\w+\.py)`:\n\n```python\n(.*?)^```", page.read_text(), flags=re.M | re.S))


def commands(*programs: str) -> list:
    found = {}
    for page in PAGES:
        for block in blocks(page, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] in programs:
                    found.setdefault(tuple(words), page.name)
    return [pytest.param(list(words), id=f"{page}: {' '.join(words)}") for words, page in found.items()]


def run(*words: object, cwd: Path) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def directory(tmp_path: Path, shapes: Path) -> Path:
    """A directory like the project's root for commands: data/ and the files the pages tell people to write."""
    (tmp_path / "data").symlink_to(shapes)
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    (tmp_path / "config").symlink_to(ROOT / "config")
    (tmp_path / "Snakefile").symlink_to(ROOT / "Snakefile")
    (tmp_path / "best.yaml").write_text("train: {lr: 0.001}")  # as `cusa sweep best` writes it
    (tmp_path / "mine.yaml").write_text(blocks(ROOT / "docs/your-data.md", "yaml")[1])
    return tmp_path


def test_the_readme_is_a_front_page_with_the_command_that_runs_the_tests():
    """CI runs `make test`, so who reads the front page has to find it there."""
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 120
    assert ["make", "test"] in [
        shlex.split(line, comments=True) for block in blocks(ROOT / "README.md", "bash") for line in block.splitlines()
    ]
    assert "make test\n" in (ROOT / ".ci/run").read_text()
    assert [picture for picture in re.findall(r"!\[[^\]]{20,}\]\(([^)]+)\)", text) if (ROOT / picture).is_file()]


def test_results_have_the_papers_figures():
    """Every row of the paper's tables in docs/results.md equals the figures that the summary shows beside a run's."""
    text, published = (ROOT / "docs/results.md").read_text(), {}
    for row in csv.DictReader((ROOT / "src/cusa/benchmarks/published_results.csv").read_text().splitlines()):
        published.setdefault((row["benchmark"], row["student"], row["method"]), {})[row["metric"]] = row["value"]
    for heading, benchmark in (
        ("COCO, 5,000 test images", "coco_5k"),
        ("Flickr30K, 1,000 test images", "flickr30k_1k"),
    ):
        table = text.split(f"{heading}:\n\n")[1].split("\n\n")[0]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        assert len(rows) == 8
        for student, losses, *figures in rows:
            expected = published[benchmark, student.removeprefix("CLIP "), losses]
            names = [f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]
            assert figures == [expected[name] for name in [*names, "rsum"]], (benchmark, student, losses)


def test_the_pages_have_commands():
    assert {words.values[0][0] for words in commands("make", "snakemake", "pip")} == {"make", "snakemake", "pip"}


PLANNABLE = [command for command in commands("snakemake") if "--report" not in command.values[0]]


@pytest.mark.parametrize("words", PLANNABLE)
def test_snakemake_commands_plan(directory, words):
    cores = [] if any(word.startswith("--cores") for word in words) else ["--cores", "1"]
    output = output_of_snakemake(*words[1:], *cores, "--dry-run", cwd=directory, snakefile=None)
    assert "Job stats" in output or "Nothing to be done" in output


# docs/extending.md is followed, file and all, in tests/workflow/test_plugins.py.
CUSA_RUN = [
    command for command in commands("cusa") if command.values[0][1] == "run" and "birds.yaml" not in command.values[0]
]


@pytest.mark.parametrize("words", CUSA_RUN)
def test_commands_of_cusa_run_plan_in_a_folder_without_the_clone(directory, words):
    for name in ("workflow", "config", "Snakefile"):
        (directory / name).unlink()
    output = run(BIN / "cusa", *words[1:], "--dry-run", cwd=directory)
    assert "Job stats" in output or "Nothing to be done" in output


@pytest.mark.parametrize("words", commands("make"))
def test_make_targets_exist(words):
    assert run("make", "--dry-run", *words[1:], cwd=ROOT)


@pytest.mark.parametrize("words", commands("pip"))
def test_installed_extras_exist(words):
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.search(r"\[(.*)\]", words[-1])
    assert words[:2] == ["pip", "install"]
    assert "-e" in words
    assert extras is None or set(extras[1].split(",")) <= set(project["optional-dependencies"])


# tests/test_use_the_model.py runs the snippets that need a trained model.
NEED_A_MODEL = {
    ROOT / f"docs/{name}.md" for name in ("use-the-model", "export", "search", "search-page", "vector-databases")
}


@pytest.mark.parametrize("page", sorted({*PAGES} - NEED_A_MODEL), ids=lambda page: page.name)
def test_python_snippets_run(page, tmp_path):
    for block in blocks(page, "python"):
        run(sys.executable, "-c", block, cwd=tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_snippets_are_valid_configurations(page, tmp_path, monkeypatch):
    """As Snakemake merges them: on the default, and on the overlay of COCO where the page is about that."""
    monkeypatch.chdir(tmp_path)
    for name, content in python_files(page).items():
        (tmp_path / name).write_text(content)
    for block in blocks(page, "yaml"):
        merged: dict = {}  # merging into an empty mapping copies what YAML aliases share
        update_config(merged, yaml.safe_load((ROOT / "config/config.yaml").read_text()))
        if page.name == "published.md":
            update_config(merged, yaml.safe_load((ROOT / "config/coco.yaml").read_text()))
        update_config(merged, yaml.safe_load(block))
        load(merged)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_sections_lead_somewhere(page):
    for target, section in re.findall(r"\]\(([^)#\s]*)#([^)]*)\)", page.read_text()):
        if not target.startswith("http"):
            text = ((page.parent / target) if target else page).read_text()
            headings = [
                re.sub(r"[^a-z0-9 \-]", "", heading.lower()).replace(" ", "-")
                for heading in re.findall(r"^#+ (.+)$", text, flags=re.M)
            ]
            assert section in headings, f"{page}: {target}#{section}"


def test_the_walk_from_pictures_and_a_csv_word_for_word(tmp_path, shapes):
    """The commands of the first section of docs/your-data.md, the last one up to the annotations."""
    walk = blocks(ROOT / "docs/your-data.md", "bash")[0].splitlines()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/pictures").symlink_to(shapes / "pics")
    rows = [row for split in ("train", "val", "test") for row in json.loads((shapes / f"{split}.json").read_text())]
    lines = [f'{row["image_id"]},"{row["caption"]}"' for row in rows]
    (tmp_path / "data/captions.csv").write_text("\n".join(["picture,text", *lines]))
    for line in walk[:2]:
        words = shlex.split(line)
        run(BIN / words[0], *words[1:], cwd=tmp_path)
    last = shlex.split(walk[2])
    assert last[:2] == ["cusa", "run"]
    run(BIN / "cusa", "run", "annotations", *last[2:], cwd=tmp_path)
    assert len(json.loads((tmp_path / "results/captions/annotations/train.json").read_text())) > 50


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="../shared/coco-sample is not here: the second data set is NOT tried")
def test_the_second_data_set_of_the_configuration_page_converts(tmp_path):
    overlay = next(block for block in blocks(ROOT / "config/README.md", "yaml") if "name: photographs" in block)
    (tmp_path / "coco.yaml").write_text(overlay.replace("data/", f"{SAMPLE}/"))
    output_of_snakemake("--cores", "2", "annotations", "--configfile", "coco.yaml", cwd=tmp_path)
    assert (tmp_path / "results/photographs/annotations/captions.parquet").is_file()
