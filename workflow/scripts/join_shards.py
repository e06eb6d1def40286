"""Join the shards of a split's parts into one folder.

    python workflow/scripts/join_shards.py --output results/coco/shards/train \\
        results/coco/shards/train.parts/0-of-2 results/coco/shards/train.parts/1-of-2
"""

import argparse
from pathlib import Path

from cusa.common.program import run
from cusa.shards.joining import join_shards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", type=Path, help="folders of the parts, in order")
    parser.add_argument("--output", required=True, type=Path, help="folder for the tar files and index.parquet")
    arguments = parser.parse_args()
    join_shards(arguments.parts, arguments.output)


if __name__ == "__main__":
    run(main)
