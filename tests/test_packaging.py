"""The repository follows its own rules: pinned versions, import direction, small scripts."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from conftest import LONGEST
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LIVE_VIEW = "snakemake-logger-plugin-rich"  # Snakemake shows it; no job needs it
ENVIRONMENTS = ("data", "search", "torch", "torch-gpu")


def pins(requirements: list[str]) -> dict[str, str]:
    """The versions of lines that are `name==version`; any other line fails."""
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in requirements)}


def lock(name: str) -> dict[str, str]:
    return pins((ROOT / name).read_text().splitlines())


def requirements(*extras: str) -> dict[str, Requirement]:
    """The dependencies and those of some extras; an extra can bring others, as `cusa[onnx]`."""
    found = {}
    for line in [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]:
        requirement = Requirement(line)
        if requirement.name == "cusa":
            found |= requirements(*requirement.extras)
        else:
            found[canonicalize_name(requirement.name)] = requirement
    return found


def environment(name: str) -> dict[str, str]:
    content = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    return pins(next(part["pip"] for part in content["dependencies"] if isinstance(part, dict)))


def test_dependencies_are_ranges():
    for line in PROJECT["dependencies"]:
        assert ">=" in line, f"{line} has no lower end"
        assert "==" not in line, f"{line} leaves other packages no choice"


def test_the_lock_has_an_exact_version_of_every_dependency_in_its_range():
    exact = lock("constraints.txt")
    for name, requirement in requirements(*EXTRAS).items():
        assert requirement.specifier.contains(exact[name]), f"{requirement}, but constraints.txt has {exact[name]}"


def test_the_lock_has_what_the_dependencies_depend_on():
    """Read off the packages that are installed here in the version of the lock."""
    exact = lock("constraints.txt")
    for name, version in exact.items():
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of an extra that is not installed here
        if installed.version.split("+")[0] == version:
            for requirement in map(Requirement, installed.requires or []):
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    assert canonicalize_name(requirement.name) in exact, f"{name} needs {requirement}; run make lock"


def test_the_lowest_versions_are_the_lower_ends_of_the_ranges():
    lowest = lock("constraints-lowest.txt")
    for name, requirement in requirements("demo", "test").items():
        (lower_end,) = (part.version for part in requirement.specifier if part.operator in (">=", "=="))
        assert Version(lowest[name]) == Version(lower_end), f"{requirement}, but {lowest[name]} is what is tested"


def test_no_extra_brings_both_packages_that_are_the_module_faiss():
    brings = {extra: {"faiss-cpu", "faiss-gpu"} & set(requirements(extra)) for extra in EXTRAS}
    assert {extra: found for extra, found in brings.items() if found} == {
        "cpu": {"faiss-cpu"},
        "demo": {"faiss-cpu"},
        "gpu": {"faiss-gpu"},
    }


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environments_have_the_exact_versions_of_the_lock(name):
    exact, found = lock("constraints.txt"), environment(name)
    assert found == {package: exact[package] for package in found}


def test_the_environment_for_gpus_differs_in_what_a_gpu_needs():
    assert set(environment("torch")) ^ set(environment("torch-gpu")) == {"nvidia-ml-py"}


def test_every_dependency_is_in_an_environment():
    # Snakemake runs the jobs; webdataset is for readers of the shards. Jobs that score lease no GPU, so they have
    # faiss-cpu, which takes no memory from a training. A server and a terminal are not jobs.
    at_hand = {canonicalize_name(Requirement(line).name) for line in EXTRAS["search"]}
    needed = (
        set(requirements("demo", "gpu", "lora", "sweep"))
        - {"snakemake", LIVE_VIEW, "webdataset", "faiss-gpu"}
        - at_hand
    )
    assert needed == {package for name in ENVIRONMENTS for package in environment(name)}


# In data-flow order; a module imports only from its own line or from lines above it.
ORDER = [
    ["errors"],
    ["common"],
    ["config"],
    ["layout", "devices"],
    ["annotations"],
    ["shards"],
    ["teachers"],
    ["student", "false_negatives", "teacher_similarities", "metrics"],
    ["losses"],
    ["runs"],
    ["tracking"],
    ["training"],
    ["sweep"],
    ["embeddings", "model", "upstream"],
    ["benchmarks"],
    ["report"],
    ["export"],
    ["gallery"],
    ["index"],
    ["search"],
    ["serve"],
    ["plan"],
    ["commands"],
    ["cli"],
]


def imported_modules(path):
    """Every module of cusa that a file imports, with any form of import and anywhere in the file."""
    package = ROOT / "src"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == "cusa")
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "cusa":
            for alias in node.names:
                inner = package / node.module.replace(".", "/") / alias.name
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def test_names_of_test_modules_are_unique():
    """pytest imports test modules by their names alone, so that two of one name cannot be collected together."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


