"""Write the WebDataset shards and the index of one split.

    python workflow/scripts/write_shards.py --annotations results/openmoji/annotations --split train \
        --settings '{"shorter_side": 224}' --output results/openmoji/shards/train
"""

import argparse
import json
from pathlib import Path

from cusa.annotations.enough_data import require_enough
from cusa.common.program import run
from cusa.config.section import validate
from cusa.config.shards import ShardWriting
from cusa.shards.writing import write_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", required=True, type=Path, help="folder that convert.py wrote")
    parser.add_argument("--split", required=True)
    parser.add_argument(
        "--settings", required=True, help="the section `shards` of the configuration, as JSON, and dataset.max_pixels"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder for the tar files and index.parquet")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    parser.add_argument("--part", type=int, default=0, help="the part to write, counted from 0; default 0")
    parser.add_argument("--parts", type=int, default=1, help="the number of parts; default 1")
    parser.add_argument("--needs", help="what trainings need of the data, as JSON; too little stops before any work")
    arguments = parser.parse_args()
    require_enough(arguments.needs, arguments.annotations)
    settings = validate(ShardWriting, json.loads(arguments.settings))
    write_split(
        arguments.annotations,
        arguments.split,
        arguments.output,
        settings,
        arguments.threads,
        settings.max_pixels,
        arguments.part,
        arguments.parts,
    )


if __name__ == "__main__":
    run(main)
