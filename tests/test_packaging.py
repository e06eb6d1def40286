"""The repository keeps its own promises: pins, import direction, thin scripts."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(requirements: list[str]) -> dict[str, str]:
    return dict(line.split("==") for line in requirements if "==" in line)


@pytest.mark.parametrize("name", ["data", "torch"])
def test_environments_pin_what_pyproject_pins(name):
    extras = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    expected = pins([*PROJECT["dependencies"], *extras])
    content = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    listed = next(part["pip"] for part in content["dependencies"] if isinstance(part, dict))
    found = pins(listed)
    assert len(found) == len(listed)
    assert found == {package: expected[package] for package in found}


def test_every_dependency_is_in_an_environment():
    listed = set()
    for name in ("data", "torch"):
        content = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
        listed |= set(pins(next(part["pip"] for part in content["dependencies"] if isinstance(part, dict))))
    needed = set(pins([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["demo"]]))
    # Snakemake runs the jobs; webdataset is for readers of the shards.
    assert needed - listed == {"snakemake", "webdataset"}


# In data-flow order; a module imports only from its own line or from lines above it.
ORDER = [
    ["errors", "captions", "neighbours"],
    ["files", "progress", "config", "metrics", "command"],
    ["images", "layout", "sampling", "devices"],
    ["sources"],
    ["annotations"],
    ["shards"],
    ["teachers"],
    ["student", "losses"],
    ["batches", "runs", "distributed"],
    ["streaming"],
    ["embeddings"],
    ["step"],
    ["state"],
    ["training", "upstream"],
    ["benchmarks"],
    ["summary"],
    ["report"],
    ["init", "check", "datasets"],
    ["cli"],
]


def test_imports_point_one_way():
    rank = {module: number for number, line in enumerate(ORDER) for module in line}
    package = ROOT / "src/cusa"
    for path in sorted(package.rglob("*.py")):
        mine = path.relative_to(package).parts[0].removesuffix(".py")
        if mine == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cusa."):
                other = node.module.split(".")[1]
                assert rank[other] <= rank[mine], f"{path} imports {node.module}"
            if isinstance(node, ast.ImportFrom | ast.Import):
                assert "snakemake" not in ast.unparse(node), f"{path} imports snakemake"


def test_scripts_are_small_and_have_help():
    scripts = sorted((ROOT / "workflow/scripts").glob("*.py"))
    assert len(scripts) == 14
    for script in scripts:
        statements = [line for line in script.read_text().splitlines() if line.strip()]
        assert len(statements) <= 45, script
    for name in ("evaluate.py", "summarise.py"):
        done = subprocess.run(
            [sys.executable, str(ROOT / "workflow/scripts" / name), "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "usage:" in done.stdout


def test_every_rule_has_log_benchmark_threads_resources_and_conda():
    for path in sorted((ROOT / "workflow/rules").glob("*.smk")):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.M)[1:]:
            body = re.split(r"^use rule ", rule, flags=re.M)[0]
            for directive in ("log", "benchmark", "threads", "resources", "conda", "shell"):
                assert f"    {directive}:" in body, f"{path}: {rule.split(':')[0]} has no {directive}"


def test_jobs_on_devices_replace_the_shell():
    """So that the signals of a cluster reach them, and the locks of their devices are theirs; see docs/cluster.md."""
    for name, rules in (("training", ["train"]), ("teachers", ["extract_image_features", "extract_text_features"])):
        text = (ROOT / f"workflow/rules/{name}.smk").read_text()
        for rule in rules:
            shell = text.split(f"rule {rule}:")[1].split("    shell:")[1].split("\n\n")[0]
            assert '"exec {params.l' in shell, rule


def test_the_version_is_the_same_everywhere():
    import cusa

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == cusa.__version__ == citation["version"]
    assert f"## {cusa.__version__}" in (ROOT / "CHANGELOG.md").read_text()
