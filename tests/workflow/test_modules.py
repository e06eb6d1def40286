"""The workflow as a module of another workflow, whose rules, configuration and folder are its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from snakemake_runs import output_of_snakemake

ROOT = Path(__file__).parents[2]
OTHER = f"""
configfile: "settings.yaml"

rule all:
    input:
        "counted.txt",

module retrieval:
    snakefile: "{ROOT}/Snakefile"
    config: config["retrieval"]

use rule * from retrieval as retrieval_*

rule count:
    input:
        rules.retrieval_convert.output.problems,
    output:
        "counted.txt",
    shell:
        "wc --lines {{input}} > {{output}}"
"""
# As `snakedeploy deploy-workflow` 0.17 writes it, with the path of a clone.
DEPLOYED = f"""
from snakemake.utils import min_version

min_version("6.10.0")

configfile: "config/config.yaml"

module cusa:
    snakefile:
        "{ROOT}/Snakefile"
    config:
        config

use rule * from cusa
"""


def snakemake(folder: Path, *arguments: str, check: bool = True) -> str:
    return output_of_snakemake("--cores", "2", *arguments, cwd=folder, snakefile=None, check=check)


@pytest.fixture
def other(tmp_path, tiny_configuration) -> Path:
    """A workflow whose configuration has keys of its own."""
    (tmp_path / "Snakefile").write_text(OTHER)
    settings = {"project": "counting", "retrieval": tiny_configuration}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


@pytest.fixture
def deployed(tmp_path, tiny_configuration) -> Path:
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/Snakefile").write_text(DEPLOYED)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(yaml.safe_dump(tiny_configuration))
    return tmp_path


def test_another_workflow_uses_the_rules_under_other_names(other):
    output = snakemake(other)
    jobs = set(re.findall(r"^(\w+) +\d+$", output, flags=re.M))
    assert jobs == {"all", "count", "retrieval_convert", "total"}
    assert (other / "counted.txt").read_text().endswith("problems.json\n")
    assert (other / "results/shapes/annotations/images.parquet").is_file()
    planned = snakemake(other, "retrieval_all", "-n")
    assert {"retrieval_train", "retrieval_evaluate_itr", "retrieval_render_report"} <= set(
        re.findall(r"^(\w+) +\d+$", planned, flags=re.M)
    )


def test_a_part_of_a_configuration_is_merged_onto_the_default(other, shapes):
    dataset = {"name": "shapes", "format": "published", "annotations": str(shapes)}
    without = {"eccv_caption": None, "image_retrieval": None, "sts": None}
    settings = {"retrieval": {"dataset": dataset, "benchmarks": without, "search": None}}
    (other / "settings.yaml").write_text(yaml.safe_dump(settings))
    planned = snakemake(other, "retrieval_models", "-n")
    assert re.search(r"^retrieval_train +4$", planned, flags=re.M), planned


def test_problems_of_its_configuration_are_sentences(other):
    settings = yaml.safe_load((other / "settings.yaml").read_text())
    settings["retrieval"]["seeds"] = []
    (other / "settings.yaml").write_text(yaml.safe_dump(settings))
    output = snakemake(other, "-n", check=False)
    assert "Configuration key `seeds`" in output
    assert "Traceback" not in output


def test_a_prefix_of_paths_is_refused_because_programs_would_not_follow_it(other):
    text = OTHER.replace('config: config["retrieval"]', 'config: config["retrieval"]\n    prefix: "elsewhere"')
    (other / "Snakefile").write_text(text)
    output = snakemake(other, "-n", check=False)
    assert "`prefix` and `replace_prefix` of a module move what rules declare" in output


def test_a_deployed_workflow_runs_with_its_own_configuration(deployed):
    """`config: config` is the whole configuration, so that --config and --configfile belong to it too."""
    output = snakemake(deployed, "annotations")
    assert (deployed / "results/shapes/annotations/images.parquet").is_file()
    assert "convert" in output
    printed = snakemake(deployed, "models", "-n", "-p", "--config", "train={epochs: 7}")
    assert '"epochs": 7' in printed
    (deployed / "more.yaml").write_text("train: {epochs: 1:30}\n")
    output = snakemake(deployed, "-n", "--configfile", "more.yaml", check=False)
    assert "reads 1:30 of `train.epochs` in base 60" in output
