"""The command `cusa`, run as users run it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml
from published_files import published_yaml

import cusa as cusa_package
from cusa.cli import parser

CUSA = Path(sys.executable).parent / "cusa"


def cusa(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(argument) for argument in (CUSA, *arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_help_lists_the_commands(tmp_path):
    text = cusa("--help", cwd=tmp_path).stdout
    for command in ("check", "import-config", "import-features", "export-features", "import-checkpoint"):
        assert command in text


def test_without_a_command_it_shows_the_help(tmp_path):
    done = subprocess.run([CUSA], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "cusa init data/captions.csv" in done.stderr


def test_the_help_of_each_command_says_what_it_does():
    (commands,) = parser()._subparsers._group_actions
    assert {name for name, each in commands.choices.items() if not each.description} == set()


def test_a_sweep_that_is_missing_is_told_with_the_command_that_was_given(tmp_path):
    for action in ("trials", "best"):
        assert f"as in `cusa sweep {action} mine.yaml`" in cusa("sweep", action, cwd=tmp_path).stderr


def test_version_is_that_of_the_package(tmp_path):
    assert cusa("--version", cwd=tmp_path).stdout == f"cusa {cusa_package.__version__}\n"


def test_import_config_prints_or_writes_and_never_overwrites(tmp_path):
    source = published_yaml(tmp_path)
    printed = cusa("import-config", source, cwd=tmp_path)
    assert yaml.safe_load(printed.stdout)["student"]["name"] == "ViT-B/32"
    done = cusa("import-config", source, "--output", "overlay.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "overlay.yaml").read_text() == printed.stdout
    again = cusa("import-config", source, "--output", "overlay.yaml", cwd=tmp_path)
    assert again.returncode == 1
    assert again.stderr == "Error: overlay.yaml exists already; name another file, nothing is overwritten.\n"


def test_check_reports_line_by_line_and_fails_where_something_is_wrong(tmp_path, tiny_configuration):
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(yaml.safe_dump(tiny_configuration))
    done = cusa("check", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ok    split test: 8 images, 16 captions" in done.stdout
    (tmp_path / "mine.yaml").write_text("dataset: {expected_images: {test: 9}}")
    done = cusa("check", "mine.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert "FIX   unexpected count: 1 splits whose size is not dataset.expected_images" in done.stdout
    assert re.search(r"Error: 1 of \d+ checks failed: unexpected count; see the lines marked FIX\.\n$", done.stderr)


def test_a_file_that_is_no_yaml_is_a_sentence(tmp_path):
    (tmp_path / "bad.yaml").write_text("{a: [")
    done = cusa("check", "bad.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: bad.yaml cannot be read as YAML")
    assert "Traceback" not in done.stderr


def test_import_checkpoint_takes_the_option_of_earlier_releases(tmp_path):
    """--run was renamed to --run-folder, as the scripts call it."""
    for option in ("--run-folder", "--run"):
        done = cusa(
            "import-checkpoint", "no.pth", option, "runs/a/seed1", "--dataset", "d", "--student", "s", cwd=tmp_path
        )
        assert done.stderr.startswith("Error: no.pth does not exist"), done.stderr


def test_a_file_that_holds_no_mapping_is_a_sentence(tmp_path):
    (tmp_path / "list.yaml").write_text("[1]")
    done = cusa("check", "list.yaml", cwd=tmp_path)
    assert done.stderr.startswith("Error: list.yaml holds a list; expected a mapping of keys"), done.stderr
    (tmp_path / "three.yaml").write_text("benchmarks: 3")
    done = cusa("datasets", "three.yaml", cwd=tmp_path)
    assert done.stderr.startswith("Error: Configuration key `benchmarks` is 3; expected a mapping"), done.stderr


def test_check_from_a_folder_of_ones_own_adds_to_the_default(tmp_path):
    """As `snakemake --configfile mine.yaml` does there: the default need not be copied into each folder."""
    (tmp_path / "mine.yaml").write_text("train: {epochs: 0}")
    done = cusa("check", "mine.yaml", cwd=tmp_path)
    assert done.stderr == "Error: Configuration key `train.epochs` is 0 (int): input should be greater than 0.\n"
    (tmp_path / "mine.yaml").write_text("train: {epochs: 2}\ntrain: {lr: 0.1}")
    done = cusa("check", "mine.yaml", cwd=tmp_path)
    assert done.stderr == "Error: mine.yaml, line 2: the key `train` is there already, in line 1; keep one of them.\n"
