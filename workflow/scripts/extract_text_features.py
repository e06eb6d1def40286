"""Run a frozen sentence model over the cleaned captions of one split, or the texts of a table, and store its features.

    python workflow/scripts/extract_text_features.py --annotations results/openmoji/annotations --split train \
        --model '{"name": "all-MiniLM-L6-v2"}' --output results/openmoji/teachers/text/all-MiniLM-L6-v2/train
"""

import argparse
import json
from pathlib import Path

from cusa.annotations.enough_data import require_enough
from cusa.annotations.tables import TEXT_TABLES
from cusa.common.program import run
from cusa.config.views import text_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", required=True, type=Path, help="folder that convert.py wrote")
    parser.add_argument("--split", required=True, help=f"a split, or a table: {', '.join(TEXT_TABLES)}")
    parser.add_argument("--model", required=True, help="the keys of teachers.text in the configuration, as JSON")
    parser.add_argument("--output", required=True, type=Path, help="folder for features.npy and meta.json")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    parser.add_argument("--gpu", action="store_true", help="run the model on a GPU")
    parser.add_argument("--needs", help="what trainings need of the data, as JSON; too little stops before any work")
    arguments = parser.parse_args()
    require_enough(arguments.needs, arguments.annotations)
    from cusa.teachers.extraction import extract_table_features, extract_text_features

    settings = text_model(json.loads(arguments.model))
    annotations, split, threads = arguments.annotations, arguments.split, arguments.threads
    extract = extract_table_features if split in TEXT_TABLES else extract_text_features
    extract(annotations, split, settings, arguments.output, threads, arguments.gpu)


if __name__ == "__main__":
    run(main)
