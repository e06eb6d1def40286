"""`cusa config` and `cusa schema`: the complete configuration of given files, and the schema for editors."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cusa.common.files import atomic_file, is_ordinary_file
from cusa.config import reruns
from cusa.config.configuration import load
from cusa.config.files import layers, merge_all, read_arguments
from cusa.config.resolved import resolved_lines
from cusa.config.schema import schema_text
from cusa.errors import ConfigurationError


def add_config(commands: Any) -> None:
    """Add `cusa config` to the commands."""
    command = commands.add_parser(
        "config", help="print the whole configuration, and the file that each value comes from"
    )
    command.add_argument("files", nargs="*", type=Path, help="YAML files, merged onto config/config.yaml in this order")
    command.add_argument(
        "--config", nargs="+", default=[], metavar="KEY=VALUE", help="values, as for snakemake --config"
    )
    command.set_defaults(call=_config)


def add_schema(commands: Any) -> None:
    """Add `cusa schema` to the commands."""
    command = commands.add_parser("schema", help="write the JSON Schema of configuration files, for editors")
    command.add_argument("--output", type=Path, help="file to write; default: standard output")
    command.add_argument(
        "--reruns",
        action="store_true",
        help="write the page of the documentation that says what a changed key makes again",
    )
    command.set_defaults(call=_schema)


def _config(arguments: argparse.Namespace) -> None:
    sources = layers(arguments.files)
    if arguments.config:
        sources.append(("--config", read_arguments(arguments.config)))
    configuration = load(merge_all(content for _, content in sources))
    sys.stdout.writelines(f"{line}\n" for line in resolved_lines(configuration, sources))


def _schema(arguments: argparse.Namespace) -> None:
    text = reruns.page() if arguments.reruns else schema_text()
    if arguments.output is None:
        sys.stdout.write(text)
        return
    if is_ordinary_file(arguments.output) and not _is_schema(arguments.output):
        raise ConfigurationError(f"{arguments.output} exists already and is not a JSON Schema; name another file.")
    with atomic_file(arguments.output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _is_schema(path: Path) -> bool:
    """Whether a file is a JSON Schema, such as an earlier release has written, so that it can be replaced."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "$schema" in content
