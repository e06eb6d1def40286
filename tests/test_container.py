"""The images name what exists, and have what the server and the jobs import. They are not built here."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# What other packages import where it happens to be installed, and cusa itself, which is installed last.
OPTIONAL = {"cloudpickle", "cusa", "pandas", "setuptools", "sniffio"}
DOCKERFILES = ["Dockerfile", "Dockerfile.jobs"]
OPTIONAL_MODULES = {"opentelemetry"}  # of many packages; fastapi reports to it where it is there


def instructions(file: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments; lines that are continued are one."""
    text = re.sub(r"^#.*\n", "", (ROOT / file).read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(words[0], words[2].strip()) for words in (line.partition(" ") for line in lines if line.strip())]


def arguments_of(name: str, file: str = "Dockerfile") -> list[str]:
    return [arguments for instruction, arguments in instructions(file) if instruction == name]


def given_to_pip(file: str) -> list[str]:
    """What the last `pip install` by the lock in a Dockerfile names."""
    *_, command = (line for line in arguments_of("RUN", file) if "pip install" in line and "--constraint" in line)
    words = shlex.split(command)
    return words[words.index("constraints.txt") + 1 :]


def installed() -> list[str]:
    """The packages that pip installs by name for the server."""
    return [canonicalize_name(word) for word in given_to_pip("Dockerfile")]


