"""What a release needs: one version, a changelog by release, a citation, and the packages that `make build` makes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from datetime import date
from pathlib import Path

import pytest
import yaml
from packaging.version import Version

import cusa

ROOT = Path(__file__).parents[1]
SCHEMA_OF_CITATIONS = "vendor.citation-file-format"


def recipe(target: str) -> list[str]:
    """The command lines of a target of the Makefile, as `make` would run them in this environment."""
    bin_folder = Path(sys.executable).parent
    command = ["make", "--no-print-directory", "--dry-run", "--always-make", f"BIN={bin_folder}", "TOOLS=", target]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    return said.replace("\\\n", "").splitlines()


def releases() -> list[tuple[str, str]]:
    """The headings of the releases in CHANGELOG.md: version and date, the newest first."""
    first, *others = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert first == "Unreleased"
    return [re.fullmatch(r"(\S+) \((\S+)\)", heading).groups() for heading in others]


def test_the_version_stands_in_one_place_and_in_the_citation():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "src/cusa/__init__.py"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == cusa.__version__ == str(Version(cusa.__version__))


def test_the_changelog_has_what_is_unreleased_and_then_the_releases_from_new_to_old():
    found = releases()
    versions = [Version(version) for version, _ in found]
    assert versions == sorted(versions, reverse=True)
    assert all(version <= Version(cusa.__version__) for version in versions)
    days = [date.fromisoformat(day) for _, day in found]
    assert days == sorted(days, reverse=True)
    tags = subprocess.run(["git", "tag", "--list", "v*"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert {tag.removeprefix("v") for tag in tags.stdout.split()} <= {version for version, _ in found}


def valid_citation(path: Path) -> str:
    """What check-jsonschema says against a citation; empty if it is valid."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMA_OF_CITATIONS, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_citation_is_valid(tmp_path):
    assert valid_citation(ROOT / "CITATION.cff") == ""
    damaged = tmp_path / "CITATION.cff"
    damaged.write_text((ROOT / "CITATION.cff").read_text().replace("family-names", "surname"))
    assert "surname" in valid_citation(damaged)


@pytest.mark.slow
def test_make_build_makes_packages_that_indexes_accept_and_a_list_of_their_components(tmp_path):
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    clone = tmp_path / "clone"
    names = [name for name in listed.splitlines() if not name.startswith(("tests/data", "docs/"))]
    for name in (name for name in names if (ROOT / name).is_file()):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes((ROOT / name).read_bytes())
    for line in recipe("build"):
        done = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=clone, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    built = {path.name for path in (clone / "dist").iterdir()}
    version = cusa.__version__
    assert built == {"cusa-sbom.cdx.json", f"cusa-{version}-py3-none-any.whl", f"cusa-{version}.tar.gz"}
    bill = json.loads((clone / "dist/cusa-sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert (bill["metadata"]["component"]["name"], bill["metadata"]["component"]["version"]) == ("cusa", version)
    components = sorted(f"{each['name']}=={each['version']}" for each in bill["components"])
    assert components == sorted((ROOT / "constraints.txt").read_text().splitlines())
