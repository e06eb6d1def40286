"""Convert a data set to the published JSON and the Parquet tables, and report all problems of the data at once.

    python workflow/scripts/convert.py --dataset '{"name": "openmoji", "format": "openmoji"}' \
        --images results/openmoji/images --output results/openmoji/annotations
"""

import argparse
import json
from pathlib import Path

from cusa.annotations.convert import convert
from cusa.common.program import run
from cusa.config.captions import read_conversion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="the section `dataset`, or `captions` and `dataset`, as JSON")
    parser.add_argument("--images", required=True, type=Path, help="folder for images that the format makes itself")
    parser.add_argument("--output", required=True, type=Path, help="folder for the annotations")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    parser.add_argument("--parts", nargs="*", type=Path, default=[], help="folders that read_part.py wrote, in order")
    arguments = parser.parse_args()
    dataset, cleaning = read_conversion(json.loads(arguments.dataset))
    convert(dataset, arguments.output, arguments.images, arguments.threads, cleaning, arguments.parts)


if __name__ == "__main__":
    run(main)
