"""The Dockerfile names what exists, and installs what the server imports. It is not built here."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# What other packages import where it happens to be installed, and cusa itself, which is installed last.
OPTIONAL = {"cloudpickle", "cusa", "pandas", "setuptools", "sniffio"}
OPTIONAL_MODULES = {"opentelemetry"}  # of many packages; fastapi reports to it where it is there


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile with their arguments; lines that are continued are one."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(words[0], words[2].strip()) for words in (line.partition(" ") for line in lines if line.strip())]


def arguments_of(name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions() if instruction == name]


def installed() -> list[str]:
    """The packages that pip installs by name."""
    (command,) = (line for line in arguments_of("RUN") if "pip install" in line and "--constraint" in line)
    words = shlex.split(command)
    after = words[words.index("constraints.txt") + 1 :]
    return [canonicalize_name(word) for word in after]


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


def test_the_image_is_debians_and_its_user_is_not_root():
    assert {base.split()[0] for base in arguments_of("FROM")} == {"debian:bookworm-slim"}
    assert arguments_of("USER") == ["10001"]
    assert "--uid 10001" in " ".join(arguments_of("RUN"))


def test_copied_files_exist_and_reach_the_builder():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    copied = [line.split()[:-1] for line in arguments_of("COPY") if "--from" not in line]
    for name in (name for names in copied for name in names):
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignored, f"{name} is not sent to the builder"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {name for names in copied for name in names}
    for file in (project["readme"], *project["license-files"]):
        assert names & {file, *map(str, Path(file).parents)}, f"{file} is not copied"


def test_packages_are_those_of_the_project_in_the_versions_of_the_lock():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)]
    known = {canonicalize_name(Requirement(line).name) for line in lines}
    exact = {canonicalize_name(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
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
