"""The repository keeps its own promises: pins, import direction, thin scripts."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
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
    ["errors"],
    ["common"],
    ["config"],
    ["layout", "devices"],
    ["annotations"],
    ["shards"],
    ["teachers"],
    ["student", "losses", "metrics"],
    ["runs"],
    ["training"],
    ["embeddings", "upstream"],
    ["benchmarks"],
    ["report"],
    ["plan"],
    ["commands"],
    ["cli"],
]


def imported_modules(path):
    """Every module of cusa that a file imports, whichever way it writes it and wherever in the file."""
    package = ROOT / "src"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "cusa")
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "cusa":
            for alias in node.names:
                inner = package / node.module.replace(".", "/") / alias.name
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def test_imports_point_one_way():
    """`from cusa import config` is seen as well as `from cusa.config import ...`."""
    rank = {module: number for number, line in enumerate(ORDER) for module in line}
    package = ROOT / "src/cusa"
    for path in sorted(package.rglob("*.py")):
        mine = path.relative_to(package).parts[0].removesuffix(".py")
        if mine == "__init__":
            continue
        for imported in imported_modules(path):
            if imported != "cusa":
                assert rank[imported.split(".")[1]] <= rank[mine], f"{path} imports {imported}"
        assert "snakemake" not in re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), flags=re.M), path


def test_no_modules_import_each_other_in_a_circle():
    """Neither between packages nor within one: modules are sorted by what they import."""
    package = ROOT / "src"
    graph = {}
    for path in sorted(package.rglob("*.py")):
        name = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = set(imported_modules(path)) - {name, "cusa"}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_no_module_is_over_350_lines_and_no_function_over_60():
    for path in sorted((ROOT / "src/cusa").rglob("*.py")):
        text = path.read_text()
        assert len(text.splitlines()) <= 350, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno + 1 <= 60, f"{path}: {node.name}"


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
