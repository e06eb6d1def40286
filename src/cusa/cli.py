"""Train, evaluate and use image-text retrieval models.

With your own data:
  cusa init data/captions.csv
  cusa check mine.yaml
  cusa run --configfile mine.yaml

While it trains, and after it:
  cusa runs
  cusa diff results/openmoji/runs/contrastive/seed23 results/openmoji/runs/cusa/seed23
  cusa profile mine.yaml --trace trace.json
  cusa verify results/openmoji

With a trained model:
  cusa search results/openmoji/runs/cusa/seed23/search/all "birthday"
  cusa serve results/openmoji/runs/contrastive/seed23/search/all results/openmoji/runs/cusa/seed23/search/all
  cusa embed results/openmoji/runs/cusa/seed23 photos --output gallery
  cusa index gallery
  cusa export results/openmoji/runs/cusa/seed23 --to onnx --output exported

`cusa COMMAND --help` explains a command.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from cusa import __version__
from cusa.commands.command_parser import CommandParser, describe
from cusa.commands.configurations import add_config, add_schema
from cusa.commands.embedding import add_embed
from cusa.commands.importing_model import add_import_model
from cusa.commands.indexing import add_index
from cusa.commands.profiling import add_profile
from cusa.commands.run_difference import add_diff
from cusa.commands.run_list import add_runs
from cusa.commands.running import add_run, run
from cusa.commands.searching import add_search
from cusa.commands.serving import add_serve
from cusa.commands.sweeping import add_sweep
from cusa.commands.verifying import add_verify
from cusa.common import program
from cusa.config.files import read_files
from cusa.config.models import UNICOM, ImageModel
from cusa.config.paths import expand_variables
from cusa.config.section import validate
from cusa.errors import ConfigurationError

CHECK = (
    "Check the data, models, disk and GPUs of a configuration before anything runs for hours. A line begins with ok, "
    "with WARN where results may be worse than need be, or with FIX where a run would stop; then the exit status is 1."
)


def main() -> None:
    """Entry point of the command."""
    program.run(_main)


def _main() -> None:
    if sys.argv[1:2] == ["run"] and not {"-h", "--help"} & set(sys.argv[2:]):
        run(sys.argv[2:])  # its arguments are Snakemake's, which the parser below does not know
        return
    if len(sys.argv) == 1:
        parser().print_help(sys.stderr)
        sys.exit(2)
    arguments = parser().parse_args()
    arguments.call(arguments)


def parser() -> argparse.ArgumentParser:
    """The parser of the command line; the reference of the documentation is written from it."""
    root = argparse.ArgumentParser(
        prog="cusa", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root.add_argument("--version", action="version", version=f"cusa {__version__}", help="print the version")
    commands = root.add_subparsers(required=True, metavar="COMMAND", parser_class=CommandParser)

    command = commands.add_parser("init", help="look at your data and write a configuration for them")
    command.add_argument("data", type=Path, help="a table, JSON, Parquet files or tars, or a folder with one of these")
    command.add_argument("--images", type=Path, help="the folder that image paths start from")
    command.add_argument("--name", help="name of the data set; default: the name of the file or folder")
    command.add_argument("--encoding", help="encoding of text files that are not UTF-8, for instance cp1252")
    command.add_argument("--output", type=Path, default=Path("mine.yaml"), help="YAML file to write; default mine.yaml")
    command.set_defaults(call=_init)

    command = commands.add_parser(
        "check", help="check the data, models, disk and GPUs of a configuration", description=CHECK
    )
    command.add_argument("files", nargs="*", type=Path, help="YAML files, merged onto config/config.yaml in this order")
    command.add_argument("--all", action="store_true", help="check every image, not only 500 of them")
    command.set_defaults(call=_check)

    command = commands.add_parser(
        "datasets", help="list the data of benchmarks: where to get them, how to arrange them, what exists"
    )
    command.add_argument("files", nargs="*", type=Path, help="YAML files, merged onto config/config.yaml in this order")
    command.set_defaults(call=_datasets)

    add_config(commands)
    add_schema(commands)
    _add_published(commands)
    add_run(commands)
    add_runs(commands)
    add_diff(commands)
    add_profile(commands)
    add_import_model(commands)
    add_embed(commands)
    _add_export(commands)
    add_index(commands)
    add_search(commands)
    add_serve(commands)
    add_sweep(commands)
    add_verify(commands)
    describe(commands)
    return root


def _add_published(commands: Any) -> None:
    command = commands.add_parser("import-config", help="convert a published YAML file to a file for --configfile")
    command.add_argument("file", type=Path, help="published YAML file")
    command.add_argument("--output", type=Path, help="YAML file to write; default: standard output")
    command.set_defaults(call=_import_config)

    command = commands.add_parser("import-features", help="convert a published *_unicom.npy to the features of a split")
    command.add_argument("file", type=Path, help="published *_unicom.npy")
    _add_feature_store(command)
    command.set_defaults(call=_import_features)

    command = commands.add_parser(
        "export-features", help="convert the features of a split to a *_unicom.npy as published"
    )
    command.add_argument("file", type=Path, help="npy file to write")
    _add_feature_store(command)
    command.set_defaults(call=_export_features)

    command = commands.add_parser("import-checkpoint", help="convert a published checkpoint_best.pth to a run folder")
    command.add_argument("file", type=Path, help="published checkpoint_best.pth")
    command.add_argument("--run-folder", required=True, type=Path, help="run folder to make, {experiment}/seed{n}")
    command.add_argument("--dataset", required=True, help="name of the data set that it will be scored on")
    command.add_argument("--student", required=True, help="name or folder of the CLIP that it was fine-tuned from")
    command.add_argument("--seed", type=int, default=23, help="the n of seed{n}; default 23")
    command.set_defaults(call=_import_checkpoint)


def _add_export(commands: Any) -> None:
    command = commands.add_parser("export", help="write the model of a run to a folder that other programs can load")
    command.add_argument("run", type=Path, help="run folder, results/{dataset}/runs/{experiment}/seed{n}")
    command.add_argument("--to", required=True, choices=["sentence-transformers", "onnx", "safetensors"], help="format")
    command.add_argument("--output", required=True, type=Path, help="folder to write; it must not exist")
    command.add_argument(
        "--head",
        choices=["cross", "uni"],
        help="the only head to export: cross compares texts with pictures, uni compares the same kind; default: every "
        "head that the run has, or cross for sentence-transformers, which takes one",
    )
    command.add_argument(
        "--int8", action="store_true", help="only onnx: quantise the weights to 8 bits, and measure the effect"
    )
    command.add_argument(
        "--data", type=Path, help="only --int8: the results/{dataset} to measure on; default: the data set of the run"
    )
    command.add_argument("--push-to-hub", metavar="NAME", help="also upload the folder to the Hugging Face hub")
    command.set_defaults(call=_export)


def _add_feature_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", required=True, type=Path, help="results/{dataset}, which has the annotations")
    parser.add_argument("--split", required=True, choices=["train", "val", "test"], help="the split")
    parser.add_argument("--model", default="ViT-B/32", help="size of Unicom; default ViT-B/32")
    parser.add_argument(
        "--features", default="tokens", choices=["tokens", "embedding"], help="output of Unicom; default tokens"
    )
    parser.add_argument(
        "--dtype", default="float16", choices=["float16", "float32"], help="type of the numbers; default float16"
    )


def _feature_store(arguments: argparse.Namespace) -> tuple[Any, str, ImageModel]:
    from cusa.layout import DatasetFolder

    unicom = {"model": arguments.model, "features": arguments.features}
    model = validate(ImageModel, {"name": UNICOM, "unicom": unicom, "dtype": arguments.dtype})
    return DatasetFolder(arguments.data), arguments.split, model


def _init(arguments: argparse.Namespace) -> None:
    from cusa.commands.starting_configuration import look_at

    start = look_at(arguments.data, arguments.images, arguments.name, arguments.encoding)
    lines = list(start.lines())
    _write_new(arguments.output, start.text)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.write(f"wrote {arguments.output}; next: {shlex.join(['cusa', 'check', str(arguments.output)])}\n")


def _write_new(path: Path, text: str) -> None:
    from cusa.common.files import atomic_file

    if path.exists():
        raise ConfigurationError(f"{path} exists already; name another file, nothing is overwritten.")
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _datasets(arguments: argparse.Namespace) -> None:
    from cusa.commands.benchmark_data import benchmark_data_findings
    from cusa.config.benchmarks import Benchmarks

    benchmarks = validate(
        Benchmarks, expand_variables(read_files(arguments.files)).get("benchmarks") or {}, at="benchmarks"
    )
    for finding in benchmark_data_findings(benchmarks):
        sys.stdout.writelines(f"{line}\n" for line in finding.lines())
    sys.stdout.write("ok: as expected, FIX: incomplete or not as expected, -: not there; without it a run goes on\n")


def _check(arguments: argparse.Namespace) -> None:
    from cusa.commands.check import check
    from cusa.commands.finding import require_sound

    findings = []
    for finding in check(read_files(arguments.files), arguments.all):
        sys.stdout.writelines(f"{line}\n" for line in finding.lines())
        sys.stdout.flush()
        findings.append(finding)
    require_sound(findings)
    named = f" --configfile {shlex.join(map(str, arguments.files))}" if arguments.files else ""
    sys.stdout.write(f"next: cusa run{named}\n")


def _import_config(arguments: argparse.Namespace) -> None:
    from cusa.common.workflow_files import head_of_file
    from cusa.config.files import yaml_text
    from cusa.upstream.configurations import read_config

    text = head_of_file(f"From {arguments.file.name} of the published code, by `cusa import-config`.")
    text += yaml_text(read_config(arguments.file))
    if arguments.output is None:
        sys.stdout.write(text)
    else:
        _write_new(arguments.output, text)


def _import_features(arguments: argparse.Namespace) -> None:
    from cusa.upstream.features import import_features

    import_features(arguments.file, *_feature_store(arguments))


def _export_features(arguments: argparse.Namespace) -> None:
    from cusa.upstream.features import export_features

    if arguments.file.exists():
        raise ConfigurationError(f"{arguments.file} exists already; name another file, nothing is overwritten.")
    export_features(*_feature_store(arguments), arguments.file)


def _import_checkpoint(arguments: argparse.Namespace) -> None:
    from cusa.upstream.checkpoints import import_checkpoint

    import_checkpoint(arguments.file, arguments.run_folder, arguments.dataset, arguments.student, arguments.seed)


def _export(arguments: argparse.Namespace) -> None:
    from cusa.export.exporting import ExportOptions, export

    options = ExportOptions(arguments.head, arguments.int8, arguments.data, arguments.push_to_hub)
    for line in export(arguments.run, arguments.to, arguments.output, options):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
