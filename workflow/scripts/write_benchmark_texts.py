"""Write the texts that a benchmark asks of the models besides captions, as a table beside the annotations.

    python workflow/scripts/write_benchmark_texts.py zero_shot_classification --data results/openmoji \
        --settings '{"dataset_images": true}'
"""

import argparse
import json
from pathlib import Path

from cusa.benchmarks.registry import settings_of, write_texts
from cusa.common.program import run
from cusa.config.section import validate
from cusa.layout import DatasetFolder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", help="zero_shot_classification or eccv_caption")
    parser.add_argument("--data", required=True, type=Path, help="folder with the annotations")
    parser.add_argument("--settings", required=True, help="the benchmark's settings, as JSON")
    arguments = parser.parse_args()
    settings = validate(settings_of(arguments.benchmark), json.loads(arguments.settings))
    write_texts(arguments.benchmark, DatasetFolder(arguments.data), settings)


if __name__ == "__main__":
    run(main)
