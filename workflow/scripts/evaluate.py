"""Score a run on one benchmark, from its cached embeddings.

    python workflow/scripts/evaluate.py itr --data results/openmoji --run-folder results/openmoji/runs/cusa/seed23 \
        --settings '{}' --output results/openmoji/runs/cusa/seed23/benchmarks/itr.json \
        --queries results/openmoji/runs/cusa/seed23/benchmarks/itr.queries.npz
"""

import argparse
import json
from pathlib import Path

from cusa.benchmarks.evaluation import evaluate
from cusa.benchmarks.registry import names, settings_of
from cusa.common.program import run
from cusa.config.section import validate
from cusa.layout import DatasetFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", help=f"{', '.join(names())}, or the name of one whose settings name its file")
    parser.add_argument("--data", required=True, type=Path, help="folder with the annotations")
    parser.add_argument("--run-folder", required=True, type=Path, help="run folder with embeddings/")
    parser.add_argument("--output", required=True, type=Path, help="JSON file to write")
    parser.add_argument("--queries", required=True, type=Path, help="npz file to write, with the outcome of each query")
    parser.add_argument(
        "--settings", required=True, help="the benchmark's settings, as JSON; `file` is its Python file"
    )
    arguments = parser.parse_args()
    benchmark, folder, mapping = arguments.benchmark, DatasetFolder(arguments.data), json.loads(arguments.settings)
    file = mapping.pop("file", None)
    settings = validate(settings_of(file or benchmark), mapping)
    evaluate(benchmark, folder, arguments.run_folder, arguments.output, arguments.queries, settings, file)


if __name__ == "__main__":
    run(main)
