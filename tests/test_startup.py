"""Jobs that need no torch start without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGES = ("config", "metrics", "benchmarks", "report")
# Settings of benchmarks that have no meaning without any.
NEEDED = {name: {"dataset_images": True} for name in ("zero_shot_classification", "linear_probe")}
SOURCE = Path(__file__).parents[1] / "src"


def test_configuration_metrics_benchmarks_and_report_start_without_torch():
    """Every module of these packages, and what a benchmark says about itself."""
    modules = [
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for package in PACKAGES
        for path in sorted((SOURCE / "cusa" / package).glob("*.py"))
    ]
    assert {f"cusa.{package}" for package in PACKAGES} < set(modules)
    code = (
        "import importlib, sys\n"
        f"for name in {[*modules, 'cusa.shards.writing', 'cusa.annotations.convert']}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers', 'webdataset'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
        "from cusa.benchmarks.registry import data_of, names, settings_of\n"
        f"given = {NEEDED}\n"
        "assert [data_of(name, frozenset(), settings_of(name)(**given.get(name, {}))) for name in names()]\n"
        "assert not {'torch', 'transformers', 'webdataset'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