def versions(lines: Iterable[str]) -> dict[str, str]:
    """The versions of lines such as `name==version` by name."""
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def with_dependencies(names: list[str]) -> set[str]:
    """Packages and what they depend on, as they are installed here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        if (name := canonicalize_name(waiting.pop())) not in found:
            found.add(name)
            for line in metadata.requires(name) or []:
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                    waiting.append(requirement.name)
    return found


@pytest.mark.parametrize("file", DOCKERFILES)
def test_the_image_is_debians_and_its_user_is_not_root(file):
    assert {base.split()[0] for base in arguments_of("FROM", file)} == {"debian:bookworm-slim"}
    assert arguments_of("USER", file) == ["10001"]
    assert "--uid 10001" in " ".join(arguments_of("RUN", file))


@pytest.mark.parametrize("file", DOCKERFILES)
def test_copied_files_exist_and_reach_the_builder(file):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    copied = [line.split()[:-1] for line in arguments_of("COPY", file) if "--from" not in line]
    for name in (name for names in copied for name in names):
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, f"{name} is not sent to the builder"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {name for names in copied for name in names}
    for needed in (project["readme"], *project["license-files"]):
        assert names & {needed, *map(str, Path(needed).parents)}, f"{needed} is not copied"


def test_packages_are_those_of_the_project_in_the_versions_of_the_lock():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    known = {canonicalize_name(Requirement(line).name) for line in lines}
    exact = set(versions((ROOT / "constraints.txt").read_text().split()))
    assert set(installed()) <= exact
    assert set(installed()) - known == {"tokenizers"}, "which transformers brings where it is installed"
    assert not {"torch", "transformers", "snakemake"} & with_dependencies(installed())


def test_the_image_has_every_package_that_the_server_imports():
    """With a model of onnx: whatever `cusa serve` and `cusa search` import comes from the packages of the image."""
    code = (
        "import importlib, pkgutil, sys\n"
        "import cusa.search, cusa.serve\n"
        "for package in (cusa.search, cusa.serve):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "for name in ('cli', 'commands.search_answers', 'commands.serving', 'model.onnx_folder', 'index.folder'):\n"
        "    importlib.import_module('cusa.' + name)\n"
        "import onnxruntime, tokenizers, faiss\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = metadata.packages_distributions()
    modules = set(done.stdout.split()) & set(packages) - OPTIONAL_MODULES
    imported = {canonicalize_name(packages[module][0]) for module in modules}
    assert imported - with_dependencies(installed()) <= OPTIONAL


def test_the_health_of_the_server_is_asked_where_it_listens():
    (check,), (entry,) = arguments_of("HEALTHCHECK"), arguments_of("ENTRYPOINT")
    port = re.search(r'"--port", "(\d+)"', entry)[1]
    assert arguments_of("EXPOSE") == [port]
    assert f"http://127.0.0.1:{port}/health" in check
    assert entry.startswith('["cusa", "serve"')
    code = re.search(r'"-c", "(.*)"\]', check)[1]
    compile(code, "HEALTHCHECK", "exec")


def test_the_image_of_the_workflow_has_what_every_environment_has():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras, *others = given_to_pip("Dockerfile.jobs")
    chosen = set(Requirement(f"cusa{extras.removeprefix('.')}").extras)
    assert chosen <= set(project["optional-dependencies"])
    lines = [*project["dependencies"], *others]
    waiting = list(chosen)
    while waiting:
        for line in project["optional-dependencies"][waiting.pop()]:
            requirement = Requirement(line)
            waiting += requirement.extras if requirement.name == "cusa" else []
            lines.append(line)
    names = {canonicalize_name(Requirement(line).name) for line in lines}
    assert {canonicalize_name(pin.split("==")[0]) for pin in pins_of_the_environments()} <= names


def test_the_image_of_the_workflow_has_a_name_and_a_home_for_whoever_runs_it():
    """`docker run --user` takes any id, and Snakemake asks for its name, which the image does not have."""
    variables = dict(word.split("=", 1) for line in arguments_of("ENV", "Dockerfile.jobs") for word in line.split())
    assert variables["USER"]
    assert variables["HOME"] == "/tmp"


def pins_of_the_environments() -> set[str]:
    """The lines of pip in the environments of CPU jobs and of jobs on GPUs."""
    found = set()
    for name in ("data", "search", "torch", "torch-gpu"):
        content = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
        found.update(*(part["pip"] for part in content["dependencies"] if isinstance(part, dict)))
    return found


def sections_of_the_definition() -> dict[str, str]:
    """The sections of the Apptainer definition by name; the header is the section without a name."""
    parts = re.split(r"^%(\w+)\n", (ROOT / "envs/apptainer.def").read_text(), flags=re.M)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def test_the_definition_starts_from_debian_and_copies_environments_that_exist():
    sections = sections_of_the_definition()
    assert re.findall(r"^(\w+): (\S+)$", sections[""], flags=re.M) == [
        ("Bootstrap", "docker"),
        ("From", "debian:bookworm-slim"),
    ]
    default = re.search(r"environments=(\S+)", sections["arguments"])[1]
    copied = [line.split() for line in sections["files"].splitlines() if line.strip()]
    for words in copied:
        source, target = " ".join(words[:-1]).replace("{{ environments }}", default), words[-1]
        assert (ROOT / source).is_file()
        assert target == f"/opt/environments/{Path(source).name}"


def test_the_definition_installs_the_exact_versions_of_the_environments_and_of_the_lock(tmp_path):
    """Its own command takes the packages out of the files that it copies; the lock has the same versions."""
    sections = sections_of_the_definition()
    for name in re.findall(r"(\S+)\.yaml /opt", sections["files"]):
        file = f"{name.rpartition('/')[2]}.yaml"
        (tmp_path / file).write_text((ROOT / "envs" / file).read_text())
    (command,) = re.findall(r"^ *(sed .+)$", sections["post"], flags=re.M)
    subprocess.run(command.replace("/opt/environments", str(tmp_path)), shell=True, check=True)
    requirements = set((tmp_path / "requirements.txt").read_text().split())
    assert requirements == pins_of_the_environments()
    (command,) = re.findall(r"pip install (.+)$", sections["post"].replace("\\\n", ""), flags=re.M)
    words = shlex.split(command)
    for option, file in (("--requirement", "requirements.txt"), ("--constraint", "constraints.txt")):
        assert words[words.index(option) + 1] == f"/opt/environments/{file}"
    assert "{{ environments }}/../constraints.txt /opt/environments/constraints.txt" in sections["files"]
    exact = versions((ROOT / "constraints.txt").read_text().split())
    assert versions(requirements).items() <= exact.items()


def test_the_scripts_of_the_definition_are_shell():
    for name in ("post", "environment", "test"):
        done = subprocess.run(["sh", "-n"], input=sections_of_the_definition()[name], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
