"""Score a run on one benchmark, from its cached embeddings.

    python workflow/scripts/evaluate.py itr --data results/openmoji --run-folder results/openmoji/runs/cusa/seed23 \
        --output results/openmoji/runs/cusa/seed23/benchmarks/itr.json
"""

import argparse
from pathlib import Path

from cusa.benchmarks import MODULES, evaluate
from cusa.command import run
from cusa.layout import DatasetFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=list(MODULES))
    parser.add_argument("--data", required=True, type=Path, help="folder with the annotations")
    parser.add_argument("--run-folder", required=True, type=Path, help="run folder with embeddings/")
    parser.add_argument("--output", required=True, type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    evaluate(arguments.benchmark, DatasetFolder(arguments.data), arguments.run_folder, arguments.output)


if __name__ == "__main__":
    run(main)
