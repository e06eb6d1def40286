"""Read one part of the files of a data set, beside other jobs that read the other parts.

    python workflow/scripts/read_part.py --dataset '{"name": "web", "format": "webdataset", "file": "tars/"}' \
        --images results/web/images --part 0 --parts 8 --output results/web/annotations.parts/0-of-8
"""

import argparse
import json
from pathlib import Path

from cusa.annotations.record_parts import read_part
from cusa.common.program import run
from cusa.config.captions import read_conversion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="the section `dataset`, or `captions` and `dataset`, as JSON")
    parser.add_argument(
        "--images", required=True, type=Path, help="folder for the pictures of all parts, if the files hold them"
    )
    parser.add_argument("--part", required=True, type=int, help="the part to read, counted from 0")
    parser.add_argument("--parts", required=True, type=int, help="the number of parts")
    parser.add_argument("--output", required=True, type=Path, help="folder for the part")
    arguments = parser.parse_args()
    dataset, cleaning = read_conversion(json.loads(arguments.dataset))
    read_part(dataset, arguments.output, arguments.images, arguments.part, arguments.parts, cleaning)


if __name__ == "__main__":
    run(main)
