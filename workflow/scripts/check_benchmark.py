"""Check whether a benchmark can score a data set, before anything is trained on it.

    python workflow/scripts/check_benchmark.py eccv_caption --data results/coco --settings '{"ground_truth": "coco"}' \
        --output results/coco/checks/eccv_caption.json
"""

import argparse
import json
from pathlib import Path

from cusa.benchmarks.registry import check, names, settings_of
from cusa.common.files import write_json
from cusa.common.program import run
from cusa.config.section import validate
from cusa.layout import DatasetFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", help=f"{', '.join(names())}, or the name of one whose settings name its file")
    parser.add_argument("--data", required=True, type=Path, help="folder with the annotations")
    parser.add_argument(
        "--settings", required=True, help="the benchmark's settings, as JSON; `file` is its Python file"
    )
    parser.add_argument("--output", required=True, type=Path, help="JSON file to write, with the result of the check")
    arguments = parser.parse_args()
    mapping = json.loads(arguments.settings)
    module = mapping.pop("file", arguments.benchmark)
    settings = validate(settings_of(module), mapping)
    found = check(module, DatasetFolder(arguments.data), settings)
    write_json(arguments.output, {"benchmark": arguments.benchmark, "found": found})


if __name__ == "__main__":
    run(main)