def test_the_modules_that_come_first_exist():
    assert set(LONGEST) <= {path.stem for path in (ROOT / "tests").rglob("test_*.py")}


def test_imports_point_one_way():
    """Both `from cusa import config` and `from cusa.config import ...` count as imports of cusa.config."""
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


@pytest.mark.parametrize("folder", ["benchmarks", "workflow/scripts"])
def test_programs_import_what_exists(folder):
    """Also inside functions: `make benchmark` takes hours, and would find it late."""
    for path in sorted((ROOT / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "cusa":
                module = import_module(node.module)
                for alias in node.names:
                    exists = hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}") is not None
                    assert exists, f"{path} imports {alias.name} of {node.module}"
                    assert not alias.name.startswith("_"), f"{path} imports the private {alias.name}"


def test_the_tests_that_files_name_exist():
    """A comment or docstring that says which test holds something is of use only as long as that is there."""
    files = [ROOT / "pyproject.toml", ROOT / "Makefile", ROOT / "Snakefile"]
    for folder in ("src", "workflow", "benchmarks", "docs", "config", ".github"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".smk", ".md", ".yaml", ".yml")]
    named = [(path, name) for path in files for name in re.findall(r"\btests/[\w/]+\.py\b", path.read_text())]
    assert len(named) > 3
    missing = [f"{path} names {name}" for path, name in named if not (ROOT / name).is_file()]
    assert not missing, missing


def test_no_modules_import_each_other_in_a_circle():
    """This holds between packages and within a package: the modules can be sorted by their imports."""
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
    assert len(scripts) == 28
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


def test_every_rule_says_in_a_line_what_it_makes():
    """Which `snakemake --list` prints."""
    texts = [path.read_text() for path in (ROOT / "Snakefile", *sorted((ROOT / "workflow/rules").glob("*.smk")))]
    for text in texts:
        for name, line in re.findall(r"^ *(?:use )?rule (.+):\n *(.*)$", text, flags=re.M):
            assert re.fullmatch(r'".{10,100}\."', line), f"{name} has no docstring"


def test_jobs_on_devices_replace_the_shell():
    """The signals of a cluster then reach the jobs, and the jobs hold the locks of their GPUs; see docs/cluster.md."""
    for name, rules in (
        ("training", ["train"]),
        ("teachers", ["extract_image_features", "extract_text_features"]),
        ("search", ["embed_gallery"]),
    ):
        text = (ROOT / f"workflow/rules/{name}.smk").read_text()
        for rule in rules:
            shell = text.split(f"rule {rule}:")[1].split("    shell:")[1].split("\n\n")[0]
            assert '"exec {params.l' in shell, rule


def test_make_alone_says_what_every_target_does():
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), flags=re.M)[1].split()
    said = subprocess.run(
        ["make", "--no-print-directory"], capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout.splitlines()
    assert [line.split()[1] for line in said] == targets
    assert all(len(line.split()) > 2 for line in said)


def test_the_snakefile_asks_for_the_snakemake_that_the_project_needs():
    lower_end = re.search(r"snakemake>=([0-9.]+)", " ".join(PROJECT["dependencies"]))[1]
    assert f'min_version("{lower_end}")' in (ROOT / "Snakefile").read_text()


def test_versions_of_python_are_those_that_the_tools_check_and_the_pages_describe():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lowest = PROJECT["requires-python"].removeprefix(">=")
    tools = project["tool"]
    assert tools["mypy"]["python_version"] == lowest
    assert tools["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"
    named = {name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", name)}
    page = (ROOT / "docs/faq.md").read_text().partition("### Which versions of Python")[2].partition("###")[0]
    run = {version for version, what in re.findall(r"^\| (3\.\d+)\S* \| (.+) \|$", page, flags=re.M) if "test" in what}
    assert lowest in named == run
