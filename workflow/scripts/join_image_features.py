"""Join the features of a split's parts into one store.

    python workflow/scripts/join_image_features.py --output results/coco/teachers/image/MODEL/train \\
        results/coco/teachers/image/MODEL/train.parts/0-of-2 results/coco/teachers/image/MODEL/train.parts/1-of-2
"""

import argparse
from pathlib import Path

from cusa.common.program import run
from cusa.teachers.store import join_features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", type=Path, help="folders of the parts, in order")
    parser.add_argument("--output", required=True, type=Path, help="folder for features.npy and meta.json")
    parser.add_argument("--list", action="store_true", help="leave the parts in their folders and only list them")
    arguments = parser.parse_args()
    join_features(arguments.parts, arguments.output, copy=not arguments.list)


if __name__ == "__main__":
    run(main)
